//! What a packet costs, by rules and matches: `cargo xtask bench prog` runs this as root.
//!
//! `prog_bench [--quick]`: the table goes to standard error, the document (JSON) to standard output.
#![expect(clippy::cast_precision_loss, reason = "nanoseconds and ratios stay far below 2^52")]

mod rules;

use std::time::{Duration, Instant};

use anyhow::{Result, bail, ensure};
use chaos_agent::datapath::Sizes;
use chaos_common::{
    abi::{Direction, TestInput},
    compile::compile,
};
use chaos_tests::{
    lab::alone,
    oracle::{Given, PLAIN, kernel::KernelSide},
};
use serde::Serialize;

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
    /// Above a program that does nothing.
    above_empty_ns: f64,
    /// By the cost with as few rules as match at least, in the same run.
    ratio: Option<f64>,
    compile_ms: f64,
    swap_ms: f64,
    #[serde(skip)]
    samples: Vec<f64>,
}

#[derive(Debug, Serialize)]
struct Report {
    kernel: String,
    empty_ns: f64,
    rows: Vec<Row>,
}

fn main() -> Result<()> {
    let words: Vec<String> = std::env::args().skip(1).collect();
    let (rounds, repeat) = match words.iter().map(String::as_str).collect::<Vec<_>>()[..] {
        [] => (9, 200_000),
        ["--quick"] => (3, 20_000),
        _ => bail!("usage: prog_bench [--quick]"),
    };
    ensure!(nix::unistd::geteuid().is_root(), "needs root; `cargo xtask bench prog` asks for it");
    let _alone = alone()?;
    let mut kernel = KernelSide::as_released(Sizes::new(Sizes::MOST))?;
    let mut rows = rows();
    let mut empty = Vec::new();
    for _ in 0..rounds {
        empty.push(nanos(kernel.cost(None, &rules::packet(false).bytes(), repeat)?));
        for row in &mut rows {
            measure(&mut kernel, row, repeat)?;
        }
    }
    let empty_ns = median(&mut empty);
    for row in &mut rows {
        row.ns = median(&mut row.samples);
        row.above_empty_ns = row.ns - empty_ns;
    }
    let ratios: Vec<Option<f64>> = rows.iter().map(|row| ratio(row, &rows)).collect();
    for (row, ratio) in rows.iter_mut().zip(ratios) {
        row.ratio = ratio;
    }
    print(empty_ns, &rows);
    let kernel = nix::sys::utsname::uname()?.release().to_string_lossy().into_owned();
    println!("{}", serde_json::to_string_pretty(&Report { kernel, empty_ns, rows })?);
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

fn median(samples: &mut [f64]) -> f64 {
    samples.sort_by(f64::total_cmp);
    samples.get(samples.len() / 2).copied().unwrap_or(f64::NAN)
}

fn print(empty_ns: f64, rows: &[Row]) {
    eprintln!("a program that does nothing: {empty_ns:.0} ns");
    eprintln!(
        "{:>6} {:>7} {:>4} {:>8} {:>12} {:>7} {:>11} {:>9}",
        "rules", "match", "IP", "ns", "above empty", "ratio", "compile ms", "swap ms"
    );
    for row in rows {
        let ratio = row.ratio.map_or_else(String::new, |ratio| format!("{ratio:.2}"));
        eprintln!(
            "{:>6} {:>7} {:>4} {:>8.0} {:>12.0} {ratio:>7} {:>11.1} {:>9.1}",
            row.rules, row.r#match, row.version, row.ns, row.above_empty_ns, row.compile_ms, row.swap_ms
        );
    }
}
