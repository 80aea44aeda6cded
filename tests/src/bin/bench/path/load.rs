//! Programs that fill the path, and the one figure each gives.

use std::{
    net::{IpAddr, Ipv4Addr, SocketAddr},
    process::Command,
    time::Duration,
};

use anyhow::{Context as _, Result, ensure};
use chaos_tests::{
    bench::flood,
    lab::process,
    measure::helper::{at, words},
    skip::find_tool,
};
use serde_json::Value;

use super::place::{DIRECT, Lane, Place, port};

/// How long one sample takes: what differs between two is on which CPUs the programs land and what else the host does,
/// so many short samples say more than few long ones.
const TIME: Duration = Duration::from_millis(250);
/// Pairs of samples in a round.
const PAIRS: usize = 10;
/// wrk counts in whole seconds.
const HTTP_SECONDS: u64 = 1;
const HTTP_PAIRS: usize = 4;
/// How long a program may take in all.
const LIMIT: Duration = Duration::from_secs(30);
/// Connections of redis-benchmark, and of wrk.
const CLIENTS: u32 = 16;

/// What one sample says.
#[derive(Clone, Copy, Debug)]
pub(super) struct Reading {
    /// In the load's unit.
    pub(super) rate: f64,
    /// Median time of one answer, microseconds, where there are answers.
    pub(super) latency_us: Option<f64>,
}

/// A program and how it is used.
#[derive(Clone, Copy, Debug)]
pub(super) struct Load {
    pub(super) name: &'static str,
    pub(super) unit: &'static str,
    kind: Kind,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Kind {
    Iperf { streams: u32, bytes: u64 },
    Datagrams { batch: usize },
    Redis { requests: u64 },
    Http,
}

impl Load {
    /// All of them; how much each gets to do follows from how fast it is here.
    pub(super) fn all(place: &Place) -> Result<Vec<Self>> {
        let load = |name, unit, kind| Self { name, unit, kind };
        let mut loads = vec![
            load("iperf3, 1 stream", "Gbit/s", Kind::Iperf { streams: 1, bytes: 1 << 28 }),
            load("iperf3, 8 streams", "Gbit/s", Kind::Iperf { streams: 8, bytes: 1 << 28 }),
            load("UDP, 32 bytes", "packets/s", Kind::Datagrams { batch: 1 }),
            load("UDP, 64 a call", "packets/s", Kind::Datagrams { batch: flood::BATCH }),
            load("redis-benchmark GET", "1/s", Kind::Redis { requests: 10_000 }),
            load("wrk, HTTP 1 KiB", "1/s", Kind::Http),
        ];
        for load in &mut loads {
            load.fit(place)?;
        }
        Ok(loads)
    }

    /// As much work as takes [`TIME`] here.
    fn fit(&mut self, place: &Place) -> Result<()> {
        if self.missing().is_some() || matches!(self.kind, Kind::Datagrams { .. } | Kind::Http) {
            return Ok(());
        }
        let rate = self.run(&place.bare, DIRECT)?.rate * TIME.as_secs_f64();
        #[expect(clippy::cast_sign_loss, reason = "a rate is not negative")]
        match &mut self.kind {
            Kind::Iperf { bytes, .. } => *bytes = (rate * 1e9 / 8.0) as u64,
            Kind::Redis { requests } => *requests = rate.max(1000.0) as u64,
            Kind::Datagrams { .. } | Kind::Http => {}
        }
        Ok(())
    }

    /// Why it cannot run here, if so.
    pub(super) fn missing(&self) -> Option<String> {
        let tools: &[(&str, &str)] = match self.kind {
            Kind::Iperf { .. } => &[("iperf3", "iperf3")],
            Kind::Datagrams { .. } => &[],
            Kind::Redis { .. } => &[("redis-server", "redis-server"), ("redis-benchmark", "redis-tools")],
            Kind::Http => &[("wrk", "wrk")],
        };
        let (tool, package) = tools.iter().find(|(tool, _)| find_tool(tool).is_none())?;
        Some(format!("no {tool} here; the package `{package}` has it"))
    }

    /// Whether a TCP proxy can be in its path.
    pub(super) const fn is_tcp(&self) -> bool {
        !matches!(self.kind, Kind::Datagrams { .. })
    }

    /// Digits of its rate behind the point.
    pub(super) const fn digits(&self) -> usize {
        if matches!(self.kind, Kind::Iperf { .. }) { 2 } else { 0 }
    }

    /// So many pairs of samples in a round.
    pub(super) fn pairs(&self) -> usize {
        if self.kind == Kind::Http { HTTP_PAIRS } else { PAIRS }
    }

