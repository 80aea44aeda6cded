//! Delay: how late, and how fast TCP is under it; beside netem and beside what a naive program does with `sch_fq`, where
//! the kernel has them. `cargo xtask bench delay` runs this as root.

mod by;
mod departure;

use std::{net::SocketAddr, time::Duration};

use anyhow::Result;
use chaos_tests::{
    bench::{Axis, Chart, Document, Options, Point, Series, Spread, Table},
    lab::shapes::{B4, Pair},
    measure::{
        datagrams::{self, Stream},
        distribution::Samples,
        helper::{End, warm_up},
        pour::{Load, pour},
    },
};
use serde::Serialize;

use by::By;

/// What is asked for, milliseconds.
const DELAYS_MS: [u32; 4] = [1, 10, 50, 100];
const PORT: u16 = 5400;
/// Arrivals count for so much longer than the delay.
const GRACE: Duration = Duration::from_millis(200);

/// One delay, made by one of them.
#[derive(Debug, Serialize)]
struct Row {
    by: &'static str,
    delay_ms: u32,
    /// How much later than asked for datagrams came, beyond the direct way, microseconds; the spread is that of the rounds.
    late_mean_us: Option<Spread>,
    late_p50_us: Option<Spread>,
    late_p99_us: Option<Spread>,
    /// Of one TCP stream, once it is at its speed.
    tcp_mbit_s: Option<Spread>,
    /// The same without any delay, in the same rounds.
    direct_mbit_s: Option<Spread>,
    skipped: Option<String>,
}

/// What one round says.
#[derive(Clone, Copy, Debug)]
struct Round {
    mean_us: f64,
    p50_us: f64,
    p99_us: f64,
    mbit_s: f64,
    direct_mbit_s: f64,
}

/// Measures, and shows it.
pub(crate) fn run(options: &Options) -> Result<()> {
    let rounds = options.rounds(5, 1);
    let mut document = Document::begin("delay", options, rounds);
    let pair = Pair::new()?;
    warm_up(&pair.a, B4.into())?;
    let missing = By::ALL.map(|by| by.missing(&pair));
    let cases: Vec<(u32, By)> = DELAYS_MS.iter().flat_map(|ms| By::ALL.map(|by| (*ms, by))).collect();
    let mut seen: Vec<Vec<Round>> = vec![Vec::new(); cases.len()];
    for round in 0..rounds {
        for (place, (ms, by)) in cases.iter().enumerate() {
            if missing[place % By::ALL.len()].is_some() {
                continue;
            }
            eprint!("\rround {} of {rounds}: {ms} ms by {:<20}", round + 1, by.name());
            seen[place].push(measure(&pair, options, *ms, *by)?);
        }
    }
    eprintln!();
    let row = |(place, (ms, by)): (usize, &(u32, By))| {
        let of = |figure: fn(&Round) -> f64| Spread::of(&seen[place].iter().map(figure).collect::<Vec<_>>());
        Row {
            by: by.name(),
            delay_ms: *ms,
            late_mean_us: of(|round| round.mean_us),
            late_p50_us: of(|round| round.p50_us),
            late_p99_us: of(|round| round.p99_us),
            tcp_mbit_s: of(|round| round.mbit_s),
            direct_mbit_s: of(|round| round.direct_mbit_s),
            skipped: missing[place % By::ALL.len()].clone(),
        }
    };
    let rows: Vec<Row> = cases.iter().enumerate().map(row).collect();
    fill(&mut document, &rows)?;
    document.finish()
}

fn measure(pair: &Pair, options: &Options, ms: u32, by: By) -> Result<Round> {
    let direct_us = lateness(pair, options, 0)?;
    let direct_mbit_s = megabits(pair, Duration::from_secs(1))?;
    let armed = by.arm(pair, ms)?;
    let late = lateness(pair, options, ms)?;
    let mbit_s = megabits(pair, Duration::from_secs(options.pick(6, 3)))?;
    armed.disarm(pair)?;
    // What the way itself takes is not the delay's error.
    let usual = direct_us.median();
    let asked_us = f64::from(ms) * 1e3 + usual;
    Ok(Round {
        mean_us: late.mean() - asked_us,
        p50_us: late.median() - asked_us,
        p99_us: late.quantile(0.99) - asked_us,
        mbit_s,
        direct_mbit_s,
    })
}

