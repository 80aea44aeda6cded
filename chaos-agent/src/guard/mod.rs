//! The guard: a process that outlives us only to delete what we made.
//!
//! With tcx everything goes with the process, but filters on a clsact qdisc and the cgroup of a command outlive a
//! `kill -9`. The guard is forked early, holds a pidfd of its parent and one socket, and sleeps. Jobs are sent to
//! it before the thing is made and withdrawn after it was removed; when the parent is gone, whatever the way, it
//! does the jobs that are left and ends.
//!
//! It is a fork without execve(2): no program file has to be found again, and a library user (a test) has one
//! too. It allocates after the fork, which the C libraries allow (glibc since 2.24, musl since 1.2.2), and shares
//! no lock with the parent otherwise: it neither logs nor prints.

mod process;

use std::{
    io::{self, IoSlice},
    os::fd::{AsFd, AsRawFd, BorrowedFd, FromRawFd, OwnedFd, RawFd},
    path::PathBuf,
    sync::{
        Arc,
        atomic::{AtomicU64, AtomicUsize, Ordering},
    },
    time::Duration,
};

use nix::{
    errno::Errno,
    poll::{PollFd, PollFlags, PollTimeout, poll},
    sys::{
        signal::{SigSet, SigmaskHow},
        socket::{AddressFamily, ControlMessage, MsgFlags, SockFlag, SockType, sendmsg, socketpair},
        wait::{Id, WaitPidFlag, waitid},
    },
};
use serde::{Deserialize, Serialize};

use crate::net::tc::OwnFilter;

/// How long a clean end waits for the guard to leave.
const FAREWELL: Duration = Duration::from_secs(1);

/// Something to delete when we are gone.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub enum Job {
    /// Remove a cgroup as soon as no process is left in it, however long that takes. Nothing in it is killed.
    RemoveCgroup {
        /// Its directory, absolute.
        directory: PathBuf,
    },
    /// Remove a traffic filter if it still has our program. Registered with the namespace of its interface, before
    /// the filter is attached.
    RemoveFilter {
        /// Which one.
        filter: OwnFilter,
        /// Remove the clsact qdisc too, if it is empty after all filters of ours are gone. Only true when we add it:
        /// look for one ([`crate::net::tc::ingress_qdisc`]), register, then add.
        remove_clsact: bool,
    },
}

#[derive(Serialize, Deserialize)]
enum Message {
    Register { id: u64, job: Job },
    Unregister { id: u64 },
    Finish,
}

/// The guard process, as its parent sees it. Clones share it; when the last is dropped it does the jobs that are
/// left (a cgroup in which something still runs) and ends.
#[derive(Debug, Clone)]
pub struct Guard(Arc<Inner>);

#[derive(Debug)]
struct Inner {
    socket: OwnedFd,
    pid: libc::pid_t,
    pidfd: OwnedFd,
    next_id: AtomicU64,
    outstanding: AtomicUsize,
}

/// A job the guard holds. Dropping this leaves the job with the guard: what could not be removed now is removed
/// when we are gone.
#[derive(Debug)]
#[must_use = "unregister it when the thing has been removed"]
pub struct Registration {
    guard: Guard,
    id: u64,
}

impl Guard {
    /// Forks the guard. Early is best: it keeps a copy of our memory as of now, and every shared mapping.
    pub fn start() -> io::Result<Self> {
        let (ours, theirs) =
            socketpair(AddressFamily::Unix, SockType::SeqPacket, None, SockFlag::SOCK_CLOEXEC)?;
        let parent = pidfd_open(std::process::id().cast_signed())?;
        // The guard keeps all signals blocked for good: a service manager or a Ctrl-C sends one to every process of
        // a unit or group, and the guard is needed just then.
        let before = SigSet::all().thread_swap_mask(SigmaskHow::SIG_SETMASK)?;
        // SAFETY: the child calls only `process::run`, which allocates but takes no other lock (module's head).
        let forked = unsafe { libc::fork() };
        if forked == 0 {
            process::run(&theirs, &parent);
        }
        let failure = io::Error::last_os_error();
        before.thread_set_mask()?;
        match forked {
            -1 => Err(failure),
            pid => {
                let pidfd = pidfd_open(pid)?;
                let (next_id, outstanding) = (AtomicU64::new(0), AtomicUsize::new(0));
                Ok(Self(Arc::new(Inner { socket: ours, pid, pidfd, next_id, outstanding })))
            }
        }
    }

