//! The agent's Unix socket: one agent a path, root and one group may ask.

use std::{
    fs, io,
    os::unix::{fs::PermissionsExt as _, net::UnixStream},
    path::{Path, PathBuf},
};

use anyhow::{Context as _, Result};
use nix::{
    sys::{
        socket::{getsockopt, sockopt::PeerCredentials},
        stat::{Mode, fchmod},
    },
    unistd::{Group, chown},
};
use tokio::net::{UnixListener, UnixSocket};

use crate::{cli::Failure, folder};

/// Connections that wait to be accepted, as the standard library's own.
const BACKLOG: u32 = 128;

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
    if let Some(parent) = path.parent() {
        folder::make(parent, folder::PASSABLE).with_context(|| format!("making {}", parent.display()))?;
    }
    let listener = bind(path).with_context(|| format!("listening at {}", path.display()))?;
    let socket = Socket(path.to_owned());
    if let Ok(Some(group)) = Group::from_name(group) {
        chown(path, None, Some(group.gid)).context("giving the socket to its group")?;
        fs::set_permissions(path, fs::Permissions::from_mode(0o660)).context("the socket's mode")?;
    }
    Ok((socket, listener))
}

/// Nobody but us may connect until mode and group are right: a socket's own mode is that of the file it is bound to
/// (`unix_bind_bsd`, `net/unix/af_unix.c`, Linux 6.1).
fn bind(path: &Path) -> io::Result<UnixListener> {
    let socket = UnixSocket::new_stream()?;
    fchmod(&socket, Mode::S_IRUSR | Mode::S_IWUSR)?;
    socket.bind(path)?;
    socket.listen(BACKLOG)
}
