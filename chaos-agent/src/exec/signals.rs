//! Signals while the command runs: held, told apart, and passed on where the command has not got them itself.
//!
//! The command stays in our process group. What the terminal sends (Ctrl-C, Ctrl-Z, a changed size, a hang-up)
//! goes to the whole group, so the command has it already and we only hold it; likewise what a process sends to the
//! group. What a process sends to us alone was meant for the command and is passed on.

use std::{
    io,
    os::fd::{AsFd, AsRawFd, BorrowedFd, OwnedFd},
};

use nix::{
    errno::Errno,
    sys::signalfd::{SfdFlags, SignalFd},
};
use procfs::process::Process;

use super::{inherited, witness::Witness};

/// What is held and passed on, apart from the real-time signals. SIGKILL and SIGSTOP cannot be; the signals of
/// a program's own errors (SIGSEGV, SIGABRT) stay ours.
const HELD: [i32; 14] = [
    libc::SIGHUP,
    libc::SIGINT,
    libc::SIGQUIT,
    libc::SIGUSR1,
    libc::SIGUSR2,
    libc::SIGALRM,
    libc::SIGTERM,
    libc::SIGCONT,
    libc::SIGTSTP,
    libc::SIGTTIN,
    libc::SIGTTOU,
    libc::SIGWINCH,
    libc::SIGPWR,
    libc::SIGCHLD,
];

/// Holds the signals of the calling thread until dropped. Threads started meanwhile inherit that; threads
/// started before must not take signals of the process.
#[derive(Debug)]
pub(super) struct Signals {
    descriptor: SignalFd,
    before: libc::sigset_t,
    sigchld_was_ignored: bool,
    /// A SIGINT or SIGQUIT of the terminal was held: the last one.
    from_terminal: Option<i32>,
    witness: Witness,
}

impl Signals {
    /// Blocks them and opens the descriptor they are read from.
    pub(super) fn hold() -> io::Result<Self> {
        let held = set_of(HELD.into_iter().chain(libc::SIGRTMIN()..=libc::SIGRTMAX()));
        // SAFETY: an all-zero signal set is a valid (empty) one on Linux.
        let mut before: libc::sigset_t = unsafe { std::mem::zeroed() };
        // SAFETY: both sets live across the call.
        let errno = unsafe { libc::pthread_sigmask(libc::SIG_BLOCK, &raw const held, &raw mut before) };
        if errno != 0 {
            return Err(io::Error::from_raw_os_error(errno));
        }
        let sigchld_was_ignored = inherited::is_ignored(libc::SIGCHLD);
        if sigchld_was_ignored {
            // An ignored SIGCHLD makes the kernel reap children, and the exit code would be lost (wait(2)).
            // SAFETY: SIG_DFL is a valid disposition.
            unsafe { libc::signal(libc::SIGCHLD, libc::SIG_DFL) };
        }
        let witness = Witness::start(&held)?;
        // SAFETY: `held` was initialised by sigemptyset and sigaddset.
        let held = unsafe { nix::sys::signal::SigSet::from_sigset_t_unchecked(held) };
        let descriptor = SignalFd::with_flags(&held, SfdFlags::SFD_CLOEXEC | SfdFlags::SFD_NONBLOCK)?;
        Ok(Self { descriptor, before, sigchld_was_ignored, from_terminal: None, witness })
    }

    /// The mask that was in force before.
    pub(super) fn mask_before(&self) -> libc::sigset_t {
        self.before
    }

    /// Whether SIGCHLD was ignored before.
    pub(super) fn sigchld_was_ignored(&self) -> bool {
        self.sigchld_was_ignored
    }

    /// The SIGINT or SIGQUIT that the terminal sent to the whole group, if one was held.
    pub(super) fn held_from_terminal(&self) -> Option<i32> {
        self.from_terminal
    }

    /// Readable when a signal is held.
    pub(super) fn as_fd(&self) -> BorrowedFd<'_> {
        self.descriptor.as_fd()
    }

    /// Takes the held signals and passes on to the command those that were sent to us alone.
    pub(super) fn pass_on(&mut self, child: libc::pid_t, pidfd: &OwnedFd) -> io::Result<()> {
        while let Some(signal) = self.descriptor.read_signal()? {
            let number = signal.ssi_signo.cast_signed();
            let from_kernel = signal.ssi_code == libc::SI_KERNEL;
            match number {
                libc::SIGCHLD => {}
                // The shell's `fg` and `bg` continue the whole group; a running command must not see it twice.
                libc::SIGCONT if !is_stopped(child) => {}
                libc::SIGINT | libc::SIGQUIT if from_kernel => self.from_terminal = Some(number),
                libc::SIGCONT => send(pidfd, number)?,
                _ if from_kernel || self.witness.saw(number) => {}
                _ => send(pidfd, number)?,
            }
        }
        Ok(())
    }
}

