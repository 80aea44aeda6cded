//! Delay: how much later, how evenly, in what distribution, in what order, and what a program waits.

use std::time::Duration;

use anyhow::{Context, Result};
use chaos_tests::{
    lab::process::wait_until,
    measure::{
        datagrams::{Running, Seen, Stream},
        dialogue::{Answer, Connections, Questions, ask},
        distribution::{Samples, Theory, critical_distance, lag_one_correlation},
    },
};
use nix::{
    sys::signal::Signal,
    time::{ClockId, clock_gettime},
};

use crate::{
    bench::Bench,
    finding::Finding,
    row::{Place, Row},
};

/// What the issue allows: mean and median within 100 µs of what was asked ...
const MIDDLE_MS: f64 = 0.1;
/// ... and 99 of 100 packets at most 1 ms late.
const P99_MS: f64 = 1.0;

/// Makes the distribution that samples are held against.
type MakeTheory = fn() -> Result<Theory>;

pub(crate) fn rows() -> Vec<Row> {
    let (veth, lo) = (Place::VETH, Place::LO);
    let one_way = |ms: u32, place| {
        Row::new("delay of datagrams", format!("--delay {ms}ms"), place, move |bench| {
            late_by(bench, f64::from(ms))
        })
    };
    let request = |name: &str, asked: &str, connections, added_ms, place| {
        // A round trip under --rtt waits twice, and so does a connect with its request under a delay.
        let once =
            asked.contains("data-only") || (connections == Connections::Kept && asked.starts_with("--delay"));
        let waits = if once { 1.0 } else { 2.0 };
        Row::new(name, asked, place, move |bench| request(bench, connections, added_ms, waits))
    };
    let mut rows = vec![
        one_way(50, veth.egress()),
        one_way(20, veth.ingress()),
        one_way(20, veth.v6().egress()),
        one_way(50, veth.v6().ingress()),
        one_way(20, lo.egress()),
        one_way(20, lo.v6().ingress()),
        one_way(20, veth.cgroup().egress()),
        one_way(20, veth.v6().cgroup().ingress()),
        request("round trip of a request", "--delay 50ms", Connections::Kept, 50.0, veth.egress()),
        request("round trip of a request", "--rtt 100ms", Connections::Kept, 100.0, veth),
        request("round trip of a request", "--rtt 50ms", Connections::Kept, 50.0, lo.v6()),
        request("round trip of a request", "--rtt 50ms", Connections::Kept, 50.0, veth.v6().cgroup()),
        request("round trip of a request", "--profile cross-region", Connections::Kept, 80.0, veth),
        request("connect and request", "--delay 50ms", Connections::Fresh, 100.0, veth.egress()),
        request(
            "connect and request",
            "--delay 50ms,mode=data-only",
            Connections::Fresh,
            50.0,
            veth.egress(),
        ),
        Row::new("order under jitter", "--delay 20ms±10ms", veth.egress(), in_order),
        Row::new(
            "correlated jitter",
            "--delay 100ms±20ms,distribution=uniform,correlation=25%",
            veth.egress(),
            correlated,
        ),
        Row::new(
            "loss, delay and rate in one rule",
            "--loss 10% --delay 50ms --rate 10Mbit/s",
            veth.egress(),
            |bench| composed(bench, &["--loss 10% --delay 50ms --rate 10Mbit/s"]),
        ),
        Row::new(
            "loss, delay and rate in three rules",
            "--loss 10% --delay 50ms --rate 10Mbit/s",
            veth.egress(),
            |bench| composed(bench, &["--loss 10%", "--delay 50ms", "--rate 10Mbit/s"]),
        ),
        Row::new("direct again when chaos is stopped", "--delay 200ms", veth.egress(), |bench| {
            direct_again(bench, Signal::SIGSTOP, 600.0)
        }),
        Row::new("direct again when chaos is killed", "--delay 200ms", veth.egress(), |bench| {
            direct_again(bench, Signal::SIGKILL, 1000.0)
        }),
    ];
    rows.extend(distributions());
    rows
}

/// One row for each distribution.
fn distributions() -> Vec<Row> {
    let distributions: [(&str, MakeTheory); 4] = [
        ("uniform", || Ok(Theory::uniform(80.0, 120.0))),
        ("normal", || Theory::normal(100.0, 20.0)),
        ("pareto", || Ok(Theory::pareto(100.0, 20.0))),
        ("paretonormal", || Theory::pareto_normal(100.0, 20.0)),
    ];
    let rows = distributions.map(|(name, theory)| {
        let asked = format!("--delay 100ms±20ms,distribution={name}");
        Row::new("distribution of jitter", asked, Place::VETH.egress(), move |bench| {
            distributed(bench, &theory()?)
        })
    });
    rows.into()
}

/// What datagrams take without a rule, in ms.
fn direct(bench: &Bench<'_>) -> Result<Samples> {
    let seen = bench.send(&bench.gentle_stream(500, 1000), Duration::ZERO)?;
    Samples::ms(&seen.delays_ns())
}

