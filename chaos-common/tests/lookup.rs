//! The compiled tables find what the plain scan of `compile::reference` finds, on random rules and
//! packets from fixed seeds; addresses and ports come from small pools, so that much overlaps.

use std::{collections::BTreeSet, net::IpAddr, time::Instant};

use chaos_common::{
    abi::{Direction, FlowKey, device_flags},
    compile::{
        CgroupInput, ClauseInput, CompileError, DeviceInput, Input, Place, Ports, Prefix, RuleInput, addr_of,
        compile,
        reference::{Question, scan},
    },
    host::Host,
    job::Job,
    lookup::{flow_key, reverse},
    packet::{Class, Packet, packet_flags},
};

use crate::checks::{found, walk};
use crate::gate::goes;
use crate::support::{NETNS, Random, addr, everywhere};

/// A second namespace whose devices have the same numbers.
const OTHER_NETNS: u64 = 0x7000_0002;
const SETS: u64 = 400;
const PACKETS_PER_SET: u64 = 250;

const ADDRESSES: &[&str] = &[
    "10.0.0.1",
    "10.0.0.2",
    "10.0.1.1",
    "10.200.0.1",
    "127.0.0.1",
    "127.0.0.2",
    "192.168.7.9",
    "255.255.255.255",
    "fd00::1",
    "fd00::2",
    "fd00:0:0:1::1",
    "2001:db8::9",
    "::1",
    "::",
    "::fffe:a00:1",
    "8000::1",
];
const V4_LENGTHS: &[u8] = &[0, 1, 7, 8, 15, 16, 23, 24, 30, 31, 32];
const V6_LENGTHS: &[u8] = &[0, 1, 8, 32, 63, 64, 80, 95, 96, 97, 112, 127, 128];
const PORTS: &[u16] = &[0, 1, 22, 53, 80, 443, 6379, 6380, 40000, 65534, 65535];
/// Two trees: 11 holds 12 and 13, 12 holds 14; 21 holds 22. Then one that holds and is held by none.
const CGROUPS: &[(u64, u32, &[u64])] = &[
    (11, 1, &[]),
    (12, 2, &[11]),
    (13, 2, &[11]),
    (14, 3, &[11, 12]),
    (21, 1, &[]),
    (22, 4, &[21]),
    (31, 2, &[]),
];

pub(crate) fn devices() -> Vec<DeviceInput> {
    let device = |netns, ifindex, flags| DeviceInput { netns, ifindex, flags, normaliser: 0, line: 0 };
    vec![
        device(NETNS, 1, device_flags::LOOPBACK),
        device(NETNS, 2, 0),
        device(NETNS, 3, 0),
        device(OTHER_NETNS, 1, device_flags::LOOPBACK),
        device(OTHER_NETNS, 2, 0),
    ]
}

pub(crate) fn cgroups() -> Vec<CgroupInput> {
    let cgroup = |(id, level, ancestors): &(u64, u32, &[u64])| CgroupInput {
        id: *id,
        level: *level,
        ancestors: ancestors.to_vec(),
    };
    CGROUPS.iter().map(cgroup).collect()
}

fn prefix(random: &mut Random) -> Prefix {
    let addr: IpAddr = random.pick(ADDRESSES).parse().unwrap();
    Prefix::new(addr, *random.pick(if addr.is_ipv4() { V4_LENGTHS } else { V6_LENGTHS }))
}

fn range(random: &mut Random) -> Ports {
    let (one, other) = (*random.pick(PORTS), *random.pick(PORTS));
    if random.one_in(2) { (one, one) } else { (one.min(other), one.max(other)) }
}

/// None to three of them, mostly none.
fn some<T>(random: &mut Random, rare: u64, make: impl Fn(&mut Random) -> T) -> Vec<T> {
    if !random.one_in(rare) {
        return Vec::new();
    }
    (0..=random.below(3)).map(|_| make(random)).collect()
}

fn clause(random: &mut Random) -> ClauseInput {
    ClauseInput {
        locals: some(random, 3, prefix),
        peers: some(random, 2, prefix),
        local_ports: some(random, 3, range),
        peer_ports: some(random, 3, range),
    }
}

