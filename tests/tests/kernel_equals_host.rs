//! The same verdict from the kernel's program and from `chaos-common` on the host, on random
//! packets and random rules of every fault kind, from one seed.
#![expect(clippy::unwrap_used, reason = "a failed unwrap in a test is a failed test")]

use std::{collections::HashSet, iter};

use chaos_common::{
    abi::{Direction, TestInput, dims},
    compile::{Input, Tables, compile},
    fault::FAULTS,
    packet::Class,
};
use chaos_tests::{
    oracle::{
        Fate, Given, NOW_NS, PLAIN, TUN,
        build::{input, loss},
        devices,
        host::HostSide,
        kernel::{KernelSide, can_run},
        random_given,
        rules::{random_input, settings},
    },
    packet::{Packet, random::random_bytes},
    require_root,
};
use rand::{Rng, SeedableRng, rngs::StdRng};

/// `CHAOS_SEED` runs another sequence.
const SEED: u64 = 2;
const PACKETS: usize = 20_000;
/// Packets that meet one set of rules.
const PER_SET: usize = 250;

/// A set of rules that compiles; others (too many rules for one packet) are drawn again.
fn rules(rng: &mut StdRng) -> (Input, Tables) {
    loop {
        let input = random_input(rng, &devices());
        if let Ok(tables) = compile(&input) {
            return (input, tables);
        }
    }
}

/// Random bytes that the kernel takes for a test run.
fn packet(rng: &mut StdRng) -> Vec<u8> {
    loop {
        let bytes = random_bytes(rng, true);
        if can_run(&bytes) {
            return bytes;
        }
    }
}

#[test]
fn on_random_packets_and_rules() {
    require_root!();
    let seed = std::env::var("CHAOS_SEED").ok().and_then(|seed| seed.parse().ok()).unwrap_or(SEED);
    let mut rng = StdRng::seed_from_u64(seed);
    let mut kernel = KernelSide::new().unwrap();
    let mut fates = [0; Fate::ALL.len()];
    for set in 0..PACKETS / PER_SET {
        let (input, tables) = rules(&mut rng);
        let lease =
            NOW_NS + if rng.random_ratio(1, 5) { rng.random_range(0..1_000_000_000) } else { 1 << 60 };
        kernel.arm(&tables, lease).unwrap();
        let mut host = HostSide::new(tables, lease);
        for number in 0..PER_SET {
            let (given, bytes) = (random_given(&mut rng), packet(&mut rng));
            let (on_host, wanted) = host.judge(&given, &bytes).unwrap();
            let (in_kernel, verdict, after) = kernel.judge(&given, &bytes).unwrap();
            let told =
                || format!("seed {seed}, set {set}, packet {number}: {bytes:02x?}\n{given:?}\n{input:#?}");
            assert_eq!(in_kernel, on_host, "kernel and host differ: {}", told());
            assert_eq!(verdict, wanted, "kernel and host want different things: {}", told());
            let untouched = match in_kernel {
                Fate::Pass | Fate::Drop => 0,
                Fate::Normalise | Fate::Hold => 12,
                Fate::Answer => bytes.len(),
            };
            if verdict.corrupt_by == 0 && in_kernel != Fate::Answer {
                assert_eq!(after[untouched..], bytes[untouched..], "the packet changed: {}", told());
            }
            fates[on_host as usize] += 1;
        }
    }
    // A comparison in which nothing happens shows nothing.
    let [passed, dropped, normalised, ..] = fates;
    assert!(dropped > PACKETS / 50 && normalised > PACKETS / 500 && passed > PACKETS / 10, "{fates:?}");
}

/// Few packets from few sockets, again and again: what was let go before is let go only as long as it may be, by the same
/// socket at the same device, and until its port is booked by somebody.
#[test]
fn on_packets_that_went_before() {
    require_root!();
    let mut rng = StdRng::seed_from_u64(SEED);
    let mut kernel = KernelSide::new().unwrap();
    let mut met_again = 0;
    for set in 0..PACKETS / PER_SET {
        // Where flows are tracked nothing is let go.
        let (input, tables) = iter::repeat_with(|| rules(&mut rng))
            .find(|(_, tables)| tables.header.dims & dims::FLOWS == 0)
            .unwrap();
        kernel.arm(&tables, u64::MAX).unwrap();
        let mut host = HostSide::new(tables, u64::MAX);
        let packets: Vec<_> = (0..10).map(|_| packet(&mut rng)).collect();
        let givens: Vec<_> = (0..6).map(|_| random_given(&mut rng)).collect();
        let mut gone = HashSet::new();
        for number in 0..PER_SET {
            let which = (rng.random_range(0..givens.len()), rng.random_range(0..packets.len()));
            let (given, bytes) = (&givens[which.0], &packets[which.1]);
            let before = kernel.remembered().unwrap();
            let (on_host, wanted) = host.judge(given, bytes).unwrap();
            let (in_kernel, verdict, _) = kernel.judge(given, bytes).unwrap();
            assert_eq!(
                (in_kernel, verdict),
                (on_host, wanted),
                "set {set}, packet {number}: {bytes:02x?}\n{given:?}\n{input:#?}"
            );
            met_again += usize::from(gone.contains(&which));
            if kernel.remembered().unwrap() > before {
                gone.insert(which);
            }
        }
    }
    let remembered = kernel.remembered().unwrap();
    assert!(
        remembered > 300 && met_again > 1000,
        "{remembered} packets were remembered, {met_again} met again"
    );
}

