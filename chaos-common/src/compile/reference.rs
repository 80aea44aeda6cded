//! What the lookup must find, by plain scan: the definition that the tables are tested against.

use super::{ClauseInput, Input, Prefix, RuleInput};
use crate::{
    abi::{Direction, device_flags},
    packet::{Addr, Packet},
};

/// A packet at a place, with the owners of its ends.
#[derive(Clone, Copy, Debug)]
pub struct Question<'a> {
    /// The facts.
    pub packet: &'a Packet,
    /// `SO_NETNS_COOKIE` of the namespace.
    pub netns: u64,
    /// The device.
    pub ifindex: u32,
    /// Which way.
    pub direction: Direction,
    /// Target cgroup that owns the source's socket; 0 = none.
    pub source_owner: u64,
    /// Target cgroup that owns the destination's socket; 0 = none.
    pub destination_owner: u64,
}

/// The slots of the rules that match, in the order of the input.
#[must_use]
pub fn scan(input: &Input, question: &Question<'_>) -> Vec<u32> {
    let matching = input.rules.iter().filter(|rule| is_asked(input, rule, question));
    matching.map(|rule| rule.slot).collect()
}

/// On loopback a rule for both directions judges a packet once: when it leaves, if it matches then.
fn is_asked(input: &Input, rule: &RuleInput, question: &Question<'_>) -> bool {
    let device = input
        .devices
        .iter()
        .find(|device| device.netns == question.netns && device.ifindex == question.ifindex);
    let Some(device) = device else { return false };
    if !matches_rule(input, rule, question) {
        return false;
    }
    let comes_back = device.flags & device_flags::LOOPBACK != 0 && question.direction == Direction::Ingress;
    let before = Question { direction: Direction::Egress, ..*question };
    !(comes_back && super::is_both(rule) && matches_rule(input, rule, &before))
}

fn matches_rule(input: &Input, rule: &RuleInput, question: &Question<'_>) -> bool {
    let here = rule.places.iter().any(|place| {
        place.netns == question.netns
            && place.ifindex == question.ifindex
            && (place.tagged || !question.packet.is_tagged())
            && if question.direction == Direction::Egress { place.egress } else { place.ingress }
    });
    let class = rule.classes.checked_shr(u32::from(question.packet.class.0)).unwrap_or(0) & 1 != 0;
    let (own, peer) = match question.direction {
        Direction::Egress => (question.source_owner, question.destination_owner),
        Direction::Ingress => (question.destination_owner, question.source_owner),
    };
    let owned = owns(input, &rule.cgroups, own) && owns(input, &rule.peer_cgroups, peer);
    let fulfils = |clause: &ClauseInput| holds(clause, question.packet, question.direction);
    here && class
        && owned
        && (rule.clauses.is_empty() || rule.clauses.iter().any(fulfils))
        && !rule.exclusions.iter().any(fulfils)
}

fn owns(input: &Input, wanted: &[u64], owner: u64) -> bool {
    let above = input.cgroups.iter().find(|cgroup| cgroup.id == owner).map(|cgroup| &cgroup.ancestors);
    wanted.is_empty()
        || wanted.contains(&owner)
        || above.is_some_and(|ids| ids.iter().any(|id| wanted.contains(id)))
}

fn holds(clause: &ClauseInput, packet: &Packet, direction: Direction) -> bool {
    let source = (&packet.source, packet.source_port);
    let destination = (&packet.destination, packet.destination_port);
    let ((local, local_port), (peer, peer_port)) = match direction {
        Direction::Egress => (source, destination),
        Direction::Ingress => (destination, source),
    };
    let net = |nets: &[Prefix], addr: &Addr| {
        nets.is_empty() || (packet.is_ip() && nets.iter().any(|net| net.holds(addr)))
    };
    let ports = |ranges: &[(u16, u16)], port: u16| {
        ranges.is_empty()
            || (packet.has_ports() && ranges.iter().any(|(first, last)| (*first..=*last).contains(&port)))
    };
    net(&clause.locals, local)
        && net(&clause.peers, peer)
        && ports(&clause.local_ports, local_port)
        && ports(&clause.peer_ports, peer_port)
}
