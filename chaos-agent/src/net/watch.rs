//! Tells when devices or addresses of a namespace changed.

use std::{
    io,
    os::fd::{AsFd, BorrowedFd},
};

use netlink_sys::{Socket, SocketAddr, protocols::NETLINK_ROUTE};

use super::netlink::NetlinkError;

/// Notices changes of links and addresses in the namespace where it was opened.
///
/// It says that something changed, not what: notices can be lost, so whoever is told lists again.
pub struct LinkWatch {
    socket: Socket,
}

impl LinkWatch {
    /// Starts to watch the calling thread's namespace. List *after* this, or a change falls in between.
    pub fn open() -> Result<Self, NetlinkError> {
        open()
            .map(|socket| Self { socket })
            .map_err(|source| NetlinkError::Socket { what: "watching network devices", source })
    }

    /// Reads all notices that wait, without blocking. True if there was one, or if some were lost.
    pub fn changed(&mut self) -> Result<bool, NetlinkError> {
        let mut changed = false;
        let mut buffer = [0_u8; 8];
        loop {
            // The content does not matter: the rest of each datagram is dropped.
            let mut free = buffer.as_mut_slice();
            match self.socket.recv(&mut free, libc::MSG_DONTWAIT) {
                Ok(_) => changed = true,
                Err(error) if error.kind() == io::ErrorKind::WouldBlock => return Ok(changed),
                Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
                // The queue overflowed; reported once.
                Err(error) if error.raw_os_error() == Some(libc::ENOBUFS) => changed = true,
                Err(source) => {
                    return Err(NetlinkError::Socket { what: "watching network devices", source });
                }
            }
        }
    }
}

impl AsFd for LinkWatch {
    /// Readable when [`LinkWatch::changed`] would say yes.
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.socket.as_fd()
    }
}

fn open() -> io::Result<Socket> {
    let mut socket = Socket::new(NETLINK_ROUTE)?;
    let groups = libc::RTMGRP_LINK | libc::RTMGRP_IPV4_IFADDR | libc::RTMGRP_IPV6_IFADDR;
    socket.bind(&SocketAddr::new(0, u32::try_from(groups).map_err(io::Error::other)?))?;
    socket.set_non_blocking(true)?;
    Ok(socket)
}
