//! `cargo xtask bench`: figures of the agent beside their goals.

mod api;

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
    Api(api::Options),
}

/// Runs the command.
pub(crate) fn run(options: &Options) -> Result<()> {
    match &options.what {
        What::Api(options) => api::run(options),
    }
}
