//! The same faults, made three ways: by `chaos`, by netem, and by a program of a dozen instructions. `cargo xtask
//! bench compare` runs this as root, with `--kernel` on a kernel that has netem and fq.

mod by;

use std::{net::SocketAddr, time::Duration};

use anyhow::Result;
use chaos_tests::{
    bench::{Document, Options, Spread, Table},
    lab::shapes::{B4, Pair},
    measure::{
        bulk::Transfer,
        datagrams::{self, Stream},
        distribution::Samples,
        helper::{End, warm_up},
        order::Transmissions,
        ping::ping,
        pour::{Load, pour},
        stats::run_lengths,
        tcp::{plain, transfer, usual},
    },
};
use serde::Serialize;

use by::{By, Fault};

const PORT: u16 = 5400;

/// What is measured under a fault.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum What {
    /// How much later than asked the fastest datagram came, and half of them, µs.
    Lateness,
    /// One TCP stream, Mbit/s.
    Tcp,
    /// Wire segments that did not come, that were sent again (percent), and how many are lost in a row.
    Segments,
    /// Lost in the eyes of ping, percent.
    Pings,
}

/// A fault and what is measured under it.
const CASES: [(Fault, What); 7] = [
    (Fault::Delay(20), What::Lateness),
    (Fault::Delay(20), What::Tcp),
    (Fault::Delay(100), What::Tcp),
    (Fault::Loss(2), What::Segments),
    (Fault::Loss(2), What::Tcp),
    (Fault::Loss(20), What::Pings),
    (Fault::Rate(10), What::Tcp),
];

impl What {
    /// Names of the figures, and decimals that are shown.
    fn figures(self, fault: Fault) -> Vec<(String, usize)> {
        let told = match fault {
            Fault::Delay(ms) => format!("delay {ms} ms"),
            Fault::Loss(percent) => format!("loss {percent} %"),
            Fault::Rate(mbit_s) => format!("rate {mbit_s} Mbit/s"),
        };
        let figures: &[(&str, usize)] = match self {
            Self::Lateness => &[("error of the fastest, µs", 0), ("median error, µs", 0)],
            Self::Tcp => &[("one TCP stream, Mbit/s", 1)],
            Self::Segments => &[
                ("wire segments that did not come, %", 2),
                ("wire segments that TCP sent again, %", 2),
                ("lost in a row, mean", 1),
            ],
            Self::Pings => &[("pings lost, as ping tells, %", 1)],
        };
        figures.iter().map(|(name, digits)| (format!("{told}: {name}"), *digits)).collect()
    }

    fn measure(self, pair: &Pair, options: &Options, fault: Fault) -> Result<Vec<f64>> {
        match self {
            Self::Lateness => {
                let Fault::Delay(ms) = fault else { anyhow::bail!("{fault:?} is no delay") };
                let late = datagrams_us(pair, options)?;
                let asked = f64::from(ms) * 1e3;
                Ok(vec![late.quantile(0.0) - asked, late.median() - asked])
            }
            Self::Tcp => Ok(vec![megabits(pair, Duration::from_secs(options.pick(6, 3)))?]),
            Self::Segments => segments(pair, options),
            Self::Pings => {
                let seen = ping(&pair.a, B4.into(), None, options.pick(600, 200))?;
                Ok(vec![percent(seen.lost(), seen.sent)])
            }
        }
    }

    /// The same where nothing is done, to compare with; nothing where that is no figure.
    fn direct(self, pair: &Pair, options: &Options) -> Result<Vec<f64>> {
        match self {
            Self::Lateness => {
                let usual = datagrams_us(pair, options)?;
                Ok(vec![usual.quantile(0.0), usual.median()])
            }
            Self::Tcp => Ok(vec![megabits(pair, Duration::from_secs(2))?]),
            Self::Segments | Self::Pings => Ok(Vec::new()),
        }
    }
}

