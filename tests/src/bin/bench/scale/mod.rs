//! What more costs: more rules, more targets, more events. `cargo xtask bench scale` runs this as root.

mod events;
mod rules;
mod targets;

use std::{fs, time::Duration};

use anyhow::{Context as _, Result, ensure};
use chaos_tests::{
    api::Agent,
    bench::{Document, Options, Spread, lane::Lane},
};
use serde_json::{Value, json};

/// Measures, and shows it.
pub(crate) fn run(options: &Options) -> Result<()> {
    let rounds = options.rounds(9, 3);
    let mut document = Document::begin("scale", options, rounds);
    rules::measure(&mut document, options, rounds)?;
    targets::measure(&mut document, options, rounds)?;
    events::measure(&mut document, options, rounds)?;
    document.finish()
}

/// An agent with as many places as there can be, ready for its first fault.
fn agent() -> Result<Agent> {
    let agent = Agent::start("--max-rules 4096 --max-faults 4096")?;
    agent.prepared()?;
    Ok(agent)
}

/// Sets these faults and no others.
fn set(agent: &Agent, faults: &[Value]) -> Result<()> {
    let answer = agent.ask("PUT", "/v1/faults", &json!({"faults": faults}))?;
    ensure!(answer.status == 200, "the faults are refused: {answer:?}");
    Ok(())
}

/// Main memory that the agent has, MiB.
fn resident_mib(agent: &mut Agent) -> Result<f64> {
    let pid = agent.chaos().process().pid();
    let status = fs::read_to_string(format!("/proc/{pid}/status"))?;
    let line = status.lines().find_map(|line| line.strip_prefix("VmRSS:")).context("no VmRSS")?;
    let kib: f64 = line.trim().split(' ').next().unwrap_or_default().parse().context("VmRSS")?;
    Ok(kib / 1024.0)
}

/// What a datagram takes with this agent's rules more than in a lane without any, nanoseconds.
fn added_ns(with: &Lane, without: &Lane, rounds: usize, time: Duration) -> Result<Option<Spread>> {
    let mut added = Vec::new();
    for round in 0..rounds {
        let (first, second) = if round % 2 == 0 { (with, without) } else { (without, with) };
        let (first, second) = (first.send(time)?.nanos(), second.send(time)?.nanos());
        added.push(if round % 2 == 0 { first - second } else { second - first });
    }
    Ok(Spread::of(&added))
}

fn told(spread: Option<Spread>, digits: usize) -> String {
    spread.map_or_else(|| "–".to_owned(), |spread| spread.told(digits))
}
