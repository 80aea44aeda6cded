//! A cgroup (version 2) that is removed when its value is dropped.

use std::{
    fs,
    os::unix::process::CommandExt,
    path::{Path, PathBuf},
    process::Command,
    thread,
    time::Duration,
};

use anyhow::{Context, Result};

use super::unique_name;

/// One cgroup below the root of the version 2 hierarchy.
#[derive(Debug)]
pub struct Cgroup {
    name: String,
    path: PathBuf,
}

/// Where cgroup version 2 is mounted, alone or beside version 1.
///
/// # Errors
/// When it is not.
pub fn mount() -> Result<PathBuf> {
    let mounts = fs::read_to_string("/proc/self/mounts").context("reading /proc/self/mounts")?;
    let found = mounts.lines().find_map(|line| {
        let mut fields = line.split(' ');
        let place = fields.nth(1)?;
        (fields.next()? == "cgroup2").then(|| PathBuf::from(place))
    });
    found.context("cgroup version 2 is not mounted; `mount -t cgroup2 none /sys/fs/cgroup/unified` mounts it")
}

impl Cgroup {
    /// Makes a cgroup with a unique name.
    ///
    /// # Errors
    /// Without a cgroup2 mount or the right to write to it.
    pub fn new() -> Result<Self> {
        let name = format!("/{}", unique_name());
        Self::at(name)
    }

    /// Makes a cgroup below this one.
    ///
    /// # Errors
    /// As for [`Self::new`].
    pub fn child(&self, name: &str) -> Result<Self> {
        Self::at(format!("{}/{name}", self.name))
    }

    /// Makes the cgroup with this path from the root of the hierarchy, such as `/system.slice/x.service`.
    ///
    /// # Errors
    /// As for [`Self::new`], and when its parent is not there or it is.
    pub fn at(name: String) -> Result<Self> {
        let path = mount()?.join(name.trim_start_matches('/'));
        fs::create_dir(&path).with_context(|| format!("making {}", path.display()))?;
        Ok(Self { name, path })
    }

    /// Its path from the root of the hierarchy, as in `/proc/PID/cgroup`: `/ct-1-2`.
    #[must_use]
    pub fn name(&self) -> &str {
        &self.name
    }

    /// Its directory.
    #[must_use]
    pub fn path(&self) -> &Path {
        &self.path
    }

    /// Makes a prepared command run inside from its first instruction on.
    #[must_use]
    pub fn inside(&self, mut command: Command) -> Command {
        let procs = std::ffi::CString::new(self.path.join("cgroup.procs").to_string_lossy().as_bytes());
        // SAFETY: between fork and exec only open, write and close are called, each one system call.
        unsafe {
            command.pre_exec(move || {
                let path = procs.as_deref().map_err(|_| std::io::ErrorKind::InvalidInput)?;
                let flags = nix::fcntl::OFlag::O_WRONLY | nix::fcntl::OFlag::O_CLOEXEC;
                let file = nix::fcntl::open(path, flags, nix::sys::stat::Mode::empty())?;
                nix::unistd::write(&file, b"0").map(drop).map_err(Into::into)
            });
        }
        command
    }
}

impl Drop for Cgroup {
    fn drop(&mut self) {
        // A process that was just killed still counts for a moment.
        for _ in 0..200 {
            match fs::remove_dir(&self.path) {
                Err(error) if error.raw_os_error() == Some(libc::EBUSY) => {
                    thread::sleep(Duration::from_millis(5));
                }
                Ok(()) | Err(_) => return,
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::Cgroup;
    use crate::lab::{netns::words, process};

    #[test]
    fn a_command_starts_inside_and_the_directory_vanishes() {
        crate::require_root!();
        let cgroup = Cgroup::new().unwrap();
        let path = cgroup.path().to_owned();
        let shown = process::run(cgroup.inside(words("cat /proc/self/cgroup"))).unwrap();
        assert!(shown.lines().any(|line| line == format!("0::{}", cgroup.name())), "{shown}");
        drop(cgroup);
        assert!(!path.exists());
    }
}
