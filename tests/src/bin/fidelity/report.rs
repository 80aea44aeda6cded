//! The table and the JSON document.

use std::{fs, path::Path, time::Duration};

use anyhow::{Context, Result};
use serde_json::{Value, json};

use crate::{finding::Finding, row::Row};

/// How a row ended.
pub(crate) enum Verdict {
    /// It was measured.
    Measured(Vec<Finding>),
    /// It could not be measured here, and why.
    Skipped(String),
    /// Measuring it went wrong: it fails.
    Broken(String),
}

impl Verdict {
    /// The row fails.
    pub(crate) fn is_bad(&self) -> bool {
        match self {
            Self::Measured(findings) => findings.is_empty() || findings.iter().any(|finding| !finding.ok),
            Self::Skipped(_) => false,
            Self::Broken(_) => true,
        }
    }

    /// All that is wrong with it is about time: only that may be the machine's fault.
    pub(crate) fn is_late(&self) -> bool {
        match self {
            Self::Measured(findings) => self.is_bad() && findings.iter().all(|one| one.ok || one.timed),
            Self::Skipped(_) | Self::Broken(_) => false,
        }
    }
}

/// Under which a row was measured.
pub(crate) struct Circumstances {
    pub(crate) took: Duration,
    /// Time of all CPUs that the host gave to others.
    pub(crate) stolen_percent: f64,
    /// The first is 1.
    pub(crate) attempt: u32,
    /// It does not count, and is measured again.
    pub(crate) again: bool,
}

/// What all rows showed so far.
#[derive(Default)]
pub(crate) struct Report {
    rows: Vec<Value>,
    passed: usize,
    failed: usize,
    skipped: usize,
    /// Each row is told on standard output, too, in the words of the harness of Rust's tests.
    lines: bool,
}

impl Report {
    pub(crate) fn new(lines: bool) -> Self {
        Self { lines, ..Self::default() }
    }

    /// Takes a row and shows it.
    pub(crate) fn add(&mut self, row: &Row, verdict: Verdict, circumstances: &Circumstances) {
        let title = row.title();
        let Circumstances { took, stolen_percent, attempt, again } = circumstances;
        let mut record = json!({"name": title, "asked": row.asked});
        record["stolen_percent"] = (*stolen_percent).into();
        record["attempt"] = (*attempt).into();
        let bad = verdict.is_bad();
        let word = match verdict {
            Verdict::Measured(findings) => {
                let join =
                    |part: fn(&Finding) -> &str| findings.iter().map(part).collect::<Vec<_>>().join("; ");
                record["seen"] = join(|finding| &finding.seen).into();
                record["bounds"] = join(|finding| &finding.bounds).into();
                record["pass"] = (!bad).into();
                if bad { "FAIL" } else { "ok" }
            }
            Verdict::Skipped(reason) => {
                record["skipped"] = reason.clone().into();
                record["seen"] = format!("skipped: {reason}").into();
                record["bounds"] = "".into();
                record["pass"] = Value::Null;
                "skip"
            }
            Verdict::Broken(error) => {
                record["seen"] = format!("not measured: {}", short(&error)).into();
                record["bounds"] = "".into();
                record["pass"] = false.into();
                "FAIL"
            }
        };
        let word = if *again { "void" } else { word };
        match word {
            "void" => {}
            "ok" => self.passed += 1,
            "skip" => self.skipped += 1,
            _ => self.failed += 1,
        }
        let text = |key: &str| record[key].as_str().unwrap_or_default().to_owned();
        let seconds = took.as_secs_f64();
        eprintln!("{word:<4} {title}   [{}]   {seconds:.1} s", row.asked);
        eprintln!("       {}", text("seen"));
        if !text("bounds").is_empty() {
            eprintln!("       bounds: {}", text("bounds"));
        }
        if *again {
            eprintln!("       once more; {stolen_percent:.1} % of the CPUs' time was taken away meanwhile");
        } else {
            if self.lines {
                tell(word, &format!("{title} [{}]", row.asked), &text("seen"));
            }
            self.rows.push(record);
        }
    }

    /// Shows the sum and writes the document.
    pub(crate) fn finish(&self, json: Option<&Path>) -> Result<()> {
        let Self { rows, passed, failed, skipped, lines } = self;
        eprintln!("{} rows: {passed} within bounds, {failed} failed, {skipped} skipped", rows.len());
        if *lines {
            // The harness counts a test that skipped itself among those that passed.
            let word = if *failed == 0 { "ok" } else { "FAILED" };
            println!("test result: {word}. {} passed; {failed} failed", passed + skipped);
        }
        let kernel = fs::read_to_string("/proc/sys/kernel/osrelease").unwrap_or_default();
        let document = json!({
            "rows": rows,
            "passed": passed,
            "failed": failed,
            "skipped": skipped,
            "kernel": kernel.trim(),
        });
        let text = serde_json::to_string_pretty(&document)? + "\n";
        match json {
            None => Ok(()),
            Some(path) if path == Path::new("-") => {
                print!("{text}");
                Ok(())
            }
            Some(path) => fs::write(path, text).with_context(|| format!("writing {}", path.display())),
        }
    }

    /// Whether the run is good; a strict one skips nothing.
    pub(crate) fn passed(&self, strict: bool) -> bool {
        self.failed == 0 && !(strict && self.skipped > 0)
    }
}

/// One row as a test.
fn tell(word: &str, title: &str, seen: &str) {
    match word {
        "ok" => println!("test {title} ... ok"),
        "skip" => println!("SKIPPED: {title}: {}", seen.trim_start_matches("skipped: ")),
        _ => println!("test {title} ... FAILED"),
    }
}

/// The beginning of a long error, in one line.
fn short(error: &str) -> String {
    const MOST: usize = 400;
    let line = error.split_whitespace().collect::<Vec<_>>().join(" ");
    let mut begin: String = line.chars().take(MOST).collect();
    if begin.len() < line.len() {
        begin.push_str(" ...");
    }
    begin
}