/// How long datagrams take, in microseconds.
fn lateness(pair: &Pair, options: &Options, ms: u32) -> Result<Samples> {
    let to = SocketAddr::from((B4, PORT));
    let stream = Stream::new(to, options.pick(4000, 1000), Duration::from_micros(500));
    let grace = Duration::from_millis(ms.into()) + GRACE;
    let seen = datagrams::send(End::plain(&pair.a), End::plain(&pair.b), &stream, grace)?;
    anyhow::ensure!(seen.lost() == 0, "{} of {} datagrams were lost", seen.lost(), seen.count());
    Samples::new(seen.delays_ns().into_iter().map(|ns| ns as f64 / 1e3))
}

/// Of the second half of a transfer: the first is TCP's slow start.
fn megabits(pair: &Pair, time: Duration) -> Result<f64> {
    let load = Load { to: SocketAddr::from((B4, PORT)), bytes: u64::MAX, time, hash: false };
    let (_, drained) = pour(End::plain(&pair.a), End::plain(&pair.b), &load)?;
    Ok(drained.bytes_per_second(time / 2, time) * 8.0 / 1e6)
}

fn fill(document: &mut Document, rows: &[Row]) -> Result<()> {
    let note = "Datagrams, one every 500 µs: how much later they came than asked for, beyond the direct way; wanted: \
                mean below 100, p99 below 1,000. TCP: the second half of one stream, as a share of direct. Median of \
                the rounds, in brackets the middle half.";
    let columns = ["delay", "by", "mean error, µs", "p50, µs", "p99, µs", "TCP, Mbit/s", "of direct"];
    let mut table = Table::new("Lateness and throughput under delay", &columns, note);
    for row in rows {
        document.add(row)?;
        let mut line = vec![format!("{} ms", row.delay_ms), row.by.to_owned()];
        let told = |spread: Option<Spread>| spread.map_or_else(|| "–".to_owned(), |spread| spread.told(0));
        if row.skipped.is_some() {
            line.extend(["SKIPPED"; 5].map(str::to_owned));
        } else {
            line.extend([row.late_mean_us, row.late_p50_us, row.late_p99_us, row.tcp_mbit_s].map(told));
            let share =
                row.tcp_mbit_s.zip(row.direct_mbit_s).map(|(under, direct)| under.median / direct.median);
            line.push(share.map_or_else(String::new, |share| format!("{share:.3}")));
        }
        table.rows.push(line);
    }
    let mut reasons: Vec<String> = rows
        .iter()
        .filter_map(|row| Some(format!("\nSKIPPED: {}: {}", row.by, row.skipped.as_ref()?)))
        .collect();
    reasons.sort_unstable();
    reasons.dedup();
    table.note += &reasons.concat();
    document.tables.push(table);
    document
        .charts
        .push(chart(rows, "Datagrams: 99 of 100 are at most so much late", "µs", |row| row.late_p99_us));
    document.charts.push(chart(rows, "One TCP stream under delay", "Mbit/s", |row| row.tcp_mbit_s));
    Ok(())
}

fn chart(rows: &[Row], title: &str, unit: &str, figure: fn(&Row) -> Option<Spread>) -> Chart {
    let series = |by: By| {
        let rows = rows.iter().filter(|row| row.by == by.name());
        let points = rows.filter_map(|row| Some(Point::spread(f64::from(row.delay_ms), figure(row)?)));
        Series { name: by.name().to_owned(), points: points.collect() }
    };
    let series = By::ALL.into_iter().map(series).filter(|series| !series.points.is_empty());
    Chart { title: title.to_owned(), x: Axis::log("delay, ms"), y: Axis::log(unit), series: series.collect() }
}
