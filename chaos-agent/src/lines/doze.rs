//! How the line's thread waits: for a device, for a command, or until a point in time.

use std::{os::fd::RawFd, time::Duration};

use super::serve::now_ns;

/// How often the share of time asleep is looked at.
const PERIOD_NS: u64 = 20_000_000;
/// The thread spins only while it sleeps at least one part in so many: a real-time thread that leaves nothing to
/// others is stopped by the kernel for 50 ms in every second (the fair server of kernel/sched/deadline.c, 6.12;
/// before, the throttling of kernel/sched/rt.c).
const ASLEEP_SHARE: u64 = 4;

/// What is waited for, and how.
pub(super) struct Doze {
    /// The wake-up, then one for each place of a line (negative: none).
    polls: Vec<libc::pollfd>,
    spin_ns: u64,
    rest: Rest,
}

/// How much of its time the thread sleeps.
#[derive(Debug, Default)]
struct Rest {
    since_ns: u64,
    asleep_ns: u64,
    is_tired: bool,
}

impl Rest {
    /// It slept from `from_ns` to `to_ns`.
    fn slept(&mut self, from_ns: u64, to_ns: u64) {
        self.asleep_ns += to_ns.saturating_sub(from_ns);
        let period_ns = to_ns.saturating_sub(self.since_ns);
        if period_ns >= PERIOD_NS {
            self.is_tired = self.asleep_ns < period_ns / ASLEEP_SHARE;
            (self.since_ns, self.asleep_ns) = (to_ns, 0);
        }
    }
}

impl Doze {
    /// It wakes up when `wake` can be read; before a point in time it stops to sleep `spin_ns` earlier.
    pub(super) fn new(wake: RawFd, spin_ns: u64) -> Self {
        Self { polls: vec![poll_in(wake)], spin_ns, rest: Rest::default() }
    }

    /// The line at this place is waited for, or no longer.
    pub(super) fn watch(&mut self, place: usize, line: Option<RawFd>) {
        if self.polls.len() < place + 2 {
            self.polls.resize(place + 2, poll_in(-1));
        }
        self.polls[place + 1] = poll_in(line.unwrap_or(-1));
    }

    /// How long before a point in time it is not worth to sleep.
    pub(super) const fn spin_ns(&self) -> u64 {
        if self.rest.is_tired { 0 } else { self.spin_ns }
    }

    /// Until something can be read, or for so long; none: for ever.
    pub(super) fn wait(&mut self, timeout_ns: Option<u64>) {
        let from_ns = now_ns();
        let timeout = timeout_ns.map(|ns| nix::sys::time::TimeSpec::from(Duration::from_nanos(ns)));
        let timeout = timeout.as_ref().map_or(std::ptr::null(), |time| std::ptr::from_ref(time.as_ref()));
        let count = self.polls.len() as libc::nfds_t;
        // SAFETY: the list has `count` elements, the time is a live local or null, and so is the signal mask.
        let ready = unsafe { libc::ppoll(self.polls.as_mut_ptr(), count, timeout, std::ptr::null()) };
        if ready <= 0 {
            // A signal, or nothing; what an earlier call said is no longer true.
            self.polls.iter_mut().for_each(|poll| poll.revents = 0);
        }
        if timeout_ns != Some(0) {
            self.rest.slept(from_ns, now_ns());
        }
    }

    /// Somebody woke it up.
    pub(super) fn is_woken(&self) -> bool {
        self.polls.first().is_some_and(|poll| poll.revents != 0)
    }

    /// No line has anything to be read.
    pub(super) fn is_quiet(&self) -> bool {
        self.polls.iter().skip(1).all(|poll| poll.revents == 0)
    }

    /// What the kernel said of the line at this place.
    pub(super) fn events(&self, place: usize) -> libc::c_short {
        self.polls.get(place + 1).map_or(0, |poll| poll.revents)
    }
}

/// A place in the list of `ppoll`; a negative descriptor is left out.
const fn poll_in(fd: RawFd) -> libc::pollfd {
    libc::pollfd { fd, events: libc::POLLIN, revents: 0 }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn who_hardly_sleeps_does_not_spin() {
        let mut now_ns = 1_000_000_000;
        let mut rest = Rest { since_ns: now_ns, ..Rest::default() };
        let mut period = |asleep_ns: u64| {
            for _ in 0..=PERIOD_NS / 100_000 {
                now_ns += 100_000;
                rest.slept(now_ns - asleep_ns, now_ns);
            }
            rest.is_tired
        };
        assert!(!period(40_000));
        assert!(period(10_000));
        assert!(!period(40_000), "it recovers");
    }
}
