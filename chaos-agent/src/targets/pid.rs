//! `pid:1234`: the namespace a process is in.

use std::{
    io,
    os::fd::{AsFd, FromRawFd, OwnedFd, RawFd},
    time::Instant,
};

use nix::{
    errno::Errno,
    poll::{PollFd, PollFlags, PollTimeout, poll},
};

use super::{Depth, Kind, NamespaceRef, Resolved, TargetError, identity, watch::SCAN_INTERVAL};
use crate::netns::{Netns, NetnsError, NetnsId};

/// The namespace of one process, until that process ends: its number may then become another's.
pub(super) struct Process {
    pid: i32,
    handle: OwnedFd,
    found: Option<NetnsId>,
    ended: bool,
    next_look: Instant,
}

impl Process {
    pub(super) fn new(pid: i32) -> Result<Self, TargetError> {
        // The number of a thread that is no process is EINVAL or ENOENT, by kernel.
        let handle = pidfd_open(pid).map_err(|errno| match errno.raw_os_error() {
            Some(libc::ESRCH | libc::EINVAL | libc::ENOENT) => {
                TargetError::Netns(NetnsError::NoSuchProcess(pid))
            }
            _ => TargetError::Pid { pid, source: errno },
        })?;
        Ok(Self { pid, handle, found: None, ended: false, next_look: Instant::now() })
    }

    fn has_ended(&self) -> bool {
        let mut watched = [PollFd::new(self.handle.as_fd(), PollFlags::POLLIN)];
        // An error here would be ours, not the process's end; the next call asks again.
        matches!(poll(&mut watched, PollTimeout::ZERO), Ok(count) if count > 0)
    }
}

impl Kind for Process {
    fn find(&mut self, depth: Depth) -> Result<Resolved, TargetError> {
        self.next_look = Instant::now() + SCAN_INTERVAL;
        let netns = Netns::by_pid(self.pid);
        // In this order: only if it still lives was the namespace opened its own.
        if self.has_ended() {
            self.ended = true;
            return Err(NetnsError::NoSuchProcess(self.pid).into());
        }
        let netns = netns?;
        self.found = Some(netns.id());
        let identities = identity::of_namespace(&netns, depth)?;
        let origin = format!("pid {}", self.pid);
        Ok(Resolved { namespaces: vec![NamespaceRef { netns, origin }], cgroups: Vec::new(), identities })
    }

    fn stale(&mut self) -> bool {
        if self.ended {
            return false;
        }
        if self.has_ended() {
            return true;
        }
        // A process may enter another namespace; that is rare.
        let now = Instant::now();
        if now < self.next_look {
            return false;
        }
        self.next_look = now + SCAN_INTERVAL;
        NetnsId::of_pid(self.pid) != self.found
    }
}

/// `pidfd_open(2)`, from Linux 5.3; close-on-exec by itself.
fn pidfd_open(pid: i32) -> io::Result<OwnedFd> {
    // SAFETY: two integers.
    let result = unsafe { libc::syscall(libc::SYS_pidfd_open, pid, 0) };
    let fd = RawFd::try_from(Errno::result(result)?).map_err(io::Error::other)?;
    // SAFETY: the kernel has just made this descriptor for us, and nobody else knows it.
    Ok(unsafe { OwnedFd::from_raw_fd(fd) })
}
