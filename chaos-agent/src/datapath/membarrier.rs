//! Waits until no program can still read what was just retired.

use std::{io, time::Duration};

/// How long to wait where the kernel cannot tell.
const WITHOUT: Duration = Duration::from_millis(20);

/// After this returns, every program that was running when it was called has ended: programs run
/// inside RCU read sections, and `MEMBARRIER_CMD_GLOBAL` is `synchronize_rcu` (`membarrier(2)`,
/// `kernel/sched/membarrier.c`, Linux 4.3).
pub(super) fn wait_for_readers() -> io::Result<()> {
    const MEMBARRIER_CMD_GLOBAL: libc::c_int = 1;
    // SAFETY: plain numbers.
    if unsafe { libc::syscall(libc::SYS_membarrier, MEMBARRIER_CMD_GLOBAL, 0, 0) } == 0 {
        return Ok(());
    }
    match io::Error::last_os_error() {
        // Refused with `nohz_full` CPUs, absent without CONFIG_MEMBARRIER: a program runs for
        // microseconds, and this is ten thousand times longer.
        error if matches!(error.raw_os_error(), Some(libc::EINVAL | libc::ENOSYS)) => {
            std::thread::sleep(WITHOUT);
            Ok(())
        }
        error => Err(error),
    }
}
