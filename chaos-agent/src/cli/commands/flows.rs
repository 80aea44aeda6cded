//! `chaos flows`.

use std::process::ExitCode;

use anyhow::Result;
use serde::Serialize;

use crate::{
    cli::{
        ask_args::FlowsArgs,
        failure::Exit,
        output::{self, Stream},
        remote, request,
    },
    flows::{self, Conversation, Flow},
};

/// The line of `--json`.
#[derive(Debug, Serialize)]
struct FlowsLine<'a> {
    r#type: &'static str,
    target: String,
    /// What the table shows, each with the flags that hit it.
    conversations: Vec<Conversation>,
    /// Every single socket.
    flows: &'a [Flow],
}

/// Shows who a target talks to now.
pub(crate) fn run(args: &FlowsArgs, json: bool) -> Result<ExitCode> {
    let flows = match remote::choose(&args.ask)? {
        Some(client) => remote::flows(&client, &args.target)?,
        None => request::flows(&args.target)?,
    };
    if json {
        let conversations = flows::conversations(&flows);
        let line =
            FlowsLine { r#type: "flows", target: args.target.to_string(), conversations, flows: &flows };
        output::json(Stream::Out, &line)?;
    } else {
        output::line(Stream::Out, flows::table(&flows).trim_end())?;
    }
    Ok(Exit::Done.into())
}
