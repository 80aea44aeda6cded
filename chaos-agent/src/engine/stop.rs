//! The lever: ends every fault of this machine, whoever set it, whatever state anything is in.

use std::{
    io,
    os::fd::{AsFd as _, AsRawFd as _, FromRawFd as _, OwnedFd},
    time::{Duration, Instant},
};

use nix::poll::{PollFd, PollFlags, PollTimeout, poll};

use super::{
    registry,
    sweep::{everywhere, sweep},
    types::{EngineError, StopReport},
};

/// How long an agent may take to go by itself.
const PATIENCE: Duration = Duration::from_secs(2);

/// Ends every fault of this machine and removes everything that is ours.
///
/// `ask` is called when no packet is touched any more, before processes are ended: the process whose number it returns
/// has let go by itself, and lives on. It must not take long.
pub fn stop_all(ask: impl FnOnce() -> Option<i32>) -> Result<StopReport, EngineError> {
    let mut report = StopReport::default();
    // The generation word first: from here on no packet is touched, even if its agent hangs.
    let disarmed = crate::datapath::disarm_all()?;
    if disarmed > 0 {
        report.ended.push(format!("{disarmed} set(s) of faults disarmed in the kernel"));
    }
    let spared = ask();
    let holds = |other: &registry::Other| other.alive && Some(other.entry.pid) != spared;
    for other in registry::others().into_iter().filter(holds) {
        let how =
            end(other.entry.pid).map_err(|error| EngineError::Io { doing: "ending an agent", error })?;
        report.ended.push(format!("{} (pid {}): {how}", other.entry.command, other.entry.pid));
    }
    report.removed = sweep();
    report.removed.extend(everywhere());
    Ok(report)
}

/// Ends a process; asks first. The pid is one whose file is locked, so it cannot be another's.
fn end(pid: i32) -> io::Result<&'static str> {
    // SAFETY: plain numbers; the call returns a new descriptor or -1.
    let result = unsafe { libc::syscall(libc::SYS_pidfd_open, pid, 0) };
    let Ok(raw @ 0..) = i32::try_from(result) else { return Ok("gone already") };
    // SAFETY: a new descriptor that nobody else has.
    let pidfd = unsafe { OwnedFd::from_raw_fd(raw) };
    send(&pidfd, libc::SIGTERM)?;
    // A stopped process takes signals only when it goes on.
    send(&pidfd, libc::SIGCONT)?;
    if ended_within(&pidfd, PATIENCE) {
        return Ok("ended");
    }
    send(&pidfd, libc::SIGKILL)?;
    Ok(if ended_within(&pidfd, PATIENCE) { "killed" } else { "does not end: it waits in the kernel" })
}

fn send(pidfd: &OwnedFd, signal: i32) -> io::Result<()> {
    let nothing = std::ptr::null::<libc::siginfo_t>();
    // SAFETY: the descriptor is open, and without a structure the kernel fills its own.
    let sent = unsafe { libc::syscall(libc::SYS_pidfd_send_signal, pidfd.as_raw_fd(), signal, nothing, 0) };
    match sent {
        0 => Ok(()),
        _ => match io::Error::last_os_error() {
            error if error.raw_os_error() == Some(libc::ESRCH) => Ok(()),
            error => Err(error),
        },
    }
}

fn ended_within(pidfd: &OwnedFd, patience: Duration) -> bool {
    let until = Instant::now() + patience;
    loop {
        let left = until.saturating_duration_since(Instant::now());
        let timeout = PollTimeout::try_from(left).unwrap_or(PollTimeout::MAX);
        let mut fds = [PollFd::new(pidfd.as_fd(), PollFlags::POLLIN)];
        match poll(&mut fds, timeout) {
            Ok(0) => return false,
            Ok(_) => return true,
            Err(_) if left.is_zero() => return false,
            Err(_) => {}
        }
    }
}
