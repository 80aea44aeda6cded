//! Rules are swapped under traffic: memory and counters of the rule that stays are untouched.
#![expect(clippy::unwrap_used, reason = "a failed unwrap in a test is a failed test")]

use std::{
    net::UdpSocket,
    sync::atomic::{AtomicBool, Ordering},
    thread,
    time::{Duration, Instant},
};

use chaos_agent::{
    engine::{Engine, EngineOptions},
    spec::{Direction, Limits, MatchSpec, PortRange, Proto, RuleSpec, Schedule},
    targets::Target,
};
use chaos_common::fault::{FAULTS, Faults};
use chaos_tests::{
    lab::{
        alone,
        shapes::{B4, Pair},
    },
    require_root,
};
use nix::sys::socket::{setsockopt, sockopt};

const PORT: u16 = 7007;
const DATAGRAMS: u32 = 40_000;
/// Room for all of them, however late the receiver is.
const RECEIVE_BUFFER: usize = 64 << 20;
/// Set apart from the datagrams by one swap at most: 100 a second.
const SWAP_EVERY: Duration = Duration::from_millis(10);

fn faults(name: &str, value: &str) -> Faults {
    let mut faults = Faults::default();
    let info = FAULTS.iter().find(|info| info.name == name).unwrap();
    (info.parse)(value, &mut faults).unwrap();
    faults
}

fn rule(pair: &Pair, port: u16, faults: &Faults, limits: Limits) -> RuleSpec {
    let range = PortRange { first: port, last: port };
    RuleSpec {
        name: format!("port {port}"),
        target: Target::NetnsName(pair.a.name().to_owned()),
        peer: None,
        matching: MatchSpec {
            direction: Some(Direction::Egress),
            protos: vec![Proto::Udp],
            peer_ports: vec![range],
            ..MatchSpec::default()
        },
        faults: *faults,
        schedule: Schedule { duration: Some(Duration::from_mins(1)), ..Schedule::default() },
        limits,
        shadow: false,
        seed: None,
        lease: Duration::from_secs(10),
    }
}

/// Sends numbered datagrams while the rules beside `kept` change 100 times a second; the numbers
/// that arrived, the number of swaps, and how long it took.
fn under_swaps(pair: &Pair, kept: &RuleSpec) -> (Vec<u32>, u32, Duration, Engine) {
    let other = |port| rule(pair, port, &faults("loss", "50%"), Limits::default());
    let mut engine = Engine::start(&[kept.clone(), other(1)], &EngineOptions::default()).unwrap();
    let receiver = pair.b.enter(|| UdpSocket::bind((B4, PORT))).unwrap().unwrap();
    receiver.set_read_timeout(Some(Duration::from_secs(4))).unwrap();
    setsockopt(&receiver, sockopt::RcvBufForce, &RECEIVE_BUFFER).unwrap();
    let sender = pair.a.enter(|| UdpSocket::bind("0.0.0.0:0")).unwrap().unwrap();
    sender.connect((B4, PORT)).unwrap();
    let done = AtomicBool::new(false);
    let begun = Instant::now();
    let (arrived, swaps, took) = thread::scope(|scope| {
        let reader = scope.spawn(|| {
            let mut numbers = Vec::new();
            let mut bytes = [0; 4];
            while receiver.recv(&mut bytes).is_ok() {
                numbers.push(u32::from_be_bytes(bytes));
            }
            numbers
        });
        scope.spawn(|| {
            for number in 0..DATAGRAMS {
                sender.send(&number.to_be_bytes()).unwrap();
                if number % 32 == 31 {
                    // For several seconds, so that there are many swaps.
                    thread::sleep(Duration::from_millis(2));
                }
            }
            done.store(true, Ordering::Relaxed);
        });
        let mut swaps = 0;
        while !done.load(Ordering::Relaxed) {
            let next = Instant::now() + SWAP_EVERY;
            swaps += 1;
            engine.replace(&[kept.clone(), other(1 + swaps as u16 % 100)]).unwrap();
            thread::sleep(next.saturating_duration_since(Instant::now()));
        }
        let took = begun.elapsed();
        (reader.join().unwrap(), swaps, took)
    });
    (arrived, swaps, took, engine)
}

#[test]
fn a_limit_is_exact_under_swaps() {
    require_root!();
    let _alone = alone().unwrap();
    let pair = Pair::new().unwrap();
    pair.a.run(&format!("ping -c 1 -W 2 -q {B4}")).unwrap();
    let limits = Limits { max_packets: Some(10_000), ..Limits::default() };
    let kept = rule(&pair, PORT, &faults("partition", ""), limits);
    let (arrived, swaps, took, engine) = under_swaps(&pair, &kept);
    let stats = engine.stop().unwrap();
    println!("{swaps} swaps in {took:?}");
    assert!(
        f64::from(swaps) / took.as_secs_f64() > 30.0,
        "{swaps} swaps in {took:?}: too few to show anything"
    );
    // When the limit ends the rule, packets leave the way through the normaliser, and the first
    // may overtake the last that is still on it.
    let mut numbers = arrived;
    numbers.sort_unstable();
    assert!(numbers.iter().copied().eq(10_000..DATAGRAMS), "the first 10,000 are gone and no others");
    let counters = stats[0].egress;
    assert_eq!((counters.dropped_packets, counters.matched_packets), (10_000, u64::from(DATAGRAMS)));
    assert_eq!(counters.limited_packets, u64::from(DATAGRAMS) - 10_000);
}

#[test]
fn every_seventh_stays_unbroken_under_swaps() {
    require_root!();
    let _alone = alone().unwrap();
    let pair = Pair::new().unwrap();
    pair.a.run(&format!("ping -c 1 -W 2 -q {B4}")).unwrap();
    let kept = rule(&pair, PORT, &faults("loss", "every=7"), Limits::default());
    let (arrived, swaps, took, engine) = under_swaps(&pair, &kept);
    engine.stop().unwrap();
    println!("{swaps} swaps in {took:?}");
    let wanted: Vec<u32> = (0..DATAGRAMS).filter(|number| number % 7 != 6).collect();
    assert_eq!(arrived.len(), wanted.len());
    assert!(arrived == wanted, "exactly every seventh is missing, and none overtook another");
}

/// What ends a rule when the set cannot be changed; the same rule in the same place is another one then.
#[test]
fn a_rule_that_is_ended_in_place_is_over_and_can_come_again() {
    require_root!();
    let _alone = alone().unwrap();
    let pair = Pair::new().unwrap();
    let receiver = pair.b.enter(|| UdpSocket::bind((B4, PORT))).unwrap().unwrap();
    receiver.set_read_timeout(Some(Duration::from_millis(300))).unwrap();
    let sender = pair.a.enter(|| UdpSocket::bind("0.0.0.0:0")).unwrap().unwrap();
    let arrives = || {
        sender.send_to(b"?", (B4, PORT)).unwrap();
        receiver.recv(&mut [0; 8]).is_ok()
    };
    let cut = rule(&pair, PORT, &faults("partition", ""), Limits::default());
    let mut engine = Engine::start(std::slice::from_ref(&cut), &EngineOptions::default()).unwrap();
    assert!(!arrives(), "cut off");
    engine.end_in_place(&[0]);
    assert!(arrives(), "ended where it is");
    // A lease that is renewed, and tables that are written again, do not bring it back.
    engine.tick().unwrap();
    assert!(arrives(), "still ended");
    engine.place(&[(0, cut)]).unwrap();
    assert!(!arrives(), "cut off anew");
    engine.stop().unwrap();
}
