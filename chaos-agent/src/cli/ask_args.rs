//! Whether an agent is asked, and where it is.

use std::path::PathBuf;

use clap::{Args, builder::FalseyValueParser};

use super::args::{TARGET_HELP, target_help};
use crate::targets::Target;

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

/// Where the agent is, for the commands that only it can do.
#[derive(Args, Clone, Debug, Default)]
pub(crate) struct AgentPlace {
    /// Where the agent listens; unless told as the environment says
    #[arg(
        help = "Where the agent listens [default: CHAOS_URL with CHAOS_KEY, CHAOS_SOCKET, or /run/chaos/agent.sock]",
        long,
        value_name = "PATH"
    )]
    pub(crate) socket: Option<PathBuf>,
}

/// `chaos flows`.
#[derive(Args, Debug)]
pub(crate) struct FlowsArgs {
    #[arg(value_name = "TARGET", help = TARGET_HELP, long_help = target_help())]
    pub(crate) target: Target,
    #[command(flatten)]
    pub(crate) ask: AskArgs,
}

/// `chaos stop`.
#[derive(Args, Debug)]
pub(crate) struct StopArgs {
    /// Every fault, whoever set it; the only way there is so far
    #[arg(long, required = true)]
    pub(crate) all: bool,
    #[command(flatten)]
    pub(crate) ask: AskArgs,
}

/// `chaos ls`.
#[derive(Args, Debug)]
pub(crate) struct LsArgs {
    /// Those that ended too, as far as they are remembered
    #[arg(long)]
    pub(crate) all: bool,
    #[command(flatten)]
    pub(crate) place: AgentPlace,
}

/// `chaos show`.
#[derive(Args, Debug)]
pub(crate) struct ShowArgs {
    /// Its number or its name
    #[arg(value_name = "ID")]
    pub(crate) id: String,
    #[command(flatten)]
    pub(crate) place: AgentPlace,
}

/// `chaos rm`.
#[derive(Args, Debug)]
pub(crate) struct RmArgs {
    /// Their numbers or names
    #[arg(value_name = "ID", required = true)]
    pub(crate) ids: Vec<String>,
    #[command(flatten)]
    pub(crate) place: AgentPlace,
}

/// `chaos events`.
#[derive(Args, Debug)]
pub(crate) struct EventsArgs {
    /// Go on with what happens from now on, until Ctrl-C
    #[arg(long, short)]
    pub(crate) follow: bool,
    /// Only what is about this fault, by its number or name
    #[arg(long, value_name = "ID")]
    pub(crate) fault: Option<String>,
    #[command(flatten)]
    pub(crate) place: AgentPlace,
}
