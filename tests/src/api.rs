//! A running `chaos agent` and questions to it.

use std::{
    io::Write as _, net::SocketAddr, os::unix::net::UnixStream, path::PathBuf, process::Command,
    time::Duration,
};

use anyhow::{Context as _, Result, ensure};
use nix::sys::signal::Signal;
use serde_json::{Value, json};

use crate::{
    chaos::{self, Chaos, kind},
    lab::{netns::Netns, process::wait_until},
};

/// How long an answer may take on a busy machine.
const ANSWER_LIMIT: Duration = Duration::from_secs(20);
/// How long the agent may take to end.
const END_LIMIT: Duration = Duration::from_secs(10);

/// An agent of our own, with a socket of its own.
#[derive(Debug)]
pub struct Agent {
    chaos: Chaos,
    socket: PathBuf,
}

/// Runs a test of the command line twice: working alone, and asking an agent.
///
/// # Errors
/// When the agent does not start or does not end well.
pub fn both_ways(test: impl Fn()) -> Result<()> {
    /// Also when the test panics.
    struct Alone;
    impl Drop for Alone {
        fn drop(&mut self) {
            chaos::ask(None);
        }
    }
    test();
    let agent = Agent::start("")?;
    let alone = Alone;
    chaos::ask(Some(agent.socket().clone()));
    test();
    drop(alone);
    agent.stop()
}

/// The body of a fault that lets nothing in or out of a namespace for a minute.
#[must_use]
pub fn partition(netns: &Netns) -> Value {
    json!({"target": format!("netns:{}", netns.name()), "faults": {"partition": true}, "duration": "1m"})
}

/// How many packets a fault has matched, both ways, as its answer says.
///
/// # Panics
/// When that is no answer about a fault.
#[must_use]
pub fn matched(fault: &Value) -> u64 {
    let of = |way: &str| fault[way]["matched_packets"].as_u64().expect("an answer about a fault");
    of("egress") + of("ingress")
}

/// What it said.
#[derive(Clone, Debug, PartialEq)]
pub struct Answer {
    /// HTTP status.
    pub status: u16,
    /// Header lines.
    pub head: String,
    /// The body, if it is JSON.
    pub body: Value,
}

impl Answer {
    /// Reads what comes until the other end closes.
    ///
    /// # Errors
    /// When that is no answer.
    pub fn read(mut from: impl std::io::Read) -> Result<Self> {
        let mut text = String::new();
        // Who refuses a body may end the connection before it was read.
        if let Err(error) = from.read_to_string(&mut text)
            && text.is_empty()
        {
            return Err(error).context("reading the answer");
        }
        let (head, body) = text.split_once("\r\n\r\n").with_context(|| format!("no answer: {text}"))?;
        let status = head.split(' ').nth(1).and_then(|word| word.parse().ok()).context("no status")?;
        let body = serde_json::from_str(body).unwrap_or(Value::String(body.to_owned()));
        Ok(Self { status, head: head.to_ascii_lowercase(), body })
    }
}

impl Agent {
    /// Starts one.
    ///
    /// # Errors
    /// When it does not start.
    pub fn start(flags: &str) -> Result<Self> {
        Self::start_as("agent", flags)
    }

    /// Starts one beside others: `name` is its own.
    ///
    /// # Errors
    /// When it does not start.
    pub fn start_as(name: &str, flags: &str) -> Result<Self> {
        Self::start_by(name, flags, |command| command)
    }

    /// The same within a namespace, which is its own then.
    ///
    /// # Errors
    /// When it does not start.
    pub fn start_inside(netns: &Netns, name: &str, flags: &str) -> Result<Self> {
        Self::start_by(name, flags, |command| netns.inside(command))
    }

    fn start_by(name: &str, flags: &str, change: impl FnOnce(Command) -> Command) -> Result<Self> {
        let socket = PathBuf::from(format!("/run/chaos-test-{}/{name}.sock", std::process::id()));
        let state = socket.with_file_name(format!("{name}-state"));
        // A flag is given once.
        let state = if flags.contains("--state-dir") {
            String::new()
        } else {
            format!("--state-dir {}", state.display())
        };
        let own = format!("--socket {} {state}", socket.display());
        let command = chaos::command(&format!("agent --json {own} {flags}"))?;
        let chaos = Chaos::start_command(change(command))?;
        Ok(Self { chaos, socket })
    }

