//! What no rule needs any more stays for a while, so that the next rule finds it: the programs of a namespace on
//! their devices (no rule, so they pass every packet), its normaliser, its delay line.
//!
//! Only what rules let go of when they are taken away lingers. A namespace whose target has gone is let go of at
//! once: it ends when nobody holds it.

use std::{
    collections::{BTreeMap, BTreeSet},
    time::{Duration, Instant},
};

use super::{Engine, active::Active};
use crate::netns::NetnsId;

/// What is kept for rules in one namespace.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(super) enum Part {
    /// Programs on devices, and what the tables say about addresses.
    Site,
    /// The private pair.
    Normaliser,
    /// The private device of packets that wait.
    Line,
}

/// Parts that are needed, and those that were.
#[derive(Debug, Default)]
pub(super) struct Parts {
    needed: BTreeSet<(NetnsId, Part)>,
    /// Until when.
    lingering: BTreeMap<(NetnsId, Part), Instant>,
}

impl Parts {
    /// From now on these are needed; of those that were, what a rule let go of lingers.
    pub(super) fn need(&mut self, needed: BTreeSet<(NetnsId, Part)>, linger: Option<Duration>) {
        if let Some(linger) = linger.filter(|linger| !linger.is_zero()) {
            let until = Instant::now() + linger;
            self.lingering.extend(self.needed.difference(&needed).map(|part| (*part, until)));
        }
        self.lingering.retain(|part, _| !needed.contains(part));
        self.needed = needed;
    }

    /// Whether a part is to stay.
    pub(super) fn keeps(&self, netns: NetnsId, part: Part) -> bool {
        let part = (netns, part);
        self.needed.contains(&part) || self.lingering.contains_key(&part)
    }

    /// Whether a part is needed by a rule.
    pub(super) fn is_needed(&self, netns: NetnsId, part: Part) -> bool {
        self.needed.contains(&(netns, part))
    }

    /// Ends what has lingered long enough; whether there was any.
    fn end_old(&mut self, now: Instant) -> bool {
        let before = self.lingering.len();
        self.lingering.retain(|_, until| *until > now);
        self.lingering.len() < before
    }
}

impl Engine {
    /// What the rules need where.
    pub(super) fn parts(&self, shares: &[(usize, super::active::Share)]) -> BTreeSet<(NetnsId, Part)> {
        let mut parts = BTreeSet::new();
        for (index, share) in shares {
            let id = share.namespace.netns.id();
            let active = self.actives.get(*index);
            parts.insert((id, Part::Site));
            parts.extend(active.is_some_and(Active::needs_wire).then_some((id, Part::Normaliser)));
            parts.extend(active.is_some_and(Active::needs_line).then_some((id, Part::Line)));
        }
        parts
    }

    /// Removes what is neither needed nor lingers.
    pub(super) fn let_go(&mut self) {
        let Self { sites, parts, maps, .. } = self;
        for (id, site) in sites.iter_mut() {
            if parts.is_needed(*id, Part::Site) {
                site.detach_unused();
            }
            if !parts.keeps(*id, Part::Normaliser) {
                site.drop_normaliser();
            }
            if !parts.keeps(*id, Part::Line) {
                site.drop_line();
            }
        }
        sites.retain(|id, site| {
            let stays = parts.keeps(*id, Part::Site);
            if !stays {
                site.forget(maps);
            }
            stays
        });
    }

    /// Removes what has lingered long enough.
    pub(super) fn end_lingering(&mut self) {
        if self.parts.end_old(Instant::now()) {
            self.let_go();
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::netns::Netns;

    #[test]
    fn what_a_rule_lets_go_of_lingers_and_what_vanishes_does_not() {
        let id = Netns::current().unwrap().id();
        let all = BTreeSet::from([(id, Part::Site), (id, Part::Line)]);
        let mut parts = Parts::default();
        parts.need(all.clone(), Some(Duration::from_secs(10)));
        assert!(parts.keeps(id, Part::Line) && !parts.keeps(id, Part::Normaliser));
        parts.need(BTreeSet::new(), Some(Duration::from_secs(10)));
        assert!(parts.keeps(id, Part::Line) && !parts.is_needed(id, Part::Line));
        assert!(!parts.end_old(Instant::now()));
        assert!(parts.end_old(Instant::now() + Duration::from_secs(11)));
        assert!(!parts.keeps(id, Part::Site));
        parts.need(all, None);
        parts.need(BTreeSet::new(), None);
        assert!(!parts.keeps(id, Part::Site), "its target has gone");
    }
}
