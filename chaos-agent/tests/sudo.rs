//! `chaos_agent::exec` at a terminal and through real sudo: user, shell, sudo, chaos, command.
//!
//! sudo's rules are replaced in a mount namespace of the test's own, so that nothing on the machine changes; the
//! user is `nobody`, which every machine has.
#![expect(clippy::unwrap_used, reason = "a failed unwrap in a test is a failed test")]

#[expect(dead_code, reason = "shared with other tests, each of which uses a part")]
mod support;
#[path = "support/terminal.rs"]
mod terminal;

use std::{
    io::Write as _,
    process::{Command, Stdio},
};

use support::{Scratch, is_root, output, runner};
use terminal::Terminal;

/// How sudo can run a command (sudoers(5)): watched through a terminal of its own, watched, or replaced by it.
const SUDO_WATCHES: [&str; 2] = ["use_pty", "!use_pty"];
const SUDO_IS_REPLACED: &str = "!use_pty,!pam_session,!pam_setcred";

/// True when the test can run.
fn is_root_with_sudo(test: &str) -> bool {
    let installed = ["sudo", "unshare", "setpriv", "bash"].into_iter().find(|name| {
        !Command::new(name)
            .arg("--version")
            .stdout(Stdio::null())
            .status()
            .is_ok_and(|status| status.success())
    });
    if let Some(missing) = installed {
        let _ = writeln!(
            std::io::stderr(),
            "SKIPPED {test}: {missing} is not installed; run: apt-get install sudo util-linux"
        );
        return false;
    }
    is_root(test)
}

/// A shell of the user nobody, who may use sudo; `mode` is sudo's option.
fn shell_of_nobody(mode: &str, arguments: &[&str]) -> Command {
    let prepare = "mount -t tmpfs -o mode=0755 tmpfs /etc/sudoers.d && \
                   printf 'Defaults:nobody %s,runcwd=*\\nnobody ALL=(root) NOPASSWD: ALL\\n' \"$0\" > /etc/sudoers.d/test && \
                   chmod 440 /etc/sudoers.d/test && cd / && umask 022 && \
                   exec setpriv --reuid nobody --regid nogroup --groups nogroup,daemon \
                   env -i PATH=/usr/bin:/bin HOME=/nonexistent TERM=dumb bash --norc --noprofile \"$@\"";
    let mut command = Command::new("unshare");
    command.args(["--mount", "--propagation", "private", "sh", "-c", prepare, mode]).args(arguments);
    command
}

#[test]
fn job_control_is_the_shells() {
    if !is_root("job_control_is_the_shells") {
        return;
    }
    let mut shell = Command::new("bash");
    shell.args(["--norc", "--noprofile", "-i"]).env("TERM", "dumb");
    Terminal::open(shell).job_control(runner().to_str().unwrap());
}

#[test]
fn job_control_is_the_shells_through_sudo() {
    if !is_root_with_sudo("job_control_is_the_shells_through_sudo") {
        return;
    }
    for mode in SUDO_WATCHES.into_iter().chain([SUDO_IS_REPLACED]) {
        let prefix = format!("sudo -n {}", runner().display());
        Terminal::open(shell_of_nobody(mode, &["-i"])).job_control(&prefix);
    }
}

#[test]
fn the_command_is_the_callers() {
    if !is_root_with_sudo("the_command_is_the_callers") {
        return;
    }
    let scratch = Scratch::new("sudo");
    scratch.script(
        "only-in-the-users-path",
        "#!/bin/sh\nid; umask; pwd; cat /proc/self/limits; env -0 | sort -z | tr '\\0' ';'; \
         grep -E '^(Sig[BI]|Cap|NoNew|Seccomp:)' /proc/self/status\n",
    );
    // Limits, umask and exported variables that the shell got after its start, one with a line break; a
    // variable that the loader takes from privileged programs.
    let settings = format!(
        "umask 027; ulimit -n 777; ulimit -c 0; ulimit -s 4096; cd /usr; export PATH={}:$PATH LATE='a\nb' \
         LD_LIBRARY_PATH=/nowhere SUDO_EDITOR=ed; ",
        scratch.0.display()
    );
    for mode in SUDO_WATCHES {
        let run = |prefix: &str| {
            let line = format!("{settings} {prefix} only-in-the-users-path; echo code $?");
            let (text, ran) = output(shell_of_nobody(mode, &["-c", &line]).stdin(Stdio::null()));
            text.lines().filter(|line| !line.is_empty()).map(str::to_owned).collect::<Vec<_>>().join("\n")
                + &String::from_utf8_lossy(&ran.stderr)
        };
        let with = run(&format!("sudo -n {}", runner().display()));
        let without = run("");
        assert!(without.contains("uid=65534(nobody)") && without.ends_with("code 0"), "{without}");
        // The shell names the program it starts in `_`: sudo here, the command there.
        let named = |text: &str| {
            text.split(';').filter(|entry| !entry.starts_with("_=")).collect::<Vec<_>>().join(";")
        };
        assert_eq!(named(&with), named(&without), "{mode}");
    }
}

