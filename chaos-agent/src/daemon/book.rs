//! What the agent knows about faults: those that are held, and the last that ended.

use std::{
    collections::{BTreeMap, BTreeSet, VecDeque},
    io,
    time::{Duration, SystemTime},
};

use serde::Serialize;
use serde_json::Value;

use super::alarm::Alarm;
use crate::{
    cli::RuleSet,
    engine::{Counters, RuleStats},
    safety::{Intent, Recovered, Written},
    spec::{RuleSpec, Schedule},
};

/// Faults that ended and are still remembered.
const REMEMBERED: usize = 256;
/// And so many bytes of their bodies, but the last one in any case.
const REMEMBERED_BYTES: usize = 2 << 20;

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
    /// Whether it matches anything.
    pub(crate) alarm: Alarm,
    /// Boot clock: since when the kernel has it.
    since: Duration,
    /// Whom to, in words.
    pub(crate) targets: String,
    slots: Vec<u32>,
    /// What the engine got for each slot: the rules, with the times that are left of a change.
    armed: Vec<RuleSpec>,
    /// Counted by rules that it had before it was changed.
    before: RuleStats,
    /// Counted until it ended.
    last: RuleStats,
}

/// All of them.
#[derive(Debug, Default)]
pub(super) struct Book {
    active: BTreeMap<u64, Fault>,
    ended: VecDeque<Fault>,
    /// Of the bodies of those that ended.
    ended_bytes: usize,
    next_id: u64,
    /// Slots that there are.
    capacity: u32,
}

impl Book {
    /// One that goes on where another ended: its faults are over, and no number is given twice.
    pub(super) fn after(former: &Recovered, capacity: u32) -> Self {
        let mut book = Self { next_id: former.next_id.saturating_sub(1), capacity, ..Self::default() };
        for intent in &former.ended {
            book.remember(Fault::lost(intent, &former.why));
        }
        book
    }

    /// A fault in the next of these slots; it is not in the book yet.
    pub(super) fn draft(
        &mut self,
        new: NewFault,
        now: Duration,
        free: &mut impl Iterator<Item = u32>,
    ) -> Fault {
        self.next_id += 1;
        Fault {
            id: self.next_id,
            state: State::Active,
            why: None,
            alarm: Alarm::Quiet,
            since: now,
            targets: new.set.targets(),
            started: SystemTime::now(),
            ends_at: now.saturating_add(new.duration),
            lease_until: new.lease.map(|lease| now.saturating_add(lease)),
            slots: free.take(new.set.rules.len()).collect(),
            armed: new.set.rules.clone(),
            before: RuleStats::default(),
            last: RuleStats { name: new.set.name.clone(), ..RuleStats::default() },
            new,
        }
    }

    /// So many slots that nobody has; none: there are not so many.
    pub(super) fn free(&self, count: usize) -> Option<Vec<u32>> {
        let taken: BTreeSet<u32> = self.slots().collect();
        let slots: Vec<u32> = (0..self.capacity).filter(|slot| !taken.contains(slot)).take(count).collect();
        (slots.len() == count).then_some(slots)
    }

    /// The fault `id` as it shall be from now on; the book still has it as it was. Rules that stay the same keep
    /// their slots, and so their counters and what they remember; `is_anew` lets its time begin anew, else it ends
    /// when it would have. None: there is no such fault, or no slot.
    pub(super) fn amend(&mut self, id: u64, new: NewFault, now: Duration, is_anew: bool) -> Option<Fault> {
        let old = self.active.get(&id)?.clone();
        let ends_at = if is_anew { now.saturating_add(new.duration) } else { old.ends_at };
        let lease_until = match new.lease {
            lease if lease == old.new.lease && !is_anew => old.lease_until,
            lease => lease.map(|lease| now.saturating_add(lease)),
        };
        let taken: BTreeSet<u32> = self.slots().collect();
        let mut fresh = (0..self.capacity).filter(|slot| !taken.contains(slot));
        let (mut slots, mut armed) = (Vec::new(), Vec::new());
        for rule in &new.set.rules {
            let is_kept =
                |(slot, was): &(u32, &RuleSpec)| !slots.contains(slot) && was.is_same_but_duration(rule);
            let kept = old.slots.iter().copied().zip(&old.new.set.rules).find(is_kept).map(|(slot, _)| slot);
            let before = kept.and_then(|kept| old.armed_in(kept));
            let slot = kept.or_else(|| fresh.next())?;
            slots.push(slot);
            armed.push(match before {
                Some(before) => prolonged(before, old.ends_at, ends_at),
                None if is_anew => rule.clone(),
                None => the_rest(rule, &old, now),
            });
        }
        let targets = new.set.targets();
        // What other rules did not match says nothing about these.
        let (alarm, since) = match &old.alarm {
            alarm if slots == old.slots => (alarm.clone(), old.since),
            Alarm::Matched => (Alarm::Matched, now),
            Alarm::Quiet | Alarm::Suspect | Alarm::Raised(..) => (Alarm::Quiet, now),
        };
        Some(Fault { new, ends_at, lease_until, alarm, since, targets, slots, armed, ..old })
    }

