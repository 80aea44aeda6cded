//! What was asked for and what a real program saw, for every kind of fault: `cargo xtask fidelity` runs this as
//! root. One file a topic; a row there is what is asked, where, how it is measured, and the bounds.
//!
//! `fidelity [--json PATH] [--filter TEXT]... [--quick] [--slow] [--agent] [--strict] [--lines] [--list]`; PATH `-`
//! is standard output, the table goes to standard error. `--slow` is for emulated machines: how late things are is
//! shown and not judged, and a row that fails is measured once more. `--agent` asks one agent for all faults, which is
//! faster. `--lines` says of each row what the harness of Rust's tests says of a test. A row whose times are wrong while
//! the host of this virtual machine takes its CPUs away is measured again, which the table and the document say. Ends
//! with 1 when a row fails (with `--strict` also when one is skipped).
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
    api::Agent,
    chaos,
    lab::alone,
    measure::calm::{self, CpuTime},
};

use ability::Ability;
use bench::Bench;
use finding::Finding;
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
#[expect(clippy::struct_excessive_bools, reason = "flags of a command line")]
struct Options {
    json: Option<PathBuf>,
    filters: Vec<String>,
    quick: bool,
    slow: bool,
    agent: bool,
    strict: bool,
    lines: bool,
    list: bool,
}

impl Options {
    fn parse() -> Result<Self> {
        let mut options = Self::default();
        let mut words = std::env::args().skip(1);
        while let Some(word) = words.next() {
            match word.as_str() {
                "--json" => options.json = Some(words.next().context("--json PATH")?.into()),
                "--filter" => options.filters.push(words.next().context("--filter TEXT")?),
                "--quick" => options.quick = true,
                "--slow" => options.slow = true,
                "--agent" => options.agent = true,
                "--lines" => options.lines = true,
                "--strict" => options.strict = true,
                "--list" => options.list = true,
                other => bail!(
                    "`{other}`: none of --json PATH, --filter TEXT, --quick, --slow, --agent, --strict, --lines, \
                     --list"
                ),
            }
        }
        Ok(options)
    }

    /// Whether the row is wanted: any if nothing is named.
    fn wants(&self, row: &Row) -> bool {
        let named = |filter: &String| row.title().contains(filter) || row.asked.contains(filter);
        self.filters.is_empty() || self.filters.iter().any(named)
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
    let rows: Vec<Row> = rows().into_iter().filter(|row| options.wants(row)).collect();
    ensure!(!rows.is_empty(), "no row contains {:?}", options.filters);
    if options.list {
        for row in &rows {
            println!("{:<60} {}", row.title(), row.asked);
        }
        return Ok(true);
    }
    ensure!(nix::unistd::geteuid().is_root(), "needs root; `cargo xtask fidelity` asks for it");
    let ability = Ability::of_this_build()?;
    // Held until the last row is measured.
    let agent = options.agent.then(|| Agent::start("")).transpose()?;
    if let Some(agent) = &agent {
        agent.prepared()?;
        chaos::ask(Some(agent.socket().clone()));
    }
    let mut report = Report::new(options.lines);
    for row in rows {
        for attempt in 1.. {
            let (begun, cpu) = (Instant::now(), CpuTime::now());
            let verdict = measure(&row, &ability, &options);
            let stolen_percent = cpu.stolen_since_percent();
            let again = is_void(&verdict, attempt, stolen_percent, options.slow);
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
    agent.map_or(Ok(()), Agent::stop)?;
    Ok(report.passed(options.strict))
}

/// Whether a row is measured once more. An emulated machine cannot know what time it was not given.
fn is_void(verdict: &Verdict, attempt: u32, stolen_percent: f64, slow: bool) -> bool {
    if slow {
        return attempt == 1 && verdict.is_bad();
    }
    attempt < ATTEMPTS && verdict.is_late() && calm::is_disturbed(stolen_percent)
}

fn measure(row: &Row, ability: &Ability, options: &Options) -> Verdict {
    if let Some(reason) = ability.missing(row) {
        return Verdict::Skipped(reason);
    }
    let measured = || -> Result<Verdict> {
        // Other tests that measure time wait for their turn between two rows.
        let _alone = alone()?;
        let bench = Bench::new(row, options.quick, options.slow)?;
        let findings = (row.measure)(&bench)?;
        let judged = |finding: Finding| if options.slow { finding.leniently() } else { finding };
        Ok(Verdict::Measured(findings.into_iter().map(judged).collect()))
    };
    measured().unwrap_or_else(|error| Verdict::Broken(format!("{error:#}")))
}
