//! `chaos inject`.

use std::process::ExitCode;

use anyhow::Result;
use serde_json::{Map, Value};

use super::holding::{self, Asked};
use crate::cli::{args::InjectArgs, remote, resolve, rule};

/// Breaks the network of one target until the time is over.
pub(crate) fn run(
    args: &InjectArgs,
    body: impl FnOnce() -> Map<String, Value>,
    json: bool,
) -> Result<ExitCode> {
    let holding = &args.holding;
    let agent = remote::choose_unless_forced(&holding.ask, holding.planning.attach)?;
    let set = match &agent {
        Some(_) => rule::inject(args, &remote::unresolved)?,
        None => rule::inject(args, &|name| resolve::addresses(&args.target, name))?,
    };
    let asked = Asked { set, args: holding, json };
    holding::run(&asked, agent.as_ref(), body)
}
