//! Whether an agent is asked, and where it is.

use std::path::PathBuf;

use clap::{Args, builder::FalseyValueParser};

/// Flags of the commands that an agent can do for us.
#[derive(Args, Clone, Debug, Default)]
#[command(next_help_heading = "Agent (asked when its socket is there)")]
pub(crate) struct AskArgs {
    /// Work alone, even where an agent listens; needs sudo
    #[arg(long, env = "CHAOS_STANDALONE", value_parser = FalseyValueParser::new())]
    pub(crate) standalone: bool,
    /// Where the agent listens [default: /run/chaos/agent.sock]
    #[arg(long, value_name = "PATH", env = "CHAOS_SOCKET")]
    pub(crate) socket: Option<PathBuf>,
}
