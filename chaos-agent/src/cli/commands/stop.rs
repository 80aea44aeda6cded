//! `chaos stop`.

use std::{process::ExitCode, time::Duration};

use anyhow::{Context as _, Result};
use chaos_client::{Client, Error, Removed};

use crate::{
    cli::{
        ask_args::StopArgs,
        failure::{Exit, Failure},
        output::{self, Stream},
        privileges, remote,
    },
    engine::{self, StopReport},
};

/// How long an agent may take to let its faults go; then it is ended.
const PATIENCE: Duration = Duration::from_secs(2);

/// Ends every fault of this machine. What the kernel knows is enough for that: an agent is only asked so that one
/// that is well lives on.
pub(crate) fn run(args: &StopArgs, json: bool) -> Result<ExitCode> {
    let ask = || -> Option<(Client, Result<Removed, Error>)> {
        let client = remote::at(&args.ask).ok().filter(|_| !args.ask.standalone)?.with_limit(PATIENCE);
        let answer = client.remove_all();
        Some((client, answer))
    };
    let report = if privileges::are_there() {
        let mut answer = None;
        let mut report =
            engine::stop_all(|| let_go(answer.insert(ask()?))).context("not every fault could be ended")?;
        report.ended.extend(answer.and_then(|(client, answer)| told(&client, &answer)));
        report
    } else {
        by_agent_alone(ask())?
    };
    show(&report, json)
}

/// The process of an agent that has let its faults go: what it keeps loaded for the next one touches no packet.
fn let_go((client, answer): &(Client, Result<Removed, Error>)) -> Option<i32> {
    answer.as_ref().ok()?;
    client.status().ok().and_then(|status| i32::try_from(status.pid).ok())
}

/// Without privileges: what the agent held is ended, and if others hold faults that is said.
fn by_agent_alone(answer: Option<(Client, Result<Removed, Error>)>) -> Result<StopReport> {
    let Some((client, Ok(removed))) = answer else {
        // Why it failed is of no interest to one who could do it himself.
        privileges::require()?;
        return Ok(StopReport::default());
    };
    let ended: Vec<String> = told(&client, &Ok(removed)).into_iter().collect();
    if engine::is_anybody_registered() {
        let what = format!("{} others hold faults too, which only root may end", ended.join("").trim_end());
        return Err(Failure::refused(what.trim()).mend("sudo chaos stop --all").into());
    }
    Ok(StopReport { ended, removed: Vec::new() })
}

fn told(client: &Client, answer: &Result<Removed, Error>) -> Option<String> {
    match answer {
        Ok(Removed { ended: 0, .. }) | Err(Error::Absent { .. }) => None,
        Ok(Removed { ended, .. }) => Some(format!("{ended} fault(s) of the agent at {}", client.place())),
        Err(error) => {
            output::warn(&error.to_string());
            None
        }
    }
}

fn show(report: &StopReport, json: bool) -> Result<ExitCode> {
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
