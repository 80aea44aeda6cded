//! `chaos partition`.

use std::process::ExitCode;

use anyhow::Result;

use super::holding;
use crate::cli::{args::PartitionArgs, rule};

/// Cuts sides apart until the time is over.
pub(crate) fn run(args: &PartitionArgs, json: bool) -> Result<ExitCode> {
    let rules = rule::partition(args)?;
    holding::run(&rules, &args.holding, json)
}
