//! Resource limits of a process, read from /proc/PID/limits and set again in the command.

use procfs::process::{Limit, LimitValue, Process};

/// One resource and its soft and hard limit; `RLIM_INFINITY` is no limit.
#[derive(Clone, Copy)]
struct Resource {
    number: i64,
    soft: u64,
    hard: u64,
}

/// All resource limits of a process.
#[derive(Clone)]
pub struct Limits([Resource; 16]);

impl std::fmt::Debug for Limits {
    fn fmt(&self, formatter: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let entries = self.0.iter().map(|limit| (limit.number, (limit.soft, limit.hard)));
        formatter.debug_map().entries(entries).finish()
    }
}

impl Limits {
    /// Reads them; prlimit(2) would need `CAP_SYS_RESOURCE`, the file needs nothing.
    pub(super) fn of(process: &Process) -> Option<Self> {
        let limits = process.limits().ok()?;
        let raw = |value| match value {
            LimitValue::Unlimited => libc::RLIM_INFINITY,
            LimitValue::Value(value) => value,
        };
        // The constants are u32 with glibc and i32 with musl; i64 holds either.
        let resource = |number: i64, limit: Limit| Resource {
            number,
            soft: raw(limit.soft_limit),
            hard: raw(limit.hard_limit),
        };
        Some(Self([
            resource(i64::from(libc::RLIMIT_CPU), limits.max_cpu_time),
            resource(i64::from(libc::RLIMIT_FSIZE), limits.max_file_size),
            resource(i64::from(libc::RLIMIT_DATA), limits.max_data_size),
            resource(i64::from(libc::RLIMIT_STACK), limits.max_stack_size),
            resource(i64::from(libc::RLIMIT_CORE), limits.max_core_file_size),
            resource(i64::from(libc::RLIMIT_RSS), limits.max_resident_set),
            resource(i64::from(libc::RLIMIT_NPROC), limits.max_processes),
            resource(i64::from(libc::RLIMIT_NOFILE), limits.max_open_files),
            resource(i64::from(libc::RLIMIT_MEMLOCK), limits.max_locked_memory),
            resource(i64::from(libc::RLIMIT_AS), limits.max_address_space),
            resource(i64::from(libc::RLIMIT_LOCKS), limits.max_file_locks),
            resource(i64::from(libc::RLIMIT_SIGPENDING), limits.max_pending_signals),
            resource(i64::from(libc::RLIMIT_MSGQUEUE), limits.max_msgqueue_size),
            resource(i64::from(libc::RLIMIT_NICE), limits.max_nice_priority),
            resource(i64::from(libc::RLIMIT_RTPRIO), limits.max_realtime_priority),
            resource(i64::from(libc::RLIMIT_RTTIME), limits.max_realtime_timeout),
        ]))
    }

    /// Sets them in this process, as near as it may: raising a hard limit takes `CAP_SYS_RESOURCE`, and without
    /// it ours is the most there is. Makes only system calls, so it may follow a fork.
    pub(super) fn apply(&self) {
        for limit in &self.0 {
            let wanted = libc::rlimit { rlim_cur: limit.soft, rlim_max: limit.hard };
            if prlimit(limit.number, Some(&wanted), None) {
                continue;
            }
            let mut ours = libc::rlimit { rlim_cur: 0, rlim_max: 0 };
            if prlimit(limit.number, None, Some(&mut ours)) {
                let hard = limit.hard.min(ours.rlim_max);
                prlimit(
                    limit.number,
                    Some(&libc::rlimit { rlim_cur: limit.soft.min(hard), rlim_max: hard }),
                    None,
                );
            }
        }
    }
}

/// prlimit(2) on the calling process; true when it succeeded.
fn prlimit(resource: i64, new: Option<&libc::rlimit>, old: Option<&mut libc::rlimit>) -> bool {
    let new = new.map_or(std::ptr::null(), std::ptr::from_ref);
    let old = old.map_or(std::ptr::null_mut(), std::ptr::from_mut);
    // SAFETY: the pointers are null or to live structures of the size the kernel expects (`struct rlimit64`, which rlimit is on 64 bit).
    unsafe { libc::syscall(libc::SYS_prlimit64, 0, resource, new, old) == 0 }
}
