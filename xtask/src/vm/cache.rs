//! What was fetched once lies outside the repository.

use std::{
    env, fs,
    path::{Path, PathBuf},
};

use anyhow::{Context as _, Result};
use nix::fcntl::{Flock, FlockArg};

/// The folder: below `$XDG_CACHE_HOME`, or else `~/.cache`.
pub(super) fn folder() -> Result<PathBuf> {
    let told = env::var_os("XDG_CACHE_HOME").map(PathBuf::from).filter(|path| path.is_absolute());
    let place = told.or_else(|| env::home_dir().map(|home| home.join(".cache")));
    Ok(place.context("neither XDG_CACHE_HOME nor HOME is set")?.join("chaos/vm"))
}

/// Fills a folder with what it shall have; one that was filled in part only is emptied first.
pub(super) fn afresh(folder: &Path, fill: impl FnOnce(&Path) -> Result<()>) -> Result<()> {
    if folder.exists() {
        fs::remove_dir_all(folder).with_context(|| format!("emptying {}", folder.display()))?;
    }
    fs::create_dir_all(folder).with_context(|| format!("making {}", folder.display()))?;
    fill(folder)
}

/// Held while a machine runs: two would measure each other, and two fetches fill one folder.
pub(super) fn lock() -> Result<Flock<fs::File>> {
    let folder = folder()?;
    fs::create_dir_all(&folder).with_context(|| format!("making {}", folder.display()))?;
    let path = folder.join("lock");
    let mut file = fs::File::create(&path).with_context(|| path.display().to_string())?;
    for operation in [FlockArg::LockExclusiveNonblock, FlockArg::LockExclusive] {
        match Flock::lock(file, operation) {
            Ok(lock) => return Ok(lock),
            Err((unlocked, _)) => file = unlocked,
        }
        eprintln!("waiting for another machine to end ({})", path.display());
    }
    anyhow::bail!("{} cannot be locked", path.display())
}
