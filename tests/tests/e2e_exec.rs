//! `chaos exec` from end to end: who suffers, as whom it runs, how it ends.
#![expect(clippy::unwrap_used, reason = "a failed unwrap in a test is a failed test")]

use std::{
    fs,
    os::unix::fs::PermissionsExt,
    path::Path,
    process::{Command, Output},
    time::Duration,
};

use chaos_tests::{
    api::both_ways,
    chaos,
    lab::{
        alone, process,
        shapes::{B4, Pair},
    },
    require_root, require_tools,
    snapshot::Snapshot,
};

const LIMIT: Duration = Duration::from_mins(1);

/// Runs `chaos exec FLAGS -- SHELL-LINE` inside the pair's end A.
fn exec(pair: &Pair, flags: &str, line: &str) -> Output {
    let mut command = chaos::command(&format!("exec {flags} --")).unwrap();
    command.args(["sh", "-c", line]);
    process::output(pair.a.inside(command), LIMIT).unwrap()
}

fn texts(output: &Output) -> (String, String) {
    let text = |bytes: &[u8]| String::from_utf8_lossy(bytes).into_owned();
    (text(&output.stdout), text(&output.stderr))
}

#[test]
fn children_and_grandchildren_suffer_and_the_neighbour_does_not() {
    require_root!();
    let _alone = alone().unwrap();
    let pair = Pair::new().unwrap();
    let namespaces = [&pair.a, &pair.b];
    let before = Snapshot::before(&namespaces).unwrap();
    let line = format!("(sh -c 'ping -q -c 20 -i 0.01 -W 1 {B4}'; true) & wait");
    let ping = pair.a.command(&format!("ping -q -c 200 -i 0.01 -W 1 {B4}"));
    let (output, neighbour) = std::thread::scope(|scope| {
        let neighbour = scope.spawn(|| process::output(ping, LIMIT).unwrap());
        (exec(&pair, "--loss 100%", &line), neighbour.join().unwrap())
    });
    let (stdout, stderr) = texts(&output);
    assert!(stdout.contains("20 packets transmitted, 0 received"), "{stdout}{stderr}");
    assert!(stderr.contains("20 packets matched") && stderr.contains("20 dropped"), "{stderr}");
    assert_eq!(output.status.code(), Some(0), "{stderr}");
    let (stdout, _) = texts(&neighbour);
    assert!(stdout.contains("200 received"), "{stdout}");
    before.settle(&namespaces, Duration::from_secs(2)).unwrap();
}

#[test]
fn ingress_of_the_command_is_hit_too() {
    require_root!();
    let pair = Pair::new().unwrap();
    let line = format!("ping -q -c 20 -i 0.01 -W 1 {B4}; true");
    let (stdout, stderr) = texts(&exec(&pair, "--partition --direction ingress", &line));
    assert!(stdout.contains(" 0 received"), "{stdout}{stderr}");
}

#[test]
fn exit_codes_are_the_commands_unless_nothing_matched() {
    require_root!();
    let _alone = alone().unwrap();
    both_ways(exit_codes).unwrap();
}

fn exit_codes() {
    let pair = Pair::new().unwrap();
    let traffic = format!("ping -q -c 1 -W 1 {B4} >/dev/null");
    for (flags, line, code) in [
        ("--loss 100%", format!("{traffic}; exit 7"), 7),
        ("--loss 100%", format!("{traffic}; kill -TERM $$"), 143),
        ("--loss 100%", format!("{traffic}; exit 0"), 0),
        ("--loss 100%", "exit 0".to_owned(), 4),
        ("--loss 100%", "exit 9".to_owned(), 9),
        ("--loss 100% --allow-no-match", "exit 0".to_owned(), 0),
    ] {
        let output = exec(&pair, flags, &line);
        assert_eq!(output.status.code(), Some(code), "{flags} -- {line}: {}", texts(&output).1);
    }
}

