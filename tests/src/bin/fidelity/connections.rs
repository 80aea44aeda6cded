//! Stall, MTU and partition: what connections go through without being told, or being told.

use std::time::Duration;

use anyhow::{Context, Result};
use chaos_tests::measure::{
    datagrams::Stream,
    dialogue::{Connection, Connections, Held, Questions, ask, poke},
    pour::{Load, pour},
};
use nix::time::{ClockId, clock_gettime};

use crate::{
    bench::Bench,
    finding::Finding,
    reset::{heard, name},
    row::{Place, Row},
};

pub(crate) fn rows() -> Vec<Row> {
    let veth = Place::VETH;
    let parted = |mode: &str, errno, place| {
        let asked = format!("partition A B{mode}");
        Row::new("partition of a busy connection", asked, place, move |bench| parted(bench, errno))
    };
    vec![
        Row::new("stall of a busy connection", "--stall", veth, |bench| stalled(bench, None)),
        Row::new("stall of a busy connection", "--stall", veth.v6().cgroup(), |bench| stalled(bench, None)),
        Row::new("stall with an end", "--stall close=2s", veth, |bench| stalled(bench, Some(2000.0))),
        Row::new("datagrams above and below the MTU", "--mtu 1200", veth.egress(), hole),
        Row::new("datagrams above and below the MTU", "--mtu 1400", veth.v6().ingress(), hole),
        Row::new("path MTU discovery", "--mtu 1200,reply", veth.egress(), told),
        Row::new("path MTU discovery", "--mtu 1400,reply", veth.v6().egress(), told),
        parted("", None, veth),
        parted("", None, veth.v6()),
        parted(" --mode reset", Some(libc::ECONNRESET), veth),
        parted(" --mode reset", Some(libc::ECONNRESET), veth.v6()),
        Row::new("connect across a partition", "partition A B --mode reject", veth, |bench| {
            unreachable(bench, &[libc::EHOSTUNREACH, libc::ECONNREFUSED, libc::ENETUNREACH])
        }),
        Row::new("connect across a partition", "partition A B", veth, |bench| {
            unreachable(bench, &[libc::ETIMEDOUT])
        }),
    ]
}

fn now_ns() -> Result<u64> {
    let now = clock_gettime(ClockId::CLOCK_MONOTONIC)?;
    Ok(u64::try_from(now.tv_sec())? * 1_000_000_000 + u64::try_from(now.tv_nsec())?)
}

/// A connection that sends every 10 ms, with the row's rule set in the middle; when it was set.
fn watched(bench: &Bench<'_>, under: Duration, rest: Duration) -> Result<(Held, Held, u64)> {
    let period = Duration::from_millis(10);
    let mut connection = Connection::new(bench.near(), bench.far(), bench.to(), 10, period)?;
    connection.go()?;
    std::thread::sleep(Duration::from_millis(100));
    let chaos = bench.arm()?;
    let armed_ns = now_ns()?;
    connection.wait(under);
    chaos.stop()?;
    let (near, far) = connection.finish(rest)?;
    Ok((near, far, armed_ns))
}

fn stalled(bench: &Bench<'_>, closed_ms: Option<f64>) -> Result<Vec<Finding>> {
    let under = Duration::from_millis(if closed_ms.is_some() { 6000 } else { 1500 });
    let (near, far, armed_ns) = watched(bench, under, Duration::ZERO)?;
    let Some(closed_ms) = closed_ms else {
        // What TCP sends again after the stall arrives: only the time without an error shows it.
        let quiet = near.error.is_none() && far.error.unwrap_or(0) == 0;
        let seen = format!("errors: near {:?}, far {:?}", near.error.map(name), far.error.map(name));
        let sent = near.sent > far.received;
        return Ok(vec![
            Finding::so(seen, "none: the connection stays open", quiet),
            Finding::so(format!("{} bytes sent, {} came", near.sent, far.received), "fewer came", sent),
        ]);
    };
    let after = |held: &Held| {
        held.ended_at_ns.map_or(f64::INFINITY, |at_ns| at_ns.saturating_sub(armed_ns) as f64 / 1e6)
    };
    // The next packet after that time is the cause; TCP repeats after 0.2, 0.6, 1.4 and 3.0 s.
    // It counts from before `chaos` says that the rule is set; an emulated machine takes long to say so.
    let said_ms = if bench.slow { 1000.0 } else { 20.0 };
    let bounds = (closed_ms - said_ms, closed_ms + 1500.0);
    Ok(vec![
        heard("near", &near, &[libc::ECONNRESET, libc::ECONNABORTED]),
        heard("far", &far, &[libc::ECONNRESET, 0]),
        Finding::between(
            "near end after",
            after(&near),
            bounds,
            "ms",
            "what was asked, and the next repetition of TCP",
        ),
        Finding::between("far end after", after(&far), bounds, "ms", "as the near end"),
    ])
}

