//! The entries that answer connect(2): every alternative of a rule, written out.

use super::{ClauseInput, CompileError, ConnectPlace, Input, Ports, Prefix, RuleInput};
use crate::{
    abi::{CONNECTS_MAX, Connect, connect_flags},
    packet::Class,
};

/// Every port.
const ANY_PORT: Ports = (0, u16::MAX);

/// The table of a set of rules, in their order.
pub(super) fn compile(input: &Input) -> Result<Vec<Connect>, CompileError> {
    let entries: Vec<(&RuleInput, Connect)> = input
        .rules
        .iter()
        .flat_map(|rule| of_rule(input, rule).into_iter().map(move |entry| (rule, entry)))
        .collect();
    if entries.len() > CONNECTS_MAX {
        let mut names: Vec<&str> = entries.iter().map(|(rule, _)| rule.name.as_str()).collect();
        names.dedup();
        names.truncate(4);
        let names = names.join(", ");
        return Err(CompileError::TooManyConnects { count: entries.len(), limit: CONNECTS_MAX, names });
    }
    Ok(entries.into_iter().map(|(_, entry)| entry).collect())
}

fn of_rule(input: &Input, rule: &RuleInput) -> Vec<Connect> {
    let every = [ClauseInput::default()];
    let clauses = if rule.clauses.is_empty() { every.as_slice() } else { rule.clauses.as_slice() };
    let mut entries = Vec::new();
    for place in rule.connects.iter().filter(|place| !is_covered(input, rule, place)) {
        entries.extend(rule.exclusions.iter().flat_map(|clause| of_clause(rule, place, clause, true)));
        entries.extend(clauses.iter().flat_map(|clause| of_clause(rule, place, clause, false)));
    }
    entries
}

/// Hooks of the cgroups above are called, too: the rule shall answer once.
fn is_covered(input: &Input, rule: &RuleInput, place: &ConnectPlace) -> bool {
    let above = input.cgroups.iter().find(|cgroup| cgroup.id == place.cgroup).map(|found| &found.ancestors);
    rule.connects.iter().any(|other| {
        let holds = other.cgroup == 0 || above.is_some_and(|ids| ids.contains(&other.cgroup));
        other.netns == place.netns && other.cgroup != place.cgroup && holds
    })
}

/// A clause about the local end is for none: it is not known yet.
fn of_clause(rule: &RuleInput, place: &ConnectPlace, clause: &ClauseInput, excludes: bool) -> Vec<Connect> {
    if !clause.locals.is_empty() || !clause.local_ports.is_empty() {
        return Vec::new();
    }
    let any_port = [ANY_PORT];
    let ports = if clause.peer_ports.is_empty() { any_port.as_slice() } else { &clause.peer_ports };
    let peers: Vec<Option<&Prefix>> =
        if clause.peers.is_empty() { vec![None] } else { clause.peers.iter().map(Some).collect() };
    let flags = flags(rule, place, excludes);
    let entry = |peer: Option<&Prefix>, (first_port, last_port): Ports| Connect {
        netns: place.netns,
        cgroup: place.cgroup,
        peer: peer.map_or([0; 4], |net| net.addr),
        mask: peer.map_or([0; 4], Prefix::mask),
        slot: rule.slot,
        flags: flags | families(peer),
        first_port,
        last_port,
        reserved: 0,
    };
    peers.iter().flat_map(|peer| ports.iter().map(|range| entry(*peer, *range))).collect()
}

fn flags(rule: &RuleInput, place: &ConnectPlace, excludes: bool) -> u32 {
    let has = |class: Class| rule.classes.checked_shr(u32::from(class.0)).unwrap_or(0) & 1 != 0;
    let set = [
        (true, connect_flags::USED),
        (excludes, connect_flags::EXCLUDES),
        (place.protect, connect_flags::PROTECT),
        (has(Class::TCP), connect_flags::TCP),
        (has(Class::UDP), connect_flags::UDP),
    ];
    set.into_iter().filter(|(on, _)| *on).fold(0, |flags, (_, flag)| flags | flag)
}

/// A range holds addresses of its own family only.
fn families(peer: Option<&Prefix>) -> u32 {
    match peer {
        None => connect_flags::V4 | connect_flags::V6,
        Some(net) if net.is_v4() => connect_flags::V4,
        Some(_) => connect_flags::V6,
    }
}
