//! Changing the set of faults while it is held.

use std::collections::{BTreeSet, HashMap};

use super::{
    Engine,
    active::Active,
    clock::boot_ns,
    site::Site,
    types::{EngineError, Protection},
};
use crate::spec::RuleSpec;

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
        let done =
            self.prepare().and_then(|()| self.protect()).and_then(|()| self.swap(&BTreeSet::new(), None));
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

    /// Replaces the whole set at once; no two rules have the same slot. Rules that stay the same, in the same slot,
    /// keep their memory, counters and clock; one that differs only in how long it lasts does so as well, and ends so
    /// long after it began.
    ///
    /// # Errors
    /// A rule cannot be armed; then the set is what it was before.
    pub fn place(&mut self, rules: &[(u32, RuleSpec)]) -> Result<(), EngineError> {
        check_number(rules.len(), self.maps.capacity())?;
        let capacity = self.maps.capacity();
        if let Some((slot, _)) = rules.iter().find(|(slot, _)| *slot >= capacity) {
            return Err(EngineError::Refused(format!("no slot {slot}; there are {capacity}")));
        }
        let stays = self.staying(rules);
        self.targets.begin();
        let mut fresh = Vec::new();
        for (slot, spec) in rules.iter().filter(|(slot, _)| !stays.contains(slot)) {
            fresh.push(Active::find(spec, *slot, &mut self.targets)?);
        }
        let slots: BTreeSet<u32> = fresh.iter().map(|active| active.slot).collect();
        let before = std::mem::take(&mut self.actives);
        let (mut kept, gone): (Vec<_>, Vec<_>) =
            before.into_iter().partition(|active| !active.is_over && stays.contains(&active.slot));
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
            self.targets.keep(self.actives.iter().map(|active| &active.spec));
            self.forget_probes();
            return Ok(());
        };
        self.set_lengths(&lengths);
        self.actives.retain(|active| !slots.contains(&active.slot));
        self.actives.extend(gone);
        self.actives.sort_by_key(|active| active.slot);
        if let Err(also) = self.prepare().and_then(|()| self.swap(&BTreeSet::new(), None)) {
            tracing::error!("going back to the faults as they were: {also}");
        }
        Err(error)
    }

    /// Ends the rules in these slots where they are: nothing can go wrong with that. They take their places until
    /// the set is changed.
    pub fn end_in_place(&mut self, slots: &[u32]) {
        let now_ns = boot_ns();
        let slots: BTreeSet<u32> = slots.iter().copied().collect();
        for active in self.actives.iter_mut().filter(|active| slots.contains(&active.slot)) {
            active.is_over = true;
            active.expires_ns = active.expires_ns.min(now_ns);
            self.maps.expire(active.slot, now_ns);
        }
    }

    /// Lets the rules that are kept last as long as these say; what they were before.
    fn set_lengths(&mut self, rules: &[(u32, RuleSpec)]) -> Vec<(u32, RuleSpec)> {
        let wanted = by_slot(rules);
        let mut before = Vec::new();
        for active in &mut self.actives {
            let Some(spec) = wanted.get(&active.slot) else { continue };
            if active.spec.schedule.duration != spec.schedule.duration {
                before.push((active.slot, active.spec.clone()));
                active.spec.schedule.duration = spec.schedule.duration;
                active.set_end();
            }
        }
        before
    }

    /// The slots of the rules that stay as they are, but for how long.
    fn staying(&self, rules: &[(u32, RuleSpec)]) -> BTreeSet<u32> {
        let wanted = by_slot(rules);
        let stays = |active: &&Active| {
            let wanted = wanted.get(&active.slot);
            !active.is_over && wanted.is_some_and(|spec| active.spec.is_same_but_duration(spec))
        };
        self.actives.iter().filter(stays).map(|active| active.slot).collect()
    }
}

fn by_slot(rules: &[(u32, RuleSpec)]) -> HashMap<u32, &RuleSpec> {
    rules.iter().map(|(slot, spec)| (*slot, spec)).collect()
}
