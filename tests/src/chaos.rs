//! The command under test.

use std::{
    collections::BTreeMap,
    io::{BufRead, BufReader},
    path::PathBuf,
    process::{Command, Output, Stdio},
    sync::{
        Mutex, PoisonError,
        mpsc::{Receiver, RecvTimeoutError, channel},
    },
    thread,
    time::{Duration, Instant},
};

use anyhow::{Context, Result, bail, ensure};
use nix::sys::signal::Signal;
use serde_json::Value;

use crate::{
    lab::{
        netns::Netns,
        process::{self, Process},
    },
    snapshot::RUN_VARIABLE,
};

/// How long `chaos` may take to say that it has started.
const START_LIMIT: Duration = Duration::from_secs(15);
/// How long the kernel may take to free what a killed process had, in the background.
///
/// Nobody may look earlier: to list tables takes a reference to each, and a program array that is let go again
/// while its first clearing still waits is never freed (`prog_array_map_clear`, Linux 5.5 to 6.18, takes a
/// reference for work that is queued once).
pub const FREED: Duration = Duration::from_millis(150);
/// How long `chaos` may take to end after SIGINT.
const STOP_LIMIT: Duration = Duration::from_secs(10);

/// Where the binary is: `CHAOS_BIN`, else `chaos` beside the tests in the build folder.
///
/// # Errors
/// When it is at neither place.
pub fn binary() -> Result<PathBuf> {
    if let Some(path) = std::env::var_os("CHAOS_BIN") {
        return Ok(path.into());
    }
    let test = std::env::current_exe().context("where this test lies")?;
    let path = test.ancestors().nth(2).map(|dir| dir.join("chaos")).context("no folder above")?;
    ensure!(path.is_file(), "{} is missing; `cargo build -p chaos-agent` makes it", path.display());
    Ok(path)
}

/// The socket of the agent that [`command`] asks; none = it works alone.
static AGENT: Mutex<Option<PathBuf>> = Mutex::new(None);

/// From now on [`command`] asks the agent at this socket, or works alone.
pub fn ask(agent: Option<PathBuf>) {
    *AGENT.lock().unwrap_or_else(PoisonError::into_inner) = agent;
}

/// `chaos` with these arguments (split at white space), known to [`crate::snapshot`] as ours. An agent of this
/// machine that is not ours is never asked.
///
/// # Errors
/// When the binary is missing.
pub fn command(arguments: &str) -> Result<Command> {
    let mut command = Command::new(binary()?);
    command.args(arguments.split_whitespace());
    command.env(RUN_VARIABLE, std::process::id().to_string());
    match AGENT.lock().unwrap_or_else(PoisonError::into_inner).as_ref() {
        Some(socket) => command.env("CHAOS_SOCKET", socket).env_remove("CHAOS_STANDALONE"),
        None => command.env("CHAOS_STANDALONE", "1").env_remove("CHAOS_SOCKET"),
    };
    Ok(command)
}

/// Runs `chaos` to its end.
///
/// # Errors
/// When it cannot start or runs longer than a minute.
pub fn run(arguments: &str) -> Result<Output> {
    process::output(command(arguments)?, Duration::from_mins(1))
}

/// Counters of one rule in one direction, by their names in the JSON output.
pub type Counters = BTreeMap<String, u64>;

/// One rule of a `tick` or `summary` line.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct RuleCounters {
    /// The rule's name.
    pub name: String,
    /// Leaving the target.
    pub egress: Counters,
    /// Coming to the target.
    pub ingress: Counters,
}

impl RuleCounters {
    /// One counter of both directions together; a counter that is not there counts as 0.
    #[must_use]
    pub fn both(&self, counter: &str) -> u64 {
        let of = |counters: &Counters| counters.get(counter).copied().unwrap_or(0);
        of(&self.egress) + of(&self.ingress)
    }
}

/// What a line is: `started`, `tick`, `event`, `note`, `summary`.
#[must_use]
pub fn kind(line: &Value) -> Option<&str> {
    line.get("type").and_then(Value::as_str)
}

/// The rules of a `tick` or `summary` line.
///
/// # Errors
/// When the line has no list of rules.
pub fn rules(line: &Value) -> Result<Vec<RuleCounters>> {
    let list = line.get("rules").and_then(Value::as_array);
    let list = list.with_context(|| format!("no rules in the line {line}"))?;
    let counters = |value: Option<&Value>| {
        let fields = value.and_then(Value::as_object).into_iter().flatten();
        fields.filter_map(|(name, value)| Some((name.clone(), value.as_u64()?))).collect()
    };
    let rule = |value: &Value| RuleCounters {
        name: value.get("name").and_then(Value::as_str).unwrap_or_default().to_owned(),
        egress: counters(value.get("egress")),
        ingress: counters(value.get("ingress")),
    };
    Ok(list.iter().map(rule).collect())
}

/// A running `chaos … --json`.
#[derive(Debug)]
pub struct Chaos {
    process: Process,
    lines: Receiver<Value>,
    seen: Vec<Value>,
    errors: thread::JoinHandle<String>,
}

