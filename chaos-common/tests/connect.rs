//! Calls of connect(2): which rule answers with which errno, against the plain scan; life, limits,
//! shares and protection.

use chaos_common::{
    abi::{CONNECTS_MAX, Count, Direction, FlowKey, Rule, rule_flags},
    compile::{
        CgroupInput, ClauseInput, CompileError, ConnectPlace, Input, Prefix, RuleInput, compile, reference,
    },
    connect::{Call, class_of, destination},
    fault::{FAULTS, Faults},
    host::Host,
    packet::{Class, Packet, packet_flags},
};

use crate::support::{DEVICE, NETNS, NOW_NS, Random, addr, arm, devices, everywhere, judge_one, tcp};

const REFUSED: u32 = 111;
const TIMED_OUT: u32 = 110;

fn faults(value: &str) -> Faults {
    let mut faults = Faults::default();
    let info = FAULTS.iter().find(|info| info.name == "refuse").unwrap();
    (info.parse)(value, &mut faults).unwrap();
    faults
}

fn place(cgroup: u64) -> ConnectPlace {
    ConnectPlace { netns: NETNS, cgroup, protect: false }
}

fn rule(slot: u32, value: &str, change: impl Fn(&mut RuleInput)) -> RuleInput {
    let mut rule = everywhere(slot, "partition");
    rule.rule.faults = faults(value);
    rule.connects = vec![place(0)];
    change(&mut rule);
    rule
}

fn ruled(change: impl Fn(&mut Rule)) -> Host {
    arm(vec![rule(1, "ECONNREFUSED", |input| change(&mut input.rule))])
}

fn call(peer: &str, port: u16) -> Call {
    Call { netns: NETNS, cgroup: 0, peer: addr(peer), port, class: Class::TCP }
}

fn answer(host: &Host, call: Call) -> u32 {
    host.connect(&call)
}

fn usual(host: &Host) -> u32 {
    answer(host, call("10.0.0.2", 6379))
}

fn counted(host: &Host, what: Count) -> u64 {
    let counters = host.counters.borrow();
    counters.get(&(1, Direction::Egress as u32)).map_or(0, |c| c.tallies[what as usize].packets)
}

fn net(text: &str) -> Prefix {
    let (addr, len) = text.split_once('/').unwrap();
    Prefix::new(addr.parse().unwrap(), len.parse().unwrap())
}

#[test]
fn values_are_read_in_any_case_and_shown_as_written() {
    for (value, shown) in [
        ("ECONNREFUSED", "refuse ECONNREFUSED"),
        ("", "refuse ECONNREFUSED"),
        ("etimedout,50%", "refuse ETIMEDOUT 50%"),
        ("0.5, EAcces", "refuse EACCES 50%"),
        ("10%", "refuse ECONNREFUSED 10%"),
        ("ENETUNREACH", "refuse ENETUNREACH"),
        ("EHOSTUNREACH,100%", "refuse EHOSTUNREACH"),
    ] {
        let info = FAULTS.iter().find(|info| info.name == "refuse").unwrap();
        let faults = faults(value);
        assert_eq!((info.describe)(&faults).as_deref(), Some(shown), "{value}");
        assert!(!faults.is_off() && !faults.acts_on_packets() && faults.acts_on_connect());
    }
    for (value, word) in [
        ("EINTR", "EINTR"),
        ("ETIMEDOUT,EACCES", "two answers"),
        ("ETIMEDOUT,150%", "150%"),
        ("50%,50%", "50%"),
        ("111", "111"),
    ] {
        let info = FAULTS.iter().find(|info| info.name == "refuse").unwrap();
        let error = (info.parse)(value, &mut Faults::default()).unwrap_err();
        assert!(error.contains(word) && error.contains("EHOSTUNREACH"), "{value}: {error}");
    }
}

#[test]
fn a_call_fails_and_a_packet_does_not() {
    let host = arm(vec![rule(1, "ECONNREFUSED", |_| ())]);
    assert_eq!(usual(&host), REFUSED);
    assert_eq!((counted(&host, Count::Matched), counted(&host, Count::Refused)), (1, 1));
    assert_eq!(judge_one(&host, &tcp()), 0);
}

#[test]
fn exclusions_win_and_the_first_rule_that_wants_to_answers() {
    let peers = |text: &'static str| ClauseInput { peers: vec![net(text)], ..ClauseInput::default() };
    let host = arm(vec![
        rule(1, "ECONNREFUSED", |rule| {
            rule.clauses = vec![peers("10.0.0.0/8"), peers("fd00::/8")];
            rule.exclusions = vec![peers("10.1.0.0/16")];
        }),
        rule(2, "ETIMEDOUT", |rule| {
            rule.clauses =
                vec![ClauseInput { peer_ports: vec![(80, 89), (443, 443)], ..ClauseInput::default() }];
        }),
    ]);
    for (peer, port, errno) in [
        ("10.2.0.1", 1, REFUSED),
        ("10.2.0.1", 80, REFUSED),
        ("10.1.0.1", 1, 0),
        ("10.1.0.1", 80, TIMED_OUT),
        ("fd01::1", 443, REFUSED),
        ("fe01::1", 443, TIMED_OUT),
        ("11.0.0.1", 79, 0),
        ("11.0.0.1", 89, TIMED_OUT),
        ("11.0.0.1", 90, 0),
    ] {
        assert_eq!(answer(&host, call(peer, port)), errno, "{peer} {port}");
    }
}

