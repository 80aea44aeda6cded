//! Pairs of samples, and what is said of them.

use std::fmt::Write as _;

use anyhow::Result;
use chaos_tests::bench::{Axis, Chart, Document, Point, Series, Spread, Table};
use serde::Serialize;

use super::{
    condition::Condition,
    load::{Load, Reading},
};

/// One load under one condition.
#[derive(Debug)]
pub(super) struct Row {
    pub(super) load: Load,
    pub(super) condition: Condition,
    pairs: Vec<(Reading, Reading)>,
    /// What the agent took of a CPU meanwhile, in each round.
    pub(super) agent_percent: Vec<f64>,
    skipped: Option<String>,
    failed: Option<String>,
}

/// The same as figures.
#[derive(Debug, Serialize)]
struct Figures {
    load: &'static str,
    condition: &'static str,
    unit: &'static str,
    /// Beside this condition, without it.
    direct: Option<Spread>,
    rate: Option<Spread>,
    /// Of each pair.
    ratio: Option<Spread>,
    direct_latency_us: Option<Spread>,
    latency_us: Option<Spread>,
    latency_ratio: Option<Spread>,
    /// What the agent took of a CPU meanwhile.
    agent_percent: Option<Spread>,
    /// The least ratio that is wanted.
    goal: Option<f64>,
    skipped: Option<String>,
    failed: Option<String>,
}

impl Row {
    /// Every load under every condition.
    pub(super) fn all(loads: &[Load]) -> Vec<Self> {
        let row = |load: &Load, condition: Condition| {
            let proxied = condition == Condition::Proxy && !load.is_tcp();
            let no_way = proxied.then(|| "a TCP proxy does not carry UDP".to_owned());
            let skipped = load.missing().or_else(|| condition.missing()).or(no_way);
            Self {
                load: *load,
                condition,
                pairs: Vec::new(),
                agent_percent: Vec::new(),
                skipped,
                failed: None,
            }
        };
        loads.iter().flat_map(|load| Condition::ALL.map(|condition| row(load, condition))).collect()
    }

    pub(super) fn title(&self) -> String {
        format!("{}, {}", self.load.name, self.condition.name())
    }

    /// It went wrong, and is not measured any more.
    pub(super) fn fail(&mut self, why: String) {
        eprintln!("\n{}: {why}", self.title());
        self.failed = Some(why);
    }

    pub(super) const fn has_failed(&self) -> bool {
        self.failed.is_some()
    }

    pub(super) const fn is_measured(&self) -> bool {
        self.skipped.is_none() && self.failed.is_none()
    }

    pub(super) fn add(&mut self, direct: Reading, under: Reading) {
        self.pairs.push((direct, under));
    }

    fn spread(&self, figure: impl Fn(&Reading, &Reading) -> Option<f64>) -> Option<Spread> {
        let samples: Option<Vec<f64>> =
            self.pairs.iter().map(|(direct, under)| figure(direct, under)).collect();
        Spread::of(&samples?)
    }

    fn ratio(&self) -> Option<Spread> {
        self.spread(|direct, under| Some(under.rate / direct.rate))
    }

    fn latency_ratio(&self) -> Option<Spread> {
        self.spread(|direct, under| Some(under.latency_us? / direct.latency_us?))
    }

    fn figures(&self) -> Figures {
        Figures {
            load: self.load.name,
            condition: self.condition.name(),
            unit: self.load.unit,
            direct: self.spread(|direct, _| Some(direct.rate)),
            rate: self.spread(|_, under| Some(under.rate)),
            ratio: self.ratio(),
            direct_latency_us: self.spread(|direct, _| direct.latency_us),
            latency_us: self.spread(|_, under| under.latency_us),
            latency_ratio: self.latency_ratio(),
            agent_percent: Spread::of(&self.agent_percent),
            goal: self.condition.goal(),
            skipped: self.skipped.clone(),
            failed: self.failed.clone(),
        }
    }
}

/// Puts everything into the document.
pub(super) fn fill(document: &mut Document, loads: &[Load], rows: &[Row]) -> Result<()> {
    for row in rows {
        document.add(&row.figures())?;
    }
    let mut rates = table("Throughput, as a share of direct", &note(rows));
    let mut latencies = table("Median time of an answer, as a multiple of direct", "");
    for load in loads {
        let of_load: Vec<&Row> = rows.iter().filter(|row| row.load.name == load.name).collect();
        let direct = of_load.iter().find_map(|row| row.spread(|direct, _| Some(direct.rate)));
        let told = direct
            .map_or("–".to_owned(), |direct| format!("{:.*} {}", load.digits(), direct.median, load.unit));
        rates.rows.push(line(load, told, of_load.iter().map(|row| cell(row, row.ratio()))));
        let direct = of_load.iter().find_map(|row| row.spread(|direct, _| direct.latency_us));
        if let Some(direct) = direct {
            let told = format!("{:.0} µs", direct.median);
            latencies.rows.push(line(load, told, of_load.iter().map(|row| cell(row, row.latency_ratio()))));
        }
    }
    for row in rows {
        for (word, why) in [("SKIPPED", &row.skipped), ("FAILED", &row.failed)] {
            if let Some(why) = why {
                let _ = write!(rates.note, "\n{word}: {}: {why}", row.title());
            }
        }
    }
    document.tables.push(rates);
    if !latencies.rows.is_empty() {
        document.tables.push(latencies);
    }
    document.charts.push(chart(loads, rows));
    Ok(())
}

fn note(rows: &[Row]) -> String {
    let armed = rows.iter().filter(|row| row.condition == Condition::Rules);
    let percent: Vec<f64> = armed.flat_map(|row| row.agent_percent.iter().copied()).collect();
    let percent = Spread::of(&percent).map_or("–".to_owned(), |percent| percent.told(1));
    format!(
        "Median of the pairs, by how much it may be off (one standard error), in brackets the middle half. \
         `direct again` has nothing of ours anywhere: how far the method can be trusted. Wanted: 0.97 for whatever no \
         rule hits. Among 1,000 rules the agent took {percent} % of one CPU meanwhile."
    )
}

fn table(title: &str, note: &str) -> Table {
    let mut table = Table::new(title, &["load", "direct"], note);
    table.columns.extend(Condition::ALL.map(|condition| condition.name().to_owned()));
    table
}

fn line(load: &Load, direct: String, cells: impl Iterator<Item = String>) -> Vec<String> {
    [load.name.to_owned(), direct].into_iter().chain(cells).collect()
}

fn cell(row: &Row, ratio: Option<Spread>) -> String {
    match ratio {
        _ if row.has_failed() => "FAILED".to_owned(),
        _ if !row.is_measured() => "SKIPPED".to_owned(),
        Some(ratio) => {
            let Spread { median, low, high, .. } = ratio;
            format!("{median:.2} ±{:.2} ({low:.2}–{high:.2})", ratio.unsure())
        }
        None => "–".to_owned(),
    }
}

fn chart(loads: &[Load], rows: &[Row]) -> Chart {
    let series = |condition: Condition| {
        let of_condition = rows.iter().filter(|row| row.condition == condition);
        let ratios = of_condition.enumerate().filter(|(_, row)| row.is_measured());
        let points = ratios.filter_map(|(place, row)| Some(Point::spread(place as f64, row.ratio()?)));
        Series { name: condition.name().to_owned(), points: points.collect() }
    };
    Chart {
        title: "Throughput beside direct".to_owned(),
        x: Axis::named(loads.iter().map(|load| load.name.to_owned())),
        y: Axis::of("share of direct"),
        series: Condition::ALL.into_iter().map(series).collect(),
    }
}
