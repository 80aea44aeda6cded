//! The programs alone, by `BPF_PROG_TEST_RUN`.

use std::time::{Duration, Instant};

use anyhow::{Result, ensure};
use chaos_agent::datapath::Sizes;
use chaos_common::{
    abi::{Direction, TestInput},
    compile::compile,
};
use chaos_tests::{
    bench::{Axis, Chart, Document, Options, Point, Series, Spread, Table},
    oracle::{Given, PLAIN, kernel::KernelSide},
};
use serde::Serialize;

use super::rules;

const RULES: [usize; 6] = [0, 1, 10, 100, 1000, 4096];
const MATCHES: [usize; 3] = [0, 1, 4];

/// One set of rules, one packet.
#[derive(Debug, Serialize)]
struct Row {
    rules: usize,
    /// Rules that the packet matches.
    r#match: usize,
    version: u8,
    /// A packet's cost: the median of the rounds.
    ns: f64,
    spread: Option<Spread>,
    /// Above a program that does nothing.
    above_empty_ns: f64,
    /// By the cost with as few rules as match at least, in the same run.
    ratio: Option<f64>,
    compile_ms: f64,
    swap_ms: f64,
    #[serde(skip)]
    samples: Vec<f64>,
}

/// Measures, and puts everything into the document.
pub(super) fn measure_all(document: &mut Document, options: &Options, rounds: usize) -> Result<()> {
    let repeat = options.pick(200_000, 20_000);
    let mut kernel = KernelSide::as_released(Sizes::new(Sizes::MOST))?;
    let mut rows = rows();
    let mut empty = Vec::new();
    for round in 0..rounds {
        eprint!("\rthe programs alone, round {} of {rounds} ", round + 1);
        empty.push(nanos(kernel.cost(None, &rules::packet(false).bytes(), repeat)?));
        for row in &mut rows {
            measure(&mut kernel, row, repeat)?;
        }
    }
    eprintln!();
    let empty_ns = median(&empty);
    for row in &mut rows {
        row.spread = Spread::of(&row.samples);
        row.ns = median(&row.samples);
        row.above_empty_ns = row.ns - empty_ns;
    }
    let ratios: Vec<Option<f64>> = rows.iter().map(|row| ratio(row, &rows)).collect();
    for (row, ratio) in rows.iter_mut().zip(ratios) {
        row.ratio = ratio;
        document.add(row)?;
    }
    document.facts.insert("empty_ns", empty_ns);
    document.tables.push(table(empty_ns, &rows));
    document.charts.push(chart(&rows));
    Ok(())
}

fn rows() -> Vec<Row> {
    let mut rows = Vec::new();
    for version in [4, 6] {
        for rules in RULES {
            for matches in MATCHES.into_iter().filter(|matches| *matches <= rules) {
                rows.push(Row {
                    rules,
                    r#match: matches,
                    version,
                    ns: 0.0,
                    spread: None,
                    above_empty_ns: 0.0,
                    ratio: None,
                    compile_ms: 0.0,
                    swap_ms: 0.0,
                    samples: Vec::new(),
                });
            }
        }
    }
    rows
}

/// One round: arms the rules, and runs the program on the packet.
fn measure(kernel: &mut KernelSide, row: &mut Row, repeat: u32) -> Result<()> {
    let is_v6 = row.version == 6;
    let input = rules::mixed(row.rules, row.r#match, is_v6);
    let began = Instant::now();
    let tables = compile(&input)?;
    row.compile_ms = began.elapsed().as_secs_f64() * 1e3;
    let began = Instant::now();
    kernel.arm(&tables, u64::MAX)?;
    row.swap_ms = began.elapsed().as_secs_f64() * 1e3;
    let given = Given { input: TestInput::default(), direction: Direction::Egress, ifindex: PLAIN };
    let packet = rules::packet(is_v6).bytes();
    let before = matched(kernel)?;
    row.samples.push(nanos(kernel.cost(Some(&given), &packet, repeat)?));
    let seen = matched(kernel)? - before;
    let wanted = u64::from(repeat) * row.r#match as u64;
    ensure!(seen == wanted, "{} rules: {seen} matches counted, {wanted} meant", row.rules);
    Ok(())
}

fn matched(kernel: &KernelSide) -> Result<u64> {
    let counted = kernel.counted()?;
    let of_matches =
        counted.iter().filter(|((_, _, what), _)| *what == chaos_common::abi::Count::Matched as u8);
    Ok(of_matches.map(|(_, (packets, _))| packets).sum())
}

/// Beside the same matches among as few rules as possible.
fn ratio(row: &Row, rows: &[Row]) -> Option<f64> {
    let alike = rows.iter().filter(|one| one.version == row.version && one.r#match == row.r#match);
    let base = alike.filter(|one| one.rules > 0).min_by_key(|one| one.rules)?;
    Some(row.ns / base.ns)
}

fn nanos(time: Duration) -> f64 {
    time.as_nanos() as f64
}

fn median(samples: &[f64]) -> f64 {
    Spread::of(samples).map_or(f64::NAN, |spread| spread.median)
}

fn table(empty_ns: f64, rows: &[Row]) -> Table {
    let note = format!(
        "A program that does nothing takes {empty_ns:.0} ns. The ratio is that to the fewest rules of which so many can \
         match. Compiled on the host; swapped in as a whole."
    );
    let columns = ["rules", "match", "IP", "ns", "above empty", "ratio", "compile ms", "swap ms"];
    let mut table = Table::new("A packet's cost in the programs alone (BPF_PROG_TEST_RUN)", &columns, &note);
    for row in rows {
        table.rows.push(vec![
            row.rules.to_string(),
            row.r#match.to_string(),
            format!("v{}", row.version),
            row.spread.map_or(String::new(), |spread| spread.told(0)),
            format!("{:.0}", row.above_empty_ns),
            row.ratio.map_or(String::new(), |ratio| format!("{ratio:.2}")),
            format!("{:.1}", row.compile_ms),
            format!("{:.1}", row.swap_ms),
        ]);
    }
    table
}

fn chart(rows: &[Row]) -> Chart {
    let series = |matches: usize, version: u8| {
        let rows =
            rows.iter().filter(|row| row.r#match == matches && row.version == version && row.rules > 0);
        let points = rows.filter_map(|row| Some(Point::spread(row.rules as f64, row.spread?)));
        Series { name: format!("{matches} match, IPv{version}"), points: points.collect() }
    };
    Chart {
        title: "A packet's cost in the programs alone".to_owned(),
        x: Axis::log("rules"),
        y: Axis::of("ns"),
        series: MATCHES.iter().flat_map(|matches| [4, 6].map(|version| series(*matches, version))).collect(),
    }
}
