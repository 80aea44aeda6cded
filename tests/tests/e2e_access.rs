//! Who may ask the agent, and how it is told what it may do: configuration, callers, TCP, limits.
#![expect(clippy::unwrap_used, reason = "a failed unwrap in a test is a failed test")]

use std::{fs, path::Path, process::Stdio, time::Duration};

use chaos_tests::{
    chaos,
    lab::{
        alone,
        process::{self, Process, wait_until},
    },
    require_root,
};
use nix::sys::signal::Signal;

const SOON: Duration = Duration::from_secs(10);

#[test]
fn the_configuration_comes_from_flag_environment_file_and_default() {
    let folder = tempfile::tempdir().unwrap();
    let file = folder.path().join("agent.toml");
    fs::write(&file, "max_faults = 1\nmax_targets = 1\n[limits]\nconnections = 1\n").unwrap();
    let printed = |arguments: &str| {
        let mut command = chaos::command(&format!("agent --print-config {arguments}")).unwrap();
        command.env("CHAOS_CONFIG", &file).env("CHAOS_MAX_FAULTS", "2").env("CHAOS_MAX_TARGETS", "2");
        let output = process::output(command, SOON).unwrap();
        let text = |bytes: &[u8]| String::from_utf8_lossy(bytes).into_owned();
        (output.status.code(), text(&output.stdout), text(&output.stderr))
    };
    let (code, text, errors) = printed("--max-faults 3");
    assert_eq!(code, Some(0), "{errors}");
    for says in [
        "# from: --max-faults\nmax_faults = 3\n".to_owned(),
        "# from: CHAOS_MAX_TARGETS\nmax_targets = 2\n".to_owned(),
        format!("# from: {}, line 4; changes when the agent starts again\nconnections = 1\n", file.display()),
        "# from: default\nmax_duration = \"1h\"\n".to_owned(),
    ] {
        assert!(text.contains(&says), "`{says}` is not in\n{text}");
    }
    // What it prints is a file that gives the same.
    let copy = folder.path().join("copy.toml");
    fs::write(&copy, &text).unwrap();
    let (code, again, errors) = printed(&format!("--config {}", copy.display()));
    let values = |text: &str| -> Vec<String> {
        let lines = text.lines().filter(|line| !line.starts_with('#') && !line.starts_with("max_faults"));
        lines.map(str::to_owned).collect()
    };
    assert_eq!((code, values(&again)), (Some(0), values(&text)), "{errors}");

    fs::write(&file, "max_faults = 1\n\nmax_fault = 1\n").unwrap();
    let (code, _, errors) = printed("");
    assert_eq!(code, Some(2));
    assert!(errors.contains("line 3: there is no setting `max_fault`"), "{errors}");
}

/// Waits until the file has the text behind `from`; where it ends.
fn wait_for_line(log: &Path, from: usize, wanted: &str) -> usize {
    wait_until(wanted, SOON, || {
        fs::read_to_string(log).unwrap().get(from..).is_some_and(|text| text.contains(wanted))
    })
    .unwrap_or_else(|error| panic!("{error}: {}", fs::read_to_string(log).unwrap()));
    fs::read_to_string(log).unwrap().len()
}

#[test]
fn sighup_reads_the_configuration_again() {
    require_root!();
    let _alone = alone().unwrap();
    let folder = tempfile::tempdir().unwrap();
    let (file, log) = (folder.path().join("agent.toml"), folder.path().join("log"));
    let write = |text: &str| {
        let socket = folder.path().join("agent.sock");
        let own = format!("socket = \"{}\"\nstate_dir = \"{}\"\n", socket.display(), folder.path().display());
        fs::write(&file, own + text).unwrap();
    };
    write("");
    let mut command = chaos::command(&format!("agent --log-json --config {}", file.display())).unwrap();
    command.stdout(Stdio::null()).stderr(fs::File::create(&log).unwrap());
    let mut agent = Process::start(command).unwrap();
    wait_until("the socket", SOON, || folder.path().join("agent.sock").exists()).unwrap();
    write("max_faults = 9\nmax_targets = 3\nsocket_group = \"other\"\n");
    agent.signal(Signal::SIGHUP).unwrap();
    let end = wait_for_line(&log, 0, "max_faults, max_targets changed; socket_group cannot change while");
    write("max_faults = \"many\"\n");
    agent.signal(Signal::SIGHUP).unwrap();
    let end = wait_for_line(&log, end, "line 3: `max_faults`: a whole number is wanted here");
    // What it logs can be more, at once.
    write("max_faults = 9\nmax_targets = 3\n[log]\nlevel = \"error\"\n");
    agent.signal(Signal::SIGHUP).unwrap();
    std::thread::sleep(Duration::from_millis(300));
    write("max_faults = 9\nmax_targets = 3\n");
    agent.signal(Signal::SIGHUP).unwrap();
    let end = wait_for_line(&log, end, "log.level changed");
    agent.signal(Signal::SIGTERM).unwrap();
    assert!(agent.wait(SOON).unwrap().success());
    let text = fs::read_to_string(&log).unwrap();
    for line in text.get(..end).unwrap().lines() {
        let line: serde_json::Value = serde_json::from_str(line).expect(line);
        assert!(line["timestamp"].is_string() && line["level"].is_string(), "{line}");
    }
    assert_eq!(text.matches("was read again").count(), 2, "one was below the level: {text}");
}
