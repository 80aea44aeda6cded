//! `chaos_agent::exec` with real commands, through the example `exec`. Needs root, for cgroups.
#![expect(clippy::unwrap_used, reason = "a failed unwrap in a test is a failed test")]

#[expect(dead_code, reason = "shared with other tests, each of which uses a part")]
mod support;

use std::{
    fs,
    os::unix::process::CommandExt,
    process::{Command, Stdio},
    time::Duration,
};

use chaos_agent::cgroup::Hierarchy;
use nix::{
    sys::signal::{Signal, kill},
    unistd::Pid,
};
use support::{
    Scratch, cgroups_of, children, eventually, exec, is_root, output, read_until, runner, shell_code,
};

fn signal(process: &std::process::Child, signal: Signal) {
    kill(Pid::from_raw(process.id().cast_signed()), signal).unwrap();
}

#[test]
fn the_exit_code_is_the_commands() {
    if !is_root("the_exit_code_is_the_commands") {
        return;
    }
    let scratch = Scratch::new("codes");
    let plain = scratch.0.join("plain");
    fs::write(&plain, "").unwrap();
    let interpreter = scratch.script("interpreter", "#!/no/such/interpreter\n");
    let shell = scratch.script("shell", "exit 7\n");
    let (plain, interpreter, shell) =
        (plain.to_str().unwrap(), interpreter.to_str().unwrap(), shell.to_str().unwrap());
    let cases: &[(&[&str], i32)] = &[
        (&["true"], 0),
        (&["sh", "-c", "exit 42"], 42),
        (&["sh", "-c", "kill -TERM $$"], 143),
        (&["sh", "-c", "kill -KILL $$"], 137),
        (&["bash", "-c", "kill -RTMIN+3 $$"], 128 + 37),
        (&["no-such-program-anywhere"], 127),
        (&["/no/such/program"], 127),
        (&[""], 127),
        (&[plain], 126),
        (&["/etc"], 126),
        (&[interpreter], 127),
        // A script without `#!` is a shell script, as for execvp.
        (&[shell], 7),
    ];
    for (command, code) in cases {
        let mut process = exec(command).stdout(Stdio::null()).stderr(Stdio::null()).spawn().unwrap();
        assert_eq!(process.wait().unwrap().code(), Some(*code), "{command:?}");
        assert_eq!(cgroups_of(process.id()), Vec::<std::path::PathBuf>::new(), "{command:?}");
    }
}

#[test]
fn a_command_is_found_in_path_as_a_shell_would() {
    if !is_root("a_command_is_found_in_path_as_a_shell_would") {
        return;
    }
    let scratch = Scratch::new("path");
    fs::create_dir(scratch.0.join("one")).unwrap();
    fs::create_dir_all(scratch.0.join("two/program")).unwrap();
    fs::create_dir(scratch.0.join("three")).unwrap();
    fs::write(scratch.0.join("one/program"), "not executable").unwrap();
    scratch.script("three/program", "#!/bin/sh\necho third\n");
    let path = ["one", "two", "three"].map(|name| scratch.0.join(name).display().to_string()).join(":");
    let (text, _) = output(exec(&["program"]).env("PATH", &path));
    assert_eq!(text, "third\n");
    let (text, _) = output(exec(&["program"]).env("PATH", "").current_dir(scratch.0.join("three")));
    assert_eq!(text, "third\n", "an empty element is the working directory");
    let (_, missing) = output(exec(&["program"]).env("PATH", scratch.0.join("one")));
    assert_eq!(shell_code(&missing), 126, "found and refused is not the same as not found");
}

#[test]
fn children_and_grandchildren_are_in_the_cgroup() {
    if !is_root("children_and_grandchildren_are_in_the_cgroup") {
        return;
    }
    let (text, _) = output(&mut exec(&[
        "sh",
        "-c",
        "grep ^0:: /proc/self/cgroup; (sh -c 'grep ^0:: /proc/self/cgroup'; true)",
    ]));
    let lines: Vec<_> = text.lines().collect();
    let own = Hierarchy::discover().unwrap().own_path().unwrap();
    assert_eq!(lines.len(), 2, "{text}");
    assert_eq!(lines[0], lines[1]);
    let wanted = format!("0::{}", own.join("chaos-exec-").display());
    assert!(lines[0].starts_with(&wanted), "{} is no child of our own cgroup", lines[0]);
}

