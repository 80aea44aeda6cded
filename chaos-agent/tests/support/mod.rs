//! What the tests of `exec` and the guard share.

use std::{
    fs,
    io::{Read, Write as _},
    os::unix::process::ExitStatusExt,
    path::{Path, PathBuf},
    process::{Command, Output, Stdio},
    thread,
    time::{Duration, Instant},
};

use chaos_agent::cgroup::Hierarchy;
use nix::sys::signal::{SigHandler, Signal, signal as set_handler};

/// True when the test can run; else it says on the real standard error why it is skipped.
pub(crate) fn is_root(test: &str) -> bool {
    let root = nix::unistd::geteuid().is_root();
    if !root {
        // Not eprintln: the test harness would keep it to itself.
        let _ =
            writeln!(std::io::stderr(), "SKIPPED {test}: needs root; run: sudo -E cargo test -p chaos-agent");
    }
    root
}

/// The example `exec`, which `cargo test` builds beside the tests.
pub(crate) fn runner() -> PathBuf {
    let tests = std::env::current_exe().unwrap();
    let runner = tests.ancestors().nth(2).unwrap().join("examples/exec");
    assert!(
        runner.exists(),
        "{} is missing; run: cargo build -p chaos-agent --example exec",
        runner.display()
    );
    runner
}

/// Lets children hear what this process may have been born deaf to: a background job of a shell without job control to
/// the first two, what nohup(1) starts to the last.
pub(crate) fn hear_signals() {
    for signal in [Signal::SIGINT, Signal::SIGQUIT, Signal::SIGHUP] {
        // SAFETY: no handler.
        unsafe { set_handler(signal, SigHandler::SigDfl) }.unwrap();
    }
}

/// The example, to be given a command.
pub(crate) fn exec(command: &[&str]) -> Command {
    hear_signals();
    let mut exec = Command::new(runner());
    exec.args(command).stdin(Stdio::null());
    exec
}

/// Runs to the end and gives standard output.
pub(crate) fn output(command: &mut Command) -> (String, Output) {
    let output = command.output().unwrap();
    (String::from_utf8_lossy(&output.stdout).into_owned(), output)
}

/// What a shell's `$?` would be.
pub(crate) fn shell_code(output: &Output) -> i32 {
    output.status.code().or_else(|| output.status.signal().map(|signal| 128 + signal)).unwrap()
}

/// Waits up to five seconds.
#[track_caller]
pub(crate) fn eventually(what: &str, mut condition: impl FnMut() -> bool) {
    let deadline = Instant::now() + Duration::from_secs(5);
    while !condition() {
        assert!(Instant::now() < deadline, "not within 5 s: {what}");
        thread::sleep(Duration::from_millis(5));
    }
}

/// The transient cgroups of a process.
pub(crate) fn cgroups_of(pid: u32) -> Vec<PathBuf> {
    let prefix = format!("chaos-exec-{pid}-");
    let mut found = Vec::new();
    let mut directories = vec![Hierarchy::discover().unwrap().mount().to_path_buf()];
    while let Some(directory) = directories.pop() {
        for entry in fs::read_dir(&directory).into_iter().flatten().flatten() {
            if entry.file_type().is_ok_and(|kind| kind.is_dir()) {
                if entry.file_name().to_string_lossy().starts_with(&prefix) {
                    found.push(entry.path());
                }
                directories.push(entry.path());
            }
        }
    }
    found
}

/// Guards whose parent is (or was) this process: they are recognised by their name and its process group's age.
pub(crate) fn process_exists(pid: i32) -> bool {
    let stat = fs::read_to_string(format!("/proc/{pid}/stat")).unwrap_or_default();
    // A zombie that nobody reaped yet has ended.
    stat.rsplit_once(") ").is_some_and(|(_, rest)| !rest.starts_with('Z'))
}

/// Children of a process with this name.
pub(crate) fn children(pid: u32, name: &str) -> Vec<i32> {
    let children = fs::read_to_string(format!("/proc/{pid}/task/{pid}/children")).unwrap_or_default();
    let named =
        |pid: &i32| fs::read_to_string(format!("/proc/{pid}/comm")).is_ok_and(|comm| comm.trim_end() == name);
    children.split_whitespace().map(|pid| pid.parse().unwrap()).filter(named).collect()
}

/// A directory that is removed afterwards, readable by everybody.
pub(crate) struct Scratch(pub(crate) PathBuf);

impl Scratch {
    pub(crate) fn new(name: &str) -> Self {
        let path = std::env::temp_dir().join(format!("chaos-test-{}-{name}", std::process::id()));
        fs::create_dir_all(&path).unwrap();
        set_mode(&path, 0o755);
        Self(path)
    }

    /// An executable file in it.
    pub(crate) fn script(&self, name: &str, text: &str) -> PathBuf {
        let path = self.0.join(name);
        fs::write(&path, text).unwrap();
        set_mode(&path, 0o755);
        path
    }
}

impl Drop for Scratch {
    fn drop(&mut self) {
        let _ = fs::remove_dir_all(&self.0);
    }
}

pub(crate) fn set_mode(path: &Path, mode: u32) {
    use std::os::unix::fs::PermissionsExt;
    fs::set_permissions(path, fs::Permissions::from_mode(mode)).unwrap();
}

/// Reads from a stream until the text has come.
#[track_caller]
pub(crate) fn read_until(stream: &mut impl Read, wanted: &str) -> String {
    let mut text = Vec::new();
    let mut byte = [0];
    while !String::from_utf8_lossy(&text).contains(wanted) {
        match stream.read(&mut byte) {
            Ok(1) => text.push(byte[0]),
            _ => panic!("ended before {wanted:?}: {}", String::from_utf8_lossy(&text)),
        }
    }
    String::from_utf8_lossy(&text).into_owned()
}
