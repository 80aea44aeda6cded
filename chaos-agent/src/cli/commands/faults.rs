//! `chaos ls`, `chaos show` and `chaos rm`: the faults that an agent holds, whoever set them.

use std::{fmt::Write as _, process::ExitCode, time::Duration};

use anyhow::Result;
use chaos_client::{FaultView, State};
use serde_json::json;

use crate::{
    cli::{
        ask_args::{LsArgs, RmArgs, ShowArgs},
        failure::Exit,
        output::{self, Stream},
        remote, report, units,
    },
    table,
};

/// Lists them.
pub(crate) fn ls(args: &LsArgs, json: bool) -> Result<ExitCode> {
    let mut faults = remote::must(&args.place)?.list().map_err(remote::failure)?;
    faults.retain(|fault| args.all || fault.state != State::Ended);
    if json {
        output::json(Stream::Out, &json!({"type": "faults", "faults": faults}))?;
    } else {
        let rows: Vec<[String; 7]> = faults.iter().map(row).collect();
        let header = ["ID", "NAME", "STATE", "LEFT", "MATCHED", "WHAT", "TARGET"];
        output::line(Stream::Out, table::render(header, &rows).trim_end())?;
    }
    Ok(Exit::Done.into())
}

/// Shows one, whole.
pub(crate) fn show(args: &ShowArgs, json: bool) -> Result<ExitCode> {
    let fault = remote::must(&args.place)?.show(&args.id).map_err(remote::failure)?;
    if json {
        output::json(Stream::Out, &json!({"type": "fault", "fault": fault}))?;
    } else {
        output::line(Stream::Out, text(&fault).trim_end())?;
    }
    Ok(Exit::Done.into())
}

/// Ends some. Those that can be ended are, also when another cannot.
pub(crate) fn rm(args: &RmArgs, json: bool) -> Result<ExitCode> {
    let client = remote::must(&args.place)?;
    let (mut removed, mut said) = (Vec::new(), Vec::new());
    let mut failed = None;
    for id in &args.ids {
        let before = client.show(id).map(|fault| fault.state);
        match before.and_then(|before| Ok((before, client.remove(id)?))) {
            Ok((before, fault)) => {
                said.push(end(&fault, before));
                removed.push(fault);
            }
            Err(error) => failed = failed.or(Some(remote::failure(error))),
        }
    }
    if json {
        output::json(Stream::Out, &json!({"type": "removed", "faults": removed}))?;
    } else {
        for line in &said {
            output::line(Stream::Out, line)?;
        }
    }
    failed.map_or(Ok(Exit::Done.into()), |failure| Err(failure.into()))
}

/// How a fault ended that somebody wants to end.
fn end(fault: &FaultView, before: State) -> String {
    let why = fault.why.as_deref().unwrap_or_default();
    match before {
        State::Ended => format!("{} had ended before, {why}: {}", fault.id, counted(fault)),
        State::Active | State::Unknown => format!("removed {}: {}", fault.id, counted(fault)),
    }
}

fn state(fault: &FaultView) -> &'static str {
    match fault.state {
        State::Active => "active",
        State::Ended => "ended",
        State::Unknown => "?",
    }
}

fn row(fault: &FaultView) -> [String; 7] {
    [
        fault.id.to_string(),
        fault.name.clone().unwrap_or_default(),
        state(fault).to_owned(),
        fault.remaining_seconds.map_or_else(String::new, seconds),
        fault.stats.both("matched_packets").to_string(),
        fault.what.clone(),
        fault.targets.clone(),
    ]
}

fn text(fault: &FaultView) -> String {
    let mut text = String::new();
    let mut line = |name: &str, value: &str| {
        if !value.is_empty() {
            // Writing to a String cannot fail.
            let _ = writeln!(text, "{name:<9} {value}");
        }
    };
    line("fault", &fault.id.to_string());
    line("name", fault.name.as_deref().unwrap_or_default());
    line("what", &fault.what);
    line("target", &fault.targets);
    line("state", state(fault));
    line("why", fault.why.as_deref().unwrap_or_default());
    line("started", &fault.started);
    line("left", &fault.remaining_seconds.map_or_else(String::new, seconds));
    line("lease", &fault.lease_remaining_seconds.map_or_else(String::new, seconds));
    line("counted", &counted(fault));
    line("request", &fault.request.to_string());
    text
}

fn counted(fault: &FaultView) -> String {
    report::rule_text(&remote::rule_stats(&fault.what, &fault.stats))
}

fn seconds(value: f64) -> String {
    Duration::try_from_secs_f64(value.round()).map_or_else(|_| String::new(), units::show_duration)
}
