//! A named network namespace that is removed when its value is dropped.

use std::{
    fs::File,
    net::IpAddr,
    os::{fd::AsRawFd, unix::process::CommandExt},
    path::{Path, PathBuf},
    process::Command,
    thread,
};

use anyhow::{Context, Result};
use nix::sched::{CloneFlags, setns};

use super::{process, unique_name};

/// One network namespace, its `lo` up.
#[derive(Debug)]
pub struct Netns {
    name: String,
    file: File,
}

impl Netns {
    /// Makes a namespace with a unique name.
    ///
    /// # Errors
    /// Without `CAP_SYS_ADMIN`.
    pub fn new() -> Result<Self> {
        Self::named(unique_name())
    }

    /// Makes a namespace of this name, such as that of one that was deleted.
    ///
    /// # Errors
    /// Without `CAP_SYS_ADMIN`, or when there is one.
    pub fn named(name: String) -> Result<Self> {
        process::run(words(&format!("ip netns add {name}")))?;
        let file = File::open(Path::new("/run/netns").join(&name)).context("opening the namespace")?;
        let netns = Self { name, file };
        netns.run("ip link set lo up")?;
        Ok(netns)
    }

    /// What `ip netns` calls it.
    #[must_use]
    pub fn name(&self) -> &str {
        &self.name
    }

    /// Where its file is.
    #[must_use]
    pub fn path(&self) -> PathBuf {
        Path::new("/run/netns").join(&self.name)
    }

    /// A command line (split at white space) that will run inside. Unlike `ip netns exec` this
    /// leaves the mounts alone, so `/sys/fs/cgroup` stays visible.
    #[must_use]
    pub fn command(&self, line: &str) -> Command {
        self.inside(words(line))
    }

    /// Makes a prepared command run inside. The namespace must outlive the start of the command.
    #[must_use]
    pub fn inside(&self, mut command: Command) -> Command {
        let file = self.file.try_clone();
        // SAFETY: between fork and exec only setns is called, one system call.
        unsafe {
            command.pre_exec(move || {
                let file = file.as_ref().map_err(|error| std::io::Error::from(error.kind()))?;
                setns(file, CloneFlags::CLONE_NEWNET).map_err(Into::into)
            });
        }
        command
    }

    /// Runs a command line inside and returns what it printed.
    ///
    /// # Errors
    /// When it fails or takes longer than [`process::COMMAND_LIMIT`].
    pub fn run(&self, line: &str) -> Result<String> {
        process::run(self.command(line))
    }

    /// Whether a ping from here gets its answer within a second.
    #[must_use]
    pub fn reaches(&self, to: impl Into<IpAddr>) -> bool {
        self.run(&format!("ping -c 1 -W 1 -q {}", to.into())).is_ok()
    }

    /// Runs `work` on a thread of its own inside; sockets made there stay inside.
    ///
    /// # Errors
    /// When the namespace cannot be entered.
    ///
    /// # Panics
    /// When `work` does.
    pub fn enter<T: Send>(&self, work: impl FnOnce() -> T + Send) -> Result<T> {
        thread::scope(|scope| {
            let inside = scope.spawn(|| {
                setns(&self.file, CloneFlags::CLONE_NEWNET)
                    .with_context(|| format!("entering {}", self.name))?;
                Ok(work())
            });
            inside.join().unwrap_or_else(|panic| std::panic::resume_unwind(panic))
        })
    }

    /// The number of its open file, for messages.
    #[must_use]
    pub fn descriptor(&self) -> i32 {
        self.file.as_raw_fd()
    }

    /// Removes the name now (what `ip netns del` does); the namespace lives as long as something holds it.
    ///
    /// # Errors
    /// When the name is gone already.
    pub fn delete(self) -> Result<()> {
        process::run(words(&format!("ip netns del {}", self.name))).map(drop)
    }
}

impl Drop for Netns {
    fn drop(&mut self) {
        if self.path().exists() {
            let _ = process::run(words(&format!("ip netns del {}", self.name)));
        }
    }
}

/// A command from a line, split at white space.
///
/// # Panics
/// When the line is empty.
#[must_use]
pub fn words(line: &str) -> Command {
    let mut parts = line.split_whitespace();
    let mut command = Command::new(parts.next().expect("a command line has a first word"));
    command.args(parts);
    command
}

#[cfg(test)]
mod tests {
    use std::fs;

    use super::Netns;

    #[test]
    fn commands_and_threads_run_inside_and_it_vanishes() {
        crate::require_root!();
        let netns = Netns::new().unwrap();
        let path = netns.path();
        let inside = netns.run("readlink /proc/self/ns/net").unwrap();
        let entered = netns.enter(|| fs::read_link("/proc/thread-self/ns/net").unwrap()).unwrap();
        assert_eq!(inside.trim(), entered.to_string_lossy());
        assert_ne!(entered, fs::read_link("/proc/self/ns/net").unwrap());
        let cgroups = netns.run("ls /sys/fs/cgroup").unwrap();
        assert!(!cgroups.trim().is_empty());
        drop(netns);
        assert!(!path.exists());
    }
}
