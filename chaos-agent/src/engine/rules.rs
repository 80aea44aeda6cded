//! From a fault as the user asked for it to what the compiler takes.

use std::collections::BTreeMap;

use chaos_common::{
    abi::{Rule, rule_flags},
    compile::{ClauseInput, Ports, Prefix},
    env::mix,
    fault::{DefaultDirection, FAULTS, Faults},
    packet::{Class, tcp},
    units::share_to_prob,
};
use ipnet::IpNet;

use super::clock::nanos;
use crate::spec::{Connections, Direction, Endpoint, MatchSpec, PortRange, Proto, RuleSpec};

/// The direction asked for, or the faults' own.
pub(super) fn direction(spec: &RuleSpec) -> Direction {
    if let Some(direction) = spec.matching.direction {
        return direction;
    }
    let set = || FAULTS.iter().filter(|info| (info.describe)(&spec.faults).is_some());
    let egress = set().any(|info| info.default_direction != DefaultDirection::Ingress);
    let ingress = set().any(|info| info.default_direction != DefaultDirection::Egress);
    match (egress, ingress) {
        (true, true) => Direction::Both,
        (false, true) => Direction::Ingress,
        _ => Direction::Egress,
    }
}

/// What the program reads. `id` and the times are the engine's.
pub(super) fn rule(spec: &RuleSpec, id: u64, armed_ns: u64, expires_ns: u64) -> Rule {
    let matching = &spec.matching;
    let (flap_on, flap_off) = spec.schedule.flap.unwrap_or_default();
    Rule {
        id,
        // 0 would mean none; every other number is as good a seed.
        seed: spec.seed.map_or(0, |seed| mix(seed).max(1)),
        share_seed: spec.seed.map_or_else(|| mix(armed_ns ^ id), mix),
        armed_ns,
        starts_ns: armed_ns.saturating_add(nanos(spec.schedule.start_delay)),
        expires_ns,
        flap_on_ns: nanos(flap_on),
        flap_period_ns: nanos(flap_on.saturating_add(flap_off)),
        max_packets: spec.limits.max_packets.unwrap_or(0),
        max_bytes: spec.limits.max_bytes.unwrap_or(0),
        max_flows: spec.limits.max_flows.unwrap_or(0),
        flags: flags(spec),
        share: share_to_prob(matching.share.unwrap_or(0.0)),
        tcp_flags: tcp_flags(matching),
        kinds: 0,
        cut_kinds: 0,
        reserved: 0,
        faults: spec.faults,
    }
}

fn flags(spec: &RuleSpec) -> u32 {
    let matching = &spec.matching;
    let limited = spec.limits.max_packets.is_some() || spec.limits.max_bytes.is_some();
    let ordinal = spec.seed.is_some() || spec.faults.needs_ordinal();
    let set = [
        (spec.shadow, rule_flags::SHADOW),
        (matching.data_only, rule_flags::DATA_ONLY),
        (matching.connections == Connections::New, rule_flags::NEW),
        (matching.connections == Connections::Established, rule_flags::ESTABLISHED),
        (matching.forwarded, rule_flags::FORWARDED),
        (matching.share.is_some(), rule_flags::SHARE),
        (spec.faults.needs_wire() || (limited && spec.faults.acts_on_packets()), rule_flags::WIRE),
        (ordinal, rule_flags::ORDINAL),
        (spec.faults.needs_line(), rule_flags::LINE),
        (spec.faults.needs_memory(), rule_flags::MEMORY),
        (spec.faults.needs_checksum(), rule_flags::CHECKSUM),
        (spec.faults.cuts_held() && !spec.shadow, rule_flags::CUTS),
    ];
    set.into_iter().filter(|(on, _)| *on).fold(0, |flags, (_, flag)| flags | flag)
}

fn tcp_flags(matching: &MatchSpec) -> u32 {
    let wanted = matching.tcp_flags;
    let set = [(wanted.syn, tcp::SYN), (wanted.fin, tcp::FIN), (wanted.rst, tcp::RST)];
    set.into_iter().filter(|(on, _)| *on).fold(0, |flags, (_, flag)| flags | u32::from(flag))
}