/// Those of a stream that must come whole.
fn whole(seen: &Seen) -> Finding {
    let ok = (seen.lost(), seen.extra(), seen.reordered(), seen.damaged()) == (0, 0, 0, 0);
    let figures = (seen.lost(), seen.extra(), seen.reordered(), seen.damaged());
    Finding::so(format!("lost, doubled, reordered, damaged {figures:?}"), "(0, 0, 0, 0)", ok)
}

fn late_by(bench: &Bench<'_>, ms: f64) -> Result<Vec<Finding>> {
    let direct = direct(bench)?;
    let seen = bench.send_armed(&bench.gentle_stream(bench.count(3000, 1000), 1000), LONGEST)?;
    let delays = Samples::ms(&seen.delays_ns())?;
    let around = (ms - MIDDLE_MS, ms + MIDDLE_MS);
    let (median, mean) = (delays.median() - direct.median(), delays.mean() - direct.mean());
    let p99 = delays.quantile(0.99) - direct.median();
    Ok(vec![
        Finding::between("added p50", median, around, "ms", "within 100 us of what was asked"),
        Finding::between("mean", mean, around, "ms", "within 100 us"),
        Finding::between("p99", p99, (ms - MIDDLE_MS, ms + P99_MS), "ms", "at most 1 ms late"),
        whole(&seen),
    ])
}

/// Many flows in turn, so that no packet waits for another one of its flow.
fn spread(bench: &Bench<'_>) -> Stream {
    Stream { flows: 200, ..bench.gentle_stream(bench.count(4000, 2000), 1000) }
}

/// The longest a distribution of these rows holds a packet, and some more.
const LONGEST: Duration = Duration::from_millis(400);
/// What lateness and the instrument may add to a sample: as for a plain delay.
const RESOLUTION_MS: f64 = MIDDLE_MS;

fn distributed(bench: &Bench<'_>, theory: &Theory) -> Result<Vec<Finding>> {
    let direct = direct(bench)?.median();
    let seen = bench.send_armed(&spread(bench), LONGEST)?;
    let added = seen.delays_ns().into_iter().map(|ns| ns as f64 / 1e6 - direct);
    let samples = Samples::new(added)?;
    let limit = critical_distance(samples.count());
    Ok(vec![
        Finding::between(
            "Kolmogorov-Smirnov distance",
            samples.distance(theory, RESOLUTION_MS),
            (0.0, limit),
            "",
            "99.9 %",
        ),
        quantiles(&samples, theory),
        whole(&seen),
    ])
}

/// Some quantiles for people; the distance has judged them all.
fn quantiles(samples: &Samples, theory: &Theory) -> Finding {
    let shares = [0.01, 0.1, 0.5, 0.9, 0.99];
    let show = |of: &dyn Fn(f64) -> f64| shares.map(|share| format!("{:.1}", of(share))).join(" ");
    let seen = show(&|share| samples.quantile(share));
    Finding::so(format!("p1 p10 p50 p90 p99: {seen} ms"), show(&|share| theory.quantile(share)), true)
}

fn correlated(bench: &Bench<'_>) -> Result<Vec<Finding>> {
    let rho = 0.25;
    let direct = direct(bench)?.median();
    let seen = bench.send_armed(&spread(bench), LONGEST)?;
    let added: Vec<f64> = seen.delays_ns().into_iter().map(|ns| ns as f64 / 1e6 - direct).collect();
    let count = added.len() as f64;
    let spread = 3.29 / count.sqrt();
    let correlation = lag_one_correlation(&added)?;
    let samples = Samples::new(added)?;
    // As much as so many independent samples would show.
    let independent = count * (1.0 - rho) / (1.0 + rho);
    let limit = critical_distance(independent as usize);
    let distance = samples.distance(&Theory::uniform(80.0, 120.0), RESOLUTION_MS);
    Ok(vec![
        Finding::between("correlation", correlation, (rho - spread, rho + spread), "", "99.9 %"),
        Finding::between(
            "Kolmogorov-Smirnov distance",
            distance,
            (0.0, limit),
            "",
            "99.9 %, fewer independent samples",
        ),
        whole(&seen),
    ])
}

/// One flow, packets nearer to each other than the jitter: the order stays, nobody is early.
fn in_order(bench: &Bench<'_>) -> Result<Vec<Finding>> {
    let seen = bench.send_armed(&bench.gentle_stream(bench.count(5000, 2000), 500), LONGEST)?;
    let delays = Samples::ms(&seen.delays_ns())?;
    Ok(vec![
        whole(&seen),
        Finding::between("shortest delay", delays.quantile(0.0), (10.0, 31.0), "ms", "base less jitter"),
        Finding::between(
            "longest delay",
            delays.max(),
            (10.0, 31.0),
            "ms",
            "base and jitter, 1 ms late at most",
        ),
    ])
}

fn took(answers: &[Answer]) -> Result<Samples> {
    let failed = answers.iter().find(|answer| answer.error.is_some());
    anyhow::ensure!(failed.is_none(), "a request failed: {failed:?}");
    Samples::ms(&answers.iter().map(|answer| answer.took_ns).collect::<Vec<_>>())
}

