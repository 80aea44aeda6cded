//! One fault that is being held: its rule, its targets, and what the compiler takes for it.

use std::{collections::BTreeMap, sync::Arc};

use chaos_common::{
    abi::Rule,
    compile::{ClauseInput, RuleInput},
};

use super::{
    budget::Budget,
    clock::{boot_ns, nanos},
    devices::{self, Chosen},
    followed::{Now, Targets},
    refusals, rules,
    site::Site,
    types::{EngineError, Protection},
};
use crate::{
    cgroup::CgroupRef,
    net::link::Link,
    netns::NetnsId,
    spec::{Endpoint, RuleSpec},
    targets::{self, NamespaceRef, Resolved},
};

/// The longest a fault lives whose end is not given (`exec`): the command's, but never longer.
const CAP_NS: u64 = 3_600_000_000_000;

/// A fault that is being held.
pub(super) struct Active {
    pub(super) spec: RuleSpec,
    pub(super) slot: u32,
    pub(super) target: Arc<Resolved>,
    pub(super) peer: Option<Arc<Resolved>>,
    pub(super) budget: Budget,
    pub(super) armed_ns: u64,
    pub(super) expires_ns: u64,
    /// It was ended where it is ([`super::Engine::end_in_place`]), and is no longer anybody's.
    pub(super) is_over: bool,
}

/// Where a rule applies in one namespace, and to whom there.
pub(super) struct Share {
    pub(super) namespace: NamespaceRef,
    cgroups: Vec<CgroupRef>,
    peer_cgroups: Vec<CgroupRef>,
    peers: Vec<Endpoint>,
}

impl Active {
    /// Finds the targets; arms nothing.
    pub(super) fn find(spec: &RuleSpec, slot: u32, targets: &mut Targets) -> Result<Self, EngineError> {
        let (target, peer) = targets.find(spec)?;
        let mut budget = Budget::new(spec.limits.max_targets);
        budget.admit(&target);
        budget.check(&spec.target.to_string())?;
        let now = boot_ns();
        Ok(Self {
            spec: spec.clone(),
            slot,
            target,
            peer,
            budget,
            armed_ns: now,
            expires_ns: now,
            is_over: false,
        })
    }

    /// Where it applies has been looked at again.
    pub(super) fn follow(&mut self, (target, peer): Now) {
        self.budget.admit(&target);
        (self.target, self.peer) = (target, peer);
    }

    /// The clock starts.
    pub(super) fn arm(&mut self) {
        self.armed_ns = boot_ns();
        self.set_end();
    }

    /// So long after it was armed.
    pub(super) fn set_end(&mut self) {
        let length = self.spec.schedule.duration.map_or(CAP_NS, nanos);
        self.expires_ns = self.armed_ns.saturating_add(length);
    }

    /// Boot clock until which the kernel keeps the rule without hearing from us.
    pub(super) fn lease_until_ns(&self) -> u64 {
        boot_ns().saturating_add(nanos(self.spec.lease))
    }

    /// What the program reads.
    pub(super) fn rule(&self) -> Rule {
        rules::rule(&self.spec, u64::from(self.slot) + 1, self.armed_ns, self.expires_ns)
    }

    /// Packets must be cut into wire packets for it.
    pub(super) fn needs_wire(&self) -> bool {
        !self.spec.shadow && self.rule().flags & chaos_common::abi::rule_flags::WIRE != 0
    }

    /// Packets may have to wait for it.
    pub(super) fn needs_line(&self) -> bool {
        !self.spec.shadow && self.spec.faults.needs_line()
    }

    /// Every cgroup it asks about.
    pub(super) fn cgroups(&self) -> impl Iterator<Item = &CgroupRef> {
        let peer = self.peer.iter().flat_map(|peer| &peer.cgroups);
        // The root holds everything: no condition.
        let target = self.target.cgroups.iter().filter(|cgroup| self.budget.has_cgroup(cgroup));
        target.chain(peer).filter(|cgroup| cgroup.level > 0)
    }

    /// Where it applies now.
    pub(super) fn shares(&self) -> Result<Vec<Share>, EngineError> {
        let target = &self.admitted();
        let Some(peer) = &self.peer else {
            return Ok(target
                .namespaces
                .iter()
                .map(|ns| share(ns, target, self.spec.matching.peers.clone()))
                .collect());
        };
        let mut shares = Vec::new();
        for namespace in &target.namespaces {
            let mut share = share(namespace, target, Vec::new());
            let together = peer.namespaces.iter().any(|other| other.netns == namespace.netns);
            if together && !peer.cgroups.is_empty() {
                share.peer_cgroups.clone_from(&peer.cgroups);
            } else {
                share.peers = targets::visible_from(peer, &namespace.netns)?;
                if share.peers.is_empty() {
                    continue;
                }
            }
            shares.push(share);
        }
        shares.extend(self.seen_from_peer(target, peer)?);
        Ok(shares)
    }

