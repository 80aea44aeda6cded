//! Where a packet's time goes in the programs: perf takes samples while the kernel runs them.

use std::{
    collections::BTreeMap,
    io::Read as _,
    path::Path,
    process::{Child, Command, Stdio},
    time::{Duration, Instant},
};

use anyhow::{Context as _, Result, ensure};
use chaos_agent::datapath::Sizes;
use chaos_common::{
    abi::{Direction, TestInput},
    compile::compile,
};
use chaos_tests::{
    bench::{Document, Options, Table},
    oracle::{Given, PLAIN, kernel::KernelSide},
    skip::find_tool,
};
use nix::{
    sys::signal::{Signal, kill},
    unistd::Pid,
};

use super::rules;

const RULES: usize = 1000;
const MATCHES: [usize; 3] = [0, 1, 4];
/// Samples a second; no divisor of the timer's rate.
const RATE_HZ: &str = "4999";
/// Parts that take less are added up.
const LEAST: f64 = 0.02;
const NOTE: &str = "IPv4, egress, one rule in ten names a cgroup. Samples by perf (`cpu-clock`) while the kernel runs the \
    programs; a part is a function of ours that the verifier proves alone, or what the kernel does for it (looking up \
    a table, an address in a trie). Taken while samples are, so a little more than in the table above.";

/// Nanoseconds by part.
type Parts = BTreeMap<String, f64>;

/// Measures, and puts the table into the document.
pub(super) fn measure_all(document: &mut Document, options: &Options) -> Result<()> {
    let mut table = Table::new("Where the time goes: ns a packet among 1,000 rules", &["part"], NOTE);
    if let Some(why) = missing() {
        table.note = format!("SKIPPED: {why}");
        document.tables.push(table);
        return Ok(());
    }
    let mut kernel = KernelSide::as_released(Sizes::new(Sizes::MOST))?;
    let seconds = options.pick(5, 1);
    let mut columns = Vec::new();
    for matches in MATCHES {
        eprint!("\rwhere the time goes, {matches} matches ");
        columns.push(parts(&mut kernel, matches, Duration::from_secs(seconds))?);
        table.columns.push(format!("{matches} match"));
    }
    eprintln!();
    let mut names: Vec<&String> = columns.iter().flat_map(Parts::keys).collect();
    names.sort_unstable();
    names.dedup();
    let of = |name: &str| columns.iter().map(|parts| parts.get(name).copied()).collect::<Vec<_>>();
    let total = |name: &str| of(name).into_iter().flatten().sum::<f64>();
    names.sort_by(|a, b| total(b).total_cmp(&total(a)));
    for name in names {
        let told = |ns: Option<f64>| ns.map_or_else(|| "–".to_owned(), |ns| format!("{ns:.0}"));
        table.rows.push([name.clone()].into_iter().chain(of(name).into_iter().map(told)).collect());
    }
    let sums = columns.iter().map(|parts| format!("{:.0}", parts.values().sum::<f64>()));
    table.rows.push(["all of it".to_owned()].into_iter().chain(sums).collect());
    document.tables.push(table);
    Ok(())
}

fn missing() -> Option<String> {
    if find_tool("perf").is_none() {
        return Some("no perf here; the package `linux-perf` has it".to_owned());
    }
    let tried =
        Command::new("perf").args(["record", "-q", "-e", "cpu-clock", "-o", "/dev/null", "true"]).output();
    match tried {
        Ok(tried) if tried.status.success() => None,
        Ok(tried) => Some(format!("perf: {}", String::from_utf8_lossy(&tried.stderr).trim())),
        Err(error) => Some(format!("perf: {error}")),
    }
}

