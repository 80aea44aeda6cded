//! Prometheus' text format, read as strictly as `promtool check metrics` and the naming conventions
//! (<https://prometheus.io/docs/practices/naming/>) have it.

use std::collections::{BTreeMap, BTreeSet};

use anyhow::{Context as _, Result, bail, ensure};

/// Everything of one scrape.
#[derive(Clone, Debug, Default)]
pub struct Scrape {
    /// Type by the name of the family.
    pub families: BTreeMap<String, String>,
    /// Value by the name and the labels of the series, as they were written.
    pub samples: BTreeMap<String, f64>,
}

/// Suffixes that a series of a histogram has.
const OF_HISTOGRAM: [&str; 3] = ["_bucket", "_sum", "_count"];

impl Scrape {
    /// Reads a page.
    ///
    /// # Errors
    /// When it is not as the format and the conventions have it.
    pub fn parse(text: &str) -> Result<Self> {
        ensure!(text.ends_with('\n'), "the last line has no end");
        let mut scrape = Self::default();
        let mut family = None;
        let mut helped = BTreeSet::new();
        for line in text.lines() {
            if let Some(rest) = line.strip_prefix("# HELP ") {
                let (name, help) = rest.split_once(' ').with_context(|| format!("no help: {line}"))?;
                ensure!(help.ends_with('.'), "the help of {name} is no sentence: {help}");
                ensure!(helped.insert(name.to_owned()), "{name} has two help texts");
                family = None;
            } else if let Some(rest) = line.strip_prefix("# TYPE ") {
                let (name, kind) = rest.split_once(' ').with_context(|| format!("no type: {line}"))?;
                check_name(name, kind)?;
                ensure!(helped.contains(name), "{name} has no help before its type");
                let known = scrape.families.insert(name.to_owned(), kind.to_owned());
                ensure!(known.is_none(), "{name} comes twice");
                family = Some((name.to_owned(), kind.to_owned()));
            } else {
                let (name, kind) = family.as_ref().with_context(|| format!("of no family: {line}"))?;
                scrape.sample(line, name, kind).with_context(|| format!("in the line {line}"))?;
            }
        }
        scrape.check_histograms()?;
        Ok(scrape)
    }

    fn sample(&mut self, line: &str, family: &str, kind: &str) -> Result<()> {
        let (series, value) = line.rsplit_once(' ').context("no value")?;
        let name = series.split('{').next().unwrap_or_default();
        let is_of = name == family
            || (kind == "histogram" && OF_HISTOGRAM.iter().any(|end| name == format!("{family}{end}")));
        ensure!(is_of, "it is not of the family {family}");
        let labels = labels(series)?;
        ensure!(
            labels.contains_key("le") == (kind == "histogram" && name.ends_with("_bucket")),
            "`le` is for buckets"
        );
        let value: f64 = value.parse().with_context(|| format!("the value {value}"))?;
        ensure!(kind == "gauge" || value >= 0.0, "a counter below 0");
        ensure!(self.samples.insert(series.to_owned(), value).is_none(), "the series comes twice");
        Ok(())
    }

    /// Classes are cumulative, and the last holds all.
    fn check_histograms(&self) -> Result<()> {
        let mut buckets: BTreeMap<String, Vec<(f64, f64)>> = BTreeMap::new();
        for (series, value) in &self.samples {
            let Some((name, _)) = series.split_once("_bucket{") else { continue };
            let mut labels = labels(series)?;
            let end: f64 = labels.remove("le").context("no end")?.parse()?;
            buckets.entry(format!("{name} {labels:?}")).or_default().push((end, *value));
        }
        for (series, mut classes) in buckets {
            classes.sort_by(|a, b| a.0.total_cmp(&b.0));
            ensure!(classes.is_sorted_by(|a, b| a.1 <= b.1), "{series} is not cumulative: {classes:?}");
            ensure!(classes.last().is_some_and(|last| last.0.is_infinite()), "{series} has no +Inf");
        }
        Ok(())
    }

    /// The value of the series with this name and all of these labels; 0 = none of the kind.
    #[must_use]
    pub fn sum(&self, name: &str, wanted: &[(&str, &str)]) -> f64 {
        let of = |series: &str| {
            let known = labels(series).unwrap_or_default();
            series.split('{').next() == Some(name)
                && wanted.iter().all(|(label, value)| known.get(*label).map(String::as_str) == Some(*value))
        };
        self.samples.iter().filter(|(series, _)| of(series)).map(|(_, value)| value).sum()
    }