fn cgroup_id(random: &mut Random) -> u64 {
    random.pick(CGROUPS).0
}

fn places(random: &mut Random) -> Vec<Place> {
    let (egress, ingress) = *random.pick(&[(true, true), (true, true), (true, false), (false, true)]);
    let tagged = random.one_in(2);
    let here: Vec<_> = devices().into_iter().filter(|_| !random.one_in(4)).collect();
    let place =
        |device: DeviceInput| Place { netns: device.netns, ifindex: device.ifindex, egress, ingress, tagged };
    here.into_iter().map(place).collect()
}

fn rule(random: &mut Random, slot: u32) -> RuleInput {
    let classes = if random.one_in(2) { 0x3e } else { 1 + random.below(63) as u8 };
    RuleInput {
        places: places(random),
        classes,
        cgroups: some(random, 4, cgroup_id),
        peer_cgroups: some(random, 8, cgroup_id),
        clauses: (0..random.below(4)).map(|_| clause(random)).collect(),
        exclusions: some(random, 3, clause),
        ..everywhere(slot, "100%")
    }
}

/// Rules with distinct slots in no order; some stand in two namespaces with one slot.
fn input(random: &mut Random) -> Input {
    let count = *random.pick(&[1, 2, 4, 8, 14, 40, 80]);
    let mut rules = Vec::new();
    for number in 0..count {
        let mut first = rule(random, 4095 - number * 7);
        if count > 16 {
            narrow(random, &mut first);
        }
        if count <= 16 && random.one_in(5) {
            rules.extend(twins(random, first));
        } else {
            rules.push(first);
        }
    }
    Input { rules, cgroups: cgroups(), devices: devices() }
}

/// Many rules can only be armed together when few of them meet.
fn narrow(random: &mut Random, rule: &mut RuleInput) {
    let single = |random: &mut Random| {
        let addr: IpAddr = random.pick(ADDRESSES).parse().unwrap();
        Prefix::new(addr, if addr.is_ipv4() { 32 } else { 128 })
    };
    let one = |random: &mut Random| {
        let port = *random.pick(PORTS);
        (port, port)
    };
    let (peers, peer_ports) = (vec![single(random)], vec![one(random)]);
    rule.clauses =
        vec![ClauseInput { peers, peer_ports, locals: some(random, 4, prefix), ..ClauseInput::default() }];
}

/// What the agent makes of a rule in two namespaces: same slot, other addresses.
fn twins(random: &mut Random, first: RuleInput) -> [RuleInput; 2] {
    let mut second = rule(random, first.slot);
    let mut first = first;
    first.places.retain(|place| place.netns == NETNS);
    second.places.retain(|place| place.netns == OTHER_NETNS);
    [first, second]
}

/// Facts as the parser finds them.
fn packet(random: &mut Random) -> Packet {
    let mut packet = Packet { flags: packet_flags::IP, ..Packet::default() };
    (packet.source, packet.destination) = ends(random);
    let ports = |random: &mut Random, packet: &mut Packet| {
        packet.flags |= packet_flags::PORTS;
        packet.source_port = *random.pick(PORTS);
        packet.destination_port = *random.pick(PORTS);
    };
    (packet.class, packet.proto) = *random.pick(&[
        (Class::TCP, 6),
        (Class::TCP, 6),
        (Class::UDP, 17),
        (Class::UDP, 17),
        (Class::ICMP, 1),
        (Class::ICMP6, 58),
        (Class::OTHER, 47),
        (Class::LINK, 58),
        (Class::LINK, 0),
    ]);
    match packet.class {
        Class::TCP | Class::UDP if random.one_in(8) => packet.flags |= packet_flags::LATER_FRAGMENT,
        Class::TCP | Class::UDP => ports(random, &mut packet),
        Class::ICMP | Class::ICMP6 if random.one_in(2) => {
            let id = *random.pick(PORTS);
            (packet.source_port, packet.destination_port) = (id, id);
            packet.flags |= packet_flags::ECHO;
        }
        Class::LINK if packet.proto == 0 => packet = Packet::default(),
        _ => {}
    }
    if random.one_in(4) {
        packet.flags |= packet_flags::TAGGED;
    }
    packet
}