    /// The target as far as the budget goes.
    fn admitted(&self) -> Resolved {
        let mut target = Resolved::clone(&self.target);
        target.namespaces.retain(|found| self.budget.has_namespace(found.netns.id()));
        target.cgroups.retain(|cgroup| self.budget.has_cgroup(cgroup));
        target
    }

    /// A peer that shares its namespace with others is not known by its address alone: what it
    /// begins itself is judged at its own side, where its socket is known.
    fn seen_from_peer(&self, target: &Resolved, peer: &Resolved) -> Result<Vec<Share>, EngineError> {
        let mut shares = Vec::new();
        let one_way = rules::direction(&self.spec) != crate::spec::Direction::Both;
        if peer.cgroups.is_empty() || one_way {
            return Ok(shares);
        }
        for namespace in &peer.namespaces {
            if target.namespaces.iter().any(|other| other.netns == namespace.netns) {
                continue;
            }
            let peers = targets::visible_from(target, &namespace.netns)?;
            if !peers.is_empty() {
                shares.push(share(namespace, peer, peers));
            }
        }
        Ok(shares)
    }

    /// Why no share came of two targets.
    pub(super) fn unseen(&self) -> EngineError {
        let peer = self.spec.peer.as_ref().map_or_else(String::new, ToString::to_string);
        let target = &self.spec.target;
        EngineError::Refused(format!(
            "no address of `{peer}` can be reached from `{target}`, so there is nothing to cut: {}; `chaos flows {target}` shows whom it talks to",
            match &self.peer {
                Some(peer) if peer.identities.is_empty() =>
                    "it listens on no port and has no address of its own",
                _ => "no route leads there",
            }
        ))
    }

    /// The devices where it applies to packets.
    pub(super) fn devices(&self, links: &[Link]) -> Vec<Chosen> {
        if self.spec.faults.acts_on_packets() {
            devices::choose(links, &self.spec.matching.interfaces)
        } else {
            Vec::new()
        }
    }

    /// What the compiler takes for it in one namespace.
    ///
    /// # Errors
    /// The rule is not armed yet and comes to more devices than its budget.
    pub(super) fn input(
        &mut self,
        share: &Share,
        site: &Site,
        protection: &Protection,
    ) -> Result<(RuleInput, Vec<Chosen>), EngineError> {
        let chosen = self.budget.admit_devices(share.namespace.netns.id(), self.devices(&site.links));
        if self.expires_ns == self.armed_ns {
            self.budget.check(&self.spec.target.to_string())?;
        }
        let direction = rules::direction(&self.spec);
        let netns = site.instance.cookie();
        let place = |device: &Chosen| devices::place(netns, device, &site.links, direction);
        let ids = |list: &[CgroupRef]| -> Vec<u64> {
            if list.iter().any(|cgroup| cgroup.level == 0) {
                Vec::new()
            } else {
                list.iter().map(|c| c.id).collect()
            }
        };
        let cgroups = ids(&share.cgroups);
        let clauses: Vec<ClauseInput> = rules::clauses(&self.spec.matching, &share.peers);
        let input = RuleInput {
            name: self.spec.name.clone(),
            slot: self.slot,
            rule: self.rule(),
            places: chosen.iter().map(place).collect(),
            classes: rules::classes(&self.spec, site.protect || !protection.peers.is_empty()),
            connects: refusals::places(&self.spec, &cgroups, netns, site.protect),
            cgroups,
            peer_cgroups: ids(&share.peer_cgroups),
            clauses,
            exclusions: rules::exclusions(&[&*self.spec.matching.except, &*protection.peers].concat()),
        };
        Ok((input, chosen))
    }
}

fn share(namespace: &NamespaceRef, target: &Resolved, peers: Vec<Endpoint>) -> Share {
    Share { namespace: namespace.clone(), cgroups: target.cgroups.clone(), peer_cgroups: Vec::new(), peers }
}

/// The namespaces that some share needs, each once.
pub(super) fn namespaces(shares: &[(usize, Share)]) -> BTreeMap<NetnsId, NamespaceRef> {
    shares.iter().map(|(_, share)| (share.namespace.netns.id(), share.namespace.clone())).collect()
}
