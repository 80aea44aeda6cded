//! Calls of connect(2) from a program in a namespace and perhaps a cgroup: their errno and how long
//! each took.

use std::{
    io::{BufRead, BufReader},
    net::SocketAddr,
    process::{ChildStdout, Command, Stdio},
    time::Duration,
};

use anyhow::{Context, Result};

use crate::lab::{
    netns::Netns,
    process::{self, Process},
};

/// One call.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Attempt {
    /// What it failed with; 0 = it did not.
    pub errno: i32,
    /// How long the call took.
    pub took: Duration,
}

/// The program that makes `count` calls: `proto` is `tcp`, `udp`, or `nonblocking` (TCP).
///
/// # Errors
/// When the helper program `connect` is not beside the tests.
pub fn command(proto: &str, to: SocketAddr, count: u32) -> Result<Command> {
    let mut command = helper()?;
    command.args([proto, &to.to_string(), &count.to_string()]);
    Ok(command)
}

fn helper() -> Result<Command> {
    let test = std::env::current_exe().context("where this test lies")?;
    let path = test.ancestors().nth(2).map(|dir| dir.join("connect")).context("no folder above")?;
    Ok(Command::new(path))
}

/// A program that holds an idle connection.
#[derive(Debug)]
pub struct Holder {
    process: Process,
    lines: BufReader<ChildStdout>,
}

impl Holder {
    /// Connects from where `place` puts the program, and waits until it is connected.
    ///
    /// # Errors
    /// When it cannot connect.
    pub fn start(to: SocketAddr, place: impl FnOnce(Command) -> Command) -> Result<Self> {
        let mut command = helper()?;
        command.args(["hold", &to.to_string()]).stdin(Stdio::null()).stdout(Stdio::piped());
        let mut process = Process::start(place(command))?;
        let stdout = process.child().stdout.take().context("no stdout")?;
        let mut lines = BufReader::new(stdout);
        let mut line = String::new();
        anyhow::ensure!(lines.read_line(&mut line)? == 1, "it does not connect: {line}");
        Ok(Self { process, lines })
    }

    /// The connection is still there.
    pub fn holds(&mut self) -> bool {
        self.process.is_running()
    }

    /// Waits for the end of the connection: what reading failed with, 0 = it was closed.
    ///
    /// # Errors
    /// When it does not end within `limit`.
    pub fn errno(mut self, limit: Duration) -> Result<i32> {
        self.process.wait(limit)?;
        let mut line = String::new();
        self.lines.read_line(&mut line)?;
        line.trim().parse().context("the errno")
    }
}

/// Runs a command made by [`command`] to its end.
///
/// # Errors
/// When it fails.
pub fn attempts(command: Command) -> Result<Vec<Attempt>> {
    let text = process::run(command)?;
    let read = |line: &str| {
        let (errno, micros) = line.split_once(' ').context("two numbers a line")?;
        Ok(Attempt { errno: errno.parse()?, took: Duration::from_micros(micros.parse()?) })
    };
    text.lines().map(read).collect()
}

/// [`attempts`] from a namespace.
///
/// # Errors
/// When the program fails.
pub fn from(netns: &Netns, proto: &str, to: SocketAddr, count: u32) -> Result<Vec<Attempt>> {
    attempts(netns.inside(command(proto, to, count)?))
}

/// The errno that all of them failed with.
///
/// # Errors
/// When they differ, or there are none.
pub fn errno(attempts: &[Attempt]) -> Result<i32> {
    let first = attempts.first().context("no call was made")?.errno;
    anyhow::ensure!(attempts.iter().all(|attempt| attempt.errno == first), "they differ: {attempts:?}");
    Ok(first)
}