impl Chaos {
    /// Starts it (`--json` is added) and waits for its `started` line.
    ///
    /// # Errors
    /// When it ends before, with what it wrote to stderr.
    pub fn start(arguments: &str) -> Result<Self> {
        let (subcommand, rest) = arguments.split_once(' ').context("a subcommand and its arguments")?;
        Self::start_command(command(&format!("{subcommand} --json {rest}"))?)
    }

    /// `chaos inject netns:NAME --for 2m` with these faults and match flags.
    ///
    /// # Errors
    /// As for [`Self::start`].
    pub fn inject(netns: &Netns, flags: &str) -> Result<Self> {
        Self::start(&format!("inject netns:{} --for 2m {flags}", netns.name()))
    }

    /// The same with a prepared command, which must print JSON lines.
    ///
    /// # Errors
    /// When it ends before the `started` line, with what it wrote to stderr.
    pub fn start_command(mut command: Command) -> Result<Self> {
        command.stdin(Stdio::null()).stdout(Stdio::piped()).stderr(Stdio::piped());
        let mut process = Process::start(command)?;
        let stdout = process.child().stdout.take().context("no stdout")?;
        let stderr = process.child().stderr.take().context("no stderr")?;
        let (sender, lines) = channel();
        thread::spawn(move || {
            for line in BufReader::new(stdout).lines().map_while(Result::ok) {
                let value = serde_json::from_str(&line).unwrap_or(Value::String(line));
                if sender.send(value).is_err() {
                    break;
                }
            }
        });
        let errors = thread::spawn(move || {
            BufReader::new(stderr)
                .lines()
                .map_while(Result::ok)
                .fold(String::new(), |text, line| text + &line + "\n")
        });
        let mut chaos = Self { process, lines, seen: Vec::new(), errors };
        if chaos.wait_for("started", START_LIMIT).is_err() {
            let status = chaos.process.child().try_wait()?;
            let _ = chaos.process.child().kill();
            let errors = chaos.errors.join().unwrap_or_default();
            bail!("chaos did not start ({status:?}); it said {:?} and {errors}", chaos.seen);
        }
        Ok(chaos)
    }

    /// Its process.
    pub fn process(&mut self) -> &mut Process {
        &mut self.process
    }

    /// Every line so far, parsed; one that is not JSON is kept as a string.
    #[must_use]
    pub fn seen(&self) -> &[Value] {
        &self.seen
    }

    /// Waits for the next line of this kind (`started`, `tick`, `event`, `summary`).
    ///
    /// # Errors
    /// When none comes within `limit`.
    pub fn wait_for(&mut self, kind_wanted: &str, limit: Duration) -> Result<Value> {
        let deadline = Instant::now() + limit;
        loop {
            match self.lines.recv_timeout(deadline.saturating_duration_since(Instant::now())) {
                Ok(line) => {
                    self.seen.push(line.clone());
                    if kind(&line) == Some(kind_wanted) {
                        return Ok(line);
                    }
                }
                Err(RecvTimeoutError::Timeout | RecvTimeoutError::Disconnected) => {
                    bail!("no `{kind_wanted}` line within {limit:?}; there were {:?}", self.seen)
                }
            }
        }
    }

    /// Ends it with SIGINT and returns the counters of its summary.
    ///
    /// # Errors
    /// When it does not end in time, fails, or prints no summary.
    pub fn stop(self) -> Result<Vec<RuleCounters>> {
        self.process.signal(Signal::SIGINT)?;
        self.finish(STOP_LIMIT)
    }

    /// Waits for its own end and returns the counters of its summary.
    ///
    /// # Errors
    /// When it does not end within `limit`, exits other than 0 or 4 (nothing matched), or prints no summary.
    pub fn finish(mut self, limit: Duration) -> Result<Vec<RuleCounters>> {
        let summary = self.wait_for("summary", limit);
        let status = self.process.wait(STOP_LIMIT)?;
        ensure!(
            matches!(status.code(), Some(0 | 4)),
            "chaos ended with {status}: {}",
            self.errors.join().unwrap_or_default()
        );
        rules(&summary?)
    }

    /// Kills it with SIGKILL; when this returns the process is gone.
    ///
    /// # Errors
    /// When it was gone already.
    pub fn kill(mut self) -> Result<()> {
        self.process.signal(Signal::SIGKILL)?;
        self.process.wait(STOP_LIMIT)?;
        thread::sleep(FREED);
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::rules;

    #[test]
    fn counters_are_read_from_a_line() {
        let line = json!({"type": "tick", "rules": [{"name": "loss 10%",
            "egress": {"matched_packets": 7, "dropped_packets": 1}, "ingress": {"matched_packets": 2}}]});
        let rules = rules(&line).unwrap();
        assert_eq!(rules[0].name, "loss 10%");
        assert_eq!((rules[0].both("matched_packets"), rules[0].both("dropped_packets")), (9, 1));
        assert!(super::rules(&json!({})).is_err());
    }
}
