//! Finding cgroup v2 and its directories, and the transient cgroup of `chaos exec`.
//!
//! Sources: Documentation/admin-guide/cgroup-v2.rst and `cgroups(7)`, `cgroup_namespaces(7)`.

mod namespace;

use std::{
    fmt::Write as _,
    fs,
    io::{self, ErrorKind},
    os::{fd::AsFd, unix::fs::MetadataExt},
    path::{Component, Path, PathBuf},
    time::{Duration, Instant},
};

use nix::poll::{PollFd, PollFlags, PollTimeout, poll};
use procfs::process::Process;

pub use namespace::join_machines;

/// What every transient cgroup's name begins with; [`Hierarchy::sweep_stale`] touches no other.
pub const TRANSIENT_PREFIX: &str = "chaos-exec-";

/// Why a cgroup could not be found or made.
#[derive(Debug, thiserror::Error)]
pub enum CgroupError {
    /// No cgroup2 file system in /proc/self/mountinfo.
    #[error(
        "cgroup v2 is not mounted here, and packets are assigned to a command by its cgroup; mount it, also \
         beside v1: sudo mkdir -p /sys/fs/cgroup/unified && sudo mount -t cgroup2 cgroup2 /sys/fs/cgroup/unified"
    )]
    NotMounted,
    /// The depth below the real root cannot be known from inside a cgroup namespace.
    #[error(
        "{mount} shows only a part of the machine's cgroups (this is a cgroup namespace), and a rule needs \
         the cgroup's depth below the real root; run chaos on the host, or the container with --cgroupns=host"
    )]
    Namespaced {
        /// Where cgroup2 is mounted.
        mount: PathBuf,
    },
    /// The named directory does not exist.
    #[error(
        "no cgroup {path} below {mount}; give the path relative to that directory, such as \
         /system.slice/api.service; list them: find {mount} -type d"
    )]
    NotFound {
        /// What was asked for.
        path: PathBuf,
        /// Where cgroup2 is mounted.
        mount: PathBuf,
    },
    /// A path that leaves the mount, or names a file.
    #[error("{path} is not a cgroup: give a directory below {mount}, without `..`")]
    NotACgroup {
        /// What was asked for.
        path: PathBuf,
        /// Where cgroup2 is mounted.
        mount: PathBuf,
    },
    /// Neither the caller's own cgroup nor the root took a child.
    #[error(
        "no cgroup could be made for the command:{tried}; it takes root, or a cgroup delegated to you: run it with sudo"
    )]
    NoTransient {
        /// Each directory tried with its reason.
        tried: String,
    },
    /// A system call failed.
    #[error("{what} {path}: {source}")]
    Io {
        /// What was attempted.
        what: &'static str,
        /// On which file.
        path: PathBuf,
        /// The answer.
        source: io::Error,
    },
}

impl CgroupError {
    fn io(what: &'static str, path: &Path, source: io::Error) -> Self {
        Self::Io { what, path: path.to_path_buf(), source }
    }
}

/// A cgroup, as the classifier identifies it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct CgroupRef {
    /// Path below the cgroup2 mount, beginning with `/`.
    pub path: PathBuf,
    /// Inode of the directory, which is what `bpf_skb_cgroup_id` returns (kernfs, since 5.5 on 64 bit).
    pub id: u64,
    /// Depth below the real root: the root is 0, its children are 1; the `ancestor_level` of
    /// `bpf_skb_ancestor_cgroup_id`.
    pub level: u32,
}

/// Whether a cgroup could be removed.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Removal {
    /// It is gone, or was already.
    Removed,
    /// A process still lives in it or below it.
    Populated,
}

/// A mounted cgroup v2 hierarchy.
#[derive(Debug, Clone)]
pub struct Hierarchy {
    mount: PathBuf,
    /// The cgroup that lies at the mount point: `/`, or deeper when a part is bind-mounted into a container.
    base: PathBuf,
}

