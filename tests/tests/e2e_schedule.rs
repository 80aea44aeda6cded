//! When a rule acts and how far it goes: flapping, limits, every n-th, expiry, lease.
#![expect(clippy::unwrap_used, reason = "a failed unwrap in a test is a failed test")]

use std::{
    thread,
    time::{Duration, Instant},
};

use chaos_tests::{
    chaos::Chaos,
    lab::{
        alone,
        shapes::{B4, Pair},
    },
    measure::{
        ping::ping,
        probe::{PROBE_PORT, Probe, Sample, first_blackout},
    },
    require_root,
};
use nix::sys::signal::Signal;

const EVERY: Duration = Duration::from_millis(2);
/// Only what the probe sends.
const PROBE: &str = "--proto udp --direction egress";

fn pair() -> Pair {
    let pair = Pair::new().unwrap();
    // The neighbour entry, so that the first datagram is not the one that waits for it.
    pair.a.run(&format!("ping -c 1 -W 2 -q {B4}")).unwrap();
    pair
}

/// ICMP echo requests that the far end has received (`InEchos`, RFC 2011).
fn echo_requests(pair: &Pair) -> u64 {
    let counters = pair.b.run("cat /proc/net/snmp").unwrap();
    let mut lines = counters.lines().filter_map(|line| line.strip_prefix("Icmp: "));
    let (names, values) = (lines.next().unwrap(), lines.next().unwrap());
    let mut pairs = names.split(' ').zip(values.split(' '));
    pairs.find(|(name, _)| *name == "InEchos").unwrap().1.parse().unwrap()
}

fn probe(pair: &Pair) -> Probe {
    Probe::start(&pair.a, &pair.b, B4.into(), EVERY).unwrap()
}

/// Lengths of time between the first and the last of each run of lost datagrams.
fn blackouts(samples: &[Sample]) -> Vec<Duration> {
    let runs = samples.split(|sample| sample.arrived).filter(|run| !run.is_empty());
    runs.map(|run| run[run.len() - 1].sent_at - run[0].sent_at).collect()
}

#[test]
fn flapping_has_its_duty_cycle() {
    require_root!();
    let _alone = alone().unwrap();
    let pair = pair();
    let chaos = Chaos::inject(&pair.a, &format!("--partition --flap 100ms/100ms {PROBE}")).unwrap();
    let probe = probe(&pair);
    thread::sleep(Duration::from_secs(6));
    let samples = probe.finish().unwrap();
    chaos.stop().unwrap();
    let lost = samples.iter().filter(|sample| !sample.arrived).count();
    let share = lost * 100 / samples.len();
    assert!((46..=54).contains(&share), "{share} % of the time blocked, 50 wanted");
    let mut lengths = blackouts(&samples);
    lengths.sort_unstable();
    let median = lengths[lengths.len() / 2];
    assert!((28..=32).contains(&lengths.len()), "{} blackouts in 6 s, 30 wanted", lengths.len());
    assert!((90..=105).contains(&median.as_millis()), "a blackout lasts {median:?}, 100 ms wanted");
}

#[test]
fn every_seventh_is_every_seventh() {
    require_root!();
    let pair = pair();
    let chaos = Chaos::inject(&pair.a, &format!("--loss every=7 {PROBE}")).unwrap();
    let probe = probe(&pair);
    thread::sleep(Duration::from_secs(3));
    let samples = probe.finish().unwrap();
    let rules = chaos.stop().unwrap();
    let lost: Vec<usize> =
        (0..samples.len()).filter(|number| !samples[*number].arrived).map(|number| number + 1).collect();
    let wanted: Vec<usize> = (1..=samples.len() / 7).map(|number| number * 7).collect();
    assert_eq!(lost, wanted);
    assert_eq!(rules[0].both("dropped_packets"), lost.len() as u64);
}

#[test]
fn a_limit_of_packets_is_exact_with_several_senders() {
    require_root!();
    let _alone = alone().unwrap();
    let pair = pair();
    let before = echo_requests(&pair);
    let chaos = Chaos::inject(&pair.a, "--partition --direction egress --max-packets 1000").unwrap();
    let lost: u64 = thread::scope(|scope| {
        let pings: Vec<_> =
            (0..4).map(|_| scope.spawn(|| ping(&pair.a, B4.into(), None, 500).unwrap())).collect();
        pings.into_iter().map(|ping| ping.join().unwrap().lost()).sum()
    });
    let rules = chaos.stop().unwrap();
    // Each ping is given the answers to all four: one that is kept off its CPU loses some, so it sees that many or more.
    assert!(lost >= 1000, "{lost}");
    assert_eq!((echo_requests(&pair) - before, rules[0].both("dropped_packets")), (1000, 1000), "{rules:?}");
    assert_eq!(rules[0].both("limited_packets"), 1000, "{rules:?}");
}

