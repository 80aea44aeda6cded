//! `chaos partition`.

use std::process::ExitCode;

use anyhow::Result;

use super::holding;
use crate::{
    cli::{args::PartitionArgs, rule},
    targets::Target,
};

/// Cuts sides apart until the time is over.
pub(crate) fn run(args: &PartitionArgs, json: bool) -> Result<ExitCode> {
    let rules = rule::partition(args)?;
    let sides: Vec<&Target> = args.sides.iter().flat_map(|group| &group.0).chain(args.middle()).collect();
    holding::run(&rules, &args.holding, &sides, json)
}
