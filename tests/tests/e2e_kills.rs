//! An agent that is killed, stopped or ended at any moment, while faults come and go and traffic flows: nothing is
//! left, and traffic is whole again soon.
#![expect(clippy::unwrap_used, reason = "a failed unwrap in a test is a failed test")]

use std::{
    net::SocketAddr,
    process::Stdio,
    sync::atomic::{AtomicBool, AtomicU32, Ordering},
    thread,
    time::{Duration, Instant},
};

use chaos_tests::{
    api::Agent,
    chaos::FREED,
    lab::{
        alone,
        echo::Echo,
        netns::Netns,
        process::Process,
        shapes::{B4, Pair},
    },
    require_root,
    snapshot::Snapshot,
};
use nix::sys::signal::Signal;
use rand::{Rng, SeedableRng, rngs::StdRng};
use serde_json::{Value, json};

/// Agents at once, each with a network of its own.
const LANES: u64 = 4;
/// How often each agent is ended: two hundred ends in all.
const ROUNDS: u64 = 50;
/// Every so many rounds the agents are stopped (SIGSTOP), which takes a lease to be over.
const STOPPED_EVERY: u64 = 12;
/// An agent is ended after fewer changes than this, ...
const CHANGES: u32 = 3;
/// ... or when they have taken that long.
const PATIENCE: Duration = Duration::from_secs(4);
/// What the agent holds of a rule's lease (ARCHITECTURE.md).
const LEASE: Duration = Duration::from_secs(5);
/// Traffic is whole again.
const WHOLE: Duration = Duration::from_secs(1);

/// One network, its traffic, and the agent's number in it.
struct Lane {
    number: u64,
    pair: Pair,
    echo: Echo,
}

/// What an end was like.
struct End {
    signal: Signal,
    whole_after: Duration,
    /// Changes that were answered before it.
    changes: u32,
}

impl Lane {
    fn new(number: u64) -> Self {
        let pair = Pair::new().unwrap();
        let echo = Echo::new(&pair.a, &pair.b, SocketAddr::new(B4.into(), 5400)).unwrap();
        Self { number, pair, echo }
    }

    /// One life of an agent, ended at a random moment while faults change.
    fn round(&mut self, round: u64) -> End {
        let mut rng = StdRng::seed_from_u64(round * LANES + self.number);
        let mut agent = Agent::start_as(&format!("kills-{}", self.number), "").unwrap();
        let signal = match round {
            round if round % STOPPED_EVERY == STOPPED_EVERY - 1 => Signal::SIGSTOP,
            round if round % 3 == 2 => Signal::SIGTERM,
            _ => Signal::SIGKILL,
        };
        // Counted in changes, for how long one takes is the machine's affair; then somewhere within the next.
        let changes = rng.random_range(0..CHANGES);
        let then = Duration::from_millis(rng.random_range(0..200));
        let (is_over, answered) = (AtomicBool::new(false), AtomicU32::new(0));
        let (a, echo) = (&self.pair.a, &mut self.echo);
        let process = agent.chaos().process().pid();
        let whole_after = thread::scope(|scope| {
            let agent = &mut agent;
            // Changing goes on while the signal comes; an agent that is gone does not answer.
            let (asks, is_over, answered) = (agent.asker(), &is_over, &answered);
            scope.spawn(move || {
                while !is_over.load(Ordering::Relaxed) {
                    let (method, path, body) = change(&mut rng, a);
                    match asks.ask(method, &path, &body) {
                        Ok(answer) => {
                            // 503: it is ending.
                            let is_right = answer.status < 500 || answer.status == 503;
                            assert!(is_right, "{method} {path} {body}: {answer:?}");
                            answered.fetch_add(1, Ordering::Relaxed);
                        }
                        Err(_) => return,
                    }
                }
            });
            let began = Instant::now();
            while answered.load(Ordering::Relaxed) < changes && began.elapsed() < PATIENCE {
                thread::sleep(Duration::from_millis(1));
            }
            thread::sleep(then);
            let ended = Instant::now();
            nix::sys::signal::kill(process, signal).unwrap();
            let lapse = if signal == Signal::SIGSTOP { LEASE } else { Duration::ZERO };
            thread::sleep(lapse);
            let context = |error| {
                panic!("round {round}, lane {}, {signal} after {changes} and {then:?}: {error}", self.number)
            };
            echo.whole_within(WHOLE).unwrap_or_else(context);
            let whole_after = ended.elapsed().saturating_sub(lapse);
            is_over.store(true, Ordering::Relaxed);
            if signal == Signal::SIGSTOP {
                // Half of them are woken and told to end, the others never move again.
                let last = if self.number.is_multiple_of(2) { Signal::SIGKILL } else { Signal::SIGTERM };
                nix::sys::signal::kill(process, last).unwrap();
                nix::sys::signal::kill(process, Signal::SIGCONT).unwrap();
            }
            let status = agent.chaos().process().wait(Duration::from_secs(10)).unwrap();
            assert!(signal != Signal::SIGTERM || status.success(), "round {round}: {status}");
            whole_after
        });
        End { signal, whole_after, changes: answered.into_inner() }
    }
}

