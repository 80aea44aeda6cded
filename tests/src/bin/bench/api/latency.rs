//! From a request to the packet that feels it.

use std::{thread, time::Duration};

use anyhow::{Context, Result, ensure};
use chaos_tests::{api::Agent, lab::shapes::Pair};
use serde_json::{Value, json};

use super::{flood::Flood, report::Report};

/// Longer than any wait on the way without a fault, and shorter than with `delay`.
const LATE: Duration = Duration::from_millis(30);
/// After an answer, until what was on its way has come: longer than the delay asked for.
const SETTLE: Duration = Duration::from_millis(90);
/// A rule that was here in this time makes the next one warm; see README.
const LINGER: Duration = Duration::from_secs(10);

/// Faults of different make.
const KINDS: [(&str, &str); 3] = [
    ("partition", r#"{"partition": true}"#),
    // Packets are cut into wire packets: the normaliser.
    ("loss 99 %", r#"{"loss": "99%"}"#),
    ("delay 60 ms", r#"{"delay": "60ms"}"#),
];

/// How often each is measured.
#[derive(Clone, Copy)]
pub(super) struct Rounds {
    pub(super) warm: usize,
    pub(super) cold: usize,
    pub(super) lingered: usize,
}

/// One POST and its DELETE; how long each took until packets felt it.
fn once(agent: &Agent, flood: &Flood, body: &Value) -> Result<(Duration, Duration)> {
    let feels = |trip: Option<Duration>| trip.is_none_or(|trip| trip > LATE);
    let mark = flood.mark();
    let made = agent.ask("POST", "/v1/faults", body)?;
    ensure!(made.status == 201, "POST: {made:?}");
    thread::sleep(SETTLE);
    let begun = flood.first(mark, feels).context("no packet was affected")?;
    let mark = flood.mark();
    let gone = agent.ask("DELETE", &format!("/v1/faults/{}", made.body["id"]), &Value::Null)?;
    ensure!(gone.status == 200, "DELETE: {gone:?}");
    thread::sleep(SETTLE);
    // A share of packets survives `loss`; and so it is never all of those just before.
    let ended = flood.first(mark, |trip| !feels(trip)).context("every packet stayed affected")?;
    Ok((begun, ended))
}

fn body(pair: &Pair, faults: &str) -> Result<Value> {
    let faults: Value = serde_json::from_str(faults)?;
    Ok(json!({"target": format!("netns:{}", pair.a.name()), "faults": faults, "duration": "1m"}))
}

/// Every row about latency.
pub(super) fn measure(report: &mut Report, rounds: Rounds) -> Result<()> {
    for (kind, faults) in KINDS {
        let pair = Pair::new()?;
        let flood = Flood::start(&pair)?;
        let body = body(&pair, faults)?;
        let private = kind != "partition";
        warm(report, rounds.warm, kind, &flood, &body)?;
        let goal = Duration::from_millis(if private { 150 } else { 100 });
        let mut cold = Vec::new();
        let mut at_once = Vec::new();
        for _ in 0..rounds.cold {
            let agent = Agent::start("")?;
            at_once.push(once(&agent, &flood, &body)?.0);
            agent.stop()?;
            let agent = Agent::start("")?;
            thread::sleep(Duration::from_secs(1));
            cold.push(once(&agent, &flood, &body)?.0);
            agent.stop()?;
        }
        report.times(&format!("cold, POST to first packet, {kind}"), &mut cold, Some(goal), None);
        report.times(
            &format!("the agent just started, POST to first packet, {kind}"),
            &mut at_once,
            None,
            None,
        );
        if rounds.lingered > 0 && !private {
            let agent = Agent::start("")?;
            let mut lingered = Vec::new();
            once(&agent, &flood, &body)?;
            for _ in 0..rounds.lingered {
                thread::sleep(LINGER + Duration::from_secs(3));
                lingered.push(once(&agent, &flood, &body)?.0);
            }
            agent.stop()?;
            let name = format!("cold, 13 s after the last fault, {kind}");
            report.times(&name, &mut lingered, Some(goal), None);
        }
    }
    Ok(())
}

fn warm(report: &mut Report, rounds: usize, kind: &str, flood: &Flood, body: &Value) -> Result<()> {
    let agent = Agent::start("")?;
    // The first ones are not warm.
    once(&agent, flood, body)?;
    once(&agent, flood, body)?;
    let (mut begun, mut ended) = (Vec::new(), Vec::new());
    for _ in 0..rounds {
        let (on, off) = once(&agent, flood, body)?;
        begun.push(on);
        ended.push(off);
    }
    agent.stop()?;
    let (median, p99) = (Some(Duration::from_millis(5)), Some(Duration::from_millis(20)));
    report.times(&format!("warm, POST to first packet, {kind}"), &mut begun, median, p99);
    // With 99 % loss most of those that are not lost tell nothing about the end.
    if kind != "loss 99 %" {
        report.times(&format!("warm, DELETE to first free packet, {kind}"), &mut ended, median, None);
    }
    Ok(())
}

/// PUT of a whole set, each time another one.
pub(super) fn swap(report: &mut Report, rules: usize, rounds: usize) -> Result<()> {
    let pair = Pair::new()?;
    // Places for the old and the new set.
    let agent = Agent::start("--max-rules 4096 --max-faults 4096")?;
    let set = |round: usize| -> Value {
        let one = |index: usize| {
            json!({"target": format!("netns:{}", pair.a.name()), "faults": {"partition": true}, "duration": "1m",
                "match": {"peer": [format!("10.{}.{}.{}", 100 + round % 100, index / 250, 1 + index % 250)]}})
        };
        json!({"faults": (0..rules).map(one).collect::<Vec<_>>()})
    };
    let mut times = Vec::new();
    for round in 0..=rounds {
        let body = set(round);
        let begun = std::time::Instant::now();
        let answer = agent.ask("PUT", "/v1/faults", &body)?;
        if answer.status != 200 {
            report.missing(&format!("swap of {rules} rules by PUT"), &answer.body["detail"].to_string());
            return agent.stop();
        }
        // The first one is cold.
        if round > 0 {
            times.push(begun.elapsed());
        }
    }
    report.times(
        &format!("swap of {rules} rules by PUT, until answered"),
        &mut times,
        Some(Duration::from_millis(50)),
        None,
    );
    agent.stop()
}