#[test]
fn namespaces_cgroups_classes_and_families_are_told_apart() {
    let host = arm(vec![rule(1, "ECONNREFUSED", |rule| {
        rule.connects = vec![place(7)];
        rule.classes = 1 << Class::TCP.0;
        rule.clauses = vec![ClauseInput { peers: vec![net("0.0.0.0/0")], ..ClauseInput::default() }];
    })]);
    let own = Call { cgroup: 7, ..call("10.0.0.2", 80) };
    assert_eq!(answer(&host, own), REFUSED);
    assert_eq!(answer(&host, Call { cgroup: 0, ..own }), 0, "another cgroup's hook");
    assert_eq!(answer(&host, Call { netns: NETNS + 1, ..own }), 0, "another namespace");
    assert_eq!(answer(&host, Call { class: Class::UDP, ..own }), 0);
    assert_eq!(answer(&host, Call { class: Class::OTHER, ..own }), 0);
    assert_eq!(answer(&host, Call { peer: addr("fd00::1"), ..own }), 0, "0.0.0.0/0 is IPv4");
    assert_eq!(answer(&host, Call { peer: addr("::ffff:10.0.0.2"), ..own }), REFUSED);
}

/// A hook of the cgroup above is called for the cgroup below, too.
#[test]
fn nested_targets_of_one_rule_answer_once() {
    let cgroups = vec![
        CgroupInput { id: 7, level: 1, ancestors: vec![1] },
        CgroupInput { id: 8, level: 2, ancestors: vec![7, 1] },
        CgroupInput { id: 9, level: 1, ancestors: vec![1] },
    ];
    let nested = rule(1, "ECONNREFUSED", |rule| rule.connects = vec![place(8), place(7), place(9)]);
    let tables = compile(&Input { rules: vec![nested], cgroups, devices: devices() }).unwrap();
    let hooks: Vec<u64> = tables.connects.iter().map(|entry| entry.cgroup).collect();
    assert_eq!(hooks, [7, 9]);
}

#[test]
fn the_unspecified_address_is_this_machine() {
    assert_eq!(destination(addr("0.0.0.0")), addr("127.0.0.1"));
    assert_eq!(destination(addr("::")), addr("::1"));
    for same in ["10.0.0.0", "::1", "::2", "127.0.0.1", "fd00::"] {
        assert_eq!(destination(addr(same)), addr(same));
    }
    assert_eq!([6, 262, 17, 1].map(class_of), [Class::TCP, Class::TCP, Class::UDP, Class::OTHER]);
}

#[test]
fn expiry_lease_schedule_limits_and_shadow_hold_for_calls_too() {
    let host = ruled(|rule| rule.expires_ns = NOW_NS);
    assert_eq!((usual(&host), counted(&host, Count::Expired)), (0, 1));

    let mut host = ruled(|_| ());
    host.states.get_mut(&1).unwrap().lease_until_ns = NOW_NS;
    assert_eq!((usual(&host), counted(&host, Count::Lease)), (0, 1));

    let host = ruled(|rule| rule.starts_ns = NOW_NS + 1);
    assert_eq!((usual(&host), counted(&host, Count::Matched)), (0, 1));
    host.now_ns.set(NOW_NS + 1);
    assert_eq!(usual(&host), REFUSED);

    let host = ruled(|rule| (rule.flap_on_ns, rule.flap_period_ns) = (10, 20));
    let acts = |offset| {
        host.now_ns.set(NOW_NS + offset);
        usual(&host) != 0
    };
    assert_eq!([0, 9, 10, 19, 20].map(acts), [true, true, false, false, true]);

    let host = ruled(|rule| rule.max_packets = 2);
    assert_eq!([(); 4].map(|()| usual(&host)), [REFUSED, REFUSED, 0, 0]);
    assert_eq!((counted(&host, Count::Refused), counted(&host, Count::Limited)), (2, 2));

    let host = ruled(|rule| rule.flags |= rule_flags::SHADOW);
    assert_eq!((usual(&host), counted(&host, Count::Shadowed), counted(&host, Count::Refused)), (0, 1, 0));
}

