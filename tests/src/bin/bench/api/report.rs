//! Rows: what was measured, and the goal.

use std::time::Duration;

use anyhow::Result;
use chaos_tests::bench::{Axis, Chart, Document, Point, Series, Table};
use serde::Serialize;

/// One figure.
#[derive(Debug, Serialize)]
pub(super) struct Row {
    name: String,
    /// Which figure of the samples.
    figure: &'static str,
    value: Option<f64>,
    unit: &'static str,
    goal: Option<f64>,
    /// Samples it was made of.
    samples: usize,
    /// Why there is none.
    #[serde(skip_serializing_if = "Option::is_none")]
    missing: Option<String>,
}

/// All rows.
#[derive(Debug, Default)]
pub(super) struct Report {
    rows: Vec<Row>,
}

impl Report {
    /// Median, 99th percentile and maximum of times.
    pub(super) fn times(
        &mut self,
        name: &str,
        times: &mut [Duration],
        median_goal: Option<Duration>,
        p99_goal: Option<Duration>,
    ) {
        times.sort_unstable();
        let samples = times.len();
        let ms = |time: Duration| time.as_secs_f64() * 1e3;
        // The nearest rank: with few samples the 99th percentile is the greatest.
        let rank = |percent: usize| times.get((samples * percent).div_ceil(100).max(1) - 1).copied();
        for (figure, value, goal) in [("median", rank(50), median_goal), ("p99", rank(99), p99_goal)] {
            let row = Row {
                name: name.to_owned(),
                figure,
                value: value.map(ms),
                unit: "ms",
                goal: goal.map(ms),
                samples,
                missing: None,
            };
            self.add(row);
        }
    }

    /// A figure that is no time.
    pub(super) fn amount(&mut self, name: &str, value: f64, unit: &'static str, goal: Option<f64>) {
        let name = name.to_owned();
        self.add(Row { name, figure: "", value: Some(value), unit, goal, samples: 1, missing: None });
    }

    /// Something that this agent cannot do.
    pub(super) fn missing(&mut self, name: &str, why: &str) {
        let (name, missing) = (name.to_owned(), Some(why.to_owned()));
        self.add(Row { name, figure: "", value: None, unit: "", goal: None, samples: 0, missing });
    }

    fn add(&mut self, row: Row) {
        eprintln!("{} ...", row.what());
        self.rows.push(row);
    }

    /// Puts everything into the document.
    pub(super) fn fill(&self, document: &mut Document) -> Result<()> {
        let note =
            "Samples of a time are of single requests; the 99th percentile of few of them is the greatest.";
        let mut table =
            Table::new("The agent, beside its goals", &["what", "seen", "n", "goal", "of it"], note);
        let mut shares = Series { name: "share of the goal".to_owned(), points: Vec::new() };
        let mut names = Vec::new();
        for row in &self.rows {
            document.add(row)?;
            table.rows.push(row.cells());
            if let Some(share) = row.share() {
                shares.points.push(Point::plain(names.len() as f64, share));
                names.push((names.len() + 1).to_string());
            }
        }
        document.tables.push(table);
        let title = "Figures with a goal, in the order of the table: 1 and less is as wanted".to_owned();
        let (x, y) = (Axis::named(names), Axis::of("share of the goal"));
        document.charts.push(Chart { title, x, y, series: vec![shares] });
        Ok(())
    }
}

impl Row {
    fn what(&self) -> String {
        format!("{} {}", self.name, self.figure).trim_end().to_owned()
    }

    /// What part of the goal was used up.
    fn share(&self) -> Option<f64> {
        Some(self.value? / self.goal.filter(|goal| *goal > 0.0)?)
    }

    fn cells(&self) -> Vec<String> {
        let Some(value) = self.value else {
            let why = self.missing.as_deref().unwrap_or("-");
            return vec![self.what(), format!("SKIPPED: {why}"), String::new(), String::new(), String::new()];
        };
        let unit = self.unit;
        let held = match (self.share(), self.goal) {
            (Some(share), _) if share <= 1.0 => format!("{share:.2}"),
            (Some(share), _) => format!("{share:.2}, MISSED"),
            (None, Some(_)) if value > 0.0 => "MISSED".to_owned(),
            (None, Some(_)) => "held".to_owned(),
            (None, None) => String::new(),
        };
        let goal = self.goal.map(|goal| format!("{goal} {unit}").trim_end().to_owned());
        let seen = format!("{value:.2} {unit}").trim_end().to_owned();
        vec![self.what(), seen, self.samples.to_string(), goal.unwrap_or_default(), held]
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn ranks_are_of_the_samples() {
        let mut report = Report::default();
        let mut times: Vec<Duration> = (1..=200).rev().map(Duration::from_millis).collect();
        report.times("x", &mut times, Some(Duration::from_millis(50)), None);
        let values: Vec<_> = report.rows.iter().map(|row| (row.figure, row.value)).collect();
        assert_eq!(values, [("median", Some(100.0)), ("p99", Some(198.0))]);
        assert_eq!(report.rows[0].cells(), ["x median", "100.00 ms", "200", "50 ms", "2.00, MISSED"]);
    }
}