/// What a packet costs that so many rules match, by part.
fn parts(kernel: &mut KernelSide, matches: usize, time: Duration) -> Result<Parts> {
    kernel.arm(&compile(&rules::mixed(RULES, matches, false))?, u64::MAX)?;
    let given = Given { input: TestInput::default(), direction: Direction::Egress, ifindex: PLAIN };
    let packet = rules::packet(false).bytes();
    let samples = tempfile::NamedTempFile::new().context("a file for the samples")?;
    let perf = Perf::begin(samples.path())?;
    let (began, mut costs) = (Instant::now(), Vec::new());
    while began.elapsed() < time {
        costs.push(kernel.cost(Some(&given), &packet, 50_000)?.as_nanos() as f64);
    }
    perf.end()?;
    let ns = costs.iter().sum::<f64>() / costs.len() as f64;
    let shares = shares(samples.path())?;
    let all: f64 = shares.values().sum();
    let mut parts = Parts::new();
    for (name, share) in shares {
        let name = if share < all * LEAST { "the rest".to_owned() } else { name };
        *parts.entry(name).or_default() += ns * share / all;
    }
    Ok(parts)
}

/// A running perf that takes samples of this process.
struct Perf(Child);

impl Perf {
    fn begin(to: &Path) -> Result<Self> {
        let child = Command::new("perf")
            .args([
                "record",
                "-q",
                "-e",
                "cpu-clock",
                "-F",
                RATE_HZ,
                "-p",
                &std::process::id().to_string(),
                "-o",
            ])
            .arg(to)
            .stdin(Stdio::null())
            .stdout(Stdio::null())
            .stderr(Stdio::piped())
            .spawn()
            .context("starting perf")?;
        // Samples that it misses at first do not matter.
        std::thread::sleep(Duration::from_millis(300));
        Ok(Self(child))
    }

    fn end(mut self) -> Result<()> {
        kill(Pid::from_raw(i32::try_from(self.0.id())?), Signal::SIGINT).context("ending perf")?;
        let mut told = String::new();
        if let Some(errors) = self.0.stderr.as_mut() {
            errors.read_to_string(&mut told)?;
        }
        let status = self.0.wait()?;
        // It dies of the signal that ends it, or says 0.
        ensure!(status.code().unwrap_or(0) == 0, "perf: {status}: {told}");
        Ok(())
    }
}

/// Share of the samples by part.
fn shares(samples: &Path) -> Result<Parts> {
    let report = Command::new("perf")
        .args(["report", "--stdio", "--no-children", "-F", "overhead,symbol", "-i"])
        .arg(samples)
        .stderr(Stdio::null())
        .output()
        .context("perf report")?;
    ensure!(report.status.success(), "perf report: {}", report.status);
    let mut shares = Parts::new();
    for line in String::from_utf8(report.stdout)?.lines() {
        if let Some((share, name)) = part(line) {
            *shares.entry(name).or_default() += share;
        }
    }
    ensure!(!shares.is_empty(), "perf took no samples");
    Ok(shares)
}

/// `    12.34%  [k] bpf_prog_0123456789abcdef_chaos_parse`: the share and the function.
fn part(line: &str) -> Option<(f64, String)> {
    let (share, symbol) = line.trim().split_once('%')?;
    let (kind, name) = symbol.trim().split_once(' ')?;
    let name = name.trim();
    let name = match name.strip_prefix("bpf_prog_").and_then(|name| name.split_once('_')) {
        Some((_, ours)) => ours,
        None if kind == "[k]" && name.starts_with("bpf_test") => "(what calls the programs)",
        None if kind == "[k]" => name,
        None => return None,
    };
    Some((share.trim().parse().ok()?, name.to_owned()))
}

#[cfg(test)]
mod tests {
    use super::part;

    #[test]
    fn parts_have_the_names_of_functions() {
        let ours = "    12.34%  [k] bpf_prog_0123456789abcdef_chaos_parse";
        assert_eq!(part(ours), Some((12.34, "chaos_parse".to_owned())));
        let kernel = "     3.00%  [k] trie_lookup_elem                     ";
        assert_eq!(part(kernel), Some((3.0, "trie_lookup_elem".to_owned())));
        assert_eq!(part("     0.10%  [.] main"), None);
        assert_eq!(part("# Overhead  Symbol"), None);
    }
}
