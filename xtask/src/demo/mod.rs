//! `cargo xtask demo`: two namespaces, a real redis, loss, a partition, and what a client sees of them.
//!
//! This half runs as the user: it builds, shows, judges and writes the report. The other half
//! ([`lab`]) is root and owns everything that has to be removed.

mod checks;
pub(crate) mod client;
mod histogram;
pub(crate) mod lab;
mod machine;
mod plot;
mod report;
mod screen;
mod story;
mod wire;

use std::{
    io::Write as _,
    path::PathBuf,
    process::{Child, ChildStdin, Stdio},
    sync::mpsc::{self, Receiver, RecvTimeoutError},
    thread,
    time::{Duration, Instant},
};

use anyhow::{Context as _, Result, bail};
use serde_json::Value;

use crate::{cargo, packages, privilege::Privilege};
use screen::{Now, Screen};
use story::{Phase, Played, Seen};
use wire::{News, Order};

/// Arguments of `cargo xtask demo`.
#[derive(Debug, clap::Args)]
pub(crate) struct Options {
    /// Folder for demo.json, demo.md and demo.svg [default: target/demo-report of the repository]
    #[arg(long, value_name = "DIR")]
    out: Option<PathBuf>,
    /// One line a second instead of the live table
    #[arg(long)]
    plain: bool,
    /// Use this `chaos` instead of building one
    #[arg(long, value_name = "FILE")]
    chaos: Option<PathBuf>,
}

/// How often the table is drawn.
const FRAME: Duration = Duration::from_millis(100);
/// How long setting a fault, or building the lab, may take.
const SET_UP: Duration = Duration::from_secs(15);

/// Runs the command.
pub(crate) fn run(options: &Options) -> Result<()> {
    let chaos = match &options.chaos {
        Some(path) => std::path::absolute(path)?,
        None => cargo::build_chaos(&crate::root(), None)?,
    };
    lab::catch_signals()?;
    let privilege = Privilege::find("making network namespaces and loading the kernel program")
        .map_err(anyhow::Error::msg)?;
    let missing = packages::missing(&["redis-server", "ip"]);
    if !missing.is_empty() {
        if !packages::is_debian() {
            bail!(
                "the demo needs `redis-server` and `ip`; install the packages of your system that hold them"
            );
        }
        packages::install(&missing, privilege)?;
    }
    let redis = packages::find("redis-server").context("redis-server is still missing")?;
    let mut demo = Demo::start(privilege, &chaos, &redis, Screen::new(options.plain))?;
    let told = demo.tell();
    let left = demo.finish();
    told?;
    let checks = checks::all(&demo.played, &left?);
    demo.screen.finish(&demo.played, &checks);
    let out = options.out.clone().unwrap_or_else(|| crate::root().join("target/demo-report"));
    report::write(&out, &demo.seen, &demo.played, &checks)?;
    println!("\n  report: {}", out.join("demo.md").display());
    if checks.iter().any(|check| !check.ok) {
        bail!("a phase did not do what was configured");
    }
    Ok(())
}

struct Demo {
    child: Child,
    orders: Option<ChildStdin>,
    news: Receiver<News>,
    screen: Screen,
    start: Instant,
    phases: Vec<Phase>,
    seen: Vec<Seen>,
    played: Vec<Played>,
    /// Of the running `chaos`: whether the rule is armed, its last counters, its end.
    armed: bool,
    last_line: Option<Value>,
    said: Vec<String>,
    exit_code: Option<i32>,
    left: Option<Vec<String>>,
}

impl Demo {
    /// Starts the root half and waits until the servers answer.
    fn start(
        privilege: Privilege,
        chaos: &std::path::Path,
        redis: &std::path::Path,
        screen: Screen,
    ) -> Result<Self> {
        let own = std::env::current_exe().context("own path")?;
        let mut command = privilege.command(own.to_str().context("own path is not UTF-8")?);
        command.arg("demo-lab").args([chaos, redis]);
        command.args([nix::unistd::getuid().to_string(), nix::unistd::getgid().to_string()]);
        let mut child =
            command.stdin(Stdio::piped()).stdout(Stdio::piped()).spawn().context("the root half")?;
        let orders = child.stdin.take();
        let stdout = child.stdout.take().context("output of the root half")?;
        let (sender, news) = mpsc::channel();
        thread::spawn(move || wire::read(stdout, |message| sender.send(message).is_ok()));
        let mut demo = Self {
            child,
            orders,
            news,
            screen,
            start: Instant::now(),
            phases: Vec::new(),
            seen: Vec::new(),
            played: Vec::new(),
            armed: false,
            last_line: None,
            said: Vec::new(),
            exit_code: None,
            left: None,
        };
        let deadline = Instant::now() + SET_UP;
        while demo.phases.is_empty() {
            if Instant::now() > deadline {
                bail!("namespaces and servers were not ready after {} s", SET_UP.as_secs());
            }
            demo.listen(Instant::now() + FRAME)?;
        }
        Ok(demo)
    }

