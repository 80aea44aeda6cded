//! What traffic that no rule hits loses on its way: `cargo xtask bench path` runs this as root.
//!
//! Two namespaces and a veth pair. Every sample under a condition stands beside one without anything of ours in the
//! machine, taken right before or after it, in turn; the ratio is that of such a pair.

mod condition;
mod http;
mod load;
mod place;
mod report;

use std::{net::IpAddr, thread, time::Duration};

use anyhow::{Result, ensure};
use chaos_tests::bench::{Document, Options};

use load::{Load, Reading};
use place::{DIRECT, Place};
use report::Row;

/// Before each sample: what was started, ended and freed for it has come to rest.
const REST: Duration = Duration::from_millis(500);

/// Measures, and shows it.
pub(crate) fn run(options: &Options) -> Result<()> {
    let rounds = options.rounds(11, 2);
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

/// One pair: direct, and under the condition.
fn measure(place: &Place, row: &mut Row, round: usize) -> Result<()> {
    if !row.is_measured() {
        return Ok(());
    }
    let direct_first = round.is_multiple_of(2);
    let before = direct_first.then(|| sample(place, row, DIRECT)).transpose()?;
    let armed = row.condition.enter(place)?;
    let under = sample(place, row, row.condition.to())?;
    armed.leave()?;
    let direct = match before {
        Some(direct) => direct,
        None => sample(place, row, DIRECT)?,
    };
    row.add(direct, under);
    Ok(())
}

fn sample(place: &Place, row: &Row, to: IpAddr) -> Result<Reading> {
    thread::sleep(REST);
    row.load.run(place, to)
}
