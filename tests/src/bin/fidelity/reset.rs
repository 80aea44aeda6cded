//! Reset: what an established connection's ends hear and when, and how often.

use std::time::Duration;

use anyhow::{Context, Result};
use chaos_tests::measure::{
    dialogue::{Answer, Connection, Connections, Held, Questions, Step, ask},
    distribution::Samples,
};

use crate::{
    bench::Bench,
    finding::Finding,
    row::{Place, Row},
};

/// What the issue allows from the cause to the error at either end.
const PROMPT_MS: f64 = 5.0;
const PROMPT: &str = "the issue's 5 ms";

pub(crate) fn rows() -> Vec<Row> {
    let (veth, lo) = (Place::VETH, Place::LO);
    let now = |place| Row::new("reset of a busy connection", "--reset now", place, busy);
    let idle = |place| Row::new("reset of an idle connection", "--reset now", place, idle);
    let syn = |place| Row::new("reset of a SYN", "--reset syn", place, refused);
    vec![
        now(veth),
        now(veth.v6()),
        now(veth.cgroup()),
        now(lo),
        idle(veth),
        idle(veth.v6()),
        idle(veth.cgroup()),
        syn(veth),
        syn(veth.v6()),
        syn(veth.ingress()),
        syn(lo.v6()),
        Row::new("reset after a time", "--reset after=2s", veth, after_a_time),
        Row::new("reset after bytes", "--reset after=1MiB", veth, after_bytes),
        Row::new("reset of a share of packets", "--reset 10% --data-only", veth.egress(), share_of_packets),
        Row::new("reset of a share of connections", "--reset 10%/connection", veth, share_of_connections),
        Row::new("reset behind a delay", "--delay 20ms --reset after=100ms", veth.egress(), behind_a_delay),
    ]
}

/// An errno by its name.
pub(crate) fn name(errno: i32) -> String {
    match errno {
        0 => "an orderly end".to_owned(),
        errno => format!("{:?}", nix::errno::Errno::from_raw(errno)),
    }
}

/// What an end of a connection heard.
pub(crate) fn heard(which: &str, held: &Held, wanted: &[i32]) -> Finding {
    let seen = held.error.map_or_else(|| "nothing".to_owned(), name);
    let names: Vec<String> = wanted.iter().map(|errno| name(*errno)).collect();
    let ok = held.error.is_some_and(|errno| wanted.contains(&errno));
    Finding::so(format!("{which} end: {seen}"), names.join(" or "), ok)
}

/// From a point in time to the error.
fn prompt(which: &str, held: &Held, since_ns: u64) -> Result<Finding> {
    let ended_ns = held.ended_at_ns.with_context(|| format!("the {which} end heard nothing"))?;
    let ms = ended_ns.saturating_sub(since_ns) as f64 / 1e6;
    Ok(Finding::between(&format!("{which} end after"), ms, (0.0, PROMPT_MS), "ms", PROMPT))
}

/// A packet goes out every 20 ms; the one that meets the rule is the cause.
fn busy(bench: &Bench<'_>) -> Result<Vec<Finding>> {
    let period = Duration::from_millis(20);
    let mut connection = Connection::new(bench.near(), bench.far(), bench.to(), 10, period)?;
    connection.go()?;
    std::thread::sleep(Duration::from_millis(100));
    let chaos = bench.arm()?;
    let (near, far) = connection.finish(Duration::from_secs(3))?;
    chaos.stop()?;
    let cause_ns = near.last_sent_at_ns.context("nothing was sent")?;
    Ok(vec![
        heard("near", &near, &[libc::ECONNRESET]),
        heard("far", &far, &[libc::ECONNRESET]),
        prompt("near", &near, cause_ns)?,
        prompt("far", &far, cause_ns)?,
    ])
}

/// Nothing is sent: the socket is destroyed, which its owner hears as ECONNABORTED.
fn idle(bench: &Bench<'_>) -> Result<Vec<Finding>> {
    let connection = Connection::new(bench.near(), bench.far(), bench.to(), 0, Duration::ZERO)?;
    std::thread::sleep(Duration::from_millis(50));
    let chaos = bench.arm()?;
    let (near, far) = connection.finish(Duration::from_secs(3))?;
    chaos.stop()?;
    let ends = [&near, &far].map(|held| held.ended_at_ns);
    let first_ns = ends.iter().flatten().min().copied().context("nobody heard anything")?;
    Ok(vec![
        heard("near", &near, &[libc::ECONNABORTED, libc::ECONNRESET]),
        heard("far", &far, &[libc::ECONNRESET]),
        prompt("near", &near, first_ns)?,
        prompt("far", &far, first_ns)?,
    ])
}

