//! Changing the set of faults while it is held.

use std::time::Duration;

use super::{
    Engine,
    active::Active,
    clock::boot_ns,
    site::Site,
    types::{EngineError, Protection},
};
use crate::spec::{RuleSpec, Schedule};

/// Slots beside those of the rules, for what they may have meant (`probe`).
pub(super) const SUSPECTS: usize = 32;

/// Refuses more rules than there are slots.
pub(super) fn check_number(rules: usize, capacity: u32) -> Result<(), EngineError> {
    if rules > capacity as usize {
        return Err(EngineError::Refused(format!("{rules} rules at once; {capacity} are possible")));
    }
    Ok(())
}

impl Engine {
    /// What of ours is in the kernel, in words, for who must find it when we cannot say.
    #[must_use]
    pub fn things(&self) -> Vec<String> {
        self.sites.values().flat_map(Site::things).collect()
    }

    /// From now on this is protected, too, also from the faults that are held.
    ///
    /// # Errors
    /// It could not be done; faults go on as they were.
    pub fn protect_also(&mut self, protection: Protection) -> Result<(), EngineError> {
        if self.options.protection == protection {
            return Ok(());
        }
        let before = std::mem::replace(&mut self.options.protection, protection);
        let done = self.prepare().and_then(|()| self.protect()).and_then(|()| self.swap(&[], None));
        if done.is_err() {
            self.options.protection = before;
        }
        self.noted.extend(done?);
        Ok(())
    }

    /// Replaces the whole set at once, each rule in the slot of its place. See [`Self::place`].
    ///
    /// # Errors
    /// As [`Self::place`].
    pub fn replace(&mut self, rules: &[RuleSpec]) -> Result<(), EngineError> {
        check_number(rules.len(), self.maps.capacity())?;
        let placed: Vec<(u32, RuleSpec)> = (0u32..).zip(rules.iter().cloned()).collect();
        self.place(&placed)
    }

    /// Replaces the whole set at once. Rules that stay the same, in the same slot, keep their memory, counters
    /// and clock; one that differs only in how long it lasts does so as well, and ends so long after it began.
    ///
    /// # Errors
    /// A rule cannot be armed; then the set is what it was before.
    pub fn place(&mut self, rules: &[(u32, RuleSpec)]) -> Result<(), EngineError> {
        check_number(rules.len(), self.maps.capacity())?;
        let capacity = self.maps.capacity();
        if let Some((slot, _)) = rules.iter().find(|(slot, _)| *slot >= capacity) {
            return Err(EngineError::Refused(format!("no slot {slot}; there are {capacity}")));
        }
        let is_of = |active: &Active, (slot, spec): &(u32, RuleSpec)| {
            active.slot == *slot
                && !active.is_over
                && active.spec == lasting(spec, active.spec.schedule.duration)
        };
        self.targets.begin();
        let mut fresh = Vec::new();
        for rule in rules.iter().filter(|rule| !self.actives.iter().any(|active| is_of(active, rule))) {
            fresh.push(Active::find(&rule.1, rule.0, &mut self.targets)?);
        }
        let slots: Vec<u32> = fresh.iter().map(|active| active.slot).collect();
        let before = std::mem::take(&mut self.actives);
        let (mut kept, gone): (Vec<_>, Vec<_>) =
            before.into_iter().partition(|active| rules.iter().any(|rule| is_of(active, rule)));
        kept.extend(fresh);
        kept.sort_by_key(|active| active.slot);
        self.actives = kept;
        self.take_over_targets();
        let lengths = self.set_lengths(rules);
        let changed = self.prepare().and_then(|()| {
            self.release(gone.iter());
            self.swap(&slots, Some(self.options.linger))
        });
        let Err(error) = changed else {
            self.targets.keep(&self.actives.iter().map(|active| &active.spec));
            self.forget_probes();
            return Ok(());
        };
        self.set_lengths(&lengths);
        self.actives.retain(|active| !slots.contains(&active.slot));
        self.actives.extend(gone);
        self.actives.sort_by_key(|active| active.slot);
        if let Err(also) = self.prepare().and_then(|()| self.swap(&[], None)) {
            tracing::error!("going back to the faults as they were: {also}");
        }
        Err(error)
    }

    /// Ends the rules in these slots where they are: nothing can go wrong with that. They take their places until
    /// the set is changed.
    pub fn end_in_place(&mut self, slots: &[u32]) {
        let now_ns = boot_ns();
        for active in self.actives.iter_mut().filter(|active| slots.contains(&active.slot)) {
            active.is_over = true;
            active.expires_ns = active.expires_ns.min(now_ns);
            self.maps.expire(active.slot, now_ns);
        }
    }

    /// Lets the rules that are kept last as long as these say; what they were before.
    fn set_lengths(&mut self, rules: &[(u32, RuleSpec)]) -> Vec<(u32, RuleSpec)> {
        let mut before = Vec::new();
        for (slot, spec) in rules {
            let changed = |active: &&mut Active| {
                active.slot == *slot && active.spec.schedule.duration != spec.schedule.duration
            };
            for active in self.actives.iter_mut().filter(changed) {
                before.push((*slot, active.spec.clone()));
                active.spec.schedule.duration = spec.schedule.duration;
                active.set_end();
            }
        }
        before
    }
}

/// The rule, lasting so long.
fn lasting(spec: &RuleSpec, duration: Option<Duration>) -> RuleSpec {
    RuleSpec { schedule: Schedule { duration, ..spec.schedule }, ..spec.clone() }
}
