//! `chaos inject`.

use std::process::ExitCode;

use anyhow::Result;

use super::holding;
use crate::cli::{args::InjectArgs, resolve, rule};

/// Breaks the network of one target until the time is over.
pub(crate) fn run(args: &InjectArgs, json: bool) -> Result<ExitCode> {
    let rules = rule::inject(args, &|name| resolve::addresses(&args.target, name))?;
    holding::run(&rules, &args.holding, json)
}
