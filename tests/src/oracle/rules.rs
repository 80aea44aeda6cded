//! Random rules from a seed, for every fault kind there is.

use chaos_common::{
    abi::{Rule, rule_flags},
    compile::{ClauseInput, DeviceInput, Input, Place, Ports, Prefix, RuleInput},
    env::Prob,
    fault::{FAULTS, FaultInfo, Faults},
};
use rand::{Rng, rngs::StdRng, seq::IndexedRandom};

use super::{NETNS, NOW_NS, cgroups};
use crate::packet::random::{PORT_POOL, random_address};

/// Values of fault flags; each kind takes those its own parser accepts, so a new kind needs a line
/// here only when it accepts none of them.
const VALUES: &[&str] = &[
    "",
    "30%",
    "70%",
    "100%",
    "0%",
    "every=1",
    "every=3",
    "10ms",
    "1.5s",
    "1000",
    "1MiB",
    "30%,correlation=50%,ecn",
    "p=30%,r=40%,h=20%,k=90%",
    "10ms±9ms,correlation=30%",
    "5ms±9ms,distribution=normal",
    "5ms,mode=data-only",
    "8kbit/s",
    "1Mbit/s,burst=3KB,queue=20ms,per=connection",
    "50%,gap=3,correlation=30%",
    "nxdomain:*",
    "silence:*.internal,db-?",
    "delay=10ms:redis",
    "address=[10.0.0.9,fd00::9]:redis*",
];

/// Nanoseconds in a second, the range that the clock of the tests moves in.
const SECOND_NS: u64 = 1_000_000_000;

/// Every setting of one kind that [`VALUES`] offer.
///
/// # Panics
/// When the kind accepts none of them.
#[must_use]
pub fn settings(kind: &FaultInfo) -> Vec<Faults> {
    let parsed = VALUES.iter().filter_map(|value| {
        let mut faults = Faults::default();
        (kind.parse)(value, &mut faults).ok().filter(|()| !faults.is_off()).map(|()| faults)
    });
    let all: Vec<_> = parsed.collect();
    assert!(!all.is_empty(), "no value of oracle::rules::VALUES suits the fault kind {}", kind.name);
    all
}

/// A set of rules on the given devices. It may be refused when compiled (too many for one packet).
#[must_use]
pub fn random_input(rng: &mut StdRng, devices: &[DeviceInput]) -> Input {
    let count = [1, 2, 5, 12, 30].choose(rng).copied().unwrap_or(1);
    let rules = (0..count).map(|slot| random_rule(rng, slot, devices)).collect();
    Input { rules, cgroups: cgroups(), devices: devices.to_vec() }
}

fn random_rule(rng: &mut StdRng, slot: u32, devices: &[DeviceInput]) -> RuleInput {
    let some = |rng: &mut StdRng, share: u32| rng.random_ratio(1, share);
    let ids = |rng: &mut StdRng| (0..rng.random_range(1..=2)).map(|_| random_cgroup(rng)).collect::<Vec<_>>();
    RuleInput {
        name: format!("rule {slot}"),
        slot,
        rule: random_parameters(rng, slot),
        places: random_places(rng, devices),
        connects: Vec::new(),
        classes: if some(rng, 2) { 0x3e } else { rng.random_range(1..64) },
        cgroups: if some(rng, 3) { ids(rng) } else { Vec::new() },
        peer_cgroups: if some(rng, 8) { ids(rng) } else { Vec::new() },
        clauses: (0..rng.random_range(0..3)).map(|_| random_clause(rng)).collect(),
        exclusions: if some(rng, 4) { vec![random_clause(rng)] } else { Vec::new() },
    }
}

fn random_cgroup(rng: &mut StdRng) -> u64 {
    let all = cgroups();
    all.choose(rng).map_or(0, |cgroup| cgroup.id)
}

fn random_places(rng: &mut StdRng, devices: &[DeviceInput]) -> Vec<Place> {
    let here: Vec<_> = devices.iter().filter(|_| rng.random_ratio(3, 4)).collect();
    let (egress, ingress) =
        [(true, true), (true, false), (false, true)].choose(rng).copied().unwrap_or_default();
    let tagged = rng.random();
    here.iter()
        .map(|device| Place { netns: NETNS, ifindex: device.ifindex, egress, ingress, tagged })
        .collect()
}

