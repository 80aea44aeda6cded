//! The helper program `traffic`: where it is, and how a part of it is started and read.

use std::{
    io::{Read, Write},
    net::{IpAddr, SocketAddr},
    path::PathBuf,
    process::{Command, Stdio},
    time::Duration,
};

use anyhow::{Context, Result, ensure};
use serde::Deserialize;

use crate::lab::{
    netns::Netns,
    process::{self, Process},
};

/// One place of a measurement: a namespace, and what puts a command where it belongs (a cgroup, or nowhere).
#[derive(Clone, Copy)]
pub struct End<'a> {
    /// Where the program runs.
    pub netns: &'a Netns,
    /// What is done to its command before it enters the namespace.
    pub wrap: &'a dyn Fn(Command) -> Command,
}

impl std::fmt::Debug for End<'_> {
    fn fmt(&self, formatter: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        formatter.debug_tuple("End").field(self.netns).finish()
    }
}

impl<'a> End<'a> {
    /// An end whose programs go nowhere in particular.
    #[must_use]
    pub fn plain(netns: &'a Netns) -> Self {
        Self { netns, wrap: &super::tcp::plain }
    }

    fn command(&self, arguments: &[String]) -> Result<Command> {
        let mut command = Command::new(path()?);
        command.args(arguments);
        Ok(self.netns.inside((self.wrap)(command)))
    }
}

/// The helper program, built with the tests beside the running program.
///
/// # Errors
/// When it is not there.
pub fn path() -> Result<PathBuf> {
    let own = std::env::current_exe().context("where this program lies")?;
    // A test program lies in `deps`, another one in the folder above.
    let found = own.ancestors().skip(1).take(2).map(|dir| dir.join("traffic")).find(|file| file.is_file());
    found.with_context(|| {
        format!("`traffic` is not beside {}; `cargo build -p chaos-tests --bins` makes it", own.display())
    })
}

/// Arguments from a line, split at white space.
#[must_use]
pub fn words(line: &str) -> Vec<String> {
    line.split_whitespace().map(str::to_owned).collect()
}

/// A part of the helper that runs beside what is measured: it says when it is ready, and prints its records
/// when its standard input ends.
#[derive(Debug)]
pub struct Beside {
    process: Process,
    what: String,
}

impl Beside {
    /// Starts it and waits until it is ready.
    ///
    /// # Errors
    /// When it ends before.
    pub fn start(end: End<'_>, line: &str) -> Result<Self> {
        let mut command = end.command(&words(line))?;
        command.stdin(Stdio::piped()).stdout(Stdio::piped());
        let mut process = Process::start(command)?;
        let mut ready = [0; 1];
        let stdout = process.child().stdout.as_mut().context("no stdout")?;
        stdout
            .read_exact(&mut ready)
            .with_context(|| format!("`traffic {line}` ended before it was ready"))?;
        Ok(Self { process, what: line.to_owned() })
    }

    /// Sends it a line: its word to go on.
    ///
    /// # Errors
    /// When it is gone.
    pub fn go(&mut self) -> Result<()> {
        let stdin = self.process.child().stdin.as_mut().context("no stdin")?;
        stdin.write_all(b"\n").with_context(|| format!("`traffic {}` is gone", self.what))
    }

    /// Whether it still runs.
    pub fn is_running(&mut self) -> bool {
        self.process.is_running()
    }

    /// Ends its standard input and returns what it printed, within `limit`.
    ///
    /// # Errors
    /// When it does not end in time or fails.
    pub fn finish(mut self, limit: Duration) -> Result<String> {
        drop(self.process.child().stdin.take());
        let mut stdout = self.process.child().stdout.take().context("no stdout")?;
        let reader = std::thread::spawn(move || {
            let mut text = String::new();
            stdout.read_to_string(&mut text).map(|_| text)
        });
        let status = self.process.wait(limit).with_context(|| format!("`traffic {}`", self.what))?;
        ensure!(status.success(), "`traffic {}` failed: {status}", self.what);
        let text = reader.join().map_err(|_| anyhow::anyhow!("the reader panicked"))?;
        text.context("what the helper printed")
    }
}

/// Runs a part of the helper to its end and returns what it printed.
///
/// # Errors
/// When it fails or takes longer than `limit`.
pub fn run(end: End<'_>, line: &str, limit: Duration) -> Result<String> {
    let output = process::output(end.command(&words(line))?, limit)?;
    let errors = String::from_utf8_lossy(&output.stderr);
    ensure!(output.status.success(), "`traffic {line}` failed: {}", errors.trim_end());
    Ok(String::from_utf8_lossy(&output.stdout).into_owned())
}

/// Every line of `text` as a JSON record.
///
/// # Errors
/// When one is not.
pub fn records<T: for<'a> Deserialize<'a>>(text: &str) -> Result<Vec<T>> {
    let parse = |line| serde_json::from_str(line).with_context(|| format!("not a record: {line}"));
    text.lines().filter(|line| !line.trim().is_empty()).map(parse).collect()
}

/// The one record of `text`.
///
/// # Errors
/// When there is none, or it is not one.
pub fn record<T: for<'a> Deserialize<'a>>(text: &str) -> Result<T> {
    records(text)?.pop().context("the helper printed no record")
}

/// Waits until a neighbour is known, so that its discovery is not measured, and the address answers.
///
/// # Errors
/// When it does not.
pub fn warm_up(netns: &Netns, to: IpAddr) -> Result<()> {
    netns.run(&format!("ping -c 2 -i 0.01 -W 2 -q {to}")).map(drop)
}

/// The address and port where helpers listen.
#[must_use]
pub fn at(address: IpAddr, port: u16) -> SocketAddr {
    SocketAddr::new(address, port)
}
