//! Why a rule matches nothing: for two seconds rules in shadow look for the packets it may have meant, at other
//! interfaces and in the other direction. They touch nothing.

use std::{
    borrow::Cow,
    collections::{BTreeSet, HashMap},
    net::SocketAddr,
    time::Duration,
};

use chaos_common::abi::{Count, Direction as Way};
use serde::{Deserialize, Serialize};

use super::{Engine, active::Active, devices, place::SUSPECTS, rules, types::EngineError};
use crate::{
    cgroup::Hierarchy,
    net::{
        Netlink,
        sockets::{self, Socket},
    },
    netns::NetnsId,
    spec::{Direction, Limits, RuleSpec, Schedule},
    targets::{NamespaceRef, Resolved, subtree_ids},
};

/// So long after a fault could begin, and has matched nothing, it is asked what else it may have meant.
pub const SUSPECT_AFTER: Duration = Duration::from_secs(3);
/// So long after it could begin it is said that it has not.
pub const ALARM_AFTER: Duration = Duration::from_secs(5);
/// Interfaces that are looked at besides those that a rule names.
const INTERFACES: usize = 4;
/// Peers that are named.
const PEERS: usize = 3;

/// Where packets were looked for.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case", tag = "cause")]
pub enum Unmatched {
    /// Packets that would match go the other way.
    WrongDirection {
        /// How many in two seconds.
        packets: u64,
        /// `egress` or `ingress`.
        direction: Cow<'static, str>,
    },
    /// Packets that would match use another interface.
    WrongInterface {
        /// How many in two seconds.
        packets: u64,
        /// Its name.
        interface: String,
    },
    /// The target sends and receives nothing of the kind.
    NoTraffic {
        /// Sockets of the target that have a peer.
        connected: usize,
        /// Some of their peers.
        peers: Vec<SocketAddr>,
    },
}

impl Unmatched {
    /// A sentence, with what mends it.
    #[must_use]
    pub fn sentence(&self) -> String {
        match self {
            Self::WrongDirection { packets, direction } => format!(
                "wrong direction: {packets} packets that would match went the other way in two seconds ({direction}; direction `both` has both)"
            ),
            Self::WrongInterface { packets, interface } => format!(
                "wrong interface: {packets} packets that would match used `{interface}` in two seconds"
            ),
            Self::NoTraffic { connected: 0, .. } => {
                "no such traffic: no socket of the target is connected to anybody".to_owned()
            }
            Self::NoTraffic { connected, peers } => {
                let names: Vec<String> = peers.iter().map(ToString::to_string).collect();
                format!(
                    "no such traffic: the target has {connected} connected sockets, to {}{}",
                    names.join(", "),
                    if *connected > peers.len() { ", ..." } else { "" }
                )
            }
        }
    }
}

/// A rule in shadow that looks for the packets another may have meant.
#[derive(Clone, Debug)]
pub(super) struct Probe {
    of: u32,
    slot: u32,
    spec: RuleSpec,
    /// None = the other direction.
    interface: Option<String>,
}

impl Probe {
    /// What is armed there is still this one.
    fn is(&self, active: &Active) -> bool {
        self.slot == active.slot && self.spec == active.spec
    }
}

/// The connected sockets of namespaces. Each is asked once: what lists them locks the kernel's tables.
#[derive(Debug, Default)]
pub struct Conversations(HashMap<NetnsId, Vec<Socket>>);

impl Conversations {
    fn of(&mut self, namespace: &NamespaceRef) -> &[Socket] {
        let list = || {
            let listed = namespace.netns.run(|| sockets::list(&mut Netlink::sock_diag()?)).ok()?.ok();
            listed.map(|sockets| sockets.into_iter().filter(Socket::has_peer).collect())
        };
        self.0.entry(namespace.netns.id()).or_insert_with(|| list().unwrap_or_default())
    }

    /// The peers of a target's sockets; what cannot be asked has none.
    fn peers(&mut self, target: &Resolved) -> Vec<SocketAddr> {
        let wanted = (!target.cgroups.is_empty())
            .then(|| Hierarchy::discover().ok().map(|hierarchy| subtree_ids(&hierarchy, &target.cgroups)))
            .flatten();
        let is_wanted = |socket: &&Socket| {
            wanted.as_ref().is_none_or(|ids| socket.cgroup.is_some_and(|id| ids.contains(&id)))
        };
        let mut peers = Vec::new();
        for namespace in &target.namespaces {
            peers.extend(self.of(namespace).iter().filter(is_wanted).map(|socket| socket.peer));
        }
        peers
    }
}

impl Engine {
    /// Begins to look for what the rules in these slots may have meant. Changing the set ends it.
    ///
    /// # Errors
    /// As [`Engine::place`]; nothing is looked for then.
    pub fn suspect(&mut self, slots: &[u32]) -> Result<(), EngineError> {
        let slots: BTreeSet<u32> = slots.iter().copied().collect();
        let mut held = self.held(|_| true);
        let taken: BTreeSet<u32> = held.iter().map(|(slot, _)| *slot).collect();
        let mut free = (0..self.maps.capacity()).filter(|slot| !taken.contains(slot)).take(SUSPECTS);
        let mut probes = Vec::new();
        for active in self.actives.iter().filter(|active| slots.contains(&active.slot)) {
            for (spec, interface) in self.suspects(active) {
                let Some(slot) = free.next() else { break };
                held.push((slot, spec.clone()));
                probes.push(Probe { of: active.slot, slot, spec, interface });
            }
        }
        if probes.is_empty() {
            return Ok(());
        }
        self.place(&held)?;
        self.probes.append(&mut probes);
        Ok(())
    }