/// 84 bytes on the wire without the MAC header, 98 with: either way under 100 pings.
#[test]
fn a_limit_of_bytes_is_never_exceeded() {
    require_root!();
    let pair = pair();
    let chaos = Chaos::inject(&pair.a, "--partition --direction egress --max-bytes 10000").unwrap();
    let lost = ping(&pair.a, B4.into(), None, 300).unwrap().lost();
    let rules = chaos.stop().unwrap();
    let bytes = rules[0].both("dropped_bytes");
    assert!(bytes <= 10_000 && bytes > 9_900, "{rules:?}");
    assert!((102..=119).contains(&lost), "{lost}");
}

/// Blocks, then freezes the agent; how long the blackout lasted.
fn blackout_of_a_frozen_agent(flags: &str, watch: Duration) -> Duration {
    let pair = pair();
    let probe = probe(&pair);
    let arguments = format!("inject netns:{} --partition {flags} {PROBE}", pair.a.name());
    let mut chaos = Chaos::start(&arguments).unwrap();
    chaos.process().signal(Signal::SIGSTOP).unwrap();
    thread::sleep(watch);
    let samples = probe.finish().unwrap();
    drop(chaos);
    let (first, end) = first_blackout(&samples).unwrap();
    end - first
}

/// The kernel ends it when its time is over, although the lease runs on and nobody is awake.
#[test]
fn a_frozen_agent_cannot_prolong_a_fault() {
    require_root!();
    let _alone = alone().unwrap();
    let length = blackout_of_a_frozen_agent("--for 3s --lease 60s", Duration::from_secs(5));
    assert!((2990..=3200).contains(&length.as_millis()), "blocked for {length:?}, 3.0 to 3.2 s wanted");
}

/// The kernel ends it when it has not heard from the agent for the lease.
#[test]
fn without_renewal_the_lease_ends_a_fault() {
    require_root!();
    let _alone = alone().unwrap();
    let length = blackout_of_a_frozen_agent("--for 60s --lease 2s", Duration::from_secs(4));
    assert!((1990..=2200).contains(&length.as_millis()), "blocked for {length:?}, 2.0 to 2.2 s wanted");
}

/// While the agent lives, a short lease is renewed again and again.
#[test]
fn a_living_agent_renews_its_lease() {
    require_root!();
    let _alone = alone().unwrap();
    let pair = pair();
    let chaos = Chaos::inject(&pair.a, &format!("--partition --lease 1s {PROBE}")).unwrap();
    let probe = probe(&pair);
    thread::sleep(Duration::from_secs(4));
    let samples = probe.finish().unwrap();
    let rules = chaos.stop().unwrap();
    assert!(samples.iter().all(|sample| !sample.arrived), "something passed");
    assert_eq!(rules[0].both("lease_packets"), 0, "{rules:?}");
}

#[test]
fn a_start_delay_is_waited_for() {
    require_root!();
    let _alone = alone().unwrap();
    let pair = pair();
    let probe = probe(&pair);
    let started = Instant::now();
    let chaos = Chaos::inject(&pair.a, &format!("--partition --start-after 1s {PROBE}")).unwrap();
    let armed = Instant::now();
    thread::sleep(Duration::from_secs(2));
    let samples = probe.finish().unwrap();
    chaos.stop().unwrap();
    let first = samples.iter().find(|sample| !sample.arrived).unwrap().sent_at;
    assert!(first >= started + Duration::from_secs(1), "too early");
    assert!(first <= armed + Duration::from_millis(1100), "too late");
}

/// One seed, one sequence: the same datagrams are lost, whatever else happens.
#[test]
fn a_seed_repeats_the_same_losses() {
    require_root!();
    let run = |seed: u32| {
        let pair = pair();
        let flags = format!("--loss 20% --seed {seed} {PROBE} --peer-port {PROBE_PORT}");
        let chaos = Chaos::inject(&pair.a, &flags).unwrap();
        let probe = probe(&pair);
        thread::sleep(Duration::from_secs(1));
        let samples = probe.finish().unwrap();
        chaos.stop().unwrap();
        samples.iter().take(300).map(|sample| sample.arrived).collect::<Vec<_>>()
    };
    let first = run(7);
    assert!(first.contains(&false) && first.contains(&true));
    assert_eq!(first, run(7));
    assert_ne!(first, run(8));
}
