//! Counters that never fall, of faults that come and go, under a bounded number of names.
//!
//! A fault has series of its own while it is held and for [`KEPT`] after it ended, as long as there are not more
//! than [`SERIES`] of them. What has none (any more) is summed up as [`OTHER`]; a fault that began there stays
//! there, or the sum would fall.

use std::{
    collections::{BTreeMap, BTreeSet},
    time::{Duration, Instant, SystemTime},
};

use crate::{engine::RuleStats, lines::LineStats};

/// Faults with series of their own.
pub(crate) const SERIES: usize = 64;
/// How long a fault that ended keeps them: several scrapes.
pub(crate) const KEPT: Duration = Duration::from_mins(5);
/// What all others are called.
pub(crate) const OTHER: &str = "other";

/// What is counted for one value of the label `fault`.
#[derive(Clone, Debug)]
pub(crate) struct Series {
    /// The fault's number, or [`OTHER`].
    pub(crate) fault: String,
    /// Its counters.
    pub(crate) stats: RuleStats,
}

/// What the agent counts besides the kernel.
#[derive(Debug, Default)]
pub(crate) struct Ledger {
    /// Faults that were held.
    pub(crate) started: u64,
    /// Faults that ended, by reason.
    pub(crate) ended: BTreeMap<&'static str, u64>,
    /// Things that could not be done.
    pub(crate) errors: u64,
    /// The last of them.
    pub(crate) last_error: Option<(SystemTime, String)>,
    /// Held faults that have series of their own.
    own: BTreeSet<u64>,
    /// Faults that ended and still have theirs, by number.
    kept: BTreeMap<u64, (Instant, RuleStats)>,
    /// All that ended and have none.
    other: RuleStats,
    /// What delay lines counted that are gone.
    lines: LineStats,
}

impl Ledger {
    /// A fault is held.
    pub(crate) fn started(&mut self, id: u64) {
        self.started += 1;
        self.forget_old();
        if self.own.len() + self.kept.len() >= SERIES
            && let Some((_, (_, last))) = self.kept.pop_first()
        {
            self.other = sum(&self.other, &last);
        }
        if self.own.len() + self.kept.len() < SERIES {
            self.own.insert(id);
        }
    }

    /// A fault is over, with these counters.
    pub(crate) fn ended(&mut self, id: u64, reason: &'static str, last: &RuleStats) {
        *self.ended.entry(reason).or_default() += 1;
        if self.own.remove(&id) {
            self.kept.insert(id, (Instant::now(), last.clone()));
        } else {
            self.other = sum(&self.other, last);
        }
    }

    /// Something could not be done.
    pub(crate) fn error(&mut self, what: &str) {
        self.errors += 1;
        self.last_error = Some((SystemTime::now(), what.to_owned()));
    }

    /// A delay line is gone, which had counted this.
    pub(crate) fn line_gone(&mut self, last: Option<LineStats>) {
        if let Some(last) = last {
            self.lines = LineStats { held_frames: 0, held_bytes: 0, ..self.lines.plus(&last) };
        }
    }

    /// Whether a held fault has series of its own.
    pub(crate) fn has_own(&self, id: u64) -> bool {
        self.own.contains(&id)
    }

    /// What all delay lines counted, with the one there is now.
    pub(crate) fn lines(&self, now: Option<&LineStats>) -> LineStats {
        now.map_or_else(|| self.lines.clone(), |now| self.lines.plus(now))
    }

    /// The counters by the name under which they are shown, of the faults that are held and of those that ended.
    pub(crate) fn series(&mut self, held: impl Iterator<Item = (u64, RuleStats)>) -> Vec<Series> {
        self.forget_old();
        let mut other = self.other.clone();
        let mut all: BTreeMap<u64, RuleStats> =
            self.kept.iter().map(|(id, (_, last))| (*id, last.clone())).collect();
        for (id, stats) in held {
            if self.own.contains(&id) {
                all.insert(id, stats);
            } else {
                other = sum(&other, &stats);
            }
        }
        let own = all.into_iter().map(|(id, stats)| Series { fault: id.to_string(), stats });
        own.chain([Series { fault: OTHER.to_owned(), stats: other }]).collect()
    }

    fn forget_old(&mut self) {
        let old: Vec<u64> =
            self.kept.iter().filter(|(_, (since, _))| since.elapsed() >= KEPT).map(|(id, _)| *id).collect();
        for id in old {
            if let Some((_, last)) = self.kept.remove(&id) {
                self.other = sum(&self.other, &last);
            }
        }
    }
}

fn sum(one: &RuleStats, other: &RuleStats) -> RuleStats {
    RuleStats {
        name: String::new(),
        egress: one.egress.plus(&other.egress),
        ingress: one.ingress.plus(&other.ingress),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::engine::Counters;

    fn stats(matched_packets: u64) -> RuleStats {
        RuleStats { egress: Counters { matched_packets, ..Counters::default() }, ..RuleStats::default() }
    }

    fn total(series: &[Series]) -> u64 {
        series.iter().map(|one| one.stats.egress.matched_packets).sum()
    }

    #[test]
    fn names_are_bounded_and_nothing_is_counted_twice_or_forgotten() {
        let mut ledger = Ledger::default();
        let many = 3 * SERIES as u64;
        let mut seen = 0;
        for id in 1..=many {
            ledger.started(id);
            // One in three stays.
            let held = (1..=id).filter(|id| id % 3 == 0).map(|id| (id, stats(id)));
            if id % 3 != 0 {
                ledger.ended(id, "deleted", &stats(id));
            }
            let shown = ledger.series(held);
            assert!(shown.len() <= SERIES + 1, "{}", shown.len());
            assert_eq!(total(&shown), (1..=id).sum::<u64>(), "after {id}");
            let other = shown.last().unwrap();
            assert!(other.fault == OTHER && other.stats.egress.matched_packets >= seen, "it never falls");
            seen = other.stats.egress.matched_packets;
        }
        assert_eq!(ledger.started, many);
        assert_eq!(ledger.ended["deleted"], many - many / 3);
    }
}
