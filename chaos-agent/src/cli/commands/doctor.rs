//! `chaos doctor`.

use std::process::ExitCode;

use anyhow::Result;

use crate::cli::failure::Failure;

/// Shows what this machine can do.
pub(crate) fn run(_json: bool) -> Result<ExitCode> {
    Err(Failure::refused("this build cannot examine the machine yet").into())
}
