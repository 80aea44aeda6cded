//! One agent a folder of state: a locked file in it names the process.

use std::{
    fs::{self, File, OpenOptions},
    io::{self, Read as _, Write as _},
    os::unix::fs::{MetadataExt as _, OpenOptionsExt as _},
    path::{Path, PathBuf},
};

use anyhow::{Context as _, Result};
use nix::{
    errno::Errno,
    fcntl::{Flock, FlockArg},
};

use crate::{
    cli::Failure,
    folder::{self, PRIVATE},
};

const NAME: &str = "agent.lock";

/// Held while the agent lives; the kernel lets go when it is killed. Dropping it removes the file.
#[derive(Debug)]
pub(super) struct Only {
    folder: PathBuf,
    /// Held, not used.
    _file: Flock<File>,
}

impl Drop for Only {
    fn drop(&mut self) {
        let _ = fs::remove_file(self.folder.join(NAME));
        // Only when it is empty.
        let _ = fs::remove_dir(&self.folder);
    }
}

/// Takes the folder, and makes it if it is not there (mode 0700).
///
/// # Errors
/// Another agent has it (refused, naming its process), or it cannot be made or written to.
pub(super) fn take(folder: &Path) -> Result<Only> {
    let mend =
        "choose another --state-dir, such as /run/chaos/state (forgotten when the machine starts again)";
    let failed = |error: io::Error| {
        Failure::refused(format!("the agent cannot keep its state in {}: {error}", folder.display()))
            .mend(mend)
    };
    loop {
        folder::make(folder, PRIVATE).map_err(failed)?;
        let path = folder.join(NAME);
        let mut options = OpenOptions::new();
        let opened = options.read(true).write(true).create(true).truncate(false).mode(0o600).open(&path);
        match Flock::lock(opened.map_err(failed)?, FlockArg::LockExclusiveNonblock) {
            // A file that its owner just removed is locked in vain.
            Ok(file) if !is_there(&file, &path) => {}
            Ok(mut file) => {
                let pid = std::process::id().to_string();
                // A full disk keeps nobody from holding the lock; it only has no name.
                let _ = file.set_len(0).and_then(|()| file.write_all(pid.as_bytes()));
                return Ok(Only { folder: folder.to_owned(), _file: file });
            }
            Err((file, Errno::EWOULDBLOCK)) => return Err(taken(file, folder).into()),
            Err((_, errno)) => return Err(errno).with_context(|| format!("locking {}", path.display())),
        }
    }
}

fn taken(mut file: File, folder: &Path) -> Failure {
    let mut pid = String::new();
    let _ = file.read_to_string(&mut pid);
    let pid = if pid.is_empty() { "?" } else { pid.trim() };
    Failure::refused(format!(
        "an agent is there already: process {pid} keeps its state in {}",
        folder.display()
    ))
    .mend(format!("use it, end it with `kill {pid}`, or choose another --state-dir and --socket"))
}

fn is_there(file: &File, path: &Path) -> bool {
    match (file.metadata(), fs::metadata(path)) {
        (Ok(open), Ok(named)) => (open.dev(), open.ino()) == (named.dev(), named.ino()),
        _ => false,
    }
}