impl Drop for Signals {
    fn drop(&mut self) {
        // What came after the command's end was meant for it; it must not kill us while we clean up.
        while let Ok(Some(_)) = self.descriptor.read_signal() {}
        if self.sigchld_was_ignored {
            // SAFETY: SIG_IGN is a valid disposition.
            unsafe { libc::signal(libc::SIGCHLD, libc::SIG_IGN) };
        }
        // SAFETY: the mask was filled by the kernel; a null old mask is allowed.
        unsafe { libc::pthread_sigmask(libc::SIG_SETMASK, &raw const self.before, std::ptr::null_mut()) };
    }
}

/// Stops this process as the command was stopped, and returns when it was continued. Where nobody could
/// continue us (no job-control shell above), it does nothing, as the kernel does for SIGTSTP (setpgid(2),
/// "orphaned process group").
pub(super) fn stop_like(signal: i32) {
    if group_is_orphaned() {
        return;
    }
    let only = set_of([signal]);
    // SAFETY: sends a signal to this process alone; no memory is involved.
    unsafe { libc::kill(std::process::id().cast_signed(), signal) };
    // SAFETY: unblocking delivers the stop here; a null old mask is allowed.
    unsafe { libc::pthread_sigmask(libc::SIG_UNBLOCK, &raw const only, std::ptr::null_mut()) };
    // SAFETY: as above; SIGSTOP in the set has no effect.
    unsafe { libc::pthread_sigmask(libc::SIG_BLOCK, &raw const only, std::ptr::null_mut()) };
}

/// Ends this process by the signal that ended the command, so that a shell's loop ends too (bash goes on when a
/// command exits with 130, and stops when it died of SIGINT). No core file of ours is written.
pub(super) fn die_of(signal: i32) {
    // SAFETY: prctl(PR_SET_DUMPABLE) takes plain numbers.
    unsafe { libc::prctl(libc::PR_SET_DUMPABLE, 0, 0, 0, 0) };
    // SAFETY: SIG_DFL is a valid disposition.
    unsafe { libc::signal(signal, libc::SIG_DFL) };
    let only = set_of([signal]);
    // SAFETY: sends a signal to this process alone.
    unsafe { libc::kill(std::process::id().cast_signed(), signal) };
    // SAFETY: unblocking delivers it; a null old mask is allowed.
    unsafe { libc::pthread_sigmask(libc::SIG_UNBLOCK, &raw const only, std::ptr::null_mut()) };
}

/// True when no ancestor in our session, outside our process group, could continue us.
fn group_is_orphaned() -> bool {
    let Some(own) = Process::myself().ok().and_then(|own| own.stat().ok()) else { return true };
    let mut parent = own.ppid;
    while let Some(stat) = Process::new(parent).ok().and_then(|process| process.stat().ok()) {
        if stat.session != own.session {
            return true;
        }
        if stat.pgrp != own.pgrp {
            return false;
        }
        parent = stat.ppid;
    }
    true
}

fn is_stopped(pid: libc::pid_t) -> bool {
    Process::new(pid).and_then(|process| process.stat()).is_ok_and(|stat| stat.state == 'T')
}

/// `pidfd_send_signal(2)`; a command that has just ended needs no signal any more.
fn send(pidfd: &OwnedFd, signal: i32) -> io::Result<()> {
    let none = std::ptr::null::<libc::siginfo_t>();
    // SAFETY: an open pidfd, and a null siginfo, which means what kill(2) would fill in.
    let result = unsafe { libc::syscall(libc::SYS_pidfd_send_signal, pidfd.as_raw_fd(), signal, none, 0) };
    match Errno::result(result) {
        Ok(_) | Err(Errno::ESRCH) => Ok(()),
        Err(errno) => Err(errno.into()),
    }
}

fn set_of(signals: impl IntoIterator<Item = i32>) -> libc::sigset_t {
    // SAFETY: an all-zero signal set is a valid (empty) one on Linux.
    let mut set: libc::sigset_t = unsafe { std::mem::zeroed() };
    for signal in signals {
        // SAFETY: a live set; a number that is no signal is refused and leaves it as it is.
        unsafe { libc::sigaddset(&raw mut set, signal) };
    }
    set
}
