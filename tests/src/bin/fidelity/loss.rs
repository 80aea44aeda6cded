//! Loss: the share, whether neighbours are independent or in the bursts asked for, marks, and seeds.

use std::time::Duration;

use anyhow::{Result, ensure};
use chaos_tests::measure::{
    datagrams::Stream,
    order::Transmissions,
    ping::{self, PingResult},
    tcp::{self},
};

use crate::{
    bench::Bench,
    finding::Finding,
    row::{Place, Row},
};

pub(crate) fn rows() -> Vec<Row> {
    let segments = |asked: &str, p, place| {
        Row::new("loss of TCP segments", format!("--loss {asked} --proto tcp"), place, move |bench| {
            of_segments(bench, p)
        })
    };
    let datagrams = |asked: &str, p, place| {
        Row::new("loss of datagrams", format!("--loss {asked}"), place, move |bench| of_datagrams(bench, p))
    };
    let pings = |asked: &str, p, place| {
        Row::new("loss of pings", format!("--loss {asked} --proto icmp"), place, move |bench| {
            of_pings(bench, p)
        })
        .needs("ping")
    };
    let (veth, lo) = (Place::VETH, Place::LO);
    vec![
        segments("1%", 0.01, veth.egress()),
        segments("1%", 0.01, veth.ingress()),
        segments("1%", 0.01, veth.v6().egress()),
        segments("1%", 0.01, veth.cgroup().egress()),
        segments("1%", 0.01, veth.cgroup().ingress()),
        datagrams("10%", 0.1, veth.v6().ingress()),
        datagrams("0.5%", 0.005, veth.cgroup().egress()),
        datagrams("30%", 0.3, lo.egress()),
        datagrams("10%", 0.1, lo.v6().ingress()),
        pings("50%", 0.5, veth.egress()),
        pings("20%", 0.2, veth.v6().ingress()),
        Row::new("every seventh datagram", "--loss every=7 --proto udp", veth.egress(), every_seventh),
        Row::new(
            "the same seed, the same datagrams",
            "--loss 10% --proto udp --seed 7",
            veth.egress(),
            same_seed,
        ),
        Row::new("bursts of Gilbert", "--loss p=1%,r=25%", veth.egress(), |bench| {
            bursts(bench, 0.01, 0.25, 1.0, 0.0)
        }),
        Row::new(
            "bursts of Gilbert and Elliott",
            "--loss p=2%,r=20%,h=40%,k=99%",
            veth.v6().ingress(),
            |bench| bursts(bench, 0.02, 0.2, 0.6, 0.01),
        ),
        Row::new("correlated loss", "--loss 10%,correlation=25%", veth.egress(), correlated),
        Row::new("marks instead of loss", "--loss 10%,ecn", veth.egress(), marked),
        Row::new("marks instead of loss", "--loss 10%,ecn", veth.v6().ingress(), marked),
        Row::new("a partition in one direction", "--partition", veth.egress(), nothing_comes),
    ]
}

/// A bulk transfer with GSO: the share of wire segments, counted by both sockets, and the runs.
fn of_segments(bench: &Bench<'_>, p: f64) -> Result<Vec<Finding>> {
    let (near, far) = (bench.near(), bench.far());
    let what = tcp::usual(bench.to().ip());
    let what = chaos_tests::measure::bulk::Transfer { segments: bench.count(120_000, 40_000).into(), ..what };
    let (measured, chaos) =
        tcp::transfer((near.netns, near.wrap), (far.netns, far.wrap), &what, || bench.arm())?;
    chaos.stop()?;
    let counts = &measured.counts;
    let mut findings = vec![Finding::share("lost", counts.lost(), counts.total(), p)?];
    // The order of arrival is known from the IPv4 identification.
    if !measured.order.is_empty() {
        let losses: Vec<_> = measured.order.iter().map(Transmissions::losses).collect();
        let arrivals: Vec<_> = losses.iter().map(|losses| opposite(losses)).collect();
        findings.push(Finding::runs("arrivals between losses", &arrivals, 1.0 - p)?);
        // Of few losses hardly two are neighbours.
        if !bench.quick {
            findings.push(Finding::runs("bursts", &losses, p)?);
        }
    }
    Ok(findings)
}

/// Numbered datagrams: the share, and the runs of losses and of arrivals.
fn of_datagrams(bench: &Bench<'_>, p: f64) -> Result<Vec<Finding>> {
    let stream = bench.stream(bench.count(20_000, 6_000), 100);
    let losses = sequence(bench, &stream)?;
    let lost = losses.iter().filter(|lost| **lost).count() as u64;
    Ok(vec![
        Finding::share("lost", lost, losses.len() as u64, p)?,
        Finding::runs("arrivals between losses", &[opposite(&losses)], 1.0 - p)?,
    ])
}

/// Lost or not in the order of sending, under the row's rule.
fn sequence(bench: &Bench<'_>, stream: &Stream) -> Result<Vec<bool>> {
    let seen = bench.send_armed(stream, Duration::ZERO)?;
    ensure!(seen.sent.refused.is_empty(), "the sender was told: {:?}", seen.sent.refused.first());
    ensure!(seen.extra() == 0 && seen.damaged() == 0, "datagrams came twice or damaged");
    Ok(seen.losses())
}

