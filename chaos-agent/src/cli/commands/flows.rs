//! `chaos flows`.

use std::process::ExitCode;

use anyhow::Result;

use crate::cli::{args::FlowsArgs, failure::Failure};

/// Shows who a target talks to now.
pub(crate) fn run(args: &FlowsArgs, _json: bool) -> Result<ExitCode> {
    Err(Failure::refused(format!("flows of {} cannot be shown by this build yet", args.target)).into())
}