/// What a request takes longer; every way through the delay may be late by what one way may.
fn request(bench: &Bench<'_>, connections: Connections, added_ms: f64, waits: f64) -> Result<Vec<Finding>> {
    let count = bench.count(40, 20);
    let questions = Questions::new(bench.to(), count, connections);
    // As seldom as under the rule: a CPU that slept for 50 ms wakes up later than one that did not.
    let rest = Duration::from_secs_f64(added_ms / 1e3);
    let direct = took(&ask(bench.near(), bench.far(), &Questions { rest, ..questions })?)?;
    let chaos = bench.arm()?;
    let late = took(&ask(bench.near(), bench.far(), &questions)?)?;
    chaos.stop()?;
    let around = (added_ms - MIDDLE_MS * waits, added_ms + MIDDLE_MS * waits);
    let p90 = late.quantile(0.9) - direct.median();
    Ok(vec![
        Finding::between("added p50", late.median() - direct.median(), around, "ms", "100 us for each wait"),
        Finding::between(
            "p90",
            p90,
            (around.0, added_ms + P99_MS * waits),
            "ms",
            "1 ms late at most for each wait",
        ),
    ])
}

/// All three act, in the documented order: what is lost is neither sent over the link nor delayed.
fn composed(bench: &Bench<'_>, rules: &[&str]) -> Result<Vec<Finding>> {
    let direct = direct(bench)?;
    let armed = rules.iter().map(|rule| bench.arm_with(rule)).collect::<Result<Vec<_>>>()?;
    let stream = bench.gentle_stream(bench.count(4000, 2000), 1000);
    let seen = bench.send(&stream, Duration::from_millis(200))?;
    armed.into_iter().try_for_each(|chaos| chaos.stop().map(drop))?;
    let delays = Samples::ms(&seen.delays_ns())?;
    // 100 bytes and the headers, 142 in all, take 0.114 ms at 10 Mbit/s.
    let (added, sending) = (delays.median() - direct.median(), 0.114);
    let around = (50.0 + sending - MIDDLE_MS, 50.0 + sending + MIDDLE_MS);
    Ok(vec![
        Finding::share("lost", seen.lost(), seen.count(), 0.1)?,
        Finding::between("added p50", added, around, "ms", "50 ms and the time of 142 bytes at 10 Mbit/s"),
        Finding::exactly("reordered", seen.reordered(), 0),
    ])
}

/// From when packets are direct again after the agent got a signal; what was in flight may be lost.
fn direct_again(bench: &Bench<'_>, signal: Signal, limit_ms: f64) -> Result<Vec<Finding>> {
    let mut chaos = bench.arm()?;
    let running = Running::start(bench.near(), bench.far(), &bench.stream(3000, 1000))?;
    std::thread::sleep(Duration::from_millis(800));
    let now = clock_gettime(ClockId::CLOCK_MONOTONIC)?;
    let at_ns = u64::try_from(now.tv_sec())? * 1_000_000_000 + u64::try_from(now.tv_nsec())?;
    chaos.process().signal(signal)?;
    let seen = running.finish(Duration::from_millis(300))?;
    let mut findings = vec![back(&seen, at_ns, limit_ms)?];
    if signal == Signal::SIGSTOP {
        chaos.process().signal(Signal::SIGCONT)?;
        chaos.stop()?;
    } else {
        let gone = wait_until("the devices to go", Duration::from_secs(1), || {
            left(bench).is_ok_and(|left| left == 0)
        });
        let seen = if gone.is_ok() { "nothing of chaos is left" } else { "devices of chaos are left" };
        findings.push(Finding::so(seen, "nothing left after 1 s", gone.is_ok()));
    }
    Ok(findings)
}

/// When the last late or lost packet after `at_ns` was sent.
fn back(seen: &Seen, at_ns: u64, limit_ms: f64) -> Result<Finding> {
    let mut prompt = vec![false; seen.sent.at_ns.len()];
    for arrival in &seen.arrivals {
        let number = arrival.number.context("damaged")? as usize;
        prompt[number] = arrival.at_ns.saturating_sub(seen.sent.at_ns[number]) < 20_000_000;
    }
    let last = prompt.iter().rposition(|prompt| !prompt).context("no datagram was ever late")?;
    let after_ms = seen.sent.at_ns[last].saturating_sub(at_ns) as f64 / 1e6;
    let still = last + 1 == prompt.len();
    let after_ms = if still { f64::INFINITY } else { after_ms };
    Ok(Finding::between("direct after", after_ms, (0.0, limit_ms), "ms", "the issue's limit"))
}

/// Private devices in both namespaces.
fn left(bench: &Bench<'_>) -> Result<usize> {
    let links = bench.namespaces().map(|netns| netns.run("ip -o link"));
    let mut count = 0;
    for links in links {
        count += links?.lines().filter(|line| line.contains(": chaos-")).count();
    }
    Ok(count)
}