/// Two addresses of one family.
fn ends(random: &mut Random) -> (chaos_common::packet::Addr, chaos_common::packet::Addr) {
    let one: IpAddr = random.pick(ADDRESSES).parse().unwrap();
    loop {
        let other: IpAddr = random.pick(ADDRESSES).parse().unwrap();
        if other.is_ipv4() == one.is_ipv4() {
            return (addr_of(one), addr_of(other));
        }
    }
}

fn owner(random: &mut Random) -> u64 {
    if random.one_in(2) { 0 } else { cgroup_id(random) }
}

/// The packet at a random place, with owners.
fn question<'a>(random: &mut Random, packet: &'a Packet) -> Question<'a> {
    let device = *random.pick(&devices());
    let direction = *random.pick(&[Direction::Egress, Direction::Ingress]);
    let key = flow_key(packet, device.netns, Direction::Egress);
    let source_owner = owner(random);
    // A packet from a socket to itself has one owner.
    let destination_owner = if key == reverse(&key) { source_owner } else { owner(random) };
    Question {
        packet,
        netns: device.netns,
        ifindex: device.ifindex,
        direction,
        source_owner,
        destination_owner,
    }
}

pub(crate) fn host_of(input: &Input) -> Option<Host> {
    match compile(input) {
        Ok(tables) => Some(Host { tables, ..Host::default() }),
        Err(CompileError::TooManyMatches { .. } | CompileError::TooEntangled(_)) => None,
        Err(error) => panic!("{error}"),
    }
}

/// The same rules in another order; rules that share a slot stay together.
fn shuffled(random: &mut Random, input: &Input) -> Input {
    let mut groups: Vec<Vec<RuleInput>> = Vec::new();
    for rule in &input.rules {
        match groups.last_mut() {
            Some(group) if group[0].slot == rule.slot => group.push(rule.clone()),
            _ => groups.push(vec![rule.clone()]),
        }
    }
    for end in (1..groups.len()).rev() {
        groups.swap(end, random.below(end as u64 + 1) as usize);
    }
    let mut cgroups = input.cgroups.clone();
    cgroups.reverse();
    Input { rules: groups.concat(), cgroups, devices: input.devices.clone() }
}

#[test]
fn tables_find_what_a_plain_scan_finds() {
    let (mut sets, mut matched, mut seed) = (0, 0, 0);
    let (mut let_go, mut could_go) = (0, 0);
    while sets < SETS {
        seed += 1;
        let mut random = Random::new(seed);
        let input = input(&mut random);
        let Some(mut host) = host_of(&input) else { continue };
        let mut other_order = host_of(&shuffled(&mut random, &input)).expect("the order decides");
        sets += 1;
        for number in 0..PACKETS_PER_SET {
            let packet = packet(&mut random);
            let question = question(&mut random, &packet);
            let by_socket = random.one_in(2);
            let expected: BTreeSet<u32> = scan(&input, &question).into_iter().collect();
            let slots = found(&mut host, &question, by_socket);
            let told = || {
                let of = |slots: &BTreeSet<u32>| {
                    input.rules.iter().filter(|rule| slots.contains(&rule.slot)).cloned().collect::<Vec<_>>()
                };
                let got: BTreeSet<u32> = slots.iter().copied().collect();
                let differ = got.symmetric_difference(&expected).copied().collect();
                format!(
                    "seed {seed}, packet {number}: {question:#?}\nfound {slots:?}, expected {expected:?}; {:#?}",
                    of(&differ)
                )
            };
            assert_eq!(slots.iter().copied().collect::<BTreeSet<_>>(), expected, "{}", told());
            assert_eq!(slots.len(), expected.len(), "a rule twice: {}", told());
            let again = found(&mut other_order, &question, by_socket).into_iter().collect();
            assert_eq!(expected, again, "the order of rules decides: {}", told());
            matched += u64::from(!expected.is_empty());
            if let Some(goes) = goes(&host, &input.cgroups, &question) {
                assert!(!goes || expected.is_empty(), "let go at the gate: {}", told());
                could_go += u64::from(expected.is_empty());
                let_go += u64::from(goes);
            }
        }
    }
    let packets = SETS * PACKETS_PER_SET;
    println!("{packets} packets, {matched} matched by some rule, {} sets refused", seed - sets);
    println!("{let_go} of {could_go} that could go were let go at the gate");
    // Three in four packets have an owner at one end.
    assert!(let_go > could_go / 5, "the gate stops nearly all");
    assert!(
        matched > packets / 5 && matched < packets * 4 / 5,
        "{matched} of {packets} matched: this shows little"
    );
    assert!(seed - sets < SETS / 2, "too many random sets are refused");
}

