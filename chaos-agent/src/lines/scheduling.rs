//! How the line's thread is scheduled. The class matters more than anything else for exact delays.

use std::fmt;

use nix::errno::Errno;

/// Above every ordinary thread, below audio servers and the kernel's own real-time threads.
const PRIORITY: libc::c_int = 10;

/// What the thread got.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Scheduling {
    /// `SCHED_FIFO` with this priority.
    RealTime {
        /// 1 to 99.
        priority: i32,
    },
    /// The ordinary class: on a busy machine packets are late by milliseconds.
    Ordinary {
        /// Why not better, and what mends it: a half sentence for people.
        reason: String,
    },
}

impl Scheduling {
    /// Runs ahead of ordinary threads.
    #[must_use]
    pub const fn is_real_time(&self) -> bool {
        matches!(self, Self::RealTime { .. })
    }
}

impl fmt::Display for Scheduling {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::RealTime { priority } => write!(f, "SCHED_FIFO, priority {priority}"),
            Self::Ordinary { reason } => write!(f, "SCHED_OTHER: {reason}"),
        }
    }
}

/// Makes the calling thread a real-time one, for ever. What it starts is ordinary again.
///
/// # Errors
/// The system call's answer; [`refusal`] puts it in words.
pub fn become_real_time() -> Result<Scheduling, Errno> {
    // SAFETY: `sched_param` is plain integers (musl's has reserved ones), for which zero is a value.
    let mut parameters: libc::sched_param = unsafe { std::mem::zeroed() };
    parameters.sched_priority = PRIORITY;
    let (this_thread, policy) = (0, libc::SCHED_FIFO | libc::SCHED_RESET_ON_FORK);
    // The system call itself: musl's function of that name answers ENOSYS.
    // SAFETY: the kernel reads one `sched_param`, whose first field is the priority, from a live local.
    let set =
        unsafe { libc::syscall(libc::SYS_sched_setscheduler, this_thread, policy, &raw const parameters) };
    Errno::result(set).map(|_| Scheduling::RealTime { priority: PRIORITY })
}

/// Why the kernel refused, and what mends it.
#[must_use]
pub fn refusal(errno: Errno, may_be_nice: bool) -> (String, &'static str) {
    if errno == Errno::EPERM && may_be_nice {
        // CONFIG_RT_GROUP_SCHED: a cgroup has no real-time runtime unless it is given some
        // (`__sched_setscheduler`, kernel/sched/syscalls.c, 6.18).
        return (
            "this cgroup has no real-time runtime".to_owned(),
            "sudo sysctl kernel.sched_rt_runtime_us=-1, or boot with rt_group_sched=0 (Linux 6.15 and newer)",
        );
    }
    if errno == Errno::EPERM {
        return (
            "real-time scheduling is not permitted".to_owned(),
            "run it with sudo or as root; a container needs --cap-add SYS_NICE",
        );
    }
    (format!("real-time scheduling: {errno}"), "boot your distribution's standard kernel")
}

/// Real-time if that is wanted and permitted, else as nice as permitted, with the reason.
pub(super) fn for_line(wanted: bool) -> Scheduling {
    if !wanted {
        return Scheduling::Ordinary { reason: "not asked for".to_owned() };
    }
    become_real_time().unwrap_or_else(|errno| {
        let (why, mend) = refusal(errno, hurry());
        Scheduling::Ordinary { reason: format!("{why}; {mend}") }
    })
}

/// The highest ordinary priority. True if it was permitted.
fn hurry() -> bool {
    let this_thread = 0;
    // SAFETY: takes integers only; on Linux the niceness is the thread's (setpriority(2)).
    (unsafe { libc::setpriority(libc::PRIO_PROCESS, this_thread, -20) }) == 0
}

/// Timers of this thread fire when they should, not up to 50 us later. Real-time threads have no slack.
pub(super) fn no_timer_slack() {
    let slack_ns: libc::c_ulong = 1;
    // SAFETY: this option takes an integer.
    let set = unsafe { libc::prctl(libc::PR_SET_TIMERSLACK, slack_ns) };
    if set != 0 {
        tracing::debug!("timer slack: {}", Errno::last());
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_refusal_says_what_mends_it() {
        assert!(refusal(Errno::EPERM, false).1.contains("SYS_NICE"));
        assert!(refusal(Errno::EPERM, true).1.contains("sched_rt_runtime_us"));
        assert!(refusal(Errno::ENOSYS, true).0.contains("ENOSYS"));
    }
}
