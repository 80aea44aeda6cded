//! Rows: what was measured, and the goal.

use std::time::Duration;

use serde::Serialize;

/// One figure.
#[derive(Debug, Serialize)]
pub(crate) struct Row {
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
#[derive(Debug, Default, Serialize)]
pub(crate) struct Report {
    rows: Vec<Row>,
}

impl Report {
    /// Median, 99th percentile and maximum of times.
    pub(crate) fn times(
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
    pub(crate) fn amount(&mut self, name: &str, value: f64, unit: &'static str, goal: Option<f64>) {
        let name = name.to_owned();
        self.add(Row { name, figure: "", value: Some(value), unit, goal, samples: 1, missing: None });
    }

    /// Something that this agent cannot do.
    pub(crate) fn missing(&mut self, name: &str, why: &str) {
        let (name, missing) = (name.to_owned(), Some(why.to_owned()));
        self.add(Row { name, figure: "", value: None, unit: "", goal: None, samples: 0, missing });
    }

    fn add(&mut self, row: Row) {
        eprintln!("{}", row.line());
        self.rows.push(row);
    }
}

impl Row {
    fn line(&self) -> String {
        let Self { name, figure, unit, samples, .. } = self;
        let what = format!("{name} {figure}");
        let Some(value) = self.value else {
            return format!("{what:<66} {}", self.missing.as_deref().unwrap_or("-"));
        };
        let value = format!("{value:.2} {unit}");
        let held = match self.goal {
            Some(goal) if goal > 0.0 => {
                let ratio = self.value.unwrap_or_default() / goal;
                format!("goal {goal} {unit}: {ratio:.2} of it{}", if ratio <= 1.0 { "" } else { ", MISSED" })
            }
            Some(_) if self.value == Some(0.0) => "goal 0: held".to_owned(),
            Some(_) => "goal 0: MISSED".to_owned(),
            None => String::new(),
        };
        format!("{what:<66} {value:>12}  n={samples:<4} {held}")
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
        assert!(report.rows[0].line().contains("2.00 of it, MISSED"), "{}", report.rows[0].line());
    }
}