#[test]
fn compiling_is_deterministic() {
    for seed in 0..50 {
        let input = input(&mut Random::new(seed));
        assert_eq!(compile(&input), compile(&input), "seed {seed}");
    }
}

/// The owner table knows conversations, then ports of an address, then ports.
#[test]
fn owners_are_found_by_the_most_exact_entry() {
    let mut rules = vec![everywhere(1, "100%"), everywhere(2, "100%"), everywhere(3, "100%")];
    for (rule, id) in rules.iter_mut().zip([11, 13, 21]) {
        rule.cgroups = vec![id];
        rule.places.iter_mut().for_each(|place| place.egress = false);
    }
    let input = Input { rules, cgroups: cgroups(), devices: devices() };
    let mut host = host_of(&input).unwrap();
    let packet = crate::support::tcp();
    let key = flow_key(&packet, NETNS, Direction::Ingress);
    let port = FlowKey { peer: [0; 4], peer_port: 0, ..key };
    let any = FlowKey { local: [0; 4], ..port };
    let foreign = [
        FlowKey { netns: OTHER_NETNS, ..any },
        FlowKey { proto: 17, ..any },
        FlowKey { local_port: 6380, ..any },
        FlowKey { local: addr("10.0.0.3"), ..port },
    ];
    let mut ask = |book: &[(FlowKey, u64)]| {
        host.owners = book.iter().copied().collect();
        let job = Job {
            packet,
            device: host.tables.devices[&(NETNS, 2)],
            netns: NETNS,
            direction: Direction::Ingress as u32,
            ..Job::default()
        };
        walk(&host, &job)
    };
    assert_eq!(ask(&foreign.map(|key| (key, 11))), []);
    assert_eq!(ask(&[(any, 11)]), [1]);
    assert_eq!(ask(&[(any, 11), (port, 21)]), [3]);
    assert_eq!(ask(&[(any, 11), (port, 21), (key, 14)]), [1], "14 lies in 11");
    assert_eq!(ask(&[(any, 21), (key, 13)]), [1, 2], "13 lies in 11");
    assert_eq!(ask(&[(key, 99)]), [], "a cgroup that no rule names");
}

/// How long a set like the one of the performance goals takes; shown, not judged.
#[test]
fn time_to_compile() {
    for count in [256, 1000] {
        let rules = (0..count).map(mixed).collect();
        let input = Input { rules, cgroups: cgroups(), devices: devices() };
        let start = Instant::now();
        let tables = compile(&input).unwrap();
        println!("{count} rules: {:?}, {} sets", start.elapsed(), tables.sets.len());
    }
}

/// 40 % single addresses, 30 % ranges, 20 % ports, 10 % cgroups.
pub(crate) fn mixed(slot: u32) -> RuleInput {
    let mut rule = everywhere(slot, "10%");
    let [_, _, high, low] = slot.to_be_bytes();
    let (addr, port) = (IpAddr::from([10, 1, high, low]), 10_000 + slot as u16);
    rule.clauses = vec![match slot % 10 {
        0..=3 => ClauseInput { peers: vec![Prefix::new(addr, 32)], ..ClauseInput::default() },
        4..=6 => ClauseInput {
            peers: vec![Prefix::new(IpAddr::from([20, high, low, 0]), 24)],
            ..ClauseInput::default()
        },
        7 | 8 => ClauseInput { peer_ports: vec![(port, port)], ..ClauseInput::default() },
        _ => ClauseInput { local_ports: vec![(port, port)], ..ClauseInput::default() },
    }];
    if slot % 10 == 9 {
        rule.cgroups = vec![CGROUPS[slot as usize / 10 % CGROUPS.len()].0];
    }
    rule
}