    /// What was found for the rules in these slots; [`Engine::end_looking`] comes next.
    pub fn findings(&self, slots: &[u32], among: &mut Conversations) -> Result<Unmatched, EngineError> {
        let mut found = None;
        for probe in self.probes.iter().filter(|probe| slots.contains(&probe.of)) {
            let mut packets = 0;
            for way in [Way::Egress, Way::Ingress] {
                packets += self.maps.counters(probe.slot, way)?.of(Count::Matched).packets;
            }
            if packets > 0 && found.is_none() {
                found = Some(match &probe.interface {
                    Some(name) => Unmatched::WrongInterface { packets, interface: name.clone() },
                    None => Unmatched::WrongDirection {
                        packets,
                        direction: word(probe.spec.matching.direction).into(),
                    },
                });
            }
        }
        Ok(found.unwrap_or_else(|| self.traffic(slots, among)))
    }

    /// Ends looking for what the rules in these slots may have meant.
    ///
    /// # Errors
    /// As [`Engine::place`].
    pub fn end_looking(&mut self, slots: &[u32]) -> Result<(), EngineError> {
        if !self.probes.iter().any(|probe| slots.contains(&probe.of)) {
            return Ok(());
        }
        let held = self.held(|probe| !slots.contains(&probe.of));
        self.place(&held)
    }

    /// The rules as [`Engine::place`] takes them, and of the probes those that are kept.
    fn held(&self, keeps: impl Fn(&Probe) -> bool) -> Vec<(u32, RuleSpec)> {
        let probes = self.probes_by_slot();
        let probe = |active: &Active| probes.get(&active.slot).copied().filter(|probe| probe.is(active));
        let is_kept = |active: &&Active| probe(active).is_none_or(&keeps);
        self.actives.iter().filter(is_kept).map(|active| (active.slot, active.spec.clone())).collect()
    }

    /// The rules that were asked for: not those that only look for what others may have meant.
    pub(super) fn asked_for(&self) -> impl Iterator<Item = &Active> {
        let probes = self.probes_by_slot();
        let is_probe = move |active: &Active| probes.get(&active.slot).is_some_and(|probe| probe.is(active));
        self.actives.iter().filter(move |active| !is_probe(active))
    }

    fn probes_by_slot(&self) -> HashMap<u32, &Probe> {
        self.probes.iter().map(|probe| (probe.slot, probe)).collect()
    }

    /// Forgets probes that are not armed any more.
    pub(super) fn forget_probes(&mut self) {
        let by_slot: HashMap<u32, &Active> =
            self.actives.iter().map(|active| (active.slot, active)).collect();
        self.probes.retain(|probe| by_slot.get(&probe.slot).is_some_and(|active| probe.is(active)));
    }

    /// What a rule may have meant.
    fn suspects(&self, active: &Active) -> Vec<(RuleSpec, Option<String>)> {
        let mut shadow = active.spec.clone();
        shadow.shadow = true;
        shadow.name = format!("looking for what `{}` may have meant", active.spec.name);
        (shadow.limits, shadow.schedule) = (Limits::default(), Schedule::default());
        let mut all = Vec::new();
        let other = match rules::direction(&active.spec) {
            Direction::Egress => Some(Direction::Ingress),
            Direction::Ingress => Some(Direction::Egress),
            Direction::Both => None,
        };
        if let Some(other) = other {
            let mut spec = shadow.clone();
            spec.matching.direction = Some(other);
            all.push((spec, None));
        }
        let named = &active.spec.matching.interfaces;
        if !named.is_empty() {
            let links = self.sites.values().flat_map(|site| devices::choose(&site.links, &[]));
            let others: BTreeSet<String> =
                links.map(|chosen| chosen.link.name).filter(|name| !named.contains(name)).collect();
            for name in others.into_iter().take(INTERFACES) {
                let mut spec = shadow.clone();
                spec.matching.interfaces = vec![name.clone()];
                all.push((spec, Some(name)));
            }
        }
        all
    }

    /// Whom the targets talk to now.
    fn traffic(&self, slots: &[u32], among: &mut Conversations) -> Unmatched {
        let mut all = BTreeSet::new();
        let mut connected = 0;
        for active in self.actives.iter().filter(|active| slots.contains(&active.slot)) {
            for peer in among.peers(&active.target) {
                connected += 1;
                all.insert(peer);
            }
        }
        Unmatched::NoTraffic { connected, peers: all.into_iter().take(PEERS).collect() }
    }
}

const fn word(direction: Option<Direction>) -> &'static str {
    match direction {
        Some(Direction::Ingress) => "ingress",
        Some(Direction::Egress) => "egress",
        Some(Direction::Both) | None => "both",
    }
}
