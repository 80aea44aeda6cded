//! What a benchmark hands over: its figures, and the same as tables and charts for people.

use std::{collections::BTreeMap, fmt};

use anyhow::Result;
use serde::Serialize;

use super::{Machine, Options};
use crate::measure::calm::CpuTime;

/// All that one run of a benchmark found.
#[derive(Debug, Serialize)]
pub struct Document {
    /// Which one.
    pub bench: &'static str,
    /// When it began, RFC 3339.
    pub date: String,
    /// Where.
    pub machine: Machine,
    /// Fewer and shorter samples: nothing to be quoted.
    pub quick: bool,
    /// How often everything was measured.
    pub rounds: usize,
    /// Percent of the time of all CPUs that a hypervisor gave to others meanwhile.
    pub stolen_percent: f64,
    /// Single figures, by their names.
    pub facts: BTreeMap<&'static str, f64>,
    /// Every figure, with its spread.
    pub rows: Vec<serde_json::Value>,
    /// The same of other programs, beside ours in the same place.
    pub others: Vec<serde_json::Value>,
    /// For people.
    pub tables: Vec<Table>,
    /// For people.
    pub charts: Vec<Chart>,
    #[serde(skip)]
    begun: CpuTime,
}

impl Document {
    /// The document of a run that begins now.
    #[must_use]
    pub fn begin(bench: &'static str, options: &Options, rounds: usize) -> Self {
        Self {
            bench,
            date: humantime::format_rfc3339_seconds(std::time::SystemTime::now()).to_string(),
            machine: Machine::here(),
            quick: options.quick,
            rounds,
            stolen_percent: 0.0,
            facts: BTreeMap::new(),
            rows: Vec::new(),
            others: Vec::new(),
            tables: Vec::new(),
            charts: Vec::new(),
            begun: CpuTime::now(),
        }
    }

    /// Adds figures.
    ///
    /// # Errors
    /// When they cannot be said in JSON.
    pub fn add(&mut self, row: &impl Serialize) -> Result<()> {
        self.rows.push(serde_json::to_value(row)?);
        Ok(())
    }

    /// Shows the tables on standard error, and writes everything to standard output.
    ///
    /// # Errors
    /// When it cannot be said in JSON.
    pub fn finish(mut self) -> Result<()> {
        self.stolen_percent = self.begun.stolen_since_percent();
        for table in &self.tables {
            eprintln!("\n{table}");
        }
        eprintln!("{}", self.machine.told());
        eprintln!("{} rounds; {:.1} % of the CPU time stolen", self.rounds, self.stolen_percent);
        println!("{}", serde_json::to_string_pretty(&self)?);
        Ok(())
    }
}

/// Words and figures in columns.
#[derive(Debug, Serialize)]
pub struct Table {
    /// What it shows.
    pub title: String,
    /// Heads of the columns.
    pub columns: Vec<String>,
    /// As many cells as columns.
    pub rows: Vec<Vec<String>>,
    /// What has to be known to read it; may be empty.
    pub note: String,
}

impl Table {
    /// One without rows.
    #[must_use]
    pub fn new(title: &str, columns: &[&str], note: &str) -> Self {
        let columns = columns.iter().map(|&column| column.to_owned()).collect();
        Self { title: title.to_owned(), columns, rows: Vec::new(), note: note.to_owned() }
    }
}

impl fmt::Display for Table {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { title, columns, rows, note } = self;
        writeln!(f, "{title}")?;
        let lines = || std::iter::once(columns).chain(rows);
        let width = |column: usize| {
            lines().filter_map(|line: &Vec<String>| Some(line.get(column)?.chars().count())).max()
        };
        let widths: Vec<usize> = (0..columns.len()).map(|column| width(column).unwrap_or(0)).collect();
        for line in lines() {
            let mut cells = line.iter().zip(&widths);
            // Names stand at the left, figures at the right.
            if let Some((name, width)) = cells.next() {
                write!(f, "{name:<width$}")?;
            }
            for (cell, width) in cells {
                write!(f, "  {cell:>width$}")?;
            }
            writeln!(f)?;
        }
        if !note.is_empty() {
            writeln!(f, "{note}")?;
        }
        Ok(())
    }
}

/// Curves, or bars where the places of the x axis have names.
#[derive(Debug, Serialize)]
pub struct Chart {
    /// What it shows.
    pub title: String,
    /// To the right.
    pub x: Axis,
    /// Upwards.
    pub y: Axis,
    /// In the order of the legend.
    pub series: Vec<Series>,
}

/// One axis.
#[derive(Debug, Default, Serialize)]
pub struct Axis {
    /// What stands along it, with the unit.
    pub label: String,
    /// Whether it is logarithmic.
    pub log: bool,
    /// Names of the places 0, 1, 2, ...; empty for figures.
    pub places: Vec<String>,
}

impl Axis {
    /// An axis of figures.
    #[must_use]
    pub fn of(label: &str) -> Self {
        Self { label: label.to_owned(), ..Self::default() }
    }

    /// A logarithmic axis of figures.
    #[must_use]
    pub fn log(label: &str) -> Self {
        Self { log: true, ..Self::of(label) }
    }

    /// An axis of names.
    #[must_use]
    pub fn named(places: impl IntoIterator<Item = String>) -> Self {
        Self { places: places.into_iter().collect(), ..Self::default() }
    }
}

/// What belongs together in a chart.
#[derive(Debug, Serialize)]
pub struct Series {
    /// In the legend.
    pub name: String,
    /// From left to right.
    pub points: Vec<Point>,
}

/// One figure in a chart.
#[derive(Clone, Copy, Debug, Serialize)]
pub struct Point {
    /// Along the x axis.
    pub x: f64,
    /// Along the y axis.
    pub y: f64,
    /// Where the spread begins and ends; both `y` where there is none.
    pub low: f64,
    /// See `low`.
    pub high: f64,
}

impl Point {
    /// A figure with its spread.
    #[must_use]
    pub const fn spread(x: f64, y: super::Spread) -> Self {
        Self { x, y: y.median, low: y.low, high: y.high }
    }

    /// A figure.
    #[must_use]
    pub const fn plain(x: f64, y: f64) -> Self {
        Self { x, y, low: y, high: y }
    }
}

#[cfg(test)]
mod tests {
    use super::Table;

    #[test]
    fn columns_are_as_wide_as_their_widest_cell() {
        let mut table = Table::new("A table", &["what", "ns"], "");
        table.rows.push(vec!["–".to_owned(), "1234".to_owned()]);
        assert_eq!(table.to_string(), "A table\nwhat    ns\n–     1234\n");
    }
}
