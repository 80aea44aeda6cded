//! What ran, what passed, what failed, what was skipped and why.

use std::time::{Duration, Instant};

use anyhow::Result;

/// The count of one layer.
#[derive(Debug, Default)]
pub(crate) struct Report {
    /// Tests and checks that passed.
    pub(crate) passed: usize,
    /// Names of those that failed, with what is known.
    pub(crate) failures: Vec<String>,
    /// What did not run, and why.
    pub(crate) skips: Vec<String>,
    /// How long it took.
    pub(crate) took: Duration,
}

impl Report {
    /// Counts a check and prints how it went.
    pub(crate) fn check(&mut self, what: &str, result: Result<()>) {
        match result {
            Ok(()) => {
                self.passed += 1;
                println!("  ok      {what}");
            }
            Err(error) => self.fail(format!("{what}: {error:#}")),
        }
    }

    /// Counts a failure and prints it.
    pub(crate) fn fail(&mut self, what: String) {
        println!("  FAILED  {what}");
        self.failures.push(what);
    }

    /// Counts something that did not run and prints why.
    pub(crate) fn skip(&mut self, what: String) {
        println!("  SKIPPED {what}");
        self.skips.push(what);
    }

    /// Counts the error a layer ended with, if it did.
    pub(crate) fn ended(&mut self, result: Result<()>) {
        if let Err(error) = result {
            self.fail(format!("{error:#}"));
        }
    }

    /// Runs a layer. An empty one is a failure: a suite that runs nothing must not be green.
    pub(crate) fn of(run: impl FnOnce(&mut Self)) -> Self {
        let start = Instant::now();
        let mut report = Self::default();
        run(&mut report);
        if report.passed == 0 && report.failures.is_empty() && report.skips.is_empty() {
            report.fail("not a single test ran".to_owned());
        }
        report.took = start.elapsed();
        report
    }
}

/// The table of all layers, the failures, the skips, and the line that ends a run.
pub(crate) fn summary(layers: &[(&str, Report)]) -> String {
    let mut lines =
        vec![format!("\n{:<12} {:>7} {:>7} {:>8} {:>7}", "layer", "passed", "failed", "skipped", "seconds")];
    for (name, report) in layers {
        lines.push(format!(
            "{name:<12} {:>7} {:>7} {:>8} {:>7}",
            report.passed,
            report.failures.len(),
            report.skips.len(),
            report.took.as_secs()
        ));
    }
    let list = |title: &str, of: fn(&Report) -> &[String]| {
        let each = layers
            .iter()
            .flat_map(|(name, report)| of(report).iter().map(move |what| format!("  {name}: {what}")));
        let each: Vec<String> = each.collect();
        if each.is_empty() { None } else { Some(format!("\n{title}\n{}", each.join("\n"))) }
    };
    lines.extend(list("SKIPPED, and why:", |report| &report.skips));
    lines.extend(list("FAILED:", |report| &report.failures));
    let sum = |of: fn(&Report) -> usize| layers.iter().map(|(_, report)| of(report)).sum::<usize>();
    lines.push(String::new());
    lines.push(format!(
        "{} passed, {} failed, {} skipped",
        sum(|report| report.passed),
        sum(|report| report.failures.len()),
        sum(|report| report.skips.len())
    ));
    lines.join("\n")
}

#[cfg(test)]
mod tests {
    use super::{Report, summary};

    #[test]
    fn an_empty_layer_fails() {
        let report = Report::of(|_| ());
        assert_eq!(report.failures.len(), 1);
    }

    #[test]
    fn the_last_line_is_the_count_alone() {
        let one = Report::of(|report| {
            report.check("a", Ok(()));
            report.check("b", Err(anyhow::anyhow!("broken")));
            // Not `skip`: what it prints would be taken for a skip of this test.
            report.skips.push("c: no kernel".to_owned());
        });
        let text = summary(&[("one", one), ("two", Report { passed: 4, ..Report::default() })]);
        assert_eq!(text.lines().last(), Some("5 passed, 1 failed, 1 skipped"));
        assert!(text.contains("one: c: no kernel"));
    }
}