#[test]
fn a_share_of_the_calls_fails_and_a_seed_repeats_which() {
    let run = |seed: u64| -> Vec<bool> {
        let host = arm(vec![rule(1, "ECONNREFUSED,30%", |rule| rule.rule.seed = seed)]);
        host.seed.set(99);
        (0..10_000).map(|_| usual(&host) != 0).collect()
    };
    for seed in [0, 1, 2] {
        let refused = run(seed).iter().filter(|refused| **refused).count();
        // Six standard deviations of 46.
        assert!((2720..=3280).contains(&refused), "{refused} of 10000 at 30%");
    }
    assert_eq!(run(5), run(5));
    assert_ne!(run(5), run(6));
}

#[test]
fn what_is_protected_is_never_refused() {
    let host = |protect: bool| {
        let mut host = arm(vec![rule(1, "ECONNREFUSED", |rule| {
            rule.connects = vec![ConnectPlace { protect, ..place(0) }];
        })]);
        host.protected.insert(FlowKey { netns: NETNS, peer: addr("10.9.9.9"), ..FlowKey::default() });
        host
    };
    let dhcp = Call { class: Class::UDP, ..call("10.0.0.254", 67) };
    for call in [call("10.9.9.9", 2049), call("169.254.169.254", 80), dhcp] {
        assert_eq!(answer(&host(true), call), 0, "{call:?}");
        assert_eq!(answer(&host(false), call), REFUSED, "{call:?}");
    }
    assert_eq!(usual(&host(true)), REFUSED);
    assert_eq!(answer(&host(true), Call { class: Class::TCP, ..dhcp }), REFUSED);
}

#[test]
fn more_entries_than_are_looked_at_are_refused_by_name() {
    let many = |count: u16| {
        rule(1, "ECONNREFUSED", |rule| {
            let ports = (0..count).map(|n| (2 * n, 2 * n)).collect();
            rule.clauses = vec![ClauseInput { peer_ports: ports, ..ClauseInput::default() }];
        })
    };
    let compiled = |rule| compile(&Input { rules: vec![rule], cgroups: Vec::new(), devices: devices() });
    let host = arm(vec![many(CONNECTS_MAX as u16)]);
    assert_eq!(host.tables.connects.len(), CONNECTS_MAX);
    assert_eq!(answer(&host, call("10.0.0.2", 510)), REFUSED, "the last entry");
    let Err(CompileError::TooManyConnects { count: 257, limit: 256, names }) = compiled(many(257)) else {
        panic!("257 entries are accepted");
    };
    assert_eq!(names, "rule 1");
}

/// The rules that a call matches are those that its first packet would.
#[test]
fn the_scan_finds_what_the_definition_says() {
    const PEERS: [&str; 6] = ["10.0.0.1", "10.0.1.1", "10.1.0.1", "fd00::1", "fd00:1::1", "192.168.0.1"];
    const NETS: [&str; 7] =
        ["10.0.0.0/8", "10.0.0.0/16", "10.0.1.1/32", "fd00::/16", "fd00:1::1/128", "::/0", "0.0.0.0/0"];
    let mut random = Random::new(17);
    let clause = |random: &mut Random| {
        let some = |random: &mut Random| random.below(3);
        ClauseInput {
            peers: (0..some(random))
                .map(|_| {
                    let text: &&str = random.pick(&NETS);
                    net(text)
                })
                .collect(),
            peer_ports: (0..some(random))
                .map(|_| (random.below(4) as u16, 2 + random.below(4) as u16))
                .collect(),
            ..ClauseInput::default()
        }
    };
    for _ in 0..300 {
        let mut rules = Vec::new();
        for slot in 0..=random.below(6) as u32 {
            // In shadow every rule that matches is asked, because none answers.
            let mut rule = rule(slot, "ECONNREFUSED", |rule| rule.rule.flags |= rule_flags::SHADOW);
            rule.classes = *random.pick(&[0x3e, 1 << Class::TCP.0, 1 << Class::UDP.0]);
            rule.clauses = (0..random.below(3)).map(|_| clause(&mut random)).collect();
            rule.exclusions = (0..random.below(3)).map(|_| clause(&mut random)).collect();
            rules.push(rule);
        }
        let input = Input { rules: rules.clone(), cgroups: Vec::new(), devices: devices() };
        let host = arm(rules);
        for _ in 0..30 {
            let class = *random.pick(&[Class::TCP, Class::UDP]);
            let peer: &&str = random.pick(&PEERS);
            let call = Call { class, ..call(peer, random.below(7) as u16) };
            let packet = Packet {
                destination: call.peer,
                destination_port: call.port,
                class,
                flags: packet_flags::IP | packet_flags::PORTS,
                ..Packet::default()
            };
            let question = reference::Question {
                packet: &packet,
                netns: NETNS,
                ifindex: DEVICE.1,
                direction: Direction::Egress,
                source_owner: 0,
                destination_owner: 0,
            };
            host.counters.borrow_mut().clear();
            assert_eq!(host.connect(&call), 0);
            let mut asked: Vec<u32> = host.counters.borrow().keys().map(|(slot, _)| *slot).collect();
            asked.sort_unstable();
            assert_eq!(asked, reference::scan(&input, &question), "{call:?} {input:?}");
        }
    }
}
