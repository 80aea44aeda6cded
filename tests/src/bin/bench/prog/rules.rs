//! Sets of mixed rules, and packets that so many of them match.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};

use chaos_common::compile::{CgroupInput, Input, RuleInput};
use chaos_tests::{
    oracle::{
        build::{RuleBuilder, fault},
        devices,
    },
    packet::Packet,
};
use rand::{Rng, SeedableRng, rngs::StdRng};

/// Ids of the cgroups that rules name; none of them owns anything.
const CGROUPS: u64 = 1000;

/// Something that matches, costs its match and a draw, and changes nothing.
fn harmless() -> RuleBuilder {
    fault("loss", "0%")
}

/// The packet of all runs, to a peer at port 6379.
pub(super) fn packet(v6: bool) -> Packet {
    let packet = Packet::new().eth();
    let packet = if v6 { packet.ipv6("fd00::1", "fd00:9::9") } else { packet.ipv4("10.0.0.1", "10.9.9.9") };
    packet.tcp(40000, 6379).payload(b"PING")
}

/// Rules that [`packet`] matches, at most four.
fn matching(v6: bool) -> Vec<RuleBuilder> {
    let ranges = if v6 {
        ["fd00:9::9", "fd00:9::/64", "fd00:9::/32"]
    } else {
        ["10.9.9.9", "10.9.9.0/24", "10.9.0.0/16"]
    };
    let mut rules: Vec<RuleBuilder> = ranges.iter().map(|range| harmless().peer(range)).collect();
    rules.push(harmless().peer_ports(6000, 6999));
    rules
}

/// So many rules, of which so many match [`packet`]: 40 % single addresses, 30 % ranges of addresses, 20 % ranges of
/// ports and 10 % cgroups.
pub(super) fn mixed(rules: usize, matches: usize, v6: bool) -> Input {
    let mut rng = StdRng::seed_from_u64(rules as u64);
    let mut all: Vec<RuleBuilder> = matching(v6).into_iter().take(matches.min(rules)).collect();
    for number in all.len()..rules {
        all.push(other(&mut rng, number));
    }
    let rules: Vec<RuleInput> = all.into_iter().zip(0..).map(|(rule, slot)| rule.finish(slot)).collect();
    // Services and containers lie at different depths.
    let named = |id: u64| CgroupInput { id, level: 2 + (id / 10 % 2) as u32, ancestors: Vec::new() };
    let cgroups = rules.iter().flat_map(|rule| rule.cgroups.clone()).map(named).collect();
    Input { rules, cgroups, devices: devices() }
}

/// One that [`packet`] does not match.
fn other(rng: &mut StdRng, number: usize) -> RuleBuilder {
    match number % 10 {
        0..4 => harmless().peer(&address(rng).to_string()),
        4..7 => {
            let address = address(rng);
            let length = if address.is_ipv4() { rng.random_range(22..32) } else { rng.random_range(64..128) };
            harmless().peer(&format!("{address}/{length}"))
        }
        7..9 => {
            let first = rng.random_range(20_000..60_000);
            harmless().peer_ports(first, first + rng.random_range(0..20))
        }
        _ => harmless().cgroup(CGROUPS + number as u64),
    }
}

/// From ranges in which [`packet`] has no end.
fn address(rng: &mut StdRng) -> IpAddr {
    if rng.random_ratio(3, 4) {
        Ipv4Addr::from_bits(0x0a80_0000 | rng.random_range(0..1 << 23)).into()
    } else {
        Ipv6Addr::from_bits(0x2001_0db8 << 96 | rng.random_range(0..1u128 << 96)).into()
    }
}
