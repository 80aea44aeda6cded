//! `cargo xtask bench`: figures of the agent beside their goals.

mod program;

use anyhow::Result;

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
}

/// Runs the command.
pub(crate) fn run(options: &Options) -> Result<()> {
    match &options.what {
        What::Api(options) => program::run("api_bench", options),
        What::Prog(options) => program::run("prog_bench", options),
    }
}
