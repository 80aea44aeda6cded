//! What the line counts. One thread writes, anybody reads.

use std::sync::atomic::{AtomicU64, Ordering::Relaxed};

/// Upper ends of the classes of lateness, in ns; one more class lies above the last.
pub const LATENESS_NS: [u64; 15] = [
    1_000, 2_000, 5_000, 10_000, 20_000, 50_000, 100_000, 200_000, 500_000, 1_000_000, 2_000_000, 5_000_000,
    10_000_000, 20_000_000, 50_000_000,
];

/// What happened since the line's thread started, and what it holds now.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct LineStats {
    /// Frames taken from the devices.
    pub read: u64,
    /// Frames given back.
    pub written: u64,
    /// Of these, those that left before their time, because their rule or their line ended.
    pub flushed: u64,
    /// Dropped: more than 100 ms overdue, because the thread was stopped or has too much to do.
    pub late: u64,
    /// Dropped: the heap was full.
    pub overflow: u64,
    /// Dropped: the kernel did not take them back, or the thread ended first.
    pub write_errors: u64,
    /// Dropped: they found a device's queue full, or the device was deleted with them in it.
    pub unread: u64,
    /// Dropped: too short to have come from the classifier.
    pub strays: u64,
    /// Frames that wait now.
    pub held_frames: u64,
    /// Bytes they take, bookkeeping included.
    pub held_bytes: u64,
    /// Frames that were released when due, which is what the next three fields are about.
    pub released: u64,
    /// Sum of their lateness when they were written, in ns.
    pub lateness_sum_ns: u64,
    /// The latest.
    pub lateness_max_ns: u64,
    /// How many were up to [`LATENESS_NS`] late; the last: later than that.
    pub lateness: [u64; LATENESS_NS.len() + 1],
}

impl LineStats {
    /// Mean lateness of a release, in ns; 0 before the first.
    #[must_use]
    pub fn mean_lateness_ns(&self) -> u64 {
        self.lateness_sum_ns.checked_div(self.released).unwrap_or(0)
    }

    /// Both together; the latest of both.
    #[must_use]
    pub fn plus(&self, other: &Self) -> Self {
        Self {
            read: self.read + other.read,
            written: self.written + other.written,
            flushed: self.flushed + other.flushed,
            late: self.late + other.late,
            overflow: self.overflow + other.overflow,
            write_errors: self.write_errors + other.write_errors,
            unread: self.unread + other.unread,
            strays: self.strays + other.strays,
            held_frames: self.held_frames + other.held_frames,
            held_bytes: self.held_bytes + other.held_bytes,
            released: self.released + other.released,
            lateness_sum_ns: self.lateness_sum_ns + other.lateness_sum_ns,
            lateness_max_ns: self.lateness_max_ns.max(other.lateness_max_ns),
            lateness: std::array::from_fn(|class| {
                let of = |stats: &Self| stats.lateness.get(class).copied().unwrap_or(0);
                of(self) + of(other)
            }),
        }
    }

    /// A lateness that so many thousandths of the releases did not exceed, as far as the classes tell;
    /// none before the first.
    #[must_use]
    pub fn lateness_at_most_ns(&self, per_mille: u64) -> Option<u64> {
        let enough = self.released.saturating_mul(per_mille.min(1_000)).div_ceil(1_000);
        let mut seen = 0;
        let class = self.lateness.iter().position(|count| {
            seen += count;
            seen >= enough && seen > 0
        })?;
        Some(LATENESS_NS.get(class).map_or(self.lateness_max_ns, |&end| end.min(self.lateness_max_ns)))
    }
}

/// The counters. Only the line's thread changes them, so plain loads and stores do.
#[derive(Debug, Default)]
pub(super) struct Counters {
    pub(super) read: AtomicU64,
    pub(super) written: AtomicU64,
    pub(super) flushed: AtomicU64,
    pub(super) late: AtomicU64,
    pub(super) overflow: AtomicU64,
    pub(super) write_errors: AtomicU64,
    pub(super) unread: AtomicU64,
    pub(super) strays: AtomicU64,
    pub(super) held_frames: AtomicU64,
    pub(super) held_bytes: AtomicU64,
    released: AtomicU64,
    lateness_sum_ns: AtomicU64,
    lateness_max_ns: AtomicU64,
    lateness: [AtomicU64; LATENESS_NS.len() + 1],
}

/// Adds to a counter of the calling thread.
pub(super) fn add(counter: &AtomicU64, more: u64) {
    counter.store(counter.load(Relaxed).wrapping_add(more), Relaxed);
}

impl Counters {
    /// A frame was released when due, so much after its time.
    pub(super) fn released(&self, late_ns: u64) {
        add(&self.released, 1);
        add(&self.lateness_sum_ns, late_ns);
        self.lateness_max_ns.store(self.lateness_max_ns.load(Relaxed).max(late_ns), Relaxed);
        let class = LATENESS_NS.partition_point(|&end| end < late_ns);
        if let Some(counter) = self.lateness.get(class) {
            add(counter, 1);
        }
    }

    /// What they show now. Not one instant: a frame may be in one number and not yet in another.
    pub(super) fn snapshot(&self) -> LineStats {
        let get = |counter: &AtomicU64| counter.load(Relaxed);
        LineStats {
            read: get(&self.read),
            written: get(&self.written),
            flushed: get(&self.flushed),
            late: get(&self.late),
            overflow: get(&self.overflow),
            write_errors: get(&self.write_errors),
            unread: get(&self.unread),
            strays: get(&self.strays),
            held_frames: get(&self.held_frames),
            held_bytes: get(&self.held_bytes),
            released: get(&self.released),
            lateness_sum_ns: get(&self.lateness_sum_ns),
            lateness_max_ns: get(&self.lateness_max_ns),
            lateness: std::array::from_fn(|class| self.lateness.get(class).map_or(0, get)),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn lateness_is_sorted_into_classes() {
        let counters = Counters::default();
        assert_eq!(counters.snapshot().lateness_at_most_ns(500), None);
        for late_ns in [0, 1_000, 1_001, 3_000, 60_000_000] {
            counters.released(late_ns);
        }
        let stats = counters.snapshot();
        assert_eq!((stats.lateness[0], stats.lateness[1], stats.lateness[2]), (2, 1, 1));
        assert_eq!(stats.lateness[LATENESS_NS.len()], 1);
        assert_eq!(stats.mean_lateness_ns(), 12_001_000);
        assert_eq!(stats.lateness_at_most_ns(400), Some(1_000));
        assert_eq!(stats.lateness_at_most_ns(600), Some(2_000));
        assert_eq!(stats.lateness_at_most_ns(1_000), Some(60_000_000));
    }
}
