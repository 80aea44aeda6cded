//! Waits until no program can still read what was just retired.

use std::io;

/// After this returns, every program that was running when it was called has ended: programs run
/// inside RCU read sections, and `MEMBARRIER_CMD_GLOBAL` is `synchronize_rcu` (`membarrier(2)`,
/// `kernel/sched/membarrier.c`, Linux 4.3).
pub(super) fn wait_for_readers() -> io::Result<()> {
    const MEMBARRIER_CMD_GLOBAL: libc::c_int = 1;
    // SAFETY: plain numbers.
    match unsafe { libc::syscall(libc::SYS_membarrier, MEMBARRIER_CMD_GLOBAL, 0, 0) } {
        0 => Ok(()),
        _ => Err(io::Error::last_os_error()),
    }
}
