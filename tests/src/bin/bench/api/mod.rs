//! How fast the agent is, and what it costs: `cargo xtask bench api` runs this as root.
//!
//! `api_bench [--quick] [--rounds N]`: the table goes to standard error, the document (JSON) to standard output.

mod flood;
mod latency;
mod process;
mod report;

use anyhow::Result;
use chaos_tests::bench::{Document, Options};

use latency::Rounds;
use report::Report;

/// Sets that are swapped: the goal's, and an everyday one.
const RULES: [usize; 2] = [1000, 100];

/// Measures, and shows it.
pub(crate) fn run(options: &Options) -> Result<()> {
    let rounds = Rounds {
        warm: options.rounds(200, 20),
        cold: options.rounds(15, 3),
        lingered: options.rounds(5, 0).min(5),
    };
    let mut document = Document::begin("api", options, rounds.warm);
    let mut report = Report::default();
    process::size(&mut report)?;
    process::start(&mut report, options.rounds(30, 5))?;
    process::weight(&mut report)?;
    latency::measure(&mut report, rounds)?;
    for rules in RULES {
        latency::swap(&mut report, rules, options.rounds(20, 3))?;
    }
    report.fill(&mut document)?;
    document.finish()
}
