//! TCP throughput under delay, beside direct.

use std::{fs, time::Duration};

use anyhow::{Context, Result};
use chaos_tests::measure::pour::{Load, pour};

use crate::{
    bench::Bench,
    finding::Finding,
    row::{Place, Row},
};

pub(crate) fn rows() -> Vec<Row> {
    let row = |ms: u32, place| {
        Row::new("throughput of one TCP stream", format!("--delay {ms}ms"), place, move |bench| {
            throughput(bench, f64::from(ms) / 1e3)
        })
    };
    let veth = Place::VETH;
    vec![
        row(10, veth.egress()),
        row(50, veth.egress()),
        row(100, veth.egress()),
        row(50, veth.v6().ingress()),
    ]
}

/// How much a socket may have on its way at most: the third number of `tcp_wmem`.
fn window_bytes() -> Result<f64> {
    let text = fs::read_to_string("/proc/sys/net/ipv4/tcp_wmem").context("tcp_wmem")?;
    let last = text.split_whitespace().nth(2).context("tcp_wmem has three numbers")?;
    Ok(last.parse()?)
}

fn megabits(bench: &Bench<'_>, seconds: u64) -> Result<f64> {
    let load = Load { to: bench.to(), bytes: u64::MAX, time: Duration::from_secs(seconds), hash: false };
    let (_, drained) = pour(bench.near(), bench.far(), &load)?;
    // The first part is TCP's slow start.
    let (from, to) = (Duration::from_secs(seconds) / 2, Duration::from_secs(seconds));
    Ok(drained.bytes_per_second(from, to) * 8.0 / 1e6)
}

/// The window is the limit: what may be on its way in one round trip. A socket's memory is not all payload, and
/// the window opens round by round: between a quarter of it and all of it.
fn throughput(bench: &Bench<'_>, round_trip_s: f64) -> Result<Vec<Finding>> {
    let direct = megabits(bench, 1)?;
    let chaos = bench.arm()?;
    let under = megabits(bench, bench.count(5, 3).into())?;
    chaos.stop()?;
    let window = window_bytes()? * 8.0 / 1e6 / round_trip_s;
    let most = window.min(direct);
    Ok(vec![Finding::between(
        "throughput",
        under,
        (most / 4.0, window * 1.05),
        "Mbit/s",
        &format!("window {window:.0}, direct {direct:.0} Mbit/s"),
    )])
}
