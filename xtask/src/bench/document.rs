//! What a measuring program prints (`tests/src/bench/document.rs`), as far as people look at it.

use std::fmt::Write as _;

use serde::Deserialize;

/// The document of one run.
#[derive(Debug, Deserialize)]
pub(super) struct Document {
    date: String,
    machine: Machine,
    pub(super) quick: bool,
    rounds: usize,
    stolen_percent: f64,
    tables: Vec<Table>,
    pub(super) charts: Vec<Chart>,
}

#[derive(Debug, Deserialize)]
struct Machine {
    cpu: String,
    cores: usize,
    memory_mib: u64,
    kernel: String,
    governor: Option<String>,
    is_virtual: bool,
}

#[derive(Debug, Deserialize)]
struct Table {
    title: String,
    columns: Vec<String>,
    rows: Vec<Vec<String>>,
    note: String,
}

/// Curves, or bars where the x axis has names.
#[derive(Debug, Deserialize)]
pub(super) struct Chart {
    pub(super) title: String,
    pub(super) x: Axis,
    pub(super) y: Axis,
    pub(super) series: Vec<Series>,
}

#[derive(Debug, Deserialize)]
pub(super) struct Axis {
    pub(super) label: String,
    pub(super) log: bool,
    pub(super) places: Vec<String>,
}

#[derive(Debug, Deserialize)]
pub(super) struct Series {
    pub(super) name: String,
    pub(super) points: Vec<Point>,
}

#[derive(Clone, Copy, Debug, Deserialize)]
pub(super) struct Point {
    pub(super) x: f64,
    pub(super) y: f64,
    pub(super) low: f64,
    pub(super) high: f64,
}

impl Document {
    /// What is written about the run named `name`, whose plot is at `plot`.
    pub(super) fn markdown(&self, name: &str, plot: &str) -> String {
        let Machine { cpu, cores, memory_mib, kernel, governor, is_virtual } = &self.machine;
        let kind = if *is_virtual { "virtual, " } else { "" };
        let governor = governor.as_deref().unwrap_or("not told");
        let day = self.date.split('T').next().unwrap_or_default();
        let quick = if self.quick { " --quick` (**not for quoting**)" } else { "`" };
        let mut text = format!(
            "`cargo xtask bench {name}{quick}, {day}: {kind}{cpu}, {cores} CPUs, {memory_mib} MiB, Linux {kernel}, \
             governor {governor}; {} rounds, {:.1} % of the CPU time stolen by the host.\n",
            self.rounds, self.stolen_percent
        );
        for table in &self.tables {
            table.markdown(&mut text);
        }
        if !self.charts.is_empty() {
            let _ = write!(text, "\n![{name}]({plot})\n");
        }
        text
    }
}

impl Table {
    fn markdown(&self, text: &mut String) {
        let line = |cells: &[String]| {
            let cells: Vec<String> = cells.iter().map(|cell| cell.replace('|', "\\|")).collect();
            format!("| {} |\n", cells.join(" | "))
        };
        let _ = write!(text, "\n**{}**\n\n{}", self.title, line(&self.columns));
        let _ = writeln!(text, "|---|{}", "--:|".repeat(self.columns.len().saturating_sub(1)));
        self.rows.iter().for_each(|row| text.push_str(&line(row)));
        if !self.note.is_empty() {
            // Each line of a note is a sentence of its own.
            let _ = write!(text, "\n{}\n", self.note.trim().replace('\n', "  \n"));
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_run_becomes_markdown() {
        let document = serde_json::json!({
            "bench": "x", "date": "2026-01-02T03:04:05Z", "quick": true, "rounds": 2, "stolen_percent": 0.25,
            "machine": {"cpu": "C", "cores": 2, "memory_mib": 9, "kernel": "6.1", "governor": null, "is_virtual": true},
            "rows": [], "charts": [],
            "tables": [{"title": "T", "columns": ["a", "b"], "rows": [["x|y", "1"]], "note": "N."}],
        });
        let document: Document = serde_json::from_value(document).expect("a document");
        let text = document.markdown("x", "x.svg");
        assert!(
            text.starts_with(
                "`cargo xtask bench x --quick` (**not for quoting**), 2026-01-02: virtual, C, 2"
            )
        );
        assert!(text.ends_with("**T**\n\n| a | b |\n|---|--:|\n| x\\|y | 1 |\n\nN.\n"), "{text}");
    }
}
