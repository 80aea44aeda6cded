//! `chaos agent`.

use std::process::ExitCode;

use anyhow::Result;
use clap::ValueEnum as _;

use crate::{
    cli::{
        args::{AgentArgs, GlobalArgs},
        failure::{Exit, Failure},
        log,
        output::{self, Stream},
        plan, privileges,
        setting_flags::LOG_LEVEL,
    },
    config::{Live, Sources},
    daemon,
    engine::EngineOptions,
};

/// Holds the faults of others until it is told to end.
pub(crate) fn run(args: &AgentArgs, global: &GlobalArgs) -> Result<ExitCode> {
    let sources = sources(args, global);
    let loaded = sources.load().map_err(|error| {
        Failure::usage(error.to_string())
            .mend("chaos agent --help, or --print-config without it, for a file to start from")
    })?;
    if args.print_config {
        output::write(Stream::Out, loaded.toml().as_bytes())?;
        return Ok(Exit::Done.into());
    }
    log::start(loaded.config.log_level, loaded.config.log_json);
    privileges::require()?;
    let sizes = loaded.config.max_rules;
    let live = Live::new(loaded.config, sources);
    daemon::run(&live, EngineOptions { sizes, ..plan::engine_options_for(args.attach) }, |at| {
        let told = if global.json {
            output::json(
                Stream::Out,
                &serde_json::json!({"type": "started", "socket": at.socket, "listen": at.listen}),
            )
        } else {
            let tcp = at.listen.map(|address| format!(" and {address}")).unwrap_or_default();
            output::line(Stream::Out, &format!("listening at {}{tcp}", at.socket.display()))
        };
        // Nobody may be reading.
        let _ = told;
    })?;
    Ok(Exit::Done.into())
}

fn sources(args: &AgentArgs, global: &GlobalArgs) -> Sources {
    let mut flags = args.settings.0.clone();
    if let Some(level) = global.log_level.and_then(|level| level.to_possible_value()) {
        flags.push((LOG_LEVEL, level.get_name().to_owned()));
    }
    Sources { file: args.config.clone(), flags, variables: |name| std::env::var(name).ok() }
}