#[test]
fn without_a_sudo_process_the_callers_first_environment_serves() {
    if !is_root_with_sudo("without_a_sudo_process_the_callers_first_environment_serves") {
        return;
    }
    let line = format!(
        "umask 027; sudo -n {} sh -c 'id -un; umask; env | sort; ps -o comm= $PPID'; true",
        runner().display()
    );
    let (text, ran) = output(shell_of_nobody(SUDO_IS_REPLACED, &["-c", &line]).stdin(Stdio::null()));
    assert!(text.starts_with("nobody\n0027\n"), "{text}{ran:?}");
    assert!(text.contains("\nPATH=/usr/bin:/bin\n") && text.contains("\nHOME=/nonexistent\n"), "{text}");
    assert!(!text.contains("SUDO_"), "{text}");
}

#[test]
fn no_descriptor_of_ours_passes_on() {
    if !is_root_with_sudo("no_descriptor_of_ours_passes_on") {
        return;
    }
    for mode in SUDO_WATCHES {
        let line = format!("sudo -n {} ls /proc/self/fd; true", runner().display());
        let (text, ran) = output(shell_of_nobody(mode, &["-c", &line]).stdin(Stdio::null()));
        // 3 is the directory that ls reads.
        assert_eq!(text, "0\n1\n2\n3\n", "{mode}: {ran:?}");
    }
}

#[test]
fn the_callers_environment_is_found_through_a_shell_between() {
    if !is_root_with_sudo("the_callers_environment_is_found_through_a_shell_between") {
        return;
    }
    for mode in SUDO_WATCHES {
        let line = format!(
            "export LATE=yes; sudo -n sh -c 'cd /etc; {} sh -c \"echo \\$LATE; pwd; id -un\"; true'",
            runner().display()
        );
        let (text, ran) = output(shell_of_nobody(mode, &["-c", &line]).stdin(Stdio::null()));
        assert_eq!(text, "yes\n/etc\nnobody\n", "{mode}: {ran:?}");
    }
}

#[test]
fn the_directory_is_the_callers_whatever_sudo_chose() {
    if !is_root_with_sudo("the_directory_is_the_callers_whatever_sudo_chose") {
        return;
    }
    for mode in SUDO_WATCHES {
        let line = format!("cd /usr; sudo -n -D /etc {} pwd; true", runner().display());
        let (text, ran) = output(shell_of_nobody(mode, &["-c", &line]).stdin(Stdio::null()));
        assert_eq!(text, "/usr\n", "{mode}: {ran:?}");
    }
}

#[test]
fn exit_codes_come_through_sudo() {
    if !is_root_with_sudo("exit_codes_come_through_sudo") {
        return;
    }
    for mode in SUDO_WATCHES.into_iter().chain([SUDO_IS_REPLACED]) {
        for (command, code) in
            [("sh -c 'exit 42'", 42), ("sh -c 'kill -TERM $$'", 143), ("no-such-program", 127)]
        {
            let line = format!("sudo -n {} {command}; exit $?", runner().display());
            let (_, ran) = output(shell_of_nobody(mode, &["-c", &line]).stdin(Stdio::null()));
            assert_eq!(ran.status.code(), Some(code), "{mode}: {command}: {ran:?}");
        }
    }
}
