//! `chaos events`: what happened at an agent, and what happens.

use std::{process::ExitCode, thread, time::Duration};

use anyhow::Result;
use chaos_client::{Client, Error, Event};
use serde_json::json;

use crate::cli::{
    ask_args::EventsArgs,
    failure::Exit,
    output::{self, Stream},
    remote,
};

/// What is remembered comes at once; so long after the last of it there is no more.
const QUIET: Duration = Duration::from_millis(500);
/// How long to wait before a stream that broke is asked for again.
const AGAIN: Duration = Duration::from_secs(1);

/// Prints what is remembered, and with --follow what comes.
pub(crate) fn run(args: &EventsArgs, json: bool) -> Result<ExitCode> {
    let client = remote::must(&args.place)?;
    let mut after = "0".to_owned();
    loop {
        let told = tell(&client, args, &mut after, json);
        match told {
            Ok(()) | Err(Told::Stream(Error::Silent { .. })) if !args.follow => return Ok(Exit::Done.into()),
            // The agent was started again, or the connection broke: what was missed is told then.
            Ok(()) | Err(Told::Stream(Error::Garbled { .. } | Error::Silent { .. })) => thread::sleep(AGAIN),
            Err(Told::Stream(error)) => return Err(remote::failure(error).into()),
            Err(Told::Output(error)) => return Err(error.into()),
        }
    }
}

/// Why no more was told.
enum Told {
    Stream(Error),
    Output(std::io::Error),
}

fn tell(client: &Client, args: &EventsArgs, after: &mut String, json: bool) -> Result<(), Told> {
    let quiet = (!args.follow).then_some(QUIET);
    let mut events = client.events(args.fault.as_deref(), Some(after), quiet).map_err(Told::Stream)?;
    while let Some(event) = events.next() {
        let event = event.map_err(Told::Stream)?;
        if let Some(id) = events.last_id() {
            id.clone_into(after);
        }
        let written = if json {
            output::json(Stream::Out, &json!({"type": "event", "event": event}))
        } else {
            output::line(Stream::Out, &text(&event))
        };
        written.map_err(Told::Output)?;
    }
    Ok(())
}

fn text(event: &Event) -> String {
    let fault = event.fault.map_or_else(String::new, |fault| format!(" {fault}"));
    let name = event.name.as_ref().map_or_else(String::new, |name| format!(" ({name})"));
    format!("{} {}{fault}{name}: {}", event.time, event.kind, event.message).trim_start().to_owned()
}
