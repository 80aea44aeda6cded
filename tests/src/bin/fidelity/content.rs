//! Content: duplicates, corruption, reordering, and whether checksums are as they must be.

use std::{process::Command, time::Duration};

use anyhow::Result;
use chaos_tests::{
    lab::process,
    measure::{
        checksums::{Judge, Since, fill_in},
        datagrams::Stream,
        dialogue::{Connections, Questions, ask},
        pour::{Load, pour},
    },
};

use crate::{
    bench::Bench,
    finding::Finding,
    row::{Place, Row},
};

pub(crate) fn rows() -> Vec<Row> {
    let (veth, lo) = (Place::VETH, Place::LO);
    let twice = |place| Row::new("datagrams that come twice", "--duplicate 5%", place, duplicated);
    let caught = |place| Row::new("damage that checksums catch", "--corrupt 5%", place, caught);
    let silent = |place| Row::new("damage that nobody catches", "--corrupt 5%,silent", place, silent);
    let judged = |asked: &str, place| {
        Row::new("checksums in the eyes of tcpdump", asked, place, judged).needs("tcpdump").needs("ethtool")
    };
    let overtaking = |asked: &str, place| Row::new("datagrams that overtake", asked, place, overtaking);
    vec![
        twice(veth.egress()),
        twice(veth.v6().ingress()),
        twice(lo.egress()),
        twice(veth.cgroup().egress()),
        caught(veth.egress()),
        caught(veth.v6().ingress()),
        caught(lo.egress()),
        silent(veth.egress()),
        silent(veth.v6().ingress()),
        silent(lo.v6().egress()),
        Row::new("a TCP stream through damage", "--corrupt 1%", veth.egress(), healed),
        overtaking("--delay 20ms --reorder 25%", veth.egress()),
        overtaking("--delay 20ms --reorder 25%", veth.v6().cgroup().ingress()),
        Row::new(
            "datagrams that overtake, every fifth",
            "--delay 20ms --reorder 100%,gap=5",
            veth.egress(),
            every_fifth,
        ),
        judged("--duplicate 20%", veth.egress()),
        judged("--duplicate 20%", veth.v6().ingress()),
        judged("--corrupt 20%,silent", veth.egress()),
        judged("--corrupt 20%,silent", veth.v6().egress()),
        judged("--loss 10%,ecn", veth.egress()),
        judged("--delay 5ms±2ms", veth.egress()),
        judged("--reset 10%", veth.egress()),
        judged("--reset 10%", veth.v6().egress()),
        judged("--reject port", veth.egress()),
        judged("--reject admin", veth.v6().egress()),
    ]
}

/// Warnings of the kernel about a device that sends to itself.
fn loops() -> Result<usize> {
    let log = process::run(Command::new("dmesg"))?;
    Ok(log.lines().filter(|line| line.contains("Dead loop")).count())
}

fn duplicated(bench: &Bench<'_>) -> Result<Vec<Finding>> {
    let before = loops()?;
    let stream = bench.stream(bench.count(15_000, 5_000), 100);
    let seen = bench.send_armed(&stream, Duration::ZERO)?;
    Ok(vec![
        Finding::share("came twice", seen.extra(), seen.count(), 0.05)?,
        Finding::exactly("lost", seen.lost(), 0),
        Finding::exactly("damaged", seen.damaged(), 0),
        Finding::exactly("\"Dead loop\" in the kernel's log", (loops()? - before) as u64, 0),
    ])
}

fn caught(bench: &Bench<'_>) -> Result<Vec<Finding>> {
    let since = Since::now(&bench.namespaces())?;
    let seen = bench.send_armed(&bench.stream(bench.count(15_000, 5_000), 100), Duration::ZERO)?;
    Ok(vec![
        Finding::share("did not reach the program", seen.lost(), seen.count(), 0.05)?,
        Finding::exactly("of them checksum errors", since.errors(&bench.namespaces())?, seen.lost()),
        Finding::exactly("damaged", seen.damaged(), 0),
    ])
}

