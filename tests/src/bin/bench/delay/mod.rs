//! Delay: how late, and how fast TCP is under it; beside netem, beside what a naive program does with `sch_fq`, and beside
//! delay lines of `sch_fq`, where the kernel has them. `cargo xtask bench delay` runs this as root.

mod by;
mod line;
mod round;

use anyhow::Result;
use chaos_tests::{
    bench::{Axis, Chart, Document, Options, Point, Series, Spread, Table},
    lab::shapes::{B4, Pair},
    measure::helper::warm_up,
};
use serde::Serialize;

use by::By;
use round::Round;

/// What is asked for, milliseconds.
const DELAYS_MS: [u32; 4] = [1, 10, 50, 100];

/// One delay, made by one of them.
#[derive(Debug, Serialize)]
struct Row {
    by: &'static str,
    delay_ms: u32,
    /// How much later than asked for datagrams came, beyond the direct way, microseconds; the spread is that of the rounds.
    late_mean_us: Option<Spread>,
    late_p50_us: Option<Spread>,
    late_p99_us: Option<Spread>,
    /// How many datagrams of a round did not come, or came after a later one.
    lost: Option<Spread>,
    reordered: Option<Spread>,
    /// Of one TCP stream, once it is at its speed, and of several together.
    tcp_mbit_s: Option<Spread>,
    several_mbit_s: Option<Spread>,
    /// One stream without any delay, in the same rounds.
    direct_mbit_s: Option<Spread>,
    skipped: Option<String>,
}

/// Measures, and shows it.
pub(crate) fn run(options: &Options) -> Result<()> {
    let rounds = options.rounds(5, 1);
    let mut document = Document::begin("delay", options, rounds);
    let pair = Pair::new()?;
    warm_up(&pair.a, B4.into())?;
    let missing = By::ALL.map(|by| by.missing(&pair));
    let cases: Vec<(u32, By)> = DELAYS_MS.iter().flat_map(|ms| By::ALL.map(|by| (*ms, by))).collect();
    let mut ways = Vec::new();
    let mut seen: Vec<Vec<Round>> = vec![Vec::new(); cases.len()];
    for round in 0..rounds {
        ways.push(round::ways(&pair, options)?);
        for (place, (ms, by)) in cases.iter().enumerate() {
            if missing[place % By::ALL.len()].is_some() {
                continue;
            }
            eprint!("\rround {} of {rounds}: {ms} ms by {:<20}", round + 1, by.name());
            seen[place].push(round::measure(&pair, options, *ms, *by)?);
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
            lost: of(|round| round.lost),
            reordered: of(|round| round.reordered),
            tcp_mbit_s: of(|round| round.mbit_s),
            several_mbit_s: of(|round| round.several_mbit_s),
            direct_mbit_s: of(|round| round.direct_mbit_s),
            skipped: missing[place % By::ALL.len()].clone(),
        }
    };
    let rows: Vec<Row> = cases.iter().enumerate().map(row).collect();
    fill(&mut document, &rows)?;
    document.tables.push(bound(&ways));
    document.finish()
}

fn fill(document: &mut Document, rows: &[Row]) -> Result<()> {
    let note = "Datagrams, one every 4 ms: how much later they came than asked for, beyond the direct way; wanted: mean \
                below 100, p99 below 1,000; how many of them were lost or overtaken. TCP: the second half of one stream, \
                as a share of direct, and of four streams together. Median of the rounds, in brackets the middle half.\n\
                The fq lines (a pair of devices with sch_fq) look up no rule: one of ours could be no cheaper.";
    let columns = [
        "delay",
        "by",
        "mean error, µs",
        "p50, µs",
        "p99, µs",
        "lost",
        "overtaken",
        "TCP, Mbit/s",
        "of direct",
        "4 × TCP, Mbit/s",
    ];
    let mut table = Table::new("Lateness and throughput under delay", &columns, note);
    for row in rows {
        document.add(row)?;
        let mut line = vec![format!("{} ms", row.delay_ms), row.by.to_owned()];
        let told = |spread: Option<Spread>| spread.map_or_else(|| "–".to_owned(), |spread| spread.told(0));
        if row.skipped.is_some() {
            line.extend(["SKIPPED"; 8].map(str::to_owned));
        } else {
            line.extend(
                [row.late_mean_us, row.late_p50_us, row.late_p99_us, row.lost, row.reordered].map(told),
            );
            line.push(told(row.tcp_mbit_s));
            let share =
                row.tcp_mbit_s.zip(row.direct_mbit_s).map(|(under, direct)| under.median / direct.median);
            line.push(share.map_or_else(String::new, |share| format!("{share:.3}")));
            line.push(told(row.several_mbit_s));
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

/// What no line of devices could exceed, also where there is no `sch_fq`.
fn bound(ways: &[[f64; 4]]) -> Table {
    let note = "Nothing waits in the pair, and no rule is looked up: an fq line of ours could be no faster.";
    let columns = ["way", "TCP, Mbit/s", "4 × TCP, Mbit/s"];
    let mut table = Table::new("The way through a pair of devices alone", &columns, note);
    for (name, place) in [("direct", 0), ("pair alone", 2)] {
        let told = |place: usize| {
            let figures: Vec<f64> = ways.iter().map(|way| way[place]).collect();
            Spread::of(&figures).map_or_else(String::new, |spread| spread.told(0))
        };
        table.rows.push(vec![name.to_owned(), told(place), told(place + 1)]);
    }
    table
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