    /// Plays every phase.
    fn tell(&mut self) -> Result<()> {
        self.screen.say(
            "\n  A client and two redis servers, in two network namespaces joined by a veth pair.\n  \
             64 connections, each 50 requests a second at most, none is ever closed by the client.",
        );
        // The first connections are being made.
        let connected = Instant::now() + Duration::from_millis(600);
        while Instant::now() < connected {
            self.listen(connected)?;
        }
        self.seen.clear();
        self.start = Instant::now();
        for phase in self.phases.clone() {
            self.play(&phase)?;
        }
        Ok(())
    }

    fn play(&mut self, phase: &Phase) -> Result<()> {
        (self.armed, self.last_line, self.exit_code) = (false, None, None);
        self.said.clear();
        let fault = !phase.fault.is_empty();
        if fault {
            self.order(&Order::Chaos { args: phase.fault.clone() })?;
            let deadline = Instant::now() + SET_UP;
            while !self.armed {
                if self.exit_code.is_some() || Instant::now() > deadline {
                    bail!("`{}` set no fault:\n  {}", phase.command(), self.said.join("\n  "));
                }
                self.listen(Instant::now() + FRAME)?;
                self.draw(phase, None);
            }
        }
        let begin = Instant::now();
        let begin_s = self.seconds();
        let end = begin + Duration::from_secs_f64(phase.seconds);
        // A fault ends by itself; the phase is over when it says so.
        let late = end + Duration::from_secs(5);
        while if fault { self.exit_code.is_none() } else { Instant::now() < end } {
            if Instant::now() > late {
                bail!("`{}` did not end in time", phase.command());
            }
            self.listen(Instant::now() + FRAME)?;
            self.draw(phase, Some(begin));
        }
        // A fault works from when it is armed to when its time is over; what `chaos` does after that
        // (and starting to say so) is not part of the phase.
        let end_s = self.seconds().min(begin_s + phase.seconds);
        let (from, to) = (begin_s + phase.settle.as_secs_f64(), end_s - 0.1);
        self.played.push(Played {
            name: phase.name,
            about: phase.about,
            command: fault.then(|| phase.command()),
            begin_s,
            end_s,
            ports: lab::PORTS.iter().map(|&port| story::measure(&self.seen, port, from, to)).collect(),
            chaos: self.last_line.take(),
            exit_code: self.exit_code,
        });
        Ok(())
    }

    fn draw(&mut self, phase: &Phase, begin: Option<Instant>) {
        let counters = self.last_line.as_ref().map(checks::counters);
        self.screen.show(&Now {
            phase,
            since: begin.map(|begin| begin.elapsed().as_secs_f64().min(phase.seconds)),
            at: self.start.elapsed().as_secs_f64(),
            seen: &self.seen,
            played: &self.played,
            counters,
        });
    }

    fn seconds(&self) -> f64 {
        self.start.elapsed().as_secs_f64()
    }

    fn order(&mut self, order: &Order) -> Result<()> {
        let orders = self.orders.as_mut().context("the root half is gone")?;
        writeln!(orders, "{}", serde_json::to_string(order)?)?;
        Ok(orders.flush()?)
    }

    /// Takes what the root half says, until `until` at the latest.
    fn listen(&mut self, until: Instant) -> Result<()> {
        loop {
            if lab::ended() {
                bail!("interrupted");
            }
            let wait = until.saturating_duration_since(Instant::now());
            match self.news.recv_timeout(wait) {
                Ok(news) => self.take(news)?,
                Err(RecvTimeoutError::Timeout) => return Ok(()),
                Err(RecvTimeoutError::Disconnected) => bail!("the root half ended"),
            }
        }
    }

    fn take(&mut self, news: News) -> Result<()> {
        match news {
            News::Ready { servers, client } => self.phases = story::phases(&servers, &client),
            News::Sample(sample) => self.seen.push(Seen { at: self.seconds(), sample }),
            News::Chaos { line } => {
                self.armed |= line["type"] == "started";
                if line["rules"].as_array().is_some_and(|rules| rules.iter().any(Value::is_object)) {
                    self.last_line = Some(line);
                } else if line["type"] != "started" {
                    self.said.push(line.to_string());
                }
            }
            News::ChaosSays { text } => self.said.push(text),
            News::ChaosEnded { code } => self.exit_code = Some(code),
            News::Finished { left } => self.left = Some(left),
            News::Failed { why } => bail!("{why}"),
        }
        Ok(())
    }

    /// Has everything removed and returns what is left nevertheless.
    fn finish(&mut self) -> Result<Vec<String>> {
        let _ = self.order(&Order::Finish);
        // The end of the pipe says the same, should the order not get through.
        self.orders = None;
        let deadline = Instant::now() + Duration::from_secs(20);
        while self.left.is_none() {
            match self.news.recv_timeout(deadline.saturating_duration_since(Instant::now())) {
                Ok(News::Finished { left }) => self.left = Some(left),
                Ok(_) => {}
                Err(_) => bail!("the root half did not say that it removed everything"),
            }
        }
        let _ = self.child.wait();
        Ok(self.left.take().unwrap_or_default())
    }
}

impl Drop for Demo {
    fn drop(&mut self) {
        // Whatever happened: the root half sees the end of the pipe and removes everything.
        self.orders = None;
        let _ = self.child.wait();
    }
}
