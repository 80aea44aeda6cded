//! Runs Rust test programs, shows what they print as they print it, and counts.

use std::{
    io::{BufRead as _, BufReader, Read, Write},
    process::{Child, Command, Stdio},
    sync::mpsc,
    thread,
    time::{Duration, Instant},
};

use anyhow::{Context as _, Result};
use nix::{
    sys::signal::{Signal, kill},
    unistd::Pid,
};

use super::report::Report;
use crate::process;

/// What the lines of one run add up to.
#[derive(Debug, Default, PartialEq, Eq)]
struct Count {
    passed: usize,
    failed: Vec<String>,
    skipped: Vec<String>,
    /// Failures by the harness's own count; more than `failed` when names were not printed.
    failed_total: usize,
    /// Sections that ended with a result line.
    results: usize,
}

impl Count {
    /// Takes one line of a test program or of cargo.
    fn line(&mut self, line: &str) {
        let line = line.trim();
        if let Some(result) = line.strip_prefix("test result: ") {
            self.results += 1;
            self.passed += number_before(result, " passed");
            self.failed_total += number_before(result, " failed");
        } else if let Some((_, skipped)) = line.split_once("SKIPPED") {
            // The harness may already have begun a line of its own, so it need not start the line.
            self.skipped.push(skipped.trim_start_matches([':', ' ']).to_owned());
        } else if let Some(test) = line.strip_prefix("test ") {
            if let Some(name) = test.strip_suffix(" ... FAILED") {
                self.failed.push(name.to_owned());
            } else if let Some((name, reason)) = test.split_once(" ... ignored") {
                let reason = reason.trim_start_matches([',', ' ']);
                self.skipped.push(format!("{name}: {}", if reason.is_empty() { "ignored" } else { reason }));
                // Not part of the harness's "passed", unlike a test that skips itself.
                self.passed += 1;
            }
        }
    }

    /// Adds this run to the layer.
    fn into_report(self, report: &mut Report, what: &str, succeeded: bool) {
        // A skipped test ends well as far as the harness knows.
        report.passed += self.passed.saturating_sub(self.skipped.len());
        report.skips.extend(self.skipped);
        let unnamed = self.failed_total.saturating_sub(self.failed.len());
        report.failures.extend(self.failed);
        report.failures.extend((0..unnamed).map(|_| format!("{what}: a test whose name was not printed")));
        if !succeeded && self.failed_total == 0 {
            report.fail(format!("{what}: ended without the result of every test (see above)"));
        } else if succeeded && self.results == 0 {
            report.fail(format!("{what}: ran no tests"));
        }
    }
}

/// Runs `command`, a test program or `cargo test`, for at most `limit`, and counts into `report`.
pub(crate) fn run(report: &mut Report, what: &str, command: &mut Command, limit: Duration) {
    println!("-- {what}");
    let result = try_run(report, what, command, limit);
    report.ended(result);
}

fn try_run(report: &mut Report, what: &str, command: &mut Command, limit: Duration) -> Result<()> {
    command.stdin(Stdio::null()).stdout(Stdio::piped()).stderr(Stdio::piped());
    let mut child = command.spawn().with_context(|| format!("cannot start `{}`", process::line(command)))?;
    let (sender, lines) = mpsc::channel();
    let readers = [
        child.stdout.take().map(|pipe| tee(pipe, std::io::stdout(), sender.clone())),
        child.stderr.take().map(|pipe| tee(pipe, std::io::stderr(), sender)),
    ];
    let mut count = Count::default();
    let deadline = Instant::now() + limit;
    let mut killed = false;
    loop {
        match lines.recv_timeout(deadline.saturating_duration_since(Instant::now())) {
            Ok(line) => count.line(&line),
            Err(mpsc::RecvTimeoutError::Disconnected) => break,
            Err(mpsc::RecvTimeoutError::Timeout) => {
                report.fail(format!("{what}: stopped after {} s", limit.as_secs()));
                stop(&mut child);
                killed = true;
                break;
            }
        }
    }
    if !killed {
        readers.into_iter().flatten().for_each(|reader| drop(reader.join()));
    }
    let status = child.wait()?;
    count.into_report(report, what, status.success() || killed);
    Ok(())
}

/// Passes lines on as they come, and sends every one to be counted.
fn tee(
    pipe: impl Read + Send + 'static,
    mut to: impl Write + Send + 'static,
    sender: mpsc::Sender<String>,
) -> thread::JoinHandle<()> {
    thread::spawn(move || {
        let mut reader = BufReader::new(pipe);
        let mut bytes = Vec::new();
        let mut hidden = false;
        while reader.read_until(b'\n', &mut bytes).is_ok_and(|n| n > 0) {
            let line = String::from_utf8_lossy(&bytes).into_owned();
            // What passing tests printed is asked for because of the skips in it, and else only long.
            hidden = match line.trim() {
                "successes:" => true,
                "failures:" => false,
                text => hidden && !text.starts_with("test result:"),
            };
            if !hidden {
                let _ = to.write_all(&bytes);
                let _ = to.flush();
            }
            let _ = sender.send(line);
            bytes.clear();
        }
    })
}

/// Ends the child; sudo passes SIGTERM on to what it runs, SIGKILL it could not.
fn stop(child: &mut Child) {
    if let Ok(pid) = i32::try_from(child.id()) {
        let _ = kill(Pid::from_raw(pid), Signal::SIGTERM);
    }
    for _ in 0..50 {
        if child.try_wait().is_ok_and(|status| status.is_some()) {
            return;
        }
        thread::sleep(Duration::from_millis(100));
    }
    let _ = child.kill();
}

/// The number right before `word`, else 0.
fn number_before(text: &str, word: &str) -> usize {
    let before = text.find(word).and_then(|at| text.get(..at)).unwrap_or_default();
    before.rsplit(|c: char| !c.is_ascii_digit()).next().and_then(|n| n.parse().ok()).unwrap_or(0)
}

#[cfg(test)]
mod tests {
    use super::{Count, Report};

    fn count(text: &str) -> Count {
        let mut count = Count::default();
        text.lines().for_each(|line| count.line(line));
        count
    }

    #[test]
    fn counts_what_the_harness_prints() {
        let count = count(
            "running 5 tests\ntest a ... ok\nSKIPPED: b: needs root\ntest b ... ok\ntest c ... FAILED\n\
             test d ... ignored, slow\ntest e ... SKIPPED: e: no tool\n\
             test result: FAILED. 3 passed; 1 failed; 1 ignored; 0 measured; 0 filtered out; finished in 0.00s",
        );
        let mut report = Report::default();
        count.into_report(&mut report, "x", false);
        assert_eq!(report.passed, 1);
        assert_eq!(report.failures, ["c"]);
        assert_eq!(report.skips, ["b: needs root", "d: slow", "e: no tool"]);
    }

    #[test]
    fn a_crash_is_a_failure() {
        let mut report = Report::default();
        count("running 2 tests\ntest a ... ok").into_report(&mut report, "x", false);
        assert_eq!(report.failures.len(), 1);
    }
}