    /// A fault is held in another way from now on; what the rules that are gone had counted stays.
    pub(super) fn change(&mut self, mut fault: Fault, by_slot: &BTreeMap<u32, RuleStats>) {
        if let Some(old) = self.active.get(&fault.id) {
            for stats in old.slots.iter().filter(|slot| !fault.slots.contains(slot)) {
                fault.before = sum(&fault.before, by_slot.get(stats));
            }
        }
        self.active.insert(fault.id, fault);
    }

    /// What the engine shall hold: all but some, and some more.
    pub(super) fn rules(&self, without: &[u64], and: &[Fault]) -> Vec<(u32, RuleSpec)> {
        let without: BTreeSet<u64> = without.iter().copied().collect();
        let kept = self.active.values().filter(|fault| !without.contains(&fault.id));
        let of = |fault: &Fault| -> Vec<(u32, RuleSpec)> {
            fault.slots.iter().copied().zip(fault.armed.iter().cloned()).collect()
        };
        kept.chain(and).flat_map(of).collect()
    }

    /// It is held from now on.
    pub(super) fn add(&mut self, mut fault: Fault) {
        fault.since = super::now();
        self.active.insert(fault.id, fault);
    }

    /// It is over.
    pub(super) fn end(&mut self, id: u64, why: &str, last: RuleStats) {
        let Some(mut fault) = self.active.remove(&id) else { return };
        (fault.state, fault.why, fault.last) = (State::Ended, Some(why.to_owned()), last);
        // Nobody asks for them any more.
        fault.armed = Vec::new();
        (fault.new.set.rules, fault.new.set.aborts) = (Vec::new(), Vec::new());
        self.remember(fault);
    }

