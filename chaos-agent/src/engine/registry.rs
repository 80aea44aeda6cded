//! Who of us is alive on this machine: a locked file each, which also gives out the markers.
//!
//! The lock ends with the process, so a file without a lock was left by one that was killed.

use std::{
    fs::{self, File, OpenOptions},
    io::{Read as _, Seek as _, Write as _},
    path::{Path, PathBuf},
};

use nix::fcntl::{Flock, FlockArg};
use serde::{Deserialize, Serialize};

use super::EngineError;
use crate::folder;

/// Markers are four bits, and 0 is none.
const TAGS: std::ops::RangeInclusive<u32> = 1..=15;
const DIRECTORY: &str = "/run/chaos";

/// What a file says.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub(super) struct Entry {
    /// The process.
    pub(super) pid: i32,
    /// Its command line, for people.
    pub(super) command: String,
    /// Ids of its programs in clsact filters.
    pub(super) programs: Vec<u32>,
}

/// Our own entry; dropping it removes the file.
#[derive(Debug)]
pub(super) struct Registration {
    file: Flock<File>,
    path: PathBuf,
    tag: u32,
    entry: Entry,
}

/// Somebody else's.
#[derive(Debug)]
pub(super) struct Other {
    pub(super) tag: u32,
    pub(super) entry: Entry,
    pub(super) path: PathBuf,
    /// Its process lives.
    pub(super) alive: bool,
}

impl Registration {
    /// Takes the first free marker. Until [`hold`](Self::hold) the file is empty: nobody counts us among those who
    /// hold faults.
    pub(super) fn new() -> Result<Self, EngineError> {
        let failed = |error| EngineError::Io { doing: "registering in /run/chaos", error };
        for tag in TAGS {
            folder::make(Path::new(DIRECTORY), folder::PASSABLE).map_err(failed)?;
            let path = path_of(tag);
            let opened = OpenOptions::new().read(true).write(true).create(true).truncate(false).open(&path);
            let Ok(mut file) = Flock::lock(opened.map_err(failed)?, FlockArg::LockExclusiveNonblock) else {
                continue;
            };
            // A file that somebody just removed is locked in vain.
            if !is_same(&file, &path) {
                continue;
            }
            if read(&mut file).pid != 0 {
                // Left by a process that was killed: `sweep` removes it, and what it made, first.
                continue;
            }
            return Ok(Self { file, path, tag, entry: Entry::default() });
        }
        let holders: Vec<String> = others()
            .iter()
            .map(|other| format!("{} (pid {})", other.entry.command, other.entry.pid))
            .collect();
        Err(EngineError::Refused(format!(
            "15 chaos processes hold faults already, more cannot be told apart: {}; end one, or all with `chaos stop --all`",
            holders.join(", ")
        )))
    }

    /// From now on we are one who holds faults.
    pub(super) fn hold(&mut self) -> Result<(), EngineError> {
        self.entry.pid = i32::try_from(std::process::id()).unwrap_or(0);
        self.entry.command = std::env::args().collect::<Vec<_>>().join(" ");
        self.write()
    }

    /// Our marker.
    pub(super) const fn tag(&self) -> u32 {
        self.tag
    }

    /// Notes which programs in filters are ours.
    pub(super) fn set_programs(&mut self, programs: Vec<u32>) -> Result<(), EngineError> {
        if self.entry.programs == programs {
            return Ok(());
        }
        self.entry.programs = programs;
        self.write()
    }

    fn write(&mut self) -> Result<(), EngineError> {
        let failed = |error| EngineError::Io { doing: "writing to /run/chaos", error };
        let text = serde_json::to_vec(&self.entry).map_err(|error| failed(error.into()))?;
        self.file.set_len(0).map_err(failed)?;
        self.file.rewind().map_err(failed)?;
        self.file.write_all(&text).map_err(failed)
    }
}

impl Drop for Registration {
    fn drop(&mut self) {
        let _ = fs::remove_file(&self.path);
        // Only when it is empty.
        let _ = fs::remove_dir(DIRECTORY);
    }
}

/// Every file but our own.
pub(super) fn others() -> Vec<Other> {
    let own = i32::try_from(std::process::id()).unwrap_or(0);
    TAGS.filter_map(|tag| {
        let path = path_of(tag);
        let mut file = OpenOptions::new().read(true).write(true).open(&path).ok()?;
        let entry = read(&mut file);
        let alive = Flock::lock(file, FlockArg::LockExclusiveNonblock).is_err();
        (entry.pid != own && entry.pid != 0).then_some(Other { tag, entry, path, alive })
    })
    .collect()
}

/// Whether somebody holds faults, or was killed when he did. Needs no privileges.
#[must_use]
pub fn is_anybody_registered() -> bool {
    TAGS.into_iter().any(|tag| path_of(tag).exists())
}

/// Removes a file that a killed process left.
pub(super) fn forget(other: &Other) {
    let _ = fs::remove_file(&other.path);
    let _ = fs::remove_dir(DIRECTORY);
}

fn path_of(tag: u32) -> PathBuf {
    Path::new(DIRECTORY).join(format!("agent-{tag}.json"))
}

fn read(file: &mut File) -> Entry {
    let mut text = String::new();
    if file.rewind().and_then(|()| file.read_to_string(&mut text)).is_err() {
        return Entry::default();
    }
    serde_json::from_str(&text).unwrap_or_default()
}

fn is_same(file: &File, path: &Path) -> bool {
    use std::os::unix::fs::MetadataExt as _;
    match (file.metadata(), fs::metadata(path)) {
        (Ok(open), Ok(named)) => (open.dev(), open.ino()) == (named.dev(), named.ino()),
        _ => false,
    }
}
