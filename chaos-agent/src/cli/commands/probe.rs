//! `chaos probe`: whether the agent answers, for whoever runs it in a container that holds nothing but `chaos`.

use std::{
    io::{Read as _, Write as _},
    os::unix::net::UnixStream,
    process::ExitCode,
    time::Duration,
};

use anyhow::{Context as _, Result};

use crate::cli::{
    args::ProbeArgs,
    failure::{Exit, Failure},
};

/// A probe that takes longer has failed.
const LIMIT: Duration = Duration::from_secs(5);

/// Asks, and fails unless the answer is a success.
pub(crate) fn run(args: &ProbeArgs) -> Result<ExitCode> {
    let socket = args.socket.display();
    let mut stream = UnixStream::connect(&args.socket).map_err(|error| {
        Failure::refused(format!("no agent answers at {socket}: {error}"))
            .mend("start one with `sudo chaos agent`, or name its --socket")
    })?;
    stream.set_read_timeout(Some(LIMIT))?;
    stream.set_write_timeout(Some(LIMIT))?;
    let request = format!("GET {} HTTP/1.1\r\nhost: chaos\r\nconnection: close\r\n\r\n", args.path);
    stream.write_all(request.as_bytes()).with_context(|| format!("asking the agent at {socket}"))?;
    let mut answer = String::new();
    stream.read_to_string(&mut answer).with_context(|| format!("no answer from the agent at {socket}"))?;
    let status = answer.split(' ').nth(1).unwrap_or_default();
    if status.starts_with('2') {
        return Ok(Exit::Done.into());
    }
    let body = answer.split_once("\r\n\r\n").map_or(answer.as_str(), |(_, body)| body).trim();
    Err(Failure::refused(format!("GET {}: {status} {body}", args.path)).into())
}
