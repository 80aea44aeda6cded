//! Bulk transfers between two namespaces by the helper program `traffic`, with the counts of
//! wire segments of both sockets.

use std::{
    io::Read,
    net::SocketAddr,
    process::{Command, Stdio},
    time::Duration,
};

use anyhow::{Context, Result, ensure};
use serde::{Deserialize, Serialize};

pub use super::helper::path as helper;
use crate::lab::{
    netns::Netns,
    process::{self, Process},
};

/// One connection as its sender saw it.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct Sent {
    /// Names the connection.
    pub port: u16,
    /// Wire segments with data handed down, retransmissions included.
    pub segments: u64,
    /// Of these, retransmissions.
    pub retransmitted: u64,
    /// What a full segment carries, in bytes.
    pub mss: u32,
}

/// One connection as its receiver saw it.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct Received {
    /// Names the connection.
    pub port: u16,
    /// Wire segments with data that reached TCP.
    pub segments: u64,
    /// Bytes read.
    pub bytes: u64,
}

/// What a transfer is to do.
#[derive(Clone, Debug)]
pub struct Transfer {
    /// Where the receiver listens.
    pub to: SocketAddr,
    /// How many connections at once.
    pub streams: u32,
    /// Ends when all connections together have sent this many segments.
    pub segments: u64,
    /// How the congestion window is governed (`cubic`, `bbr`).
    pub congestion: &'static str,
}

impl Transfer {
    /// Eight cubic connections and 120,000 segments: more than the 100,000 a test must have.
    #[must_use]
    pub const fn new(to: SocketAddr) -> Self {
        Self { to, streams: 8, segments: 120_000, congestion: "cubic" }
    }
}

/// What both sides counted.
#[derive(Clone, Debug)]
pub struct Counts {
    /// Per connection.
    pub sent: Vec<Sent>,
    /// Per connection.
    pub received: Vec<Received>,
}

impl Counts {
    /// Wire segments with data that were sent.
    #[must_use]
    pub fn total(&self) -> u64 {
        self.sent.iter().map(|sent| sent.segments).sum()
    }

    /// Those of them that did not arrive.
    #[must_use]
    pub fn lost(&self) -> u64 {
        self.total().saturating_sub(self.received.iter().map(|received| received.segments).sum())
    }
}

/// How long a transfer may take.
const LIMIT: Duration = Duration::from_mins(2);

/// A running receiver.
#[derive(Debug)]
pub struct Sink(Process);

/// Starts the receiver inside `netns`; `wrap` may put it into a cgroup.
///
/// # Errors
/// When it does not listen in time.
pub fn sink(netns: &Netns, at: SocketAddr, wrap: impl FnOnce(Command) -> Command) -> Result<Sink> {
    let mut command = Command::new(helper()?);
    command.args(["sink", &at.to_string()]).stdin(Stdio::piped()).stdout(Stdio::piped());
    let mut process = Process::start(netns.inside(wrap(command)))?;
    let mut ready = [0; 1];
    let stdout = process.child().stdout.as_mut().context("the receiver has no stdout")?;
    stdout.read_exact(&mut ready).context("the receiver ended before it listened")?;
    Ok(Sink(process))
}

impl Sink {
    /// Ends it and returns what it counted, connection by connection.
    ///
    /// # Errors
    /// When it does not end or prints nonsense.
    pub fn finish(mut self) -> Result<Vec<Received>> {
        drop(self.0.child().stdin.take());
        let mut text = String::new();
        let stdout = self.0.child().stdout.as_mut().context("the receiver has no stdout")?;
        stdout.read_to_string(&mut text)?;
        self.0.wait(Duration::from_secs(5))?;
        parse_lines(&text)
    }
}

/// Sends from `netns` to `sink`, which ends with it; `wrap` may put the sender into a cgroup.
///
/// # Errors
/// When a connection fails or the transfer takes more than two minutes.
pub fn transfer(
    netns: &Netns,
    sink: Sink,
    what: &Transfer,
    wrap: impl FnOnce(Command) -> Command,
) -> Result<Counts> {
    let mut command = Command::new(helper()?);
    let Transfer { to, streams, segments, congestion } = what;
    command.args(["bulk", &to.to_string(), &streams.to_string(), &segments.to_string(), congestion]);
    let output = process::output(netns.inside(wrap(command)), LIMIT)?;
    ensure!(output.status.success(), "the sender failed: {}", String::from_utf8_lossy(&output.stderr));
    let sent = parse_lines(&String::from_utf8_lossy(&output.stdout))?;
    let received = sink.finish()?;
    ensure!(sent.len() == received.len(), "{} connections sent, {} came", sent.len(), received.len());
    Ok(Counts { sent, received })
}

fn parse_lines<T: for<'a> Deserialize<'a>>(text: &str) -> Result<Vec<T>> {
    let parse = |line| serde_json::from_str(line).with_context(|| format!("not a record: {line}"));
    text.lines().filter(|line| !line.trim().is_empty()).map(parse).collect()
}