/// The protocol classes, as bits. ARP and neighbour discovery only when a whole interface is cut, and not where
/// something is `spared` that would be lost without them.
pub(super) fn classes(spec: &RuleSpec, spared: bool) -> u8 {
    let bit = |class: Class| 1u8 << class.0;
    let protos = &spec.matching.protos;
    if !protos.is_empty() {
        return protos.iter().fold(0, |bits, proto| {
            bits | match proto {
                Proto::Tcp => bit(Class::TCP),
                Proto::Udp => bit(Class::UDP),
                Proto::Icmp => bit(Class::ICMP) | bit(Class::ICMP6),
            }
        });
    }
    let ip = bit(Class::TCP) | bit(Class::UDP) | bit(Class::ICMP) | bit(Class::ICMP6) | bit(Class::OTHER);
    if cuts_link(spec) && !spared { ip | bit(Class::LINK) } else { ip }
}

/// A whole interface goes down: it is named, and nothing else is asked for.
fn cuts_link(spec: &RuleSpec) -> bool {
    let MatchSpec {
        direction: _,
        peers,
        peer_ports,
        locals,
        local_ports,
        protos,
        interfaces,
        except,
        tcp_flags,
        data_only,
        share,
        connections,
        forwarded: _,
    } = &spec.matching;
    spec.faults.cuts_link()
        && !interfaces.is_empty()
        && spec.peer.is_none()
        && [peers.is_empty(), peer_ports.is_empty(), locals.is_empty(), local_ports.is_empty()] == [true; 4]
        && [protos.is_empty(), except.is_empty(), !data_only, share.is_none()] == [true; 4]
        && *tcp_flags == crate::spec::TcpFlags::default()
        && *connections == Connections::All
}

/// The alternatives of a match whose peers are `peers`.
pub(super) fn clauses(matching: &MatchSpec, peers: &[Endpoint]) -> Vec<ClauseInput> {
    let locals: Vec<Prefix> = matching.locals.iter().map(prefix).collect();
    let local_ports: Vec<Ports> = matching.local_ports.iter().copied().map(ports).collect();
    let peer_ports: Vec<Ports> = matching.peer_ports.iter().copied().map(ports).collect();
    if peers.is_empty() {
        let clause = ClauseInput { locals, peers: Vec::new(), local_ports, peer_ports };
        return if clause == ClauseInput::default() { Vec::new() } else { vec![clause] };
    }
    let mut clauses = Vec::new();
    for (range, nets) in by_ports(peers) {
        let Some(peer_ports) = both(&peer_ports, range) else { continue };
        clauses.push(ClauseInput {
            locals: locals.clone(),
            peers: nets,
            local_ports: local_ports.clone(),
            peer_ports,
        });
    }
    clauses
}

/// The exclusions, as alternatives of their own.
pub(super) fn exclusions(except: &[Endpoint]) -> Vec<ClauseInput> {
    let clause = |(range, peers): (Option<Ports>, Vec<Prefix>)| ClauseInput {
        peers,
        peer_ports: range.into_iter().collect(),
        ..ClauseInput::default()
    };
    by_ports(except).into_iter().map(clause).collect()
}

/// Endpoints that differ only in the address become one clause. An endpoint without address stands
/// for every one, and takes its group with it.
fn by_ports(endpoints: &[Endpoint]) -> BTreeMap<Option<Ports>, Vec<Prefix>> {
    let mut groups: BTreeMap<Option<Ports>, Vec<Prefix>> = BTreeMap::new();
    for endpoint in endpoints.iter().filter(|endpoint| endpoint.net.is_some()) {
        let nets = groups.entry(endpoint.ports.map(ports)).or_default();
        nets.extend(endpoint.net.as_ref().map(prefix));
    }
    for endpoint in endpoints.iter().filter(|endpoint| endpoint.net.is_none()) {
        groups.insert(endpoint.ports.map(ports), Vec::new());
    }
    groups
}

/// The ports that both conditions allow; none = no port does.
fn both(wanted: &[Ports], range: Option<Ports>) -> Option<Vec<Ports>> {
    let Some((first, last)) = range else { return Some(wanted.to_vec()) };
    if wanted.is_empty() {
        return Some(vec![(first, last)]);
    }
    let common: Vec<Ports> =
        wanted.iter().map(|(a, b)| (first.max(*a), last.min(*b))).filter(|(a, b)| a <= b).collect();
    (!common.is_empty()).then_some(common)
}

const fn ports(range: PortRange) -> Ports {
    (range.first, range.last)
}

fn prefix(net: &IpNet) -> Prefix {
    Prefix::new(net.network(), net.prefix_len())
}

/// The faults in plain words: `loss 10%, partition`.
pub(super) fn describe(faults: &Faults) -> String {
    let parts: Vec<String> = FAULTS.iter().filter_map(|info| (info.describe)(faults)).collect();
    parts.join(", ")
}
