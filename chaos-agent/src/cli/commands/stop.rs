//! `chaos stop`.

use std::process::ExitCode;

use anyhow::{Context as _, Result};

use crate::{
    cli::{
        args::StopArgs,
        failure::Exit,
        output::{self, Stream},
        privileges,
    },
    engine,
};

/// Ends every fault of this machine.
pub(crate) fn run(_args: &StopArgs, json: bool) -> Result<ExitCode> {
    privileges::require()?;
    let report = engine::stop_all().context("not every fault could be ended")?;
    if json {
        output::json(Stream::Out, &serde_json::json!({ "type": "stopped", "report": report }))?;
        return Ok(Exit::Done.into());
    }
    let lines = report.ended.iter().map(|what| format!("ended {what}"));
    let lines: Vec<String> =
        lines.chain(report.removed.iter().map(|what| format!("removed {what}"))).collect();
    if lines.is_empty() {
        output::line(Stream::Out, "no fault was active and nothing was left behind")?;
    }
    for line in lines {
        output::line(Stream::Out, &line)?;
    }
    Ok(Exit::Done.into())
}
