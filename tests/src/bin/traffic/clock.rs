//! Time as the records have it, waiting for a point in time, and the way a part says that it is ready.

use std::io::Write;

use anyhow::{Context, Result};
use nix::{
    sys::time::TimeSpec,
    time::{ClockId, ClockNanosleepFlags, clock_gettime, clock_nanosleep},
};

/// Lets us run as soon as we can (`SCHED_FIFO`, the lowest real-time priority), where that is permitted: what
/// else runs on this machine is not to be measured. For parts that mostly wait.
pub(crate) fn prefer() {
    // musl's function of this name only says that it does not exist; the kernel takes a plain integer.
    let priority: libc::c_int = 1;
    // SAFETY: the kernel reads one `struct sched_param` (an `int`) at the pointer, which lives until the call returns.
    let _ = unsafe { libc::syscall(libc::SYS_sched_setscheduler, 0, libc::SCHED_FIFO, &raw const priority) };
}

/// `CLOCK_MONOTONIC` in nanoseconds.
pub(crate) fn now_ns() -> Result<u64> {
    of(ClockId::CLOCK_MONOTONIC)
}

/// How far `CLOCK_REALTIME`, with which the kernel dates packets, is ahead of `CLOCK_MONOTONIC`, nanoseconds. It is
/// constant unless somebody sets the clock: asked for each packet, whatever interrupts us between the two clocks
/// would be added to the packet's time.
pub(crate) fn realtime_ahead_ns() -> Result<u64> {
    let (mut best, mut ahead) = (u64::MAX, 0);
    for _ in 0..100 {
        let before = now_ns()?;
        let realtime = of(ClockId::CLOCK_REALTIME)?;
        let took = now_ns()? - before;
        if took < best {
            (best, ahead) = (took, realtime - before - took / 2);
        }
    }
    Ok(ahead)
}

fn of(clock: ClockId) -> Result<u64> {
    to_ns(clock_gettime(clock).context("reading the clock")?)
}

/// Nanoseconds of a time that is not negative.
pub(crate) fn to_ns(time: TimeSpec) -> Result<u64> {
    Ok(u64::try_from(time.tv_sec())? * 1_000_000_000 + u64::try_from(time.tv_nsec())?)
}

/// Sleeps until a point in time of `CLOCK_MONOTONIC`. It does not spin: who sends notes when it did, and a
/// real-time task that spins would keep the kernel's own threads waiting.
pub(crate) fn wait_until(at_ns: u64) -> Result<()> {
    while now_ns()? < at_ns {
        let wake =
            TimeSpec::new((at_ns / 1_000_000_000).cast_signed(), (at_ns % 1_000_000_000).cast_signed());
        let _ = clock_nanosleep(ClockId::CLOCK_MONOTONIC, ClockNanosleepFlags::TIMER_ABSTIME, &wake);
    }
    Ok(())
}

/// Tells who started us that we are ready: an empty line.
pub(crate) fn ready() -> Result<()> {
    let mut stdout = std::io::stdout().lock();
    writeln!(stdout)?;
    stdout.flush().context("saying that we are ready")
}

/// The errno of an error of the system, 0 of another one.
pub(crate) fn errno(error: &std::io::Error) -> i32 {
    let timed_out = error.kind() == std::io::ErrorKind::TimedOut;
    error.raw_os_error().unwrap_or(if timed_out { libc::ETIMEDOUT } else { 0 })
}
