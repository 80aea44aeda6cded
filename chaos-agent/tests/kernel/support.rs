//! What the tests that need root share: a reason to skip, and namespaces and cgroups that remove themselves.

use std::{
    fs,
    io::{self, Write},
    path::{Path, PathBuf},
    process::{Child, Command, Stdio},
    sync::atomic::{AtomicU32, Ordering},
    time::{Duration, Instant},
};

use nix::fcntl::{Flock, FlockArg};

/// True, with the reason printed, when this test cannot run here.
pub(crate) fn skip(test: &str) -> bool {
    let root = nix::unistd::geteuid().is_root();
    if !root {
        // Not by a macro: the test harness would keep that to itself.
        let _ = writeln!(io::stderr(), "SKIPPED {test}: needs root (network namespaces); run it with sudo");
    }
    !root
}

/// A name no other test run uses.
pub(crate) fn unique(prefix: &str) -> String {
    static NEXT: AtomicU32 = AtomicU32::new(0);
    format!("{prefix}-{}-{}", std::process::id(), NEXT.fetch_add(1, Ordering::Relaxed))
}

/// Runs a program and panics with what it said when it fails.
pub(crate) fn sh(command: &str) -> String {
    let output = Command::new("sh").args(["-c", command]).output().unwrap();
    assert!(output.status.success(), "{command}: {}", String::from_utf8_lossy(&output.stderr));
    String::from_utf8(output.stdout).unwrap()
}

/// A named network namespace with loopback up, removed at the end.
pub(crate) struct NamedNetns(pub(crate) String);

impl NamedNetns {
    pub(crate) fn new() -> Self {
        Self::with_name(unique("chaost"))
    }

    pub(crate) fn with_name(name: String) -> Self {
        sh(&format!("ip netns add {name} && ip -n {name} link set lo up"));
        Self(name)
    }

    pub(crate) fn open(&self) -> chaos_agent::netns::Netns {
        chaos_agent::netns::Netns::by_name(&self.0).unwrap()
    }

    /// A program inside, killed when dropped.
    pub(crate) fn spawn(&self, command: &[&str]) -> Process {
        let mut all = vec!["netns", "exec", &self.0];
        all.extend(command);
        Process::spawn("ip", &all)
    }
}

impl Drop for NamedNetns {
    fn drop(&mut self) {
        let _ = Command::new("ip").args(["netns", "del", &self.0]).stderr(Stdio::null()).status();
    }
}

/// A child process, killed and waited for at the end.
pub(crate) struct Process(pub(crate) Child);

impl Process {
    pub(crate) fn spawn(program: &str, args: &[&str]) -> Self {
        Self(Command::new(program).args(args).stdin(Stdio::null()).stdout(Stdio::null()).spawn().unwrap())
    }

    pub(crate) fn pid(&self) -> i32 {
        i32::try_from(self.0.id()).unwrap()
    }
}

impl Drop for Process {
    fn drop(&mut self) {
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}

/// A cgroup2 directory below the root, removed at the end (after its processes were killed).
pub(crate) struct Cgroup {
    pub(crate) path: PathBuf,
}

impl Cgroup {
    pub(crate) fn new(mount: &Path) -> Self {
        Self::at(mount.join(unique("chaost")))
    }

    pub(crate) fn at(path: PathBuf) -> Self {
        fs::create_dir_all(&path).unwrap();
        Self { path }
    }

    pub(crate) fn add(&self, pid: i32) {
        fs::write(self.path.join("cgroup.procs"), pid.to_string()).unwrap();
    }
}

impl Drop for Cgroup {
    fn drop(&mut self) {
        let deadline = Instant::now() + Duration::from_secs(2);
        while fs::remove_dir(&self.path).is_err() && self.path.exists() && Instant::now() < deadline {
            std::thread::sleep(Duration::from_millis(10));
        }
    }
}

/// Waits until `condition` holds; panics with `what` after `limit`.
pub(crate) fn eventually(what: &str, limit: Duration, mut condition: impl FnMut() -> bool) -> Duration {
    let start = Instant::now();
    while !condition() {
        assert!(start.elapsed() < limit, "not within {limit:?}: {what}");
        std::thread::sleep(Duration::from_millis(5));
    }
    start.elapsed()
}

/// Held by tests that measure time: the same lock as `chaos_tests::lab::alone` takes.
pub(crate) fn alone() -> Flock<fs::File> {
    let file = fs::File::create(std::env::temp_dir().join("chaos-tests.lock")).unwrap();
    Flock::lock(file, FlockArg::LockExclusive).map_err(|(_, errno)| errno).unwrap()
}
