//! `chaos partition`.

use std::process::ExitCode;

use anyhow::Result;
use serde_json::{Map, Value};

use super::holding::{self, Asked};
use crate::cli::{args::PartitionArgs, remote, rule};

/// Cuts sides apart until the time is over.
pub(crate) fn run(
    args: &PartitionArgs,
    body: impl FnOnce() -> Map<String, Value>,
    json: bool,
) -> Result<ExitCode> {
    let set = rule::partition(args)?;
    let holding = &args.holding;
    let agent = remote::choose_unless_forced(&holding.ask, holding.planning.attach)?;
    holding::run(&Asked { set, args: holding, json }, agent.as_ref(), body)
}
