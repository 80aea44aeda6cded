//! Network namespaces, cgroups, processes and locks that vanish with their owner.
//!
//! Everything a test makes carries the name `ct-<pid of the test process>-<n>`, so two test
//! runs never meet, and all of it is removed when the value that stands for it is dropped.

pub mod cgroup;
pub mod echo;
pub mod mesh;
pub mod netns;
pub mod process;
pub mod shapes;
pub mod ssh;
pub mod tun;

use std::{
    fs::File,
    sync::atomic::{AtomicU32, Ordering},
};

use anyhow::{Context, Result};
use nix::fcntl::{Flock, FlockArg};

/// A name nothing else on this machine has.
#[must_use]
pub fn unique_name() -> String {
    static NEXT: AtomicU32 = AtomicU32::new(0);
    format!("{}{}", own_prefix(), NEXT.fetch_add(1, Ordering::Relaxed))
}

/// What every name made by this test process begins with.
#[must_use]
pub fn own_prefix() -> String {
    format!("ct-{}-", std::process::id())
}

/// Held by tests that measure time or compare the whole machine: at most one runs at a time,
/// also across test processes. Released when dropped, and by the kernel when the process dies.
#[derive(Debug)]
pub struct Alone(#[expect(dead_code, reason = "the lock lives as long as this value")] Flock<File>);

/// Waits for the lock.
///
/// # Errors
/// When the lock file cannot be made.
pub fn alone() -> Result<Alone> {
    let path = std::env::temp_dir().join("chaos-tests.lock");
    let file = File::create(&path).with_context(|| format!("making {}", path.display()))?;
    Flock::lock(file, FlockArg::LockExclusive)
        .map(Alone)
        .map_err(|(_, errno)| anyhow::anyhow!("locking {}: {errno}", path.display()))
}
