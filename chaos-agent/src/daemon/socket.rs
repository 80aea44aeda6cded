//! The agent's Unix socket: one agent a path, root and one group may ask.

use std::{
    fs, io,
    os::unix::{fs::PermissionsExt as _, net::UnixStream},
    path::{Path, PathBuf},
};

use anyhow::{Context as _, Result};
use nix::{
    sys::socket::{getsockopt, sockopt::PeerCredentials},
    unistd::{Group, chown},
};
use tokio::net::UnixListener;

use crate::cli::Failure;

/// The file of the socket; dropping it removes it.
#[derive(Debug)]
pub(super) struct Socket(PathBuf);

impl Socket {
    pub(super) fn path(&self) -> &Path {
        &self.0
    }
}

impl Drop for Socket {
    fn drop(&mut self) {
        let _ = fs::remove_file(&self.0);
        if let Some(folder) = self.0.parent() {
            // Only when it is empty.
            let _ = fs::remove_dir(folder);
        }
    }
}

/// Listens at `path`, mode 0660, for root and `group` if there is one.
///
/// # Errors
/// Another agent listens there (refused, naming its process), or the path cannot be made.
pub(super) fn listen(path: &Path, group: &str) -> Result<(Socket, UnixListener)> {
    match UnixStream::connect(path) {
        Ok(other) => {
            let pid = getsockopt(&other, PeerCredentials).map_or(0, |peer| peer.pid());
            return Err(Failure::refused(format!(
                "an agent is there already: process {pid} listens at {}",
                path.display()
            ))
            .mend(format!("use it, end it with `kill {pid}`, or choose another --socket"))
            .into());
        }
        Err(error) if error.kind() == io::ErrorKind::ConnectionRefused => {
            // Left by an agent that was killed.
            fs::remove_file(path).with_context(|| format!("removing the old {}", path.display()))?;
        }
        Err(_) => {}
    }
    if let Some(folder) = path.parent() {
        fs::create_dir_all(folder).with_context(|| format!("making {}", folder.display()))?;
    }
    // Nobody but us may connect until mode and group are right.
    let before = nix::sys::stat::umask(nix::sys::stat::Mode::from_bits_truncate(0o177));
    let listener = UnixListener::bind(path).with_context(|| format!("listening at {}", path.display()));
    nix::sys::stat::umask(before);
    let (socket, listener) = (Socket(path.to_owned()), listener?);
    if let Ok(Some(group)) = Group::from_name(group) {
        chown(path, None, Some(group.gid)).context("giving the socket to its group")?;
        fs::set_permissions(path, fs::Permissions::from_mode(0o660)).context("the socket's mode")?;
    }
    Ok((socket, listener))
}
