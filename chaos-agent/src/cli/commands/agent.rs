//! `chaos agent`.

use std::process::ExitCode;

use anyhow::Result;

use crate::{
    cli::{
        args::AgentArgs,
        failure::Exit,
        output::{self, Stream},
        plan, privileges,
    },
    daemon::{self, Config},
};

/// Holds the faults of others until it is told to end.
pub(crate) fn run(args: &AgentArgs, json: bool) -> Result<ExitCode> {
    privileges::require()?;
    let config = Config {
        socket: args.socket.clone(),
        group: args.socket_group.clone(),
        engine: plan::engine_options_for(args.attach),
    };
    daemon::run(&config, |path| {
        let told = if json {
            output::json(Stream::Out, &serde_json::json!({"type": "started", "socket": path}))
        } else {
            output::line(Stream::Out, &format!("listening at {}", path.display()))
        };
        // Nobody may be reading.
        let _ = told;
    })?;
    Ok(Exit::Done.into())
}