#[test]
fn the_command_has_what_it_would_have_without_us() {
    if !is_root("the_command_has_what_it_would_have_without_us") {
        return;
    }
    // Names of open descriptors, signal state, capabilities, process group, umask, limits, directory, environment.
    let script = "ls /proc/self/fd; grep -E '^(Sig[BI]|Cap|Umask|Groups|NoNew|Seccomp:)' /proc/self/status; \
                  cat /proc/self/limits; ps -o pgid= -p $$; pwd; env | grep -v '^_=' | sort";
    for ignored in ["", "trap '' PIPE HUP CHLD; "] {
        let shell = format!("umask 031; ulimit -n 321; ulimit -c 0; cd /usr; {ignored}");
        let run = |with: &str| {
            let line = format!("{shell} {with} sh -c \"$SCRIPT\"; true");
            output(Command::new("bash").args(["-c", &line]).env("SCRIPT", script).process_group(0)).0
        };
        let (with, without) = (run(runner().to_str().unwrap()), run(""));
        // The process group is another one each time; that it is ours is what the two next tests see.
        let lines = |text: &str| -> Vec<String> {
            text.lines()
                .filter(|line| line.trim().parse::<u32>().is_err_or_small())
                .map(str::to_owned)
                .collect()
        };
        assert!(with.contains("321") && with.contains("0031"), "{with}");
        assert_eq!(lines(&with), lines(&without), "with {ignored:?}");
    }
}

/// Keeps descriptor numbers, leaves out process groups.
trait Small {
    fn is_err_or_small(&self) -> bool;
}

impl Small for Result<u32, std::num::ParseIntError> {
    fn is_err_or_small(&self) -> bool {
        !matches!(self, Ok(1000..))
    }
}

#[test]
fn a_signal_to_us_reaches_the_command_once() {
    if !is_root("a_signal_to_us_reaches_the_command_once") {
        return;
    }
    let script = "trap 'echo got TERM' TERM; trap 'echo got USR1' USR1; trap 'echo got INT' INT; \
                  trap 'echo bye; exit 9' HUP; echo ready; while :; do sleep 0.02; done";
    let mut process = exec(&["bash", "-c", script]).stdout(Stdio::piped()).process_group(0).spawn().unwrap();
    let mut stdout = process.stdout.take().unwrap();
    read_until(&mut stdout, "ready\n");
    for name in [Signal::SIGTERM, Signal::SIGUSR1, Signal::SIGINT] {
        signal(&process, name);
        read_until(&mut stdout, &format!("got {}\n", name.as_str().trim_start_matches("SIG")));
    }
    signal(&process, Signal::SIGHUP);
    let mut rest = String::new();
    std::io::Read::read_to_string(&mut stdout, &mut rest).unwrap();
    assert_eq!(rest, "bye\n");
    assert_eq!(process.wait().unwrap().code(), Some(9));
}

#[test]
fn a_signal_to_the_group_reaches_the_command_once() {
    if !is_root("a_signal_to_the_group_reaches_the_command_once") {
        return;
    }
    let script = "trap 'echo got TERM' TERM; trap 'echo got INT' INT; trap 'echo bye; exit 9' HUP; echo ready; \
                  while :; do sleep 0.02; done 2>/dev/null";
    let mut process = exec(&["bash", "-c", script]).stdout(Stdio::piped()).process_group(0).spawn().unwrap();
    let mut stdout = process.stdout.take().unwrap();
    read_until(&mut stdout, "ready\n");
    let group = Pid::from_raw(-process.id().cast_signed());
    for name in [Signal::SIGTERM, Signal::SIGINT, Signal::SIGTERM] {
        kill(group, name).unwrap();
        read_until(&mut stdout, &format!("got {}\n", name.as_str().trim_start_matches("SIG")));
        std::thread::sleep(Duration::from_millis(150));
    }
    kill(group, Signal::SIGHUP).unwrap();
    let mut rest = String::new();
    std::io::Read::read_to_string(&mut stdout, &mut rest).unwrap();
    assert_eq!(rest, "bye\n", "nothing was delivered twice");
    assert_eq!(process.wait().unwrap().code(), Some(9));
}

