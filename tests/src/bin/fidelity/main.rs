//! What was asked for and what a real program saw, for every kind of fault: `cargo xtask fidelity` runs this as
//! root. One file a topic; a row there is what is asked, where, how it is measured, and the bounds.
//!
//! `fidelity [--json PATH] [--filter TEXT] [--quick] [--strict] [--list]`; PATH `-` is standard output, the
//! table goes to standard error. A row whose times are wrong while the host of this virtual machine takes its CPUs away is
//! measured again, which the table and the document say. Ends with 1 when a row fails (with `--strict` also when one is skipped).
#![expect(
    clippy::cast_precision_loss,
    clippy::cast_sign_loss,
    reason = "counts and times stay far below 2^52, and none is negative"
)]

mod ability;
mod bench;
mod connections;
mod content;
mod delay;
mod dns;
mod finding;
mod loss;
mod rate;
mod refusals;
mod report;
mod reset;
mod row;
mod throughput;
mod whole;

use std::{path::PathBuf, process::ExitCode, time::Instant};

use anyhow::{Context, Result, bail, ensure};
use chaos_tests::{
    lab::alone,
    measure::calm::{self, CpuTime},
};

use ability::Ability;
use bench::Bench;
use report::{Circumstances, Report, Verdict};
use row::Row;

/// How often a row is measured at most, if the machine stood still meanwhile.
const ATTEMPTS: u32 = 4;

fn main() -> ExitCode {
    match run() {
        Ok(true) => ExitCode::SUCCESS,
        Ok(false) => ExitCode::FAILURE,
        Err(error) => {
            eprintln!("error: {error:#}");
            ExitCode::FAILURE
        }
    }
}

#[derive(Debug, Default)]
struct Options {
    json: Option<PathBuf>,
    filter: String,
    quick: bool,
    strict: bool,
    list: bool,
}

impl Options {
    fn parse() -> Result<Self> {
        let mut options = Self::default();
        let mut words = std::env::args().skip(1);
        while let Some(word) = words.next() {
            match word.as_str() {
                "--json" => options.json = Some(words.next().context("--json PATH")?.into()),
                "--filter" => options.filter = words.next().context("--filter TEXT")?,
                "--quick" => options.quick = true,
                "--strict" => options.strict = true,
                "--list" => options.list = true,
                other => bail!("`{other}`: none of --json PATH, --filter TEXT, --quick, --strict, --list"),
            }
        }
        Ok(options)
    }
}

/// Every row, topic by topic.
fn rows() -> Vec<Row> {
    [
        loss::rows(),
        delay::rows(),
        rate::rows(),
        content::rows(),
        whole::rows(),
        reset::rows(),
        refusals::rows(),
        connections::rows(),
        dns::rows(),
        throughput::rows(),
    ]
    .into_iter()
    .flatten()
    .collect()
}

fn run() -> Result<bool> {
    let options = Options::parse()?;
    let matches = |row: &Row| row.title().contains(&options.filter) || row.asked.contains(&options.filter);
    let rows: Vec<Row> = rows().into_iter().filter(matches).collect();
    ensure!(!rows.is_empty(), "no row contains `{}`", options.filter);
    if options.list {
        for row in &rows {
            println!("{:<60} {}", row.title(), row.asked);
        }
        return Ok(true);
    }
    ensure!(nix::unistd::geteuid().is_root(), "needs root; `cargo xtask fidelity` asks for it");
    let ability = Ability::of_this_build()?;
    let mut report = Report::new();
    for row in rows {
        for attempt in 1.. {
            let (begun, cpu) = (Instant::now(), CpuTime::now());
            let verdict = measure(&row, &ability, options.quick);
            let stolen_percent = cpu.stolen_since_percent();
            let again = attempt < ATTEMPTS && verdict.is_late() && calm::is_disturbed(stolen_percent);
            report.add(
                &row,
                verdict,
                &Circumstances { took: begun.elapsed(), stolen_percent, attempt, again },
            );
            if !again {
                break;
            }
            calm::wait();
        }
    }
    report.finish(options.json.as_deref())?;
    Ok(report.passed(options.strict))
}

fn measure(row: &Row, ability: &Ability, quick: bool) -> Verdict {
    if let Some(reason) = ability.missing(row) {
        return Verdict::Skipped(reason);
    }
    let measured = || -> Result<Verdict> {
        // Other tests that measure time wait for their turn between two rows.
        let _alone = alone()?;
        let bench = Bench::new(row, quick)?;
        Ok(Verdict::Measured((row.measure)(&bench)?))
    };
    measured().unwrap_or_else(|error| Verdict::Broken(format!("{error:#}")))
}
