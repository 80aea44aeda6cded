//! Rate: bytes a second over seconds, and how many come at once.

use std::time::Duration;

use anyhow::Result;
use chaos_tests::measure::{
    datagrams::Stream,
    pour::{Load, pour},
};

use crate::{
    bench::Bench,
    finding::Finding,
    row::{Place, Row},
};

/// The window of the issue.
const WINDOW_NS: u64 = 10_000_000;
/// A full Ethernet frame.
const FRAME: u64 = 1514;

pub(crate) fn rows() -> Vec<Row> {
    let (veth, lo) = (Place::VETH, Place::LO);
    let datagrams = |asked: &str, bits_per_second: f64, payload, burst, place| {
        Row::new("rate of datagrams", format!("--rate {asked}"), place, move |bench| {
            of_datagrams(bench, bits_per_second, payload, burst)
        })
    };
    let stream = |asked: &str, bits_per_second: f64, place| {
        Row::new("rate of a TCP stream", format!("--rate {asked}"), place, move |bench| {
            of_stream(bench, bits_per_second)
        })
    };
    vec![
        datagrams("1KB/s", 8e3, 200, 0, veth.egress()),
        datagrams("1Mbit/s", 1e6, 1200, 0, veth.egress()),
        datagrams("10Mbit/s", 1e7, 1200, 0, veth.v6().ingress()),
        datagrams("10Mbit/s,burst=16KB", 1e7, 1200, 16_000, veth.egress()),
        datagrams("100Mbit/s", 1e8, 1400, 0, veth.cgroup().egress()),
        datagrams("1Mbit/s", 1e6, 1200, 0, lo.egress()),
        stream("10Mbit/s", 1e7, veth.egress()),
        stream("100Mbit/s", 1e8, veth.v6().ingress()),
        Row::new("4 KB over a slow link", "--rate 1KB/s", veth.egress(), slow_stream),
    ]
}

/// Twice as much as fits is sent; all bytes of a frame count, from its MAC header on.
fn of_datagrams(bench: &Bench<'_>, bits_per_second: f64, payload: usize, burst: u64) -> Result<Vec<Finding>> {
    let headers = if bench.place().v6 { 62 } else { 42 };
    let bytes_per_second = bits_per_second / 8.0;
    let frame = payload as u64 + headers;
    let seconds = f64::from(bench.count(10, 3));
    let interval = Duration::from_secs_f64(frame as f64 / bytes_per_second / 2.0);
    let count = (seconds / interval.as_secs_f64()) as u32;
    let stream = Stream { size: payload, interval, ..bench.stream(count, 0) };
    let seen = bench.send_armed(&stream, Duration::from_millis(200))?;
    let first_ns = seen.arrivals.first().map_or(0, |arrival| arrival.at_ns);
    // The burst at the beginning is not the rate.
    let burst_ns = (burst as f64 / bytes_per_second * 1e9) as u64;
    let arrived = seen.bytes_per_second(first_ns + burst_ns, headers)?;
    let percent = arrived * 100.0 / bytes_per_second;
    // One datagram more or less within the time measured.
    let grain = 100.0 * frame as f64 / (bytes_per_second * seconds);
    let most = seen.most_within(WINDOW_NS, headers);
    let allowed = (bytes_per_second * WINDOW_NS as f64 / 1e9) as u64 + burst + FRAME;
    Ok(vec![
        Finding::between("of the rate", percent, (99.0 - grain, 101.0 + grain), "%", "1 % and one datagram")
            .timed(),
        Finding::between(
            "most in 10 ms",
            most as f64,
            (0.0, allowed as f64),
            "bytes",
            "the rate's, the burst and one frame",
        ),
        Finding::exactly("reordered", seen.reordered(), 0),
        Finding::so(format!("{} of {} did not fit", seen.lost(), seen.count()), "some", seen.lost() > 0),
    ])
}

fn of_stream(bench: &Bench<'_>, bits_per_second: f64) -> Result<Vec<Finding>> {
    let seconds = u64::from(bench.count(10, 4));
    let load = Load { to: bench.to(), bytes: u64::MAX, time: Duration::from_secs(seconds), hash: false };
    let chaos = bench.arm()?;
    let (_, drained) = pour(bench.near(), bench.far(), &load)?;
    chaos.stop()?;
    // The first second is TCP's slow start.
    let seen = drained.bytes_per_second(Duration::from_secs(1), Duration::from_secs(seconds));
    let percent = seen * 800.0 / bits_per_second;
    Ok(vec![
        Finding::between(
            "payload, of the rate",
            percent,
            (90.0, 97.0),
            "%",
            "94 to 96 % of a frame is payload",
        )
        .timed(),
    ])
}

/// Users drill with 1 KB/s: nothing may be given up, and it takes what the bytes take.
fn slow_stream(bench: &Bench<'_>) -> Result<Vec<Finding>> {
    let load = Load { to: bench.to(), bytes: 4096, time: Duration::from_secs(30), hash: true };
    let chaos = bench.arm()?;
    let (poured, drained) = pour(bench.near(), bench.far(), &load)?;
    chaos.stop()?;
    // Between the first and the last of three segments there are two: 2.7 s and the headers of each.
    let seconds = drained.took_ns as f64 / 1e9;
    let same = poured.sha256 == drained.sha256;
    Ok(vec![
        Finding::between(
            "first to last byte",
            seconds,
            (2.5, 8.0),
            "s",
            "at 1 KB/s, and TCP's own repetitions",
        ),
        Finding::so(format!("SHA-256 identical: {same}"), "true", same),
    ])
}