impl Hierarchy {
    /// Finds the mount in /proc/self/mountinfo; the widest view wins where there are several.
    pub fn discover() -> Result<Self, CgroupError> {
        let file = Path::new("/proc/self/mountinfo");
        let mounts = Process::myself()
            .and_then(|own| own.mountinfo())
            .map_err(|error| CgroupError::io("reading", file, io::Error::other(error)))?;
        mounts
            .into_iter()
            .filter(|mount| mount.fs_type == "cgroup2" && mount.mount_point.join("cgroup.procs").exists())
            .min_by_key(|mount| mount.root.len())
            .map(|mount| Self { mount: mount.mount_point, base: PathBuf::from(mount.root) })
            .ok_or(CgroupError::NotMounted)
    }

    /// The hierarchy whose root is this directory (for tests, and for a mount known otherwise).
    #[must_use]
    pub fn at(mount: impl Into<PathBuf>) -> Self {
        Self { mount: mount.into(), base: PathBuf::from("/") }
    }

    /// Where it is mounted.
    #[must_use]
    pub fn mount(&self) -> &Path {
        &self.mount
    }

    /// Path of this process's cgroup below the mount (the `0::` line of /proc/self/cgroup).
    pub fn own_path(&self) -> Result<PathBuf, CgroupError> {
        let file = Path::new("/proc/self/cgroup");
        let text = fs::read_to_string(file).map_err(|source| CgroupError::io("reading", file, source))?;
        let own = text.lines().find_map(|line| line.strip_prefix("0::")).ok_or(CgroupError::NotMounted)?;
        Path::new(own)
            .strip_prefix(&self.base)
            .map(|below| Path::new("/").join(below))
            .map_err(|_| CgroupError::Namespaced { mount: self.mount.clone() })
    }

    /// The directory of a cgroup: `path` is relative to the mount with or without a leading slash, or begins
    /// with the mount point itself.
    pub fn directory(&self, path: &Path) -> Result<PathBuf, CgroupError> {
        Ok(self.mount.join(self.below(path)?))
    }

    /// Finds a cgroup the user named.
    pub fn resolve(&self, path: &Path) -> Result<CgroupRef, CgroupError> {
        let below = self.below(path)?;
        let directory = self.mount.join(&below);
        let refused = || (path.to_path_buf(), self.mount.clone());
        let metadata = match fs::metadata(&directory) {
            Ok(metadata) => metadata,
            Err(error) if error.kind() == ErrorKind::NotFound => {
                let (path, mount) = refused();
                return Err(CgroupError::NotFound { path, mount });
            }
            Err(error) => return Err(CgroupError::io("looking at", &directory, error)),
        };
        if !metadata.is_dir() {
            let (path, mount) = refused();
            return Err(CgroupError::NotACgroup { path, mount });
        }
        let level = self.level(&below)?;
        Ok(CgroupRef { path: Path::new("/").join(below), id: metadata.ino(), level })
    }

    /// Process ids in a cgroup and everything below it, unsorted.
    pub fn pids(&self, path: &Path) -> Result<Vec<i32>, CgroupError> {
        let mut pids = Vec::new();
        for directory in subtree(&self.directory(path)?) {
            let file = directory.join("cgroup.procs");
            match fs::read_to_string(&file) {
                Ok(text) => pids.extend(text.lines().filter_map(|line| line.parse::<i32>().ok())),
                // Gone meanwhile, or a threaded cgroup, whose processes its domain lists.
                Err(error) if matches!(error.kind(), ErrorKind::NotFound | ErrorKind::Unsupported) => {}
                Err(error) if error.raw_os_error() == Some(libc::ENODEV) => {}
                Err(error) => return Err(CgroupError::io("reading", &file, error)),
            }
        }
        Ok(pids)
    }

    /// Removes the empty transient cgroups of processes that are gone, wherever they are in the tree, and
    /// says which. One whose owner lives, or in which something still runs, stays.
    #[must_use]
    pub fn sweep_stale(&self) -> Vec<PathBuf> {
        subtree(&self.mount)
            .into_iter()
            .filter(|directory| {
                directory
                    .file_name()
                    .and_then(|name| owner(name.to_str()?))
                    .is_some_and(|(pid, start_ticks)| start_time_ticks(pid) != Some(start_ticks))
            })
            .filter(|directory| matches!(remove_if_empty(directory), Ok(Removal::Removed)))
            .collect()
    }