/// Payloads whose packets are just as long as allowed arrive, one byte more vanishes, silently.
fn hole(bench: &Bench<'_>) -> Result<Vec<Finding>> {
    let (limit, headers) = if bench.place().v6 { (1400, 48) } else { (1200, 28) };
    let stream = |size| Stream { size, ..bench.stream(500, 200) };
    let chaos = bench.arm()?;
    let small = bench.send(&stream(limit - headers), Duration::ZERO)?;
    let large = bench.send(&stream(limit - headers + 1), Duration::ZERO)?;
    chaos.stop()?;
    Ok(vec![
        Finding::exactly(&format!("of 500 with {limit} bytes arrived"), small.arrivals.len() as u64, 500),
        Finding::exactly(&format!("of 500 with {} bytes arrived", limit + 1), large.arrivals.len() as u64, 0),
        Finding::exactly("errors at the sender", large.sent.refused.len() as u64, 0),
    ])
}

/// The sender learns the MTU: a datagram that must not be cut is refused with EMSGSIZE, TCP sends smaller segments.
fn told(bench: &Bench<'_>) -> Result<Vec<Finding>> {
    let chaos = bench.arm()?;
    let poked = poke(bench.near(), bench.to(), 3, 1440)?;
    let load = Load { to: bench.to(), bytes: 5_000_000, time: Duration::from_secs(10), hash: true };
    let (poured, drained) = pour(bench.near(), bench.far(), &load)?;
    chaos.stop()?;
    let last = poked.last().context("nothing was sent")?.error;
    let same = poured.sha256 == drained.sha256 && drained.bytes == load.bytes;
    Ok(vec![
        Finding::so(format!("a datagram: {}", name(last)), "EMSGSIZE", last == libc::EMSGSIZE),
        Finding::so(format!("5 MB over TCP, SHA-256 identical: {same}"), "true", same),
        Finding::between(
            "in",
            drained.took_ns as f64 / 1e9,
            (0.0, 3.0),
            "s",
            "a repetition or two at the beginning",
        ),
    ])
}

/// Without an error the connection only rests and goes on afterwards; else both ends hear it.
fn parted(bench: &Bench<'_>, errno: Option<i32>) -> Result<Vec<Finding>> {
    let rest = Duration::from_secs(3);
    if let Some(errno) = errno {
        let (near, far, _) = watched(bench, Duration::from_millis(500), rest)?;
        let (Some(near_ns), Some(far_ns)) = (near.ended_at_ns, far.ended_at_ns) else {
            return Ok(vec![heard("near", &near, &[errno]), heard("far", &far, &[errno])]);
        };
        let apart = near_ns.abs_diff(far_ns) as f64 / 1e6;
        return Ok(vec![
            heard("near", &near, &[errno]),
            heard("far", &far, &[errno]),
            Finding::between("apart", apart, (0.0, 15.0), "ms", "5 ms, and a packet every 10 ms"),
        ]);
    }
    let during = Duration::from_secs(1);
    // TCP's next repetition may be a second and more away.
    let (near, far, armed_ns) = watched(bench, during, Duration::from_secs(2))?;
    let healed_ns = armed_ns + 1_000_000_000;
    let resumed = far.last_received_at_ns.is_some_and(|at_ns| at_ns > healed_ns);
    let lost = near.sent.saturating_sub(far.received);
    Ok(vec![
        Finding::so(format!("error: {:?}", near.error.map(name)), "none", near.error.is_none()),
        Finding::so(format!("went on afterwards: {resumed}"), "true", resumed),
        // What was sent in the last moments may not have been read.
        Finding::between("bytes missing at the end", lost as f64, (0.0, 40.0), "", "the last 40 ms"),
    ])
}

fn unreachable(bench: &Bench<'_>, errnos: &[i32]) -> Result<Vec<Finding>> {
    let chaos = bench.arm()?;
    let limit = Duration::from_millis(700);
    let questions = Questions { limit, ..Questions::new(bench.to(), 3, Connections::Fresh) };
    let answers = ask(bench.near(), bench.far(), &questions)?;
    chaos.stop()?;
    let seen: Vec<i32> = answers.iter().map(|answer| answer.error.map_or(0, |(_, errno)| errno)).collect();
    let ok = seen.iter().all(|errno| errnos.contains(errno));
    let show = |list: &[i32]| list.iter().map(|errno| name(*errno)).collect::<Vec<_>>();
    Ok(vec![Finding::so(show(&seen).join(", "), show(errnos).join(" or "), ok)])
}