#[test]
fn the_command_has_the_capabilities_and_descriptors_it_would_have_without_us() {
    require_root!();
    let pair = Pair::new().unwrap();
    let line = "ls /proc/self/fd; grep CapEff /proc/self/status";
    let with = exec(&pair, "--loss 1% --allow-no-match", line);
    let mut shell = Command::new("sh");
    shell.args(["-c", line]);
    let without = process::output(pair.a.inside(shell), LIMIT).unwrap();
    assert_eq!(texts(&with).0, texts(&without).0, "{}", texts(&with).1);
}

#[test]
fn a_client_of_a_daemon_is_warned_about() {
    require_root!();
    let pair = Pair::new().unwrap();
    let directory = tempfile::tempdir().unwrap();
    script(&directory.path().join("docker"), "exit 0");
    let mut command = chaos::command("exec --loss 1% --allow-no-match -- docker run image").unwrap();
    let path = format!("{}:{}", directory.path().display(), std::env::var("PATH").unwrap());
    command.env("PATH", path);
    let (_, stderr) = texts(&process::output(pair.a.inside(command), LIMIT).unwrap());
    assert!(stderr.contains("docker") && stderr.to_lowercase().contains("elsewhere"), "{stderr}");
}

fn script(path: &Path, body: &str) {
    fs::write(path, format!("#!/bin/sh\n{body}\n")).unwrap();
    fs::set_permissions(path, fs::Permissions::from_mode(0o755)).unwrap();
}

/// A shell of the user nobody inside end A, who may use sudo: sudo's rules are replaced in a
/// mount namespace of the test's own, so nothing on the machine changes.
fn shell_of_nobody(pair: &Pair, line: &str) -> Output {
    let prepare = "mount -t tmpfs -o mode=0755 tmpfs /etc/sudoers.d && \
                   echo 'nobody ALL=(root) NOPASSWD: ALL' > /etc/sudoers.d/test && \
                   chmod 440 /etc/sudoers.d/test && cd / && umask 022 && \
                   exec setpriv --reuid nobody --regid nogroup --clear-groups \
                   env -i PATH=/usr/bin:/bin HOME=/nonexistent \"CHAOS_TESTS_RUN=$1\" sh -c \"$0\"";
    let mut command = Command::new("unshare");
    command.args(["--mount", "--propagation", "private", "sh", "-c", prepare, line]);
    command.arg(std::process::id().to_string());
    process::output(pair.a.inside(command), LIMIT).unwrap()
}

/// What the README promises: `sudo chaos exec … -- program`, the program only in the user's PATH.
#[test]
fn through_real_sudo_a_program_only_in_the_users_path_runs_as_the_user() {
    require_root!();
    require_tools!("sudo", "setpriv", "unshare");
    let _alone = alone().unwrap();
    let pair = Pair::new().unwrap();
    let directory = tempfile::tempdir().unwrap();
    fs::set_permissions(directory.path(), fs::Permissions::from_mode(0o755)).unwrap();
    let body = format!(
        "id -un; echo $HOME; pwd; umask; echo $MARK; grep CapEff /proc/self/status; ping -q -c 20 -i 0.2 -W 1 {B4}"
    );
    script(&directory.path().join("only-here"), &body);
    let chaos = chaos::binary().unwrap();
    let line = format!(
        "export PATH={}:$PATH MARK=kept; umask 027; cd /usr; sudo -n {} exec --loss 100% -- only-here; echo code $?",
        directory.path().display(),
        chaos.display(),
    );
    let (stdout, stderr) = texts(&shell_of_nobody(&pair, &line));
    let wanted = ["nobody", "/nonexistent", "/usr", "0027", "kept", "CapEff:\t0000000000000000"];
    let lines: Vec<&str> = stdout.lines().take(wanted.len()).collect();
    assert_eq!(lines, wanted, "{stdout}{stderr}");
    assert!(stdout.contains("20 packets transmitted, 0 received"), "{stdout}{stderr}");
    assert!(stdout.trim_end().ends_with("code 1"), "ping's own code: {stdout}{stderr}");
}
