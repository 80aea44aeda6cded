//! Folders of ours, with the mode they are meant to have whatever umask we were started with.

use std::{
    fs, io,
    os::unix::fs::{DirBuilderExt as _, PermissionsExt as _},
    path::Path,
};

/// A folder that others may look into and go through.
pub(crate) const PASSABLE: u32 = 0o755;
/// A folder for us alone.
pub(crate) const PRIVATE: u32 = 0o700;

/// Makes the folder with that mode where it is missing, and those above it passable. What is there stays as it is.
pub(crate) fn make(folder: &Path, mode: u32) -> io::Result<()> {
    if folder.as_os_str().is_empty() || folder.is_dir() {
        return Ok(());
    }
    if let Some(above) = folder.parent() {
        make(above, PASSABLE)?;
    }
    match fs::DirBuilder::new().mode(PRIVATE).create(folder) {
        // Made by somebody else in between.
        Err(error) if error.kind() == io::ErrorKind::AlreadyExists && folder.is_dir() => Ok(()),
        outcome => outcome.and_then(|()| fs::set_permissions(folder, fs::Permissions::from_mode(mode))),
    }
}