    fn below(&self, path: &Path) -> Result<PathBuf, CgroupError> {
        let below = path.strip_prefix(&self.mount).or_else(|_| path.strip_prefix("/")).unwrap_or(path);
        if below.components().any(|part| !matches!(part, Component::Normal(_) | Component::CurDir)) {
            return Err(CgroupError::NotACgroup { path: path.to_path_buf(), mount: self.mount.clone() });
        }
        Ok(below.components().filter(|part| matches!(part, Component::Normal(_))).collect())
    }

    fn level(&self, below: &Path) -> Result<u32, CgroupError> {
        let base = self.base.strip_prefix("/").unwrap_or(&self.base);
        let hidden = base.components().any(|part| part == Component::ParentDir)
            // Only the real root has no cgroup.events; a namespace's root looks like "/" otherwise.
            || (base.as_os_str().is_empty() && self.mount.join("cgroup.events").exists());
        if hidden {
            return Err(CgroupError::Namespaced { mount: self.mount.clone() });
        }
        let depth = base.components().chain(below.components()).count();
        u32::try_from(depth).map_err(|_| CgroupError::Namespaced { mount: self.mount.clone() })
    }
}

/// A cgroup made for one command. Dropping it removes it if it is empty.
#[derive(Debug)]
pub struct Transient {
    cgroup: CgroupRef,
    directory: PathBuf,
}

impl Transient {
    /// Where [`Self::create`] would make it: the name is `chaos-exec-<pid>-<starttime>`, so that a later
    /// process can tell whether its owner lives.
    pub fn planned(hierarchy: &Hierarchy, parent: &Path) -> Result<PathBuf, CgroupError> {
        let pid = std::process::id().cast_signed();
        let start_ticks = start_time_ticks(pid).unwrap_or_default();
        let parent = hierarchy.directory(parent)?;
        // A process that runs several commands numbers the further ones.
        let name = format!("{TRANSIENT_PREFIX}{pid}-{start_ticks}");
        let mut directory = parent.join(&name);
        let mut number = 1_u32;
        while directory.exists() {
            number += 1;
            directory = parent.join(format!("{name}-{number}"));
        }
        Ok(directory)
    }

    /// Makes the directory that [`Self::planned`] named. A cgroup that cannot hold processes (its parent is
    /// threaded) is removed again and is an error.
    pub fn create(hierarchy: &Hierarchy, directory: PathBuf) -> Result<Self, CgroupError> {
        fs::create_dir(&directory).map_err(|source| CgroupError::io("making", &directory, source))?;
        let usable = || {
            let kind = fs::read_to_string(directory.join("cgroup.type")).unwrap_or_default();
            if kind.trim_end() == "domain invalid" {
                let source = io::Error::from_raw_os_error(libc::EOPNOTSUPP);
                return Err(CgroupError::io("using (its parent is threaded)", &directory, source));
            }
            hierarchy.resolve(&directory)
        };
        match usable() {
            Ok(cgroup) => Ok(Self { cgroup, directory }),
            Err(error) => {
                // Nobody can be in it yet; the error to report is the first one.
                let _ = fs::remove_dir(&directory);
                Err(error)
            }
        }
    }

    /// How the classifier knows it.
    #[must_use]
    pub fn cgroup(&self) -> &CgroupRef {
        &self.cgroup
    }

    /// Its directory, absolute.
    #[must_use]
    pub fn directory(&self) -> &Path {
        &self.directory
    }

    /// Removes it when it empties within `patience`.
    pub fn remove(&mut self, patience: Duration) -> io::Result<Removal> {
        remove_when_empty(&self.directory, patience)
    }
}

impl Drop for Transient {
    fn drop(&mut self) {
        // What still lives in it is the user's; the guard or the next chaos command removes it later.
        let _ = remove_if_empty(&self.directory);
    }
}