#[test]
fn a_stopped_command_goes_on_with_us() {
    if !is_root("a_stopped_command_goes_on_with_us") {
        return;
    }
    // Long enough to be stopped in time on a machine that is busy with something else.
    // A group of its own: in an orphaned one, as a build server's may be, nothing can be stopped (setpgid(2)).
    let mut process = exec(&["sleep", "3"]).process_group(0).spawn().unwrap();
    let state = |pid: i32| {
        fs::read_to_string(format!("/proc/{pid}/stat"))
            .unwrap_or_default()
            .split(' ')
            .nth(2)
            .map(str::to_owned)
    };
    let mut command = 0;
    eventually("the command runs", || {
        command = children(process.id(), "sleep").first().copied().unwrap_or_default();
        command != 0
    });
    signal(&process, Signal::SIGTSTP);
    eventually("the command is stopped", || state(command).as_deref() == Some("T"));
    eventually("so are we", || state(process.id().cast_signed()).as_deref() == Some("T"));
    signal(&process, Signal::SIGCONT);
    assert!(process.wait().unwrap().success());
}

#[test]
fn killed_before_the_release_the_command_never_runs() {
    if !is_root("killed_before_the_release_the_command_never_runs") {
        return;
    }
    let scratch = Scratch::new("barrier");
    let ran = scratch.0.join("ran");
    let mut process =
        exec(&["--hold-ms", "10000", "touch", ran.to_str().unwrap()]).stderr(Stdio::piped()).spawn().unwrap();
    read_until(process.stderr.as_mut().unwrap(), "\n");
    let cgroups = cgroups_of(process.id());
    assert_eq!(cgroups.len(), 1);
    assert!(
        !fs::read_to_string(cgroups[0].join("cgroup.procs")).unwrap().is_empty(),
        "the child waits in it"
    );
    process.kill().unwrap();
    process.wait().unwrap();
    eventually("the cgroup is removed", || cgroups_of(process.id()).is_empty());
    assert!(!ran.exists());
}

#[test]
fn what_the_command_leaves_running_is_not_touched() {
    if !is_root("what_the_command_leaves_running_is_not_touched") {
        return;
    }
    let mut process = exec(&["sh", "-c", "sleep 0.7 >/dev/null 2>&1 & exit 5"]).spawn().unwrap();
    assert_eq!(process.wait().unwrap().code(), Some(5));
    let cgroups = cgroups_of(process.id());
    assert_eq!(cgroups.len(), 1, "the cgroup stays while something lives in it");
    assert!(!fs::read_to_string(cgroups[0].join("cgroup.procs")).unwrap().is_empty());
    eventually("the guard removes the cgroup", || cgroups_of(process.id()).is_empty());
}

#[test]
fn cgroups_the_command_made_go_with_ours() {
    if !is_root("cgroups_the_command_made_go_with_ours") {
        return;
    }
    let mount = Hierarchy::discover().unwrap().mount().display().to_string();
    let script =
        format!("own={mount}$(sed -n s/^0:://p /proc/self/cgroup); mkdir -p $own/a/b $own/c && echo made");
    let mut process = exec(&["sh", "-c", &script]).stdout(Stdio::piped()).spawn().unwrap();
    read_until(process.stdout.as_mut().unwrap(), "made\n");
    process.wait().unwrap();
    assert!(cgroups_of(process.id()).is_empty());
}

#[test]
fn the_root_serves_when_our_own_cgroup_takes_no_child() {
    if !is_root("the_root_serves_when_our_own_cgroup_takes_no_child") {
        return;
    }
    let mount = Hierarchy::discover().unwrap().mount().to_path_buf();
    let own = mount.join(format!("chaos-test-{}", std::process::id()));
    fs::create_dir(&own).unwrap();
    fs::write(own.join("cgroup.max.descendants"), "0").unwrap();
    let line = format!(
        "echo $$ > {}/cgroup.procs; exec {} grep ^0:: /proc/self/cgroup",
        own.display(),
        runner().display()
    );
    let (text, ran) = output(Command::new("sh").args(["-c", &line]));
    // Emptied when the process has been reaped, which `output` did.
    eventually("the cgroup is removed", || fs::remove_dir(&own).is_ok());
    assert!(text.starts_with("0::/chaos-exec-"), "{text}{ran:?}");
}

#[test]
fn the_clock_of_the_callback_ticks() {
    if !is_root("the_clock_of_the_callback_ticks") {
        return;
    }
    let prepared = chaos_agent::exec::Command::new(vec!["sleep".into(), "0.5".into()]).prepare().unwrap();
    let mut ticks = Vec::new();
    let outcome = prepared.release().unwrap().wait(|| ticks.push(std::time::Instant::now())).unwrap();
    assert_eq!(outcome.code, 0);
    let longest = ticks.windows(2).map(|pair| pair[1] - pair[0]).max().unwrap();
    assert!(ticks.len() >= 5, "{} ticks", ticks.len());
    assert!(longest < Duration::from_secs(1), "{longest:?} between two ticks");
}
