//! `chaos partition`.

use std::process::ExitCode;

use anyhow::Result;

use super::holding;
use crate::cli::{args::PartitionArgs, rule};

/// Cuts two sides apart until the time is over.
pub(crate) fn run(args: &PartitionArgs, json: bool) -> Result<ExitCode> {
    let rule = rule::partition(args)?;
    holding::run(rule, &args.holding, &[&args.a, &args.b], json)
}
