//! What traffic that no rule hits loses on its way: `cargo xtask bench path` runs this as root.
//!
//! Two lanes, each of two namespaces and a veth pair. Samples are short and come in pairs, one right after the other, the
//! first in turn: one in the lane where something of ours may be, one in the lane where nothing ever is. The ratio is
//! that of such a pair. For an idle agent and the proxy both are in the same lane, with and without.

mod condition;
mod http;
mod load;
mod place;
mod report;

use std::{thread, time::Duration};

use anyhow::{Result, ensure};
use chaos_tests::bench::{Document, Options};

use condition::{Condition, Meter};
use load::Load;
use place::{DIRECT, PROXIED, Place};
use report::Row;

/// Before the first sample: what was started, ended and freed for it has come to rest.
const REST: Duration = Duration::from_millis(500);

/// Measures, and shows it.
pub(crate) fn run(options: &Options) -> Result<()> {
    let rounds = options.rounds(5, 2);
    let mut document = Document::begin("path", options, rounds);
    let place = Place::new()?;
    let loads = Load::all(&place)?;
    let mut rows = Row::all(&loads);
    for round in 0..rounds {
        for row in &mut rows {
            eprint!("\rround {} of {rounds}: {:<60}", round + 1, row.title());
            if let Err(error) = measure(&place, row, round) {
                row.fail(format!("{error:#}"));
            }
        }
    }
    eprintln!();
    report::fill(&mut document, &loads, &rows)?;
    document.finish()?;
    let failed = rows.iter().filter(|row| row.has_failed()).count();
    ensure!(failed == 0, "{failed} rows failed, see the table");
    Ok(())
}

/// The pairs of one round.
fn measure(place: &Place, row: &mut Row, round: usize) -> Result<()> {
    if !row.is_measured() {
        return Ok(());
    }
    if row.condition == Condition::Idle {
        return (0..row.load.pairs())
            .try_for_each(|number| beside_idle(place, row, (round + number).is_multiple_of(2)));
    }
    let mut armed = row.condition.enter(place)?;
    thread::sleep(REST);
    let is_proxied = row.condition == Condition::Proxy;
    let (bare, to) = if is_proxied { (&place.tried, PROXIED) } else { (&place.bare, DIRECT) };
    let meter = armed.meter()?;
    for number in 0..row.load.pairs() {
        let direct_first = (round + number).is_multiple_of(2);
        let before = direct_first.then(|| row.load.run(bare, DIRECT)).transpose()?;
        let under = row.load.run(&place.tried, to)?;
        let direct = before.map_or_else(|| row.load.run(bare, DIRECT), Ok)?;
        row.add(direct, under);
    }
    row.agent_percent.extend(meter.map(Meter::read).transpose()?);
    armed.leave()
}

/// Where nothing is attached only whether there is an agent can make a difference.
fn beside_idle(place: &Place, row: &mut Row, direct_first: bool) -> Result<()> {
    let before = direct_first.then(|| row.load.run(&place.tried, DIRECT)).transpose()?;
    let armed = row.condition.enter(place)?;
    let under = row.load.run(&place.tried, DIRECT)?;
    armed.leave()?;
    let direct = before.map_or_else(|| row.load.run(&place.tried, DIRECT), Ok)?;
    row.add(direct, under);
    Ok(())
}