fn opposite(losses: &[bool]) -> Vec<bool> {
    losses.iter().map(|lost| !lost).collect()
}

fn of_pings(bench: &Bench<'_>, p: f64) -> Result<Vec<Finding>> {
    let count = bench.count(3000, 1000);
    let chaos = bench.arm()?;
    let near = bench.near();
    let command = (near.wrap)(ping::command(bench.to().ip(), None, count));
    let result: PingResult = ping::run(near.netns.inside(command), count)?;
    let rules = chaos.stop()?;
    let counted = rules.first().map_or(0, |rule| rule.both("dropped_packets"));
    Ok(vec![
        Finding::share("lost", result.lost(), result.sent, p)?,
        Finding::exactly("of them counted by chaos", counted, result.lost()),
    ])
}

fn every_seventh(bench: &Bench<'_>) -> Result<Vec<Finding>> {
    let losses = sequence(bench, &bench.stream(7000, 100))?;
    let lost: Vec<usize> = (0..losses.len()).filter(|number| losses[*number]).collect();
    let even = lost.windows(2).all(|pair| pair[1] - pair[0] == 7);
    Ok(vec![
        Finding::exactly("lost of 7000", lost.len() as u64, 1000),
        Finding::so(format!("always 7 apart: {even}"), "true", even),
    ])
}

fn same_seed(bench: &Bench<'_>) -> Result<Vec<Finding>> {
    let stream = bench.stream(bench.count(5000, 2000), 100);
    let (first, again) = (sequence(bench, &stream)?, sequence(bench, &stream)?);
    let different = first.iter().zip(&again).filter(|(first, again)| first != again).count();
    let lost = first.iter().filter(|lost| **lost).count() as u64;
    Ok(vec![
        Finding::share("lost", lost, first.len() as u64, 0.1)?,
        Finding::exactly("judged otherwise in a second run", different as u64, 0),
    ])
}

/// Gilbert-Elliott: `p` from good to bad, `r` back; what is lost in each state.
fn bursts(bench: &Bench<'_>, p: f64, r: f64, lost_in_bad: f64, lost_in_good: f64) -> Result<Vec<Finding>> {
    let losses = sequence(bench, &bench.stream(bench.count(30_000, 10_000), 100))?;
    let lost = losses.iter().filter(|lost| **lost).count() as u64;
    let bad = p / (p + r);
    let mean = bad * lost_in_bad + (1.0 - bad) * lost_in_good;
    let share = Finding::correlated_share("lost", lost, losses.len() as u64, mean, 1.0 - p - r);
    if lost_in_bad < 1.0 || lost_in_good > 0.0 {
        // The states cannot be seen; that losses attract each other can: P(lost | the one before was lost).
        let stay = (bad * lost_in_bad * ((1.0 - r) * lost_in_bad + r * lost_in_good)
            + (1.0 - bad) * lost_in_good * (p * lost_in_bad + (1.0 - p) * lost_in_good))
            / mean;
        return Ok(vec![share, followed(&losses, stay)?]);
    }
    Ok(vec![
        share,
        Finding::runs("burst lengths", std::slice::from_ref(&losses), 1.0 - r)?,
        Finding::runs("gaps", &[opposite(&losses)], 1.0 - p)?,
    ])
}

/// How often a loss follows a loss.
fn followed(losses: &[bool], p: f64) -> Result<Finding> {
    let after: Vec<bool> = losses.windows(2).filter(|pair| pair[0]).map(|pair| pair[1]).collect();
    let hits = after.iter().filter(|lost| **lost).count() as u64;
    Finding::share("a loss follows a loss in", hits, after.len() as u64, p)
}

fn correlated(bench: &Bench<'_>) -> Result<Vec<Finding>> {
    let (p, rho) = (0.1, 0.25);
    let losses = sequence(bench, &bench.stream(bench.count(20_000, 8_000), 100))?;
    let lost = losses.iter().filter(|lost| **lost).count() as u64;
    Ok(vec![
        Finding::correlated_share("lost", lost, losses.len() as u64, p, rho),
        // The draw before is used again with chance rho, else there is a fresh one.
        Finding::runs("burst lengths", &[losses], rho + (1.0 - rho) * p)?,
    ])
}

fn marked(bench: &Bench<'_>) -> Result<Vec<Finding>> {
    let stream = Stream { ecn: true, ..bench.stream(bench.count(10_000, 4_000), 100) };
    let seen = bench.send_armed(&stream, Duration::ZERO)?;
    Ok(vec![
        Finding::exactly("lost", seen.lost(), 0),
        Finding::share("marked", seen.marked(), seen.count(), 0.1)?,
        Finding::exactly("damaged", seen.damaged(), 0),
    ])
}

fn nothing_comes(bench: &Bench<'_>) -> Result<Vec<Finding>> {
    let seen = bench.send_armed(&bench.stream(2000, 200), Duration::ZERO)?;
    Ok(vec![
        Finding::exactly("arrived of 2000", seen.arrivals.len() as u64, 0),
        Finding::exactly("errors at the sender", seen.sent.refused.len() as u64, 0),
    ])
}