    /// One sample, from the client of this lane to this address.
    pub(super) fn run(&self, lane: &Lane, to: IpAddr) -> Result<Reading> {
        match self.kind {
            Kind::Iperf { streams, bytes } => iperf(&client(
                lane,
                &format!(
                    "iperf3 --client {to} --port {} --bytes {bytes} --parallel {streams} --json",
                    port::IPERF
                ),
            )?),
            Kind::Datagrams { batch } => datagrams(lane, to, batch),
            Kind::Redis { requests } => redis(&client(
                lane,
                &format!(
                    "redis-benchmark -h {to} -p {} -t get -n {requests} -c {CLIENTS} --csv",
                    port::REDIS
                ),
            )?),
            Kind::Http => http(&client(
                lane,
                &format!("wrk -t 1 -c {CLIENTS} -d {HTTP_SECONDS}s --latency http://{}/", at(to, port::HTTP)),
            )?),
        }
    }
}

/// Runs a command in the client's namespace and returns what it printed.
fn client(lane: &Lane, command_line: &str) -> Result<String> {
    let mut parts = words(command_line).into_iter();
    let mut command = Command::new(parts.next().context("an empty line")?);
    command.args(parts);
    let output = process::output(lane.pair.a.inside(command), LIMIT)?;
    let text = String::from_utf8_lossy(&output.stdout).into_owned();
    let errors = String::from_utf8_lossy(&output.stderr);
    ensure!(output.status.success(), "`{command_line}`: {} {}", errors.trim(), text.trim());
    Ok(text)
}

fn iperf(text: &str) -> Result<Reading> {
    let document: Value = serde_json::from_str(text).context("what iperf3 printed")?;
    let bits = document["end"]["sum_received"]["bits_per_second"].as_f64();
    Ok(Reading { rate: bits.with_context(|| format!("no rate: {document}"))? / 1e9, latency_us: None })
}

fn datagrams(lane: &Lane, to: IpAddr, batch: usize) -> Result<Reading> {
    let to = at(to, port::UDP);
    let receiver = flood::Receiver::start(&lane.pair.b, to)?;
    let sent = flood::send_by(&lane.pair.a, SocketAddr::from((Ipv4Addr::UNSPECIFIED, 0)), to, TIME, batch)?;
    let came = receiver.finish()?;
    Ok(Reading { rate: came as f64 / sent.took.as_secs_f64(), latency_us: None })
}

/// A line of heads, then one of figures; times in milliseconds.
fn redis(text: &str) -> Result<Reading> {
    let mut lines = text.lines().skip_while(|line| !line.contains("\"rps\""));
    let heads = lines.next().context("redis-benchmark printed no heads")?;
    let figures = lines.next().context("redis-benchmark printed no figures")?;
    let column = |name: &str| -> Result<f64> {
        let place = heads.split(',').position(|head| head.trim_matches('"') == name);
        let cell = place.and_then(|place| figures.split(',').nth(place)).with_context(|| name.to_owned())?;
        cell.trim_matches('"').parse().with_context(|| format!("{name}: {cell}"))
    };
    Ok(Reading { rate: column("rps")?, latency_us: Some(column("p50_latency_ms")? * 1e3) })
}

fn http(text: &str) -> Result<Reading> {
    let after = |head: &str| {
        let line = text.lines().find_map(|line| line.trim().strip_prefix(head)).map(str::trim);
        line.with_context(|| format!("wrk printed no {head}: {text}"))
    };
    let failed = text.lines().find(|line| line.contains("Non-2xx") || line.contains("Socket errors"));
    ensure!(failed.is_none(), "wrk: {}", failed.unwrap_or_default().trim());
    let median = after("50%")?;
    let unit = median.trim_start_matches(|c: char| c.is_ascii_digit() || c == '.');
    let factor = match unit {
        "us" => 1.0,
        "ms" => 1e3,
        "s" => 1e6,
        other => anyhow::bail!("wrk: a unit `{other}`"),
    };
    let latency: f64 = median.trim_end_matches(unit).parse()?;
    Ok(Reading { rate: after("Requests/sec:")?.parse()?, latency_us: Some(latency * factor) })
}

#[cfg(test)]
mod tests {
    use super::{http, iperf, redis};

    #[test]
    fn what_the_programs_print_is_read() {
        let text = r#"{"end": {"sum_received": {"bits_per_second": 2.5e9}}}"#;
        assert!((iperf(text).expect("a rate").rate - 2.5).abs() < 1e-9);
        let text = "\"test\",\"rps\",\"avg_latency_ms\",\"min_latency_ms\",\"p50_latency_ms\"\n\
                    \"GET\",\"81967.21\",\"0.1\",\"0.0\",\"0.127\"\n";
        let reading = redis(text).expect("a rate");
        assert!((reading.rate - 81967.21).abs() < 1e-9 && reading.latency_us == Some(127.0), "{reading:?}");
        let text = "  Latency Distribution\n     50%  1.50ms\n     99%    7.98ms\nRequests/sec:  30123.45\n";
        let reading = http(text).expect("a rate");
        assert!((reading.rate - 30123.45).abs() < 1e-9 && reading.latency_us == Some(1500.0), "{reading:?}");
        assert!(http(&format!("{text}  Socket errors: connect 0, read 3\n")).is_err());
    }
}
