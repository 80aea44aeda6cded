//! What the agent knows about faults: those that are held, and the last that ended.

use std::{
    collections::{BTreeMap, BTreeSet, VecDeque},
    time::{Duration, SystemTime},
};

use serde::Serialize;
use serde_json::Value;

use crate::{
    cli::RuleSet,
    datapath::CAPACITY,
    engine::{Counters, RuleStats},
    spec::RuleSpec,
};

/// Faults that ended and are still remembered.
const REMEMBERED: usize = 256;

/// A fault as it was asked for, understood and allowed.
#[derive(Clone, Debug)]
pub(crate) struct NewFault {
    /// What the user calls it; it replaces the fault of that name.
    pub(crate) name: Option<String>,
    /// Its rules, and what they are in words.
    pub(crate) set: RuleSet,
    /// The body it came in.
    pub(crate) body: Value,
    /// How long it lasts.
    pub(crate) duration: Duration,
    /// It ends when it is not renewed for so long.
    pub(crate) lease: Option<Duration>,
}

/// How a fault is.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "snake_case")]
pub(crate) enum State {
    /// The kernel has it.
    Active,
    /// It is over.
    Ended,
}

/// One fault.
#[derive(Clone, Debug)]
pub(crate) struct Fault {
    pub(crate) id: u64,
    pub(crate) new: NewFault,
    pub(crate) state: State,
    /// Why it ended.
    pub(crate) why: Option<String>,
    pub(crate) started: SystemTime,
    /// Boot clock.
    pub(crate) ends_at: Duration,
    /// Boot clock; none = it has no lease.
    pub(crate) lease_until: Option<Duration>,
    /// Why it may have matched nothing, once that was for too long.
    pub(crate) unmatched: Option<String>,
    slots: Vec<u32>,
    /// Counted until it ended.
    last: RuleStats,
}

/// All of them.
#[derive(Debug, Default)]
pub(super) struct Book {
    active: BTreeMap<u64, Fault>,
    ended: VecDeque<Fault>,
    next_id: u64,
}

impl Book {
    /// A fault with slots that nobody has; it is not in the book yet. None: they are all taken.
    pub(super) fn draft(&mut self, new: NewFault, now: Duration, others: &[Fault]) -> Option<Fault> {
        let taken: BTreeSet<u32> =
            self.slots().chain(others.iter().flat_map(|fault| fault.slots.clone())).collect();
        let slots: Vec<u32> =
            (0..CAPACITY).filter(|slot| !taken.contains(slot)).take(new.set.rules.len()).collect();
        if slots.len() < new.set.rules.len() {
            return None;
        }
        self.next_id += 1;
        Some(Fault {
            id: self.next_id,
            state: State::Active,
            why: None,
            unmatched: None,
            started: SystemTime::now(),
            ends_at: now.saturating_add(new.duration),
            lease_until: new.lease.map(|lease| now.saturating_add(lease)),
            slots,
            last: RuleStats { name: new.set.name.clone(), ..RuleStats::default() },
            new,
        })
    }

    /// What the engine shall hold: all but some, and some more.
    pub(super) fn rules(&self, without: &[u64], and: &[Fault]) -> Vec<(u32, RuleSpec)> {
        let kept = self.active.values().filter(|fault| !without.contains(&fault.id));
        let of = |fault: &Fault| -> Vec<(u32, RuleSpec)> {
            fault.slots.iter().copied().zip(fault.new.set.rules.iter().cloned()).collect()
        };
        kept.chain(and).flat_map(of).collect()
    }

    /// It is held from now on.
    pub(super) fn add(&mut self, fault: Fault) {
        self.active.insert(fault.id, fault);
    }

    /// It is over.
    pub(super) fn end(&mut self, id: u64, why: &str, last: RuleStats) {
        let Some(mut fault) = self.active.remove(&id) else { return };
        (fault.state, fault.why, fault.last) = (State::Ended, Some(why.to_owned()), last);
        self.ended.push_back(fault);
        if self.ended.len() > REMEMBERED {
            self.ended.pop_front();
        }
    }

    /// The slots of those that are held.
    pub(super) fn slots(&self) -> impl Iterator<Item = u32> {
        self.active.values().flat_map(|fault| fault.slots.iter().copied())
    }

    /// Those that are held.
    pub(super) fn active(&self) -> impl Iterator<Item = &Fault> {
        self.active.values()
    }

    /// By its number or its name; of several of one name the one that is held, or the last.
    pub(super) fn find(&self, word: &str) -> Option<&Fault> {
        let is = |fault: &&Fault| {
            fault.new.name.as_deref() == Some(word) || word.parse().is_ok_and(|id: u64| fault.id == id)
        };
        self.active.values().find(is).or_else(|| self.ended.iter().rev().find(is))
    }

    /// Of the faults that are held, to be changed.
    pub(super) fn active_mut(&mut self, id: u64) -> Option<&mut Fault> {
        self.active.get_mut(&id)
    }

    /// Every one that is known.
    pub(super) fn all(&self) -> impl Iterator<Item = &Fault> {
        self.ended.iter().chain(self.active.values())
    }
}

impl Fault {
    /// Its counters, of what the engine says about all slots.
    pub(super) fn stats(&self, by_slot: &BTreeMap<u32, RuleStats>) -> RuleStats {
        if self.state == State::Ended {
            return self.last.clone();
        }
        let mut sum = RuleStats { name: self.new.set.name.clone(), ..RuleStats::default() };
        for stats in self.slots.iter().filter_map(|slot| by_slot.get(slot)) {
            sum.egress = sum.egress.plus(&stats.egress);
            sum.ingress = sum.ingress.plus(&stats.ingress);
        }
        sum
    }

    /// Nothing was matched so far.
    pub(crate) fn is_unmatched(stats: &RuleStats) -> bool {
        let none = |counters: &Counters| counters.matched_packets == 0;
        none(&stats.egress) && none(&stats.ingress)
    }
}