    /// Process id of the guard.
    #[must_use]
    pub fn pid(&self) -> i32 {
        self.0.pid
    }

    /// False once somebody killed it: from then on only leases end what we leave behind.
    #[must_use]
    pub fn is_alive(&self) -> bool {
        !ended_within(&self.0.pidfd, Duration::ZERO)
    }

    /// Says that this process is about to end: the guard does the jobs that are left, and when there is none it
    /// has left when this returns. Dropping the last clone does the same.
    pub fn finish(&self) {
        self.0.finish();
    }

    /// Gives the guard a job; call it before making the thing. It is safe with the guard when this returns, even
    /// if we are killed next. `namespace` is kept open until the job is withdrawn, which keeps a deleted network
    /// namespace alive: withdraw it when the target goes.
    ///
    /// # Errors
    /// `EPIPE` or `ECONNRESET` when the guard has been killed.
    pub fn register(&self, job: Job, namespace: Option<BorrowedFd<'_>>) -> io::Result<Registration> {
        let id = self.0.next_id.fetch_add(1, Ordering::Relaxed);
        self.0.send(&Message::Register { id, job }, namespace)?;
        self.0.outstanding.fetch_add(1, Ordering::Relaxed);
        Ok(Registration { guard: self.clone(), id })
    }
}

impl Registration {
    /// Withdraws the job.
    pub fn unregister(self) {
        // A guard that was killed has no job any more.
        let _ = self.guard.0.send(&Message::Unregister { id: self.id }, None);
        self.guard.0.outstanding.fetch_sub(1, Ordering::Relaxed);
    }
}

impl Inner {
    fn finish(&self) {
        // One that was killed cannot be told.
        let _ = self.send(&Message::Finish, None);
        // With jobs left it lives on, and init inherits it.
        let patience = if self.outstanding.load(Ordering::Relaxed) == 0 { FAREWELL } else { Duration::ZERO };
        ended_within(&self.pidfd, patience);
        // Reaped if it has ended; fails without harm if that happened before.
        let _ = waitid(Id::PIDFd(self.pidfd.as_fd()), WaitPidFlag::WEXITED | WaitPidFlag::WNOHANG);
    }

    fn send(&self, message: &Message, namespace: Option<BorrowedFd<'_>>) -> io::Result<()> {
        let bytes = serde_json::to_vec(message)?;
        let descriptors: Vec<RawFd> = namespace.iter().map(AsRawFd::as_raw_fd).collect();
        let control = [ControlMessage::ScmRights(&descriptors)];
        let control = if descriptors.is_empty() { &[][..] } else { &control };
        let (socket, data) = (self.socket.as_raw_fd(), [IoSlice::new(&bytes)]);
        loop {
            match sendmsg::<()>(socket, &data, control, MsgFlags::MSG_NOSIGNAL, None) {
                Err(Errno::EINTR) => {}
                sent => return sent.map(drop).map_err(io::Error::from),
            }
        }
    }
}

impl Drop for Inner {
    fn drop(&mut self) {
        self.finish();
    }
}

fn pidfd_open(pid: libc::pid_t) -> io::Result<OwnedFd> {
    // SAFETY: plain numbers.
    let descriptor = Errno::result(unsafe { libc::syscall(libc::SYS_pidfd_open, pid, 0) })?;
    let descriptor = RawFd::try_from(descriptor).map_err(io::Error::other)?;
    // SAFETY: a new descriptor (close-on-exec), which nobody else owns.
    Ok(unsafe { OwnedFd::from_raw_fd(descriptor) })
}

/// Whether the process ends within this time.
fn ended_within(pidfd: &OwnedFd, patience: Duration) -> bool {
    let timeout_ms = u16::try_from(patience.as_millis()).unwrap_or(u16::MAX);
    let mut watched = [PollFd::new(pidfd.as_fd(), PollFlags::POLLIN)];
    matches!(poll(&mut watched, PollTimeout::from(timeout_ms)), Ok(count) if count > 0)
}