    /// Series that only ever grow, and those whose value fell since `before`.
    #[must_use]
    pub fn fallen(&self, before: &Self) -> Vec<String> {
        let grows = |series: &str| {
            let name = series.split('{').next().unwrap_or_default();
            name.ends_with("_total") || OF_HISTOGRAM.iter().any(|end| name.ends_with(end))
        };
        let fell = |(series, value): (&String, &f64)| {
            let now = self.samples.get(series)?;
            (grows(series) && now < value).then(|| format!("{series}: {value}, then {now}"))
        };
        before.samples.iter().filter_map(fell).collect()
    }
}

/// What the conventions say about names.
fn check_name(name: &str, kind: &str) -> Result<()> {
    let is_plain =
        name.bytes().all(|byte| byte.is_ascii_lowercase() || byte.is_ascii_digit() || byte == b'_');
    ensure!(is_plain && name.starts_with("chaos_"), "the name {name}");
    ensure!(["counter", "gauge", "histogram"].contains(&kind), "{name} is a {kind}");
    ensure!(
        (kind == "counter") == name.ends_with("_total"),
        "a counter, and nothing else, ends in _total: {name}"
    );
    for wrong in ["_ms", "_ns", "_us", "_milliseconds", "_minutes", "_kilobytes", "_percent", kind] {
        let has = name.contains(&format!("{wrong}_")) || name.ends_with(wrong);
        ensure!(!has, "{name} has {wrong} in its name: base units, no types");
    }
    ensure!(!OF_HISTOGRAM.iter().any(|end| name.ends_with(end)), "{name} ends like a part of a histogram");
    Ok(())
}

/// The labels of a series.
pub(crate) fn labels(series: &str) -> Result<BTreeMap<String, String>> {
    let mut labels = BTreeMap::new();
    let Some((_, rest)) = series.split_once('{') else { return Ok(labels) };
    let mut rest = rest;
    while rest != "}" {
        let (name, after) = rest.split_once("=\"").context("a label without a value")?;
        let mut value = String::new();
        let mut chars = after.char_indices();
        let end = loop {
            match chars.next().context("a value without an end")? {
                (at, '"') => break at,
                (_, '\\') => match chars.next().context("an escape without an end")?.1 {
                    'n' => value.push('\n'),
                    known @ ('\\' | '"') => value.push(known),
                    other => bail!("the escape \\{other}"),
                },
                (_, other) => value.push(other),
            }
        };
        ensure!(
            !name.is_empty() && name.bytes().all(|byte| byte.is_ascii_lowercase() || byte == b'_'),
            "the label {name}"
        );
        ensure!(labels.insert(name.to_owned(), value).is_none(), "the label {name} comes twice");
        rest = after.get(end + 1..).unwrap_or_default();
        rest = rest.strip_prefix(',').unwrap_or(rest);
    }
    Ok(labels)
}

#[cfg(test)]
mod tests {
    #![expect(clippy::unwrap_used, reason = "a failed unwrap in a test is a failed test")]

    use super::*;

    #[test]
    fn what_is_wrong_is_refused() {
        let good = "# HELP chaos_x_total A.\n# TYPE chaos_x_total counter\nchaos_x_total{a=\"b\\\"\"} 1\n";
        assert!((Scrape::parse(good).unwrap().sum("chaos_x_total", &[("a", "b\"")]) - 1.0).abs() < 1e-9);
        for (from, to) in [
            ("_total", ""),
            (" counter", " gauge"),
            ("# HELP chaos_x_total A.\n", ""),
            ("# TYPE chaos_x_total counter\n", ""),
            (" 1\n", " x\n"),
            (" 1\n", " -1\n"),
            (" 1\n", " 1"),
            ("chaos_x", "chaos_x_ms"),
            ("a=\"b\\\"\"", "a=\"b"),
        ] {
            let bad = good.replace(from, to);
            assert!(Scrape::parse(&bad).is_err(), "{bad}");
        }
        let twice = format!("{good}chaos_x_total{{a=\"b\\\"\"}} 2\n");
        assert!(Scrape::parse(&twice).is_err(), "{twice}");
    }
}