fn silent(bench: &Bench<'_>) -> Result<Vec<Finding>> {
    let since = Since::now(&bench.namespaces())?;
    let seen = bench.send_armed(&bench.stream(bench.count(15_000, 5_000), 100), Duration::ZERO)?;
    Ok(vec![
        Finding::share("damaged", seen.damaged(), seen.count(), 0.05)?,
        Finding::exactly("arrived", seen.arrivals.len() as u64, seen.count()),
        Finding::exactly("checksum errors", since.errors(&bench.namespaces())?, 0),
    ])
}

/// TCP sends again what its checksum refused: the bytes are the same.
fn healed(bench: &Bench<'_>) -> Result<Vec<Finding>> {
    let since = Since::now(&bench.namespaces())?;
    let load = Load { to: bench.to(), bytes: 30_000_000, time: Duration::from_secs(30), hash: true };
    let chaos = bench.arm()?;
    let (poured, drained) = pour(bench.near(), bench.far(), &load)?;
    chaos.stop()?;
    let same = poured.sha256 == drained.sha256 && drained.bytes == load.bytes;
    let errors = since.errors(&bench.namespaces())?;
    Ok(vec![
        Finding::so(format!("SHA-256 of 30 MB identical: {same}"), "true", same),
        Finding::so(format!("{errors} checksum errors"), "some", errors > 0),
    ])
}

/// What overtakes is not delayed at all.
fn prompt(bench: &Bench<'_>) -> Result<(Vec<bool>, u64)> {
    let stream = bench.stream(bench.count(4000, 2000), 500);
    let seen = bench.send_armed(&stream, Duration::from_millis(100))?;
    anyhow::ensure!(seen.lost() == 0, "{} datagrams were lost", seen.lost());
    let prompt = seen.delays_ns().iter().map(|delay_ns| *delay_ns < 10_000_000).collect();
    Ok((prompt, seen.reordered()))
}

fn overtaking(bench: &Bench<'_>) -> Result<Vec<Finding>> {
    let (prompt, reordered) = prompt(bench)?;
    let early = prompt.iter().filter(|prompt| **prompt).count() as u64;
    Ok(vec![
        Finding::share("overtook", early, prompt.len() as u64, 0.25)?,
        Finding::so(
            format!("{reordered} came after a later one"),
            "more than half",
            reordered as usize * 2 > prompt.len(),
        ),
    ])
}

fn every_fifth(bench: &Bench<'_>) -> Result<Vec<Finding>> {
    let (prompt, _) = prompt(bench)?;
    let early: Vec<usize> = (0..prompt.len()).filter(|number| prompt[*number]).collect();
    let even = early.windows(2).all(|pair| pair[1] - pair[0] == 5);
    Ok(vec![
        Finding::between(
            "overtook",
            early.len() as f64,
            (prompt.len() as f64 / 5.0 - 1.0, prompt.len() as f64 / 5.0 + 1.0),
            "",
            "one in five",
        ),
        Finding::so(format!("always 5 apart: {even}"), "true", even),
    ])
}

/// Datagrams and requests through a fault, seen at both devices; both fill in checksums before packets leave.
fn judged(bench: &Bench<'_>) -> Result<Vec<Finding>> {
    let [a, b] = bench.namespaces();
    fill_in([(a, "va"), (b, "vb")])?;
    let judges = [Judge::start(a, "va", "ip or ip6")?, Judge::start(b, "vb", "ip or ip6")?];
    let chaos = bench.arm()?;
    let stream = Stream { size: 300, ecn: true, ..bench.stream(500, 200) };
    let seen = bench.send(&stream, Duration::from_millis(50))?;
    let limit = Duration::from_millis(300);
    let questions = Questions { answer: 5000, limit, ..Questions::new(bench.to(), 40, Connections::Fresh) };
    ask(bench.near(), bench.far(), &questions)?;
    chaos.stop()?;
    let mut findings = vec![Finding::so(format!("{} datagrams sent", seen.count()), "500", true)];
    for (judge, device) in judges.into_iter().zip(["va", "vb"]) {
        let judgement = judge.finish()?;
        let what = format!("wrong of {} checksums at {device}", judgement.looked_at);
        let mut finding = Finding::exactly(&what, judgement.wrong.len() as u64, 0);
        if let Some(first) = judgement.wrong.first() {
            finding.seen = format!("{}, such as: {first}", finding.seen);
        }
        findings.push(finding);
    }
    Ok(findings)
}