/// Adds a line to the reasons of [`CgroupError::NoTransient`].
pub(crate) fn note_failure(tried: &mut String, error: &dyn std::error::Error) {
    // Writing into a String cannot fail.
    let _ = write!(tried, "\n  {error}");
}

/// Removes a cgroup and the directories below it (a command may have made some), deepest first, if no process
/// lives in any of them.
pub fn remove_if_empty(directory: &Path) -> io::Result<Removal> {
    if is_populated(directory)? {
        return Ok(Removal::Populated);
    }
    let mut directories = subtree(directory);
    directories.reverse();
    for directory in directories {
        match fs::remove_dir(&directory) {
            Err(error) if error.kind() == ErrorKind::ResourceBusy => return Ok(Removal::Populated),
            Err(error) if error.kind() != ErrorKind::NotFound => return Err(error),
            Ok(()) | Err(_) => {}
        }
    }
    Ok(Removal::Removed)
}

/// [`remove_if_empty`], waiting up to `patience` for the last process to leave.
pub fn remove_when_empty(directory: &Path, patience: Duration) -> io::Result<Removal> {
    let deadline = Instant::now() + patience;
    loop {
        let left = deadline.saturating_duration_since(Instant::now());
        let removal = remove_if_empty(directory)?;
        if removal == Removal::Removed || left.is_zero() {
            return Ok(removal);
        }
        wait_for_change(directory, left)?;
    }
}

/// Sleeps until `populated` in cgroup.events may have changed, at most `patience` or one second.
pub(crate) fn wait_for_change(directory: &Path, patience: Duration) -> io::Result<()> {
    let file = match fs::File::open(directory.join("cgroup.events")) {
        Ok(file) => file,
        Err(error) if error.kind() == ErrorKind::NotFound => return Ok(()),
        Err(error) => return Err(error),
    };
    // kernfs reports changes since the last read of this open file (`kernfs_generic_poll`), so none is missed.
    if !io::read_to_string(&file)?.contains("populated 1") {
        return Ok(());
    }
    let patience_ms = u16::try_from(patience.as_millis()).unwrap_or(1000).clamp(1, 1000);
    let mut watched = [PollFd::new(file.as_fd(), PollFlags::POLLPRI)];
    match poll(&mut watched, PollTimeout::from(patience_ms)) {
        Ok(_) | Err(nix::errno::Errno::EINTR) => Ok(()),
        Err(errno) => Err(errno.into()),
    }
}

fn is_populated(directory: &Path) -> io::Result<bool> {
    match fs::read_to_string(directory.join("cgroup.events")) {
        Ok(events) => Ok(events.lines().any(|line| line == "populated 1")),
        Err(error) if error.kind() == ErrorKind::NotFound => Ok(false),
        // Removed between opening and reading.
        Err(error) if error.raw_os_error() == Some(libc::ENODEV) => Ok(false),
        Err(error) => Err(error),
    }
}

/// A directory and all directories below it, parents first. What vanishes meanwhile is left out.
fn subtree(directory: &Path) -> Vec<PathBuf> {
    let mut found = vec![directory.to_path_buf()];
    let mut next = 0;
    while let Some(directory) = found.get(next) {
        next += 1;
        let Ok(entries) = fs::read_dir(directory) else { continue };
        let children = entries.flatten().filter(|entry| entry.file_type().is_ok_and(|kind| kind.is_dir()));
        let children: Vec<_> = children.map(|entry| entry.path()).collect();
        found.extend(children);
    }
    found
}

/// Pid and start time in the name of a transient cgroup.
fn owner(name: &str) -> Option<(i32, u64)> {
    let mut parts = name.strip_prefix(TRANSIENT_PREFIX)?.split('-');
    Some((parts.next()?.parse().ok()?, parts.next()?.parse().ok()?))
}

/// Field 22 of /proc/PID/stat: clock ticks since boot, which with the pid names a process for good.
pub(crate) fn start_time_ticks(pid: i32) -> Option<u64> {
    Process::new(pid).and_then(|process| process.stat()).ok().map(|stat| stat.starttime)
}

#[cfg(test)]
mod tests;
