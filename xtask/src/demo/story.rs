//! What the demo does, in order, and what was seen while it did it.

use std::time::Duration;

use serde::Serialize;
use serde_json::Value;

use super::{
    histogram::Histogram,
    wire::{PortSample, Sample},
};

/// Share of packets dropped in the phase `loss`.
pub(crate) const LOSS: f64 = 0.2;
const LOSS_SECONDS: f64 = 8.0;
/// Ends between two retransmissions of a stalled connection (0.2, 0.6, 1.4, 3.0, 6.2 s, RFC 6298 with
/// the 200 ms minimum of Linux), so that the next one comes soon after the partition is over.
const PARTITION_SECONDS: f64 = 5.6;

/// One phase.
#[derive(Clone, Debug)]
pub(crate) struct Phase {
    /// Short name, also in the report.
    pub(crate) name: &'static str,
    /// What happens, for people.
    pub(crate) about: &'static str,
    /// How long, in seconds.
    pub(crate) seconds: f64,
    /// Words after `chaos`; empty = no fault.
    pub(crate) fault: Vec<String>,
    /// Not looked at after the phase begins: connections that stalled before it come back.
    pub(crate) settle: Duration,
}

impl Phase {
    /// The command as someone would type it.
    pub(crate) fn command(&self) -> String {
        let words = self.fault.iter().map(String::as_str).filter(|word| *word != "--json");
        std::iter::once("chaos").chain(words).collect::<Vec<_>>().join(" ")
    }
}

/// The phases, given the two namespaces.
pub(crate) fn phases(servers: &str, client: &str) -> Vec<Phase> {
    let words = |line: String| line.split_whitespace().map(str::to_owned).collect();
    let short = Duration::from_millis(500);
    let [target, _] = super::lab::PORTS;
    vec![
        Phase {
            name: "baseline",
            about: "nothing is injected",
            seconds: 5.0,
            fault: Vec::new(),
            settle: short,
        },
        Phase {
            name: "loss",
            about: "20 % of the packets to port 6379 vanish, port 6380 is not named",
            seconds: LOSS_SECONDS,
            fault: words(format!(
                "inject netns:{client} --loss {}% --peer-port {target} --direction egress --for {LOSS_SECONDS}s --json",
                LOSS * 100.0
            )),
            settle: short,
        },
        Phase {
            name: "recovery",
            about: "nothing is injected",
            seconds: 2.0,
            fault: Vec::new(),
            settle: short,
        },
        Phase {
            name: "partition",
            about: "the two namespaces cannot reach each other",
            seconds: PARTITION_SECONDS,
            fault: words(format!(
                "partition netns:{client} netns:{servers} --for {PARTITION_SECONDS}s --json"
            )),
            settle: short,
        },
        Phase {
            name: "heal",
            about: "the partition is over, the same connections go on",
            seconds: 6.0,
            fault: Vec::new(),
            settle: Duration::from_secs(2),
        },
    ]
}

/// A sample and when it came, in seconds since the first phase began.
#[derive(Clone, Debug)]
pub(crate) struct Seen {
    pub(crate) at: f64,
    pub(crate) sample: Sample,
}

/// How a phase went.
#[derive(Clone, Debug, Serialize)]
pub(crate) struct Played {
    /// The phase's name.
    pub(crate) name: &'static str,
    /// What happened, for people.
    pub(crate) about: &'static str,
    /// The command as typed; none = no fault.
    pub(crate) command: Option<String>,
    /// Seconds since the demo began: when the fault was armed.
    pub(crate) begin_s: f64,
    /// When it ended.
    pub(crate) end_s: f64,
    /// What the client saw of each server, without the time in which things settle.
    pub(crate) ports: Vec<Measured>,
    /// The last line of `chaos --json`.
    pub(crate) chaos: Option<Value>,
    /// Exit code of `chaos`.
    pub(crate) exit_code: Option<i32>,
}

/// What the client saw of one server.
#[derive(Clone, Debug, Serialize)]
pub(crate) struct Measured {
    /// Its port.
    pub(crate) port: u16,
    /// Replies a second.
    pub(crate) rate: f64,
    /// Replies.
    pub(crate) replies: u64,
    /// Replies that were late by a second, wrong ones and broken connections.
    pub(crate) errors: u64,
    /// Connections that broke.
    pub(crate) broken: u64,
    /// Wrong replies.
    pub(crate) wrong: u64,
    /// Median latency; none = no reply.
    pub(crate) p50_ms: Option<f64>,
    /// 99th percentile.
    pub(crate) p99_ms: Option<f64>,
}

/// Sums up what was seen of `port` from `begin` to `end`.
#[expect(clippy::cast_precision_loss, reason = "counts of a demo are far below 2^52")]
pub(crate) fn measure(seen: &[Seen], port: u16, begin: f64, end: f64) -> Measured {
    let inside: Vec<&PortSample> =
        samples(seen, port).filter(|(at, _)| *at > begin && *at <= end).map(|(_, s)| s).collect();
    let sum = |of: fn(&PortSample) -> u64| inside.iter().map(|sample| of(sample)).sum::<u64>();
    let mut latency = Histogram::default();
    for sample in &inside {
        latency.merge(&sample.latency);
    }
    let (replies, broken, wrong) = (sum(|s| s.replies), sum(|s| s.broken), sum(|s| s.wrong));
    let seconds = inside.len() as f64 * super::client::SAMPLE_PERIOD.as_secs_f64();
    Measured {
        port,
        rate: if seconds > 0.0 { replies as f64 / seconds } else { 0.0 },
        replies,
        errors: sum(|s| s.timeouts) + broken + wrong,
        broken,
        wrong,
        p50_ms: latency.quantile_ms(0.5),
        p99_ms: latency.quantile_ms(0.99),
    }
}

/// The samples of one port with their times.
pub(crate) fn samples(seen: &[Seen], port: u16) -> impl Iterator<Item = (f64, &PortSample)> {
    seen.iter()
        .flat_map(move |seen| seen.sample.ports.iter().filter(move |s| s.port == port).map(|s| (seen.at, s)))
}
