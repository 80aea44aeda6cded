//! How fast the agent is, and what it costs: `cargo xtask bench api` runs this as root.
//!
//! `api_bench [--quick]`: the table goes to standard error, the document (JSON) to standard output.
#![expect(clippy::cast_precision_loss, reason = "counts and sizes stay far below 2^52")]

mod flood;
mod latency;
mod process;
mod report;

use anyhow::{Result, bail, ensure};
use chaos_tests::lab::alone;

use latency::Rounds;
use report::Report;

/// Sets that are swapped: the goal's, and an everyday one.
const RULES: [usize; 2] = [1000, 100];

fn main() -> Result<()> {
    let words: Vec<String> = std::env::args().skip(1).collect();
    let quick = match words.iter().map(String::as_str).collect::<Vec<_>>()[..] {
        [] => false,
        ["--quick"] => true,
        _ => bail!("usage: api_bench [--quick]"),
    };
    ensure!(nix::unistd::geteuid().is_root(), "needs root; `cargo xtask bench api` asks for it");
    let _alone = alone()?;
    let mut report = Report::default();
    process::size(&mut report)?;
    process::start(&mut report, if quick { 5 } else { 30 })?;
    process::weight(&mut report)?;
    let rounds = if quick {
        Rounds { warm: 20, cold: 3, lingered: 0 }
    } else {
        Rounds { warm: 200, cold: 15, lingered: 5 }
    };
    latency::measure(&mut report, rounds)?;
    for rules in RULES {
        latency::swap(&mut report, rules, if quick { 3 } else { 20 })?;
    }
    println!("{}", serde_json::to_string_pretty(&report)?);
    Ok(())
}