    /// Where it listens.
    #[must_use]
    pub fn socket(&self) -> &PathBuf {
        &self.socket
    }

    /// Where it listens on TCP.
    ///
    /// # Errors
    /// When it does not.
    pub fn tcp(&self) -> Result<SocketAddr> {
        let started = self.chaos.seen().iter().find(|line| kind(line) == Some("started"));
        let address =
            started.and_then(|line| line["listen"].as_str()).context("it does not listen on TCP")?;
        Ok(address.parse()?)
    }

    /// Waits until it has prepared what its first fault needs, so that programs and tables stay as they are.
    ///
    /// # Errors
    /// When it does not answer, or takes longer than that may take.
    pub fn prepared(&self) -> Result<()> {
        let pid = self.ask("GET", "/v1/status", &Value::Null)?.body["pid"].as_u64().context("no pid")?;
        wait_until("the preparation", ANSWER_LIMIT, || {
            let threads = std::fs::read_dir(format!("/proc/{pid}/task")).into_iter().flatten().flatten();
            let mut names =
                threads.filter_map(|thread| std::fs::read_to_string(thread.path().join("comm")).ok());
            !names.any(|name| name.trim() == "chaos-prepare")
        })
        .map(drop)
    }

    /// Its process.
    pub fn chaos(&mut self) -> &mut Chaos {
        &mut self.chaos
    }

    /// Asks it; a body of null is none.
    ///
    /// # Errors
    /// When there is no answer.
    pub fn ask(&self, method: &str, path: &str, body: &Value) -> Result<Answer> {
        self.asker().ask(method, path, body)
    }

    /// The same with a body that may be anything.
    ///
    /// # Errors
    /// When there is no answer.
    pub fn ask_raw(&self, method: &str, path: &str, body: &str) -> Result<Answer> {
        self.asker().ask_raw(method, path, body)
    }

    /// Sets a fault; returns its number.
    ///
    /// # Errors
    /// When it is refused, or there is no answer.
    pub fn set(&self, body: &Value) -> Result<u64> {
        let made = self.ask("POST", "/v1/faults", body)?;
        ensure!(made.status == 201, "the fault is refused: {made:?}");
        made.body["id"].as_u64().with_context(|| format!("it has no number: {made:?}"))
    }

    /// For other threads.
    #[must_use]
    pub fn asker(&self) -> Asker {
        Asker(self.socket.clone())
    }

    /// Ends it with SIGTERM; it must end well, and its socket must be gone.
    ///
    /// # Errors
    /// When it does not.
    pub fn stop(mut self) -> Result<()> {
        let process = self.chaos.process();
        process.signal(Signal::SIGTERM)?;
        let status = process.wait(END_LIMIT)?;
        ensure!(status.success(), "the agent ended with {status}");
        ensure!(!self.socket.exists(), "{} is left", self.socket.display());
        Ok(())
    }

    /// Kills it.
    ///
    /// # Errors
    /// When it was gone already.
    pub fn kill(self) -> Result<()> {
        self.chaos.kill()
    }
}

/// Asks an agent.
#[derive(Clone, Debug)]
pub struct Asker(PathBuf);

impl Asker {
    /// Asks it; a body of null is none.
    ///
    /// # Errors
    /// When there is no answer.
    pub fn ask(&self, method: &str, path: &str, body: &Value) -> Result<Answer> {
        let body = if body.is_null() { String::new() } else { body.to_string() };
        self.ask_raw(method, path, &body)
    }

    /// The same with a body that may be anything.
    ///
    /// # Errors
    /// When there is no answer.
    pub fn ask_raw(&self, method: &str, path: &str, body: &str) -> Result<Answer> {
        let mut stream = UnixStream::connect(&self.0).context("connecting to the agent")?;
        stream.set_read_timeout(Some(ANSWER_LIMIT))?;
        // Who refuses a body may answer before it has read all of it.
        let _ = write!(
            stream,
            "{method} {path} HTTP/1.1\r\nhost: chaos\r\nconnection: close\r\ncontent-type: application/json\r\ncontent-length: {}\r\n\r\n{body}",
            body.len()
        );
        Answer::read(stream)
    }
}
