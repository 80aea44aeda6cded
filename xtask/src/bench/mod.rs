//! `cargo xtask bench`: figures of the agent beside their goals, and beside others.

mod document;
mod plot;
mod program;

use anyhow::{Context as _, Result};

/// Arguments of `cargo xtask bench`.
#[derive(Debug, clap::Args)]
pub(crate) struct Options {
    #[command(subcommand)]
    what: What,
}

#[derive(Debug, clap::Subcommand)]
enum What {
    /// The agent: from a request to the packet that feels it, start, memory, wake-ups, size
    Api(program::Options),
    /// The kernel's programs: what a packet costs, by rules and matches
    Prog(program::Options),
    /// Traffic that no rule hits: throughput beside direct, and a TCP proxy beside it
    Path(program::Options),
    /// Delay: how late, and how fast TCP is under it; beside netem and fq where the kernel has them
    Delay(program::Options),
    /// The same faults made by chaos, by netem and by a naive eBPF program: what is seen of each
    Compare(program::Options),
    /// More rules, more targets, more events: what each step costs
    Scale(program::Options),
    /// All of them, one after the other
    All(program::How),
}

/// Those of [`What::All`], in this order.
const ALL: [&str; 5] = ["prog", "path", "delay", "scale", "api"];

/// Runs the command.
pub(crate) fn run(options: &Options) -> Result<()> {
    match &options.what {
        What::Api(options) => program::run("api", options),
        What::Prog(options) => program::run("prog", options),
        What::Path(options) => program::run("path", options),
        What::Delay(options) => program::run("delay", options),
        What::Compare(options) => program::run("compare", options),
        What::Scale(options) => program::run("scale", options),
        What::All(how) => ALL.iter().try_for_each(|name| {
            eprintln!("== bench {name}");
            program::run_as(name, how.clone()).with_context(|| format!("bench {name}"))
        }),
    }
}