/// A random change of what the agent holds.
fn change(rng: &mut StdRng, netns: &Netns) -> (&'static str, String, Value) {
    const FAULTS: [&str; 8] = [
        r#"{"loss": "100%"}"#,
        r#"{"loss": "10%"}"#,
        r#"{"delay": "30ms"}"#,
        r#"{"delay": "20ms±10ms"}"#,
        r#"{"partition": true}"#,
        r#"{"rate": "1Mbit/s"}"#,
        r#"{"corrupt": "10%", "duplicate": "10%"}"#,
        r#"{"reject": "admin"}"#,
    ];
    let name = format!("n{}", rng.random_range(0..4));
    let mut fault = |name: Option<&str>| {
        let faults: Value = serde_json::from_str(FAULTS[rng.random_range(0..FAULTS.len())]).unwrap();
        let direction = ["egress", "ingress", "both"][rng.random_range(0..3)];
        let mut body = json!({"target": format!("netns:{}", netns.name()), "faults": faults,
            "match": {"direction": direction}, "duration": "1m"});
        if let Some(name) = name {
            body["name"] = name.into();
        }
        body
    };
    let by_name = format!("/v1/faults/{name}");
    let one = fault(None);
    let other = fault(None);
    match rng.random_range(0..10) {
        0..2 => ("POST", "/v1/faults".to_owned(), one),
        2..7 => ("PUT", by_name, one),
        7..9 => ("DELETE", by_name, Value::Null),
        _ => ("PUT", "/v1/faults".to_owned(), json!({"faults": [one, other]})),
    }
}

#[test]
fn two_hundred_ends_leave_nothing() {
    require_root!();
    let _alone = alone().unwrap();
    let mut lanes: Vec<Lane> = (0..LANES).map(Lane::new).collect();
    for lane in &mut lanes {
        lane.echo.whole_within(WHOLE).unwrap();
    }
    let pings: Vec<Process> = lanes
        .iter()
        .map(|lane| {
            let mut ping = lane.pair.a.command(&format!("ping -q -i 0.005 {B4}"));
            ping.stdout(Stdio::null());
            Process::start(ping).unwrap()
        })
        .collect();
    let mut ends = Vec::new();
    let before = before(&lanes);
    for round in 0..ROUNDS {
        let of_round: Vec<End> = thread::scope(|scope| {
            let running: Vec<_> = lanes.iter_mut().map(|lane| scope.spawn(|| lane.round(round))).collect();
            running.into_iter().map(|lane| lane.join().unwrap()).collect()
        });
        ends.extend(of_round);
        thread::sleep(FREED);
        let namespaces: Vec<&Netns> = lanes.iter().flat_map(|lane| [&lane.pair.a, &lane.pair.b]).collect();
        before.settle(&namespaces, WHOLE).unwrap_or_else(|error| panic!("round {round}: {error}"));
    }
    drop(pings);
    for signal in [Signal::SIGKILL, Signal::SIGTERM, Signal::SIGSTOP] {
        let of: Vec<Duration> =
            ends.iter().filter(|end| end.signal == signal).map(|end| end.whole_after).collect();
        println!("{signal}: {} times, whole again after at most {:?}", of.len(), of.iter().max());
    }
    let changes: u32 = ends.iter().map(|end| end.changes).sum();
    println!("{changes} changes of faults");
    assert_eq!(ends.len() as u64, LANES * ROUNDS);
    assert!(u64::from(changes) > LANES * ROUNDS / 2, "hardly anything was changed");
}

fn before(lanes: &[Lane]) -> Snapshot {
    let namespaces: Vec<&Netns> = lanes.iter().flat_map(|lane| [&lane.pair.a, &lane.pair.b]).collect();
    Snapshot::before(&namespaces).unwrap()
}
