//! The same verdict from the kernel's program and from `chaos-common` on the host, on random
//! packets and random rules of every fault kind, from one seed.
#![expect(clippy::unwrap_used, reason = "a failed unwrap in a test is a failed test")]

use chaos_common::{
    compile::{Input, Tables, compile},
    fault::FAULTS,
};
use chaos_tests::{
    oracle::{
        Fate, NOW_NS, devices,
        host::HostSide,
        kernel::{KernelSide, can_run},
        random_given,
        rules::{random_input, settings},
    },
    packet::random::random_bytes,
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
