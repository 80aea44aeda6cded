//! Same seed, same packets, same verdicts: whatever the environment's dice say. On the host; that the kernel
//! decides as the host does is `kernel_equals_host`'s.
#![expect(clippy::unwrap_used, reason = "a failed unwrap in a test is a failed test")]

use chaos_common::{
    abi::{Direction, TestInput},
    compile::compile,
    verdict::Verdict,
};
use chaos_tests::{
    oracle::{
        Given, NOW_NS, PLAIN,
        build::{fault, input},
        host::HostSide,
    },
    packet::Packet,
};

const PACKETS: u16 = 2000;

/// Every kind whose verdict hangs on dice.
const FAULTS: [(&str, &str); 9] = [
    ("duplicate", "20%"),
    ("duplicate", "20%,correlation=30%"),
    ("loss", "10%,correlation=30%"),
    ("loss", "p=5%,r=30%,k=99%"),
    ("loss", "20%,ecn"),
    ("corrupt", "20%,bits=3,silent"),
    ("corrupt", "20%,correlation=30%"),
    ("reset", "20%"),
    ("reset", "syn,50%"),
];

/// What a rule with this seed wants of many packets; the environment's words begin at `random`.
fn verdicts((name, value): (&str, &str), seed: u64, random: u32) -> Vec<Verdict> {
    let tables = compile(&input(&[fault(name, value).seed(seed)])).unwrap();
    let mut host = HostSide::new(tables, u64::MAX);
    let judge = |number: u16| {
        let direction = if number.is_multiple_of(3) { Direction::Ingress } else { Direction::Egress };
        let random = random.wrapping_mul(u32::from(number) | 1).rotate_left(u32::from(number % 31));
        let input = TestInput { now_ns: NOW_NS, random, direction: direction as u32, ..TestInput::default() };
        let flags =
            if number.is_multiple_of(5) { chaos_tests::packet::SYN } else { chaos_tests::packet::ACK };
        let packet = Packet::new().eth().ipv4("10.0.0.1", "10.0.0.2").tos(2);
        let packet = packet.tcp(40_000 + number % 50, 6379).flags(flags).payload(b"some payload");
        host.judge(&Given { input, direction, ifindex: PLAIN }, &packet.bytes()).unwrap().1
    };
    (0..PACKETS).map(judge).collect()
}

#[test]
fn the_same_seed_gives_the_same_verdicts() {
    for kind in FAULTS {
        let once = verdicts(kind, 77, 1);
        assert_eq!(once, verdicts(kind, 77, 0xdead_beef), "{kind:?}");
        assert!(once.iter().any(|verdict| !verdict.is_pass()), "{kind:?} hits nothing");
        assert_ne!(once, verdicts(kind, 78, 1), "{kind:?}: another seed");
    }
}

/// Connections are chosen by the seed, and all packets of one agree.
#[test]
fn the_same_seed_chooses_the_same_connections() {
    let chosen = |share_seed| {
        let mut rule = fault("reset", "50%/connection");
        rule.0.rule.share_seed = share_seed;
        let mut host = HostSide::new(compile(&input(&[rule])).unwrap(), u64::MAX);
        let judge = |port: u16| {
            let packet = Packet::new().eth().ipv4("10.0.0.1", "10.0.0.2").tcp(port, 6379).payload(b"x");
            let input = TestInput { now_ns: NOW_NS, random: u32::from(port), ..TestInput::default() };
            let given = Given { input, direction: Direction::Egress, ifindex: PLAIN };
            host.judge(&given, &packet.bytes()).unwrap().1.answer_by != 0
        };
        (40_000..40_500).chain(40_000..40_500).map(judge).collect::<Vec<bool>>()
    };
    let once = chosen(5);
    assert_eq!(once[..500], once[500..], "all packets of a connection agree");
    assert_eq!(once, chosen(5));
    assert_ne!(once, chosen(6));
}
