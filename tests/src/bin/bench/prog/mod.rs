//! What a packet costs, by rules and matches: `cargo xtask bench prog` runs this as root.
//!
//! `prog_bench [--quick] [--rounds N]`: the tables go to standard error, the document (JSON) to standard output.

mod beside;
mod nft;
mod profile;
mod rules;
mod run;

use anyhow::Result;
use chaos_tests::bench::{Document, Options};

/// Measures, and shows it.
pub(crate) fn run(options: &Options) -> Result<()> {
    let rounds = options.rounds(9, 3);
    let mut document = Document::begin("prog", options, rounds);
    // First, since the others keep this thread on one CPU.
    beside::measure_all(&mut document, options, rounds)?;
    run::measure_all(&mut document, options, rounds)?;
    profile::measure_all(&mut document, options)?;
    document.finish()
}
