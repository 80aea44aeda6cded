//! Tells a signal to the whole process group from one to us alone.
//!
//! The command shares our process group. After `kill %1` or `kill -- -PGID` it has the signal already, and passing
//! ours on would deliver it twice (a server that takes the second SIGTERM for "now, at once" would notice). A
//! signal says who sent it but not to whom, so a process of the group that nobody sends anything to by itself
//! reports what it gets: a signal it got too went to the group.

use std::{
    io,
    os::fd::{AsFd, AsRawFd, OwnedFd, RawFd},
    time::{Duration, Instant},
};

use nix::{
    errno::Errno,
    poll::{PollFd, PollFlags, PollTimeout, poll},
    sys::socket::{AddressFamily, MsgFlags, SockFlag, SockType, recv, socketpair},
};

/// How long a report is waited for: the kernel signals all of a group at once, then the witness must run.
const REPORT_WITHIN_MS: u8 = 20;

/// A report that nobody asked for (two signals had become one for us) counts no longer than this.
const REPORT_COUNTS: Duration = Duration::from_millis(500);

/// The process, and what it reported lately.
#[derive(Debug)]
pub(super) struct Witness {
    pid: libc::pid_t,
    socket: OwnedFd,
    reports: Vec<(i32, Instant)>,
}

impl Witness {
    /// Forks it. The signals in `held` must be blocked already, so that it is born with them blocked.
    pub(super) fn start(held: &libc::sigset_t) -> io::Result<Self> {
        let (ours, theirs) =
            socketpair(AddressFamily::Unix, SockType::SeqPacket, None, SockFlag::SOCK_CLOEXEC)?;
        let parent = std::process::id().cast_signed();
        // SAFETY: the child makes only system calls and never returns.
        match unsafe { libc::fork() } {
            -1 => Err(io::Error::last_os_error()),
            0 => run(held, theirs.as_raw_fd(), parent),
            pid => Ok(Self { pid, socket: ours, reports: Vec::new() }),
        }
    }

    /// Whether this signal, which has just come to us, went to the whole group.
    pub(super) fn saw(&mut self, signal: i32) -> bool {
        self.take_reports();
        if !self.reports.iter().any(|(number, _)| *number == signal) {
            let mut watched = [PollFd::new(self.socket.as_fd(), PollFlags::POLLIN)];
            // Interrupted or failed is as good as nothing reported: the signal is passed on.
            let _ = poll(&mut watched, PollTimeout::from(REPORT_WITHIN_MS));
            self.take_reports();
        }
        let found = self.reports.iter().position(|(number, _)| *number == signal);
        found.map(|index| self.reports.swap_remove(index)).is_some()
    }

    fn take_reports(&mut self) {
        let mut number = [0; 4];
        while recv(self.socket.as_raw_fd(), &mut number, MsgFlags::MSG_DONTWAIT) == Ok(number.len()) {
            self.reports.push((i32::from_ne_bytes(number), Instant::now()));
        }
        self.reports.retain(|(_, at)| at.elapsed() < REPORT_COUNTS);
    }
}

impl Drop for Witness {
    fn drop(&mut self) {
        // SAFETY: the pid is our unreaped child, so it cannot be another's.
        unsafe { libc::kill(self.pid, libc::SIGKILL) };
        let mut status = 0;
        loop {
            // SAFETY: as above; `status` outlives the call.
            let waited = unsafe { libc::waitpid(self.pid, &raw mut status, 0) };
            if waited != -1 || Errno::last() != Errno::EINTR {
                return;
            }
        }
    }
}

/// The witness's life.
fn run(held: &libc::sigset_t, socket: RawFd, parent: libc::pid_t) -> ! {
    const SOCKET: RawFd = 0;
    // SAFETY: takes a terminated name of less than 16 bytes.
    unsafe { libc::prctl(libc::PR_SET_NAME, c"chaos-witness".as_ptr()) };
    // SAFETY: plain numbers.
    unsafe { libc::prctl(libc::PR_SET_PDEATHSIG, libc::SIGKILL) };
    // Pipes and terminals of the caller must not be kept open, so all descriptors but one go.
    // SAFETY: the descriptors are copies in this process that nothing else uses.
    unsafe { libc::dup2(socket, SOCKET) };
    // SAFETY: as above.
    unsafe { libc::syscall(libc::SYS_close_range, SOCKET + 1, libc::c_uint::MAX, 0) };
    // SAFETY: a terminated path; where it fails the directory stays in use, which harms nobody.
    unsafe { libc::chdir(c"/".as_ptr()) };
    // SAFETY: cannot fail.
    while unsafe { libc::getppid() } == parent {
        // SAFETY: all-zero is a valid siginfo_t.
        let mut info: libc::siginfo_t = unsafe { std::mem::zeroed() };
        // SAFETY: both live across the call; the signals of the set are blocked.
        let signal = unsafe { libc::sigwaitinfo(held, &raw mut info) };
        if signal <= 0 || info.si_code == libc::SI_KERNEL {
            continue;
        }
        let bytes = signal.to_ne_bytes();
        // SAFETY: pointer and length are of one live array.
        let sent = unsafe {
            libc::send(SOCKET, bytes.as_ptr().cast(), bytes.len(), libc::MSG_NOSIGNAL | libc::MSG_DONTWAIT)
        };
        if sent < 0 && Errno::last() == Errno::EPIPE {
            break;
        }
    }
    // SAFETY: ends this copy of the process without running its exit handlers, which belong to the parent.
    unsafe { libc::_exit(0) }
}