/// All requests, or as many as asked for, fail at connect.
pub(crate) fn all_fail(answers: &[Answer], errno: i32, limit_ms: f64) -> Result<Vec<Finding>> {
    let wanted = Some((Step::Connect, errno));
    let other = answers.iter().find(|answer| answer.error != wanted);
    let seen =
        other.map_or_else(|| format!("all {} {}", answers.len(), name(errno)), |other| format!("{other:?}"));
    let took = Samples::ms(&answers.iter().map(|answer| answer.took_ns).collect::<Vec<_>>())?;
    Ok(vec![
        Finding::so(format!("connect: {seen}"), name(errno), other.is_none()),
        Finding::between("p90 after", took.quantile(0.9), (0.0, limit_ms), "ms", PROMPT),
    ])
}

fn refused(bench: &Bench<'_>) -> Result<Vec<Finding>> {
    let chaos = bench.arm()?;
    let limit = Duration::from_millis(1500);
    let questions = Questions { limit, ..Questions::new(bench.to(), 10, Connections::Fresh) };
    let answers = ask(bench.near(), bench.far(), &questions)?;
    chaos.stop()?;
    all_fail(&answers, libc::ECONNREFUSED, PROMPT_MS)
}

fn armed_before(bench: &Bench<'_>, chunk: u32, period: Duration, limit: Duration) -> Result<(Held, Held)> {
    let chaos = bench.arm()?;
    let mut connection = Connection::new(bench.near(), bench.far(), bench.to(), chunk, period)?;
    connection.go()?;
    let ends = connection.finish(limit)?;
    chaos.stop()?;
    Ok(ends)
}

fn after_a_time(bench: &Bench<'_>) -> Result<Vec<Finding>> {
    let (near, far) = armed_before(bench, 10, Duration::from_millis(5), Duration::from_secs(5))?;
    let lived = |held: &Held| {
        held.ended_at_ns.map_or(f64::INFINITY, |at_ns| (at_ns - held.established_at_ns) as f64 / 1e6)
    };
    Ok(vec![
        heard("near", &near, &[libc::ECONNRESET]),
        heard("far", &far, &[libc::ECONNRESET]),
        // The next packet is the cause: there is one every 5 ms.
        Finding::between(
            "near end after",
            lived(&near),
            (1995.0, 2010.0),
            "ms",
            "a packet every 5 ms, 5 ms to hear",
        ),
        Finding::between("far end after", lived(&far), (1995.0, 2010.0), "ms", "as the near end"),
    ])
}

fn after_bytes(bench: &Bench<'_>) -> Result<Vec<Finding>> {
    let (near, far) = armed_before(bench, 16 << 10, Duration::from_millis(2), Duration::from_secs(5))?;
    let mebibytes = |bytes: u64| bytes as f64 / f64::from(1 << 20);
    Ok(vec![
        heard("near", &near, &[libc::ECONNRESET]),
        heard("far", &far, &[libc::ECONNRESET]),
        Finding::between(
            "sent before",
            mebibytes(near.sent),
            (0.96, 1.07),
            "MiB",
            "one block of 16 KiB, and headers count or not",
        ),
        Finding::between("received before", mebibytes(far.received), (0.94, 1.05), "MiB", "as sent"),
    ])
}

/// Each request is one packet with data; its fate is one draw.
fn share_of_packets(bench: &Bench<'_>) -> Result<Vec<Finding>> {
    let chaos = bench.arm()?;
    let questions = Questions::new(bench.to(), bench.count(1500, 500), Connections::Kept);
    let answers = ask(bench.near(), bench.far(), &questions)?;
    chaos.stop()?;
    shares(&answers)
}

fn share_of_connections(bench: &Bench<'_>) -> Result<Vec<Finding>> {
    let chaos = bench.arm()?;
    let questions = Questions::new(bench.to(), bench.count(1000, 400), Connections::Fresh);
    let answers = ask(bench.near(), bench.far(), &questions)?;
    chaos.stop()?;
    shares(&answers)
}

fn shares(answers: &[Answer]) -> Result<Vec<Finding>> {
    let errors: Vec<i32> = answers.iter().filter_map(|answer| answer.error).map(|(_, errno)| errno).collect();
    let usual = [libc::ECONNRESET, libc::ECONNREFUSED];
    let other = errors.iter().find(|errno| !usual.contains(errno));
    let seen = other.map_or_else(|| "no other error".to_owned(), |errno| name(*errno));
    Ok(vec![
        Finding::share("reset", errors.len() as u64, answers.len() as u64, 0.1)?,
        Finding::so(seen, "no other error", other.is_none()),
    ])
}

/// Packets are still held when the connection ends: both ends hear of it all the same.
fn behind_a_delay(bench: &Bench<'_>) -> Result<Vec<Finding>> {
    let (near, far) = armed_before(bench, 10, Duration::from_millis(5), Duration::from_secs(5))?;
    Ok(vec![heard("near", &near, &[libc::ECONNRESET]), heard("far", &far, &[libc::ECONNRESET])])
}