fn random_clause(rng: &mut StdRng) -> ClauseInput {
    let nets = |rng: &mut StdRng| (0..rng.random_range(0..3)).map(|_| random_prefix(rng)).collect::<Vec<_>>();
    let ports = |rng: &mut StdRng| (0..rng.random_range(0..3)).map(|_| random_ports(rng)).collect::<Vec<_>>();
    let either = |rng: &mut StdRng| rng.random_ratio(1, 3);
    let mut clause = ClauseInput::default();
    if either(rng) {
        clause.locals = nets(rng);
    }
    if either(rng) {
        clause.peers = nets(rng);
    }
    if either(rng) {
        clause.local_ports = ports(rng);
    }
    if either(rng) {
        clause.peer_ports = ports(rng);
    }
    clause
}

fn random_prefix(rng: &mut StdRng) -> Prefix {
    let addr = random_address(rng);
    let lengths: &[u8] = if addr.is_ipv4() { &[0, 8, 16, 24, 31, 32] } else { &[0, 16, 48, 64, 127, 128] };
    Prefix::new(addr, lengths.choose(rng).copied().unwrap_or(0))
}

fn random_ports(rng: &mut StdRng) -> Ports {
    let one = PORT_POOL.choose(rng).copied().unwrap_or(1);
    let other = PORT_POOL.choose(rng).copied().unwrap_or(2);
    if rng.random() { (one, one) } else { (one.min(other), one.max(other)) }
}

fn random_parameters(rng: &mut StdRng, slot: u32) -> Rule {
    let time = |rng: &mut StdRng| NOW_NS + rng.random_range(0..SECOND_NS);
    let rare = |rng: &mut StdRng| rng.random_ratio(1, 6);
    let flap_period_ns = if rare(rng) { rng.random_range(1..SECOND_NS / 4) } else { 0 };
    Rule {
        id: u64::from(slot) + 1,
        seed: if rng.random() { rng.random() } else { 0 },
        share_seed: rng.random_range(0..4),
        armed_ns: if rare(rng) { time(rng) } else { NOW_NS - 1 },
        starts_ns: if rare(rng) { time(rng) } else { NOW_NS - 1 },
        expires_ns: if rare(rng) { time(rng) } else { NOW_NS + 10 * SECOND_NS },
        flap_on_ns: if flap_period_ns > 0 { rng.random_range(0..flap_period_ns) } else { 0 },
        flap_period_ns,
        max_packets: if rare(rng) { rng.random_range(1..20) } else { 0 },
        max_bytes: if rare(rng) { rng.random_range(1..20_000) } else { 0 },
        max_flows: if rare(rng) { rng.random_range(1..20) } else { 0 },
        flags: random_flags(rng),
        share: Prob(rng.random()),
        tcp_flags: if rare(rng) { rng.random_range(1..8) } else { 0 },
        kinds: 0,
        cut_kinds: 0,
        reserved: 0,
        faults: random_faults(rng),
    }
}

fn random_flags(rng: &mut StdRng) -> u32 {
    let optional = [
        (rule_flags::SHADOW, 6),
        (rule_flags::DATA_ONLY, 6),
        (rule_flags::NEW, 10),
        (rule_flags::ESTABLISHED, 10),
        (rule_flags::FORWARDED, 2),
        (rule_flags::SHARE, 6),
        (rule_flags::WIRE, 4),
        (rule_flags::ORDINAL, 2),
    ];
    optional.iter().filter(|(_, share)| rng.random_ratio(1, *share)).fold(0, |flags, (flag, _)| flags | flag)
}

/// One kind, sometimes all of them together, each with a random setting.
fn random_faults(rng: &mut StdRng) -> Faults {
    let Some(kind) = FAULTS.choose(rng) else { return Faults::default() };
    settings(kind).choose(rng).copied().unwrap_or_default()
}

#[cfg(test)]
mod tests {
    use chaos_common::{compile::compile, fault::FAULTS};
    use rand::{SeedableRng, rngs::StdRng};

    use super::{random_input, settings};
    use crate::oracle::devices;

    #[test]
    fn every_fault_kind_has_settings() {
        assert!(FAULTS.iter().all(|kind| !settings(kind).is_empty()));
    }

    #[test]
    fn most_random_rule_sets_compile() {
        let mut rng = StdRng::seed_from_u64(3);
        let inputs = (0..100).map(|_| random_input(&mut rng, &devices()));
        let refused = inputs.filter(|input| compile(input).is_err()).count();
        assert!(refused < 50, "{refused} of 100 are refused");
    }
}
