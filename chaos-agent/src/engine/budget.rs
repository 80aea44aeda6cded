//! How far a rule may reach: so many namespaces, cgroups and devices, each counted by itself.
//!
//! Who was there first stays; who comes when the places are taken is left out, until one is given up.

use std::collections::BTreeSet;

use super::{devices::Chosen, types::EngineError};
use crate::{cgroup::CgroupRef, netns::NetnsId, targets::Resolved};

/// The places of one rule.
#[derive(Debug)]
pub(super) struct Budget {
    max: usize,
    namespaces: Places<NetnsId>,
    cgroups: Places<u64>,
    devices: Places<(NetnsId, u32)>,
    /// Left out when it was last told.
    told: usize,
}

/// Places of one kind.
#[derive(Debug)]
struct Places<K> {
    taken: BTreeSet<K>,
    left_out: BTreeSet<K>,
}

impl<K> Default for Places<K> {
    fn default() -> Self {
        Self { taken: BTreeSet::new(), left_out: BTreeSet::new() }
    }
}

impl<K: Copy + Ord> Places<K> {
    /// Gives up the places of `about` that are not wanted any more, and gives the free ones to those that are.
    fn admit(&mut self, max: usize, wanted: &[K], about: impl Fn(&K) -> bool) {
        self.taken.retain(|known| !about(known) || wanted.contains(known));
        self.left_out.retain(|known| !about(known));
        for new in wanted {
            if self.taken.len() < max || self.taken.contains(new) {
                self.taken.insert(*new);
            } else {
                self.left_out.insert(*new);
            }
        }
    }
}

impl Budget {
    /// None = as many as there are.
    pub(super) fn new(max: Option<u32>) -> Self {
        Self {
            max: max.map_or(usize::MAX, |max| max as usize),
            namespaces: Places::default(),
            cgroups: Places::default(),
            devices: Places::default(),
            told: 0,
        }
    }

    /// The target is this now.
    pub(super) fn admit(&mut self, target: &Resolved) {
        let namespaces: Vec<NetnsId> = target.namespaces.iter().map(|found| found.netns.id()).collect();
        let cgroups: Vec<u64> = target.cgroups.iter().map(|found| found.id).collect();
        self.namespaces.admit(self.max, &namespaces, |_| true);
        self.cgroups.admit(self.max, &cgroups, |_| true);
        let taken = &self.namespaces.taken;
        self.devices.taken.retain(|(netns, _)| taken.contains(netns));
        self.devices.left_out.retain(|(netns, _)| taken.contains(netns));
    }

    /// Of the devices chosen in one namespace those that have a place.
    pub(super) fn admit_devices(&mut self, netns: NetnsId, chosen: Vec<Chosen>) -> Vec<Chosen> {
        let keys: Vec<(NetnsId, u32)> = chosen.iter().map(|device| (netns, device.link.index)).collect();
        self.devices.admit(self.max, &keys, |(of, _)| *of == netns);
        let taken = &self.devices.taken;
        chosen.into_iter().filter(|device| taken.contains(&(netns, device.link.index))).collect()
    }

    /// Whether the namespace has a place.
    pub(super) fn has_namespace(&self, netns: NetnsId) -> bool {
        self.namespaces.taken.contains(&netns)
    }

    /// Whether the cgroup has a place.
    pub(super) fn has_cgroup(&self, cgroup: &CgroupRef) -> bool {
        self.cgroups.taken.contains(&cgroup.id)
    }

    /// An error if something was left out.
    ///
    /// # Errors
    /// What there is, what is allowed, and how to allow more.
    pub(super) fn check(&self, target: &str) -> Result<(), EngineError> {
        let Some((count, what)) = self.excess() else { return Ok(()) };
        Err(EngineError::Refused(format!(
            "{target} comes to {count} {what}, and the fault's budget is {}: name a narrower target, or allow more with max_targets (--max-targets {count})",
            self.max
        )))
    }

    /// A sentence about what was left out since this was asked last.
    pub(super) fn news(&mut self, target: &str) -> Option<String> {
        let left_out =
            self.namespaces.left_out.len() + self.cgroups.left_out.len() + self.devices.left_out.len();
        let told = std::mem::replace(&mut self.told, left_out);
        let (count, what) = self.excess().filter(|_| left_out > told)?;
        Some(format!(
            "{target} comes to {count} {what} now, and the fault's budget is {}: it does not act on those that came later",
            self.max
        ))
    }

    fn excess(&self) -> Option<(usize, &'static str)> {
        [
            (self.namespaces.taken.len(), self.namespaces.left_out.len(), "namespaces"),
            (self.cgroups.taken.len(), self.cgroups.left_out.len(), "cgroups"),
            (self.devices.taken.len(), self.devices.left_out.len(), "devices"),
        ]
        .into_iter()
        .find(|(_, left_out, _)| *left_out > 0)
        .map(|(taken, left_out, what)| (taken + left_out, what))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn cgroups(ids: &[u64]) -> Resolved {
        let cgroups = ids.iter().map(|id| CgroupRef { path: "/x".into(), id: *id, level: 1 }).collect();
        Resolved { cgroups, ..Resolved::default() }
    }

    fn taken(budget: &Budget) -> Vec<u64> {
        budget.cgroups.taken.iter().copied().collect()
    }

    #[test]
    fn who_was_first_stays_and_a_free_place_is_given_again() {
        let mut budget = Budget::new(Some(2));
        budget.admit(&cgroups(&[7, 8]));
        assert!(budget.check("x").is_ok() && budget.news("x").is_none());
        budget.admit(&cgroups(&[1, 7, 8]));
        assert_eq!(taken(&budget), [7, 8]);
        let error = budget.check("unit:x.service").expect_err("three").to_string();
        assert!(error.contains("3 cgroups") && error.contains("--max-targets 3"), "{error}");
        assert!(budget.news("x").is_some() && budget.news("x").is_none(), "told once");
        budget.admit(&cgroups(&[1, 8]));
        assert_eq!(taken(&budget), [1, 8]);
        assert!(budget.check("x").is_ok());
        budget.admit(&cgroups(&[]));
        assert!(taken(&budget).is_empty());
    }

    #[test]
    fn without_a_budget_everybody_has_a_place() {
        let mut budget = Budget::new(None);
        budget.admit(&cgroups(&(1..1000).collect::<Vec<_>>()));
        assert!(budget.check("x").is_ok());
    }
}
