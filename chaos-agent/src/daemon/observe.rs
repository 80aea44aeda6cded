//! What the counters and the metrics show of the keeper.

use std::collections::{BTreeMap, BTreeSet};

use super::{book::Fault, keeper::Keeper, now, why};
use crate::{
    engine::{Engine, RuleStats},
    telemetry::{Observed, Place},
};

impl Keeper {
    /// Everything the metrics show, at one moment.
    pub(crate) fn observe(&mut self) -> Observed {
        let by_slot = self.by_slot();
        let held: Vec<(u64, _)> = self.book.active().map(|fault| (fault.id, fault.stats(&by_slot))).collect();
        let targets: BTreeSet<String> = self.book.active().map(|fault| fault.new.set.targets()).collect();
        let line = self.engine.as_ref().and_then(Engine::line_stats);
        let ended = why::labels().into_iter();
        Observed {
            places: self.book.active().filter(|fault| self.ledger.has_own(fault.id)).map(place).collect(),
            active: held.len(),
            unmatched: self.unmatched().len(),
            rules: self.book.slots().count(),
            targets: targets.len(),
            lines: self.engine.as_ref().map_or(0, Engine::lines),
            line: self.ledger.lines(line.as_ref()),
            started: self.ledger.started,
            ended: ended.map(|label| (label, self.ledger.ended.get(label).copied().unwrap_or(0))).collect(),
            errors: self.ledger.errors,
            last_error: self.ledger.last_error.as_ref().map(|(when, _)| *when),
            is_stopped: self.stopped().is_some(),
            events: self.hub.counts(),
            records_lost: self.records_lost(),
            series: self.ledger.series(held.into_iter()),
        }
    }

    /// Of these faults those that are held, with their counters, which are read for no others.
    pub(crate) fn held(&self, ids: &[u64]) -> Vec<(Fault, RuleStats)> {
        let stats = self.stats_of_faults(ids);
        let held = ids.iter().filter_map(|id| self.book.held(*id));
        held.map(|fault| (fault.clone(), fault.stats(&stats))).collect()
    }

    /// The counters of every slot that somebody has.
    pub(super) fn by_slot(&self) -> BTreeMap<u32, RuleStats> {
        self.stats_of(self.book.slots())
    }

    /// The counters of the slots that these faults have, as far as they are held.
    pub(super) fn stats_of_faults(&self, ids: &[u64]) -> BTreeMap<u32, RuleStats> {
        let held = ids.iter().filter_map(|id| self.book.held(*id));
        self.stats_of(held.flat_map(Fault::slots).copied())
    }

    /// The counters of these slots. Each takes several system calls: nobody asks for more than he needs.
    pub(super) fn stats_of(&self, slots: impl Iterator<Item = u32>) -> BTreeMap<u32, RuleStats> {
        let Some(engine) = &self.engine else { return BTreeMap::new() };
        engine.stats_by_slot(slots).unwrap_or_else(|error| {
            tracing::error!("the counters cannot be read: {error}");
            BTreeMap::new()
        })
    }

    /// Faults that matched nothing for longer than they should have.
    pub(crate) fn unmatched(&self) -> Vec<u64> {
        self.book.active().filter(|fault| fault.unmatched().is_some()).map(|fault| fault.id).collect()
    }

    /// The last thing that could not be done, and when.
    pub(crate) fn last_error(&self) -> Option<(std::time::SystemTime, String)> {
        self.ledger.last_error.clone()
    }
}

fn place(fault: &Fault) -> Place {
    Place {
        fault: fault.id,
        name: fault.new.name.clone().unwrap_or_default(),
        what: fault.new.set.name.clone(),
        target: fault.new.set.targets(),
        started: fault.started,
        remaining: fault.ends_at.saturating_sub(now()),
        lease: fault.lease_until.map(|until| until.saturating_sub(now())),
        is_unmatched: fault.unmatched().is_some(),
    }
}