/// What comes for a port is let go until a target has it.
#[test]
fn what_went_before_is_looked_at_once_its_port_is_booked() {
    require_root!();
    let mut kernel = KernelSide::new().unwrap();
    kernel.arm(&compile(&input(&[loss("100%").cgroup(11)])).unwrap(), u64::MAX).unwrap();
    let mut judged = |direction, cgroup, packet: &Packet| {
        let mut given = Given { input: TestInput::default(), direction, ifindex: PLAIN };
        (given.input.now_ns, given.input.direction) = (NOW_NS, direction as u32);
        given.input.cgroups[1] = cgroup;
        let (fate, ..) = kernel.judge(&given, &packet.bytes()).unwrap();
        (fate, kernel.remembered().unwrap())
    };
    let comes = Packet::new().eth().ipv4("10.0.0.2", "10.0.0.1").tcp(40_000, 80);
    let leaves = Packet::new().eth().ipv4("10.0.0.1", "10.0.0.2").tcp(80, 40_000);
    assert_eq!(judged(Direction::Ingress, 0, &comes), (Fate::Pass, 1));
    assert_eq!(judged(Direction::Ingress, 0, &comes), (Fate::Pass, 1));
    // Another's socket is not the target's: what leaves it is remembered, too.
    assert_eq!(judged(Direction::Egress, 99, &leaves), (Fate::Pass, 2));
    assert_eq!(judged(Direction::Egress, 11, &leaves), (Fate::Drop, 2));
    assert_eq!(judged(Direction::Ingress, 0, &comes), (Fate::Drop, 2));
}

/// A packet without a MAC header that looks as if it had one is not taken for another.
#[test]
fn what_has_no_mac_header_is_not_remembered() {
    require_root!();
    let mut kernel = KernelSide::new().unwrap();
    let rule = loss("100%").class(Class::TCP).only_on(TUN, true, true);
    kernel.arm(&compile(&input(&[rule])).unwrap(), u64::MAX).unwrap();
    let mut input = TestInput { now_ns: NOW_NS, ..TestInput::default() };
    input.cgroups[0] = 1;
    let given = Given { input, direction: Direction::Egress, ifindex: TUN };
    // Behind what would be MAC addresses: 8.0 is the number of IPv4, 69.0 how its header begins, 17 = UDP.
    let ip = || Packet::new().ipv4("8.0.69.0", "10.0.0.2");
    let mut fates = Vec::new();
    for packet in [ip().udp(0, 17), ip().udp(0, 17), ip().tcp(0, 17)] {
        let mut bytes = packet.payload(&[0; 20]).bytes();
        // Alike but for the protocol, also where the length of a header of TCP is.
        bytes[24..].fill(0x50);
        fates.push(kernel.judge(&given, &bytes).unwrap().0);
    }
    assert_eq!(fates, [Fate::Pass, Fate::Pass, Fate::Drop]);
    assert_eq!(kernel.remembered().unwrap(), 0);
}

/// Every kind by itself, with every setting, so that none hides behind the others.
#[test]
fn for_every_fault_kind_alone() {
    require_root!();
    let mut kernel = KernelSide::new().unwrap();
    for kind in FAULTS {
        let mut rng = StdRng::seed_from_u64(SEED);
        let mut acted = 0;
        // Several sets of rules a setting: one may be expired, or elsewhere.
        for setting in settings(kind).into_iter().flat_map(|setting| [setting; 5]) {
            let (mut input, _) = rules(&mut rng);
            for rule in &mut input.rules {
                rule.rule.faults = setting;
                rule.clauses.clear();
                rule.exclusions.clear();
            }
            let Ok(tables) = compile(&input) else { continue };
            kernel.arm(&tables, u64::MAX).unwrap();
            let mut host = HostSide::new(tables, u64::MAX);
            for _ in 0..200 {
                let (given, bytes) = (random_given(&mut rng), packet(&mut rng));
                let (on_host, wanted) = host.judge(&given, &bytes).unwrap();
                let (in_kernel, verdict, _) = kernel.judge(&given, &bytes).unwrap();
                assert_eq!((in_kernel, verdict), (on_host, wanted), "{}: {setting:?}", kind.name);
                acted += u32::from(!wanted.is_pass() || on_host == Fate::Normalise);
            }
            assert_eq!(kernel.counted().unwrap(), host.counted(), "{}: {setting:?}", kind.name);
        }
        assert!(acted > 0, "{} never acted", kind.name);
    }
}

/// With a seed the dice of the kernel do not count: same seed, same packets, same verdicts, on both sides.
#[test]
fn the_same_seed_gives_the_same_verdicts_for_every_kind() {
    require_root!();
    let mut kernel = KernelSide::new().unwrap();
    for kind in FAULTS {
        for setting in settings(kind) {
            let mut rng = StdRng::seed_from_u64(SEED);
            let (mut input, _) = rules(&mut rng);
            for rule in &mut input.rules {
                rule.rule.faults = setting;
                rule.rule.seed = 7;
                rule.clauses.clear();
                rule.exclusions.clear();
            }
            let Ok(tables) = compile(&input) else { continue };
            let packets: Vec<_> = (0..60).map(|_| (random_given(&mut rng), packet(&mut rng))).collect();
            let mut runs = Vec::new();
            for dice in [1, 0x1234_5678] {
                kernel.arm(&tables, u64::MAX).unwrap();
                let mut host = HostSide::new(tables.clone(), u64::MAX);
                let mut verdicts = Vec::new();
                for (given, bytes) in &packets {
                    let mut given = *given;
                    given.input.random = dice;
                    let (_, wanted) = host.judge(&given, bytes).unwrap();
                    let (_, verdict, _) = kernel.judge(&given, bytes).unwrap();
                    assert_eq!(verdict, wanted, "{}: {setting:?}", kind.name);
                    verdicts.push(verdict);
                }
                runs.push(verdicts);
            }
            assert_eq!(runs[0], runs[1], "{}: {setting:?}: the dice count in spite of the seed", kind.name);
        }
    }
}
