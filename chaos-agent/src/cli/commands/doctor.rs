//! `chaos doctor`.

use std::process::ExitCode;

use anyhow::Result;

use crate::{
    cli::{
        failure::Exit,
        output::{self, Stream},
    },
    doctor,
};

/// Shows what this machine can do; done only if the basics work.
pub(crate) fn run(json: bool) -> Result<ExitCode> {
    let rows = doctor::run(&doctor::probes());
    let healthy = doctor::healthy(&rows);
    if json {
        let line = serde_json::json!({ "type": "doctor", "healthy": healthy, "checks": rows });
        output::json(Stream::Out, &line)?;
    } else {
        output::line(Stream::Out, doctor::table(&rows).trim_end())?;
    }
    let exit = if healthy { Exit::Done } else { Exit::Other };
    Ok(exit.into())
}