    /// Of the faults that ended it forgets the first, when they are too many or too long.
    fn remember(&mut self, fault: Fault) {
        self.ended_bytes += fault.body_length();
        self.ended.push_back(fault);
        while self.ended.len() > REMEMBERED || (self.ended_bytes > REMEMBERED_BYTES && self.ended.len() > 1) {
            let Some(first) = self.ended.pop_front() else { return };
            self.ended_bytes -= first.body_length();
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

    /// Of the faults that are held.
    pub(super) fn held(&self, id: u64) -> Option<&Fault> {
        self.active.get(&id)
    }

    /// The same, to be changed.
    pub(super) fn active_mut(&mut self, id: u64) -> Option<&mut Fault> {
        self.active.get_mut(&id)
    }

    /// Every one that is known.
    pub(super) fn all(&self) -> impl Iterator<Item = &Fault> {
        self.ended.iter().chain(self.active.values())
    }
}

impl Fault {
    /// Of an agent that was killed: what it counted is gone with it.
    fn lost(intent: &Intent, why: &str) -> Self {
        let set = RuleSet { name: intent.does.clone(), rules: Vec::new(), aborts: Vec::new() };
        let duration = Duration::from_millis(intent.duration_ms);
        let body = intent.request.clone();
        Self {
            id: intent.id,
            new: NewFault { name: intent.name.clone(), set, body, duration, lease: None },
            state: State::Ended,
            why: Some(why.to_owned()),
            started: SystemTime::UNIX_EPOCH + Duration::from_millis(intent.started_ms),
            ends_at: Duration::ZERO,
            lease_until: None,
            alarm: Alarm::Quiet,
            since: Duration::ZERO,
            targets: intent.targets.clone(),
            slots: Vec::new(),
            armed: Vec::new(),
            before: RuleStats::default(),
            last: RuleStats { name: intent.does.clone(), ..RuleStats::default() },
        }
    }

    /// As it is written down.
    pub(super) fn written(&self) -> Written<'_> {
        let now = SystemTime::now();
        Written {
            id: self.id,
            name: self.new.name.as_deref(),
            does: &self.new.set.name,
            targets: &self.targets,
            request: &self.new.body,
            started: self.started,
            duration: self.new.duration,
            ends_at: self.ends_at,
            until: now.checked_add(self.ends_at.saturating_sub(super::now())).unwrap_or(now),
        }
    }

    /// Its counters, of what the engine says about all slots.
    pub(super) fn stats(&self, by_slot: &BTreeMap<u32, RuleStats>) -> RuleStats {
        if self.state == State::Ended {
            return self.last.clone();
        }
        let before = RuleStats { name: self.new.set.name.clone(), ..self.before.clone() };
        self.slots.iter().fold(before, |all, slot| sum(&all, by_slot.get(slot)))
    }

    /// Bytes of the body it came in.
    fn body_length(&self) -> usize {
        let mut length = Length(0);
        // Nothing that this is written to fails.
        let _ = serde_json::to_writer(&mut length, &self.new.body);
        length.0
    }

    fn armed_in(&self, slot: u32) -> Option<&RuleSpec> {
        self.slots.iter().zip(&self.armed).find(|(taken, _)| **taken == slot).map(|(_, rule)| rule)
    }

    /// How long it could have acted by `now`.
    pub(super) fn acting_for(&self, now: Duration) -> Duration {
        let delay = self.new.set.rules.iter().map(|rule| rule.schedule.start_delay).max().unwrap_or_default();
        now.saturating_sub(self.since).saturating_sub(delay)
    }

    /// Where its rules are.
    pub(super) fn slots(&self) -> &[u32] {
        &self.slots
    }

    /// The cause and a sentence, if it has been armed for too long without matching anything.
    pub(crate) fn unmatched(&self) -> Option<(&Value, &str)> {
        match &self.alarm {
            Alarm::Raised(cause, sentence) if self.state == State::Active => Some((cause, sentence)),
            Alarm::Quiet | Alarm::Suspect | Alarm::Raised(..) | Alarm::Matched => None,
        }
    }

    /// Nothing was matched so far.
    pub(crate) fn is_unmatched(stats: &RuleStats) -> bool {
        let none = |counters: &Counters| counters.matched_packets == 0;
        none(&stats.egress) && none(&stats.ingress)
    }
}

fn sum(all: &RuleStats, more: Option<&RuleStats>) -> RuleStats {
    let none = RuleStats::default();
    let more = more.unwrap_or(&none);
    RuleStats {
        name: all.name.clone(),
        egress: all.egress.plus(&more.egress),
        ingress: all.ingress.plus(&more.ingress),
    }
}

/// A rule that goes on, with another end.
fn prolonged(rule: &RuleSpec, ended: Duration, ends: Duration) -> RuleSpec {
    let length = |length: Duration| length.saturating_add(ends).saturating_sub(ended);
    let schedule = Schedule { duration: rule.schedule.duration.map(length), ..rule.schedule };
    RuleSpec { schedule, ..rule.clone() }
}

/// A rule that begins within a fault that goes on: it ends with it, and has waited as long as it.
fn the_rest(rule: &RuleSpec, fault: &Fault, now: Duration) -> RuleSpec {
    let left = fault.ends_at.saturating_sub(now);
    let past = fault.new.duration.saturating_sub(left);
    let schedule = Schedule {
        duration: Some(left),
        start_delay: rule.schedule.start_delay.saturating_sub(past),
        ..rule.schedule
    };
    RuleSpec { schedule, ..rule.clone() }
}

/// Counts what is written to it.
struct Length(usize);

impl io::Write for Length {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        self.0 += bytes.len();
        Ok(bytes.len())
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

#[cfg(test)]
mod tests;