/// One figure of a fault.
#[derive(Debug, Serialize)]
struct Row {
    figure: String,
    direct: Option<Spread>,
    /// By name.
    by: Vec<(&'static str, Option<Spread>)>,
    #[serde(skip)]
    digits: usize,
}

/// Measures, and shows it.
pub(crate) fn run(options: &Options) -> Result<()> {
    let rounds = options.rounds(5, 1);
    let mut document = Document::begin("compare", options, rounds);
    let pair = Pair::new()?;
    warm_up(&pair.a, B4.into())?;
    let mut skipped = Vec::new();
    for (fault, what) in CASES {
        let missing = By::ALL.map(|by| by.missing(&pair, fault));
        let mut direct = Vec::new();
        let mut seen = By::ALL.map(|_| Vec::new());
        for round in 0..rounds {
            direct.push(what.direct(&pair, options)?);
            for ((by, missing), seen) in By::ALL.iter().zip(&missing).zip(&mut seen) {
                if missing.is_some() {
                    continue;
                }
                eprint!("\rround {} of {rounds}: {fault:?}, {what:?}, {:<20}", round + 1, by.name());
                let armed = by.arm(&pair, fault)?;
                let figures = what.measure(&pair, options, fault);
                armed.disarm(&pair)?;
                seen.push(figures?);
            }
        }
        skipped.extend(By::ALL.iter().zip(missing).filter_map(|(by, why)| Some((by.name(), why?))));
        for row in rows(what, fault, &direct, &seen) {
            document.add(&row)?;
            show(&mut document, &row);
        }
    }
    eprintln!();
    skipped.sort_unstable();
    skipped.dedup();
    if let Some(table) = document.tables.first_mut() {
        let told: Vec<String> = skipped.iter().map(|(by, why)| format!("SKIPPED: {by}: {why}")).collect();
        table.note = told.join("\n");
    }
    document.finish()
}

fn rows(what: What, fault: Fault, direct: &[Vec<f64>], seen: &[Vec<Vec<f64>>; 3]) -> Vec<Row> {
    let figures = what.figures(fault).into_iter().enumerate();
    let rows = figures.map(|(place, (figure, digits))| {
        let of = |rounds: &[Vec<f64>]| {
            Spread::of(&rounds.iter().filter_map(|round| round.get(place).copied()).collect::<Vec<_>>())
        };
        let usual = of(direct);
        // What the way itself takes is not the delay's error.
        let error = |spread: Spread| {
            let way = usual.filter(|_| what == What::Lateness).map_or(0.0, |usual| usual.median);
            Spread { median: spread.median - way, low: spread.low - way, high: spread.high - way, ..spread }
        };
        let by = By::ALL.iter().zip(seen).map(|(by, rounds)| (by.name(), of(rounds).map(error)));
        Row { figure, direct: usual, by: by.collect(), digits }
    });
    rows.collect()
}

fn show(document: &mut Document, row: &Row) {
    if document.tables.is_empty() {
        let mut columns = vec!["fault: what is seen", "without"];
        columns.extend(By::ALL.map(By::name));
        document.tables.push(Table::new("The same fault, made three ways", &columns, ""));
    }
    let told =
        |spread: Option<Spread>| spread.map_or_else(|| "–".to_owned(), |spread| spread.told(row.digits));
    let mut line = vec![row.figure.clone(), told(row.direct)];
    line.extend(row.by.iter().map(|(_, spread)| told(*spread)));
    if let Some(table) = document.tables.first_mut() {
        table.rows.push(line);
    }
}

/// How long datagrams take, µs; seldom enough that an emulated machine is not busy with them.
fn datagrams_us(pair: &Pair, options: &Options) -> Result<Samples> {
    let to = SocketAddr::from((B4, PORT));
    let stream = Stream::new(to, options.pick(300, 50), Duration::from_millis(10));
    let seen = datagrams::send(End::plain(&pair.a), End::plain(&pair.b), &stream, Duration::from_secs(1))?;
    Samples::new(seen.delays_ns().into_iter().map(|ns| ns as f64 / 1e3))
}

/// Of the second half of a transfer: the first is TCP's slow start.
fn megabits(pair: &Pair, time: Duration) -> Result<f64> {
    let load = Load { to: SocketAddr::from((B4, PORT)), bytes: u64::MAX, time, hash: false };
    let (_, drained) = pour(End::plain(&pair.a), End::plain(&pair.b), &load)?;
    Ok(drained.bytes_per_second(time / 2, time) * 8.0 / 1e6)
}

fn segments(pair: &Pair, options: &Options) -> Result<Vec<f64>> {
    let what = Transfer { segments: options.pick(30_000, 5_000), ..usual(B4) };
    let (seen, ()) = transfer((&pair.a, &plain), (&pair.b, &plain), &what, || Ok(()))?;
    let again: u64 = seen.counts.sent.iter().map(|sent| sent.retransmitted).sum();
    let runs: Vec<u64> =
        seen.order.iter().map(Transmissions::losses).flat_map(|losses| run_lengths(&losses)).collect();
    let in_a_row = runs.iter().sum::<u64>() as f64 / runs.len().max(1) as f64;
    let (total, lost) = (seen.counts.total(), seen.counts.lost());
    Ok(vec![percent(lost, total), percent(again, total), in_a_row])
}

fn percent(part: u64, of: u64) -> f64 {
    part as f64 * 100.0 / of.max(1) as f64
}
