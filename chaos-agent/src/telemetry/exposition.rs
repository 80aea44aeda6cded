//! Prometheus' text format, version 0.0.4, of values that somebody else counts.

use prometheus::{
    TextEncoder,
    proto::{Bucket, Counter, Gauge, Histogram, LabelPair, Metric, MetricFamily, MetricType},
};

/// What `/metrics` is.
pub(crate) const CONTENT_TYPE: &str = prometheus::TEXT_FORMAT;

/// Metrics of one name, with a help text.
pub(super) struct Family(MetricFamily);

/// Families as they are written, in the order in which they were begun.
#[derive(Default)]
pub(super) struct Page(Vec<MetricFamily>);

impl Page {
    /// Adds a family; one without any metric is left out.
    pub(super) fn add(&mut self, family: Family) {
        if !family.0.get_metric().is_empty() {
            self.0.push(family.0);
        }
    }

    /// Adds a family of one gauge without labels.
    pub(super) fn gauge(&mut self, name: &str, help: &str, value: f64) {
        let mut family = Family::gauges(name, help);
        family.gauge(&[], value);
        self.add(family);
    }

    /// Adds a family of one counter without labels.
    pub(super) fn counter(&mut self, name: &str, help: &str, value: u64) {
        let mut family = Family::counters(name, help);
        family.counter(&[], value);
        self.add(family);
    }

    /// The text.
    pub(super) fn text(&self) -> String {
        // It fails for a family without a name or without metrics, which there are none of.
        TextEncoder::new().encode_to_string(&self.0).unwrap_or_else(|error| {
            tracing::error!("the metrics cannot be written: {error}");
            String::new()
        })
    }
}

impl Family {
    fn new(name: &str, help: &str, kind: MetricType) -> Self {
        let mut family = MetricFamily::default();
        family.set_name(name.to_owned());
        family.set_help(help.to_owned());
        family.set_field_type(kind);
        Self(family)
    }

    pub(super) fn gauges(name: &str, help: &str) -> Self {
        Self::new(name, help, MetricType::GAUGE)
    }

    pub(super) fn counters(name: &str, help: &str) -> Self {
        Self::new(name, help, MetricType::COUNTER)
    }

    pub(super) fn histograms(name: &str, help: &str) -> Self {
        Self::new(name, help, MetricType::HISTOGRAM)
    }

    pub(super) fn gauge(&mut self, labels: &[(&str, &str)], value: f64) {
        let mut gauge = Gauge::default();
        gauge.set_value(value);
        let mut metric = metric(labels);
        metric.set_gauge(gauge);
        self.0.mut_metric().push(metric);
    }

    pub(super) fn counter(&mut self, labels: &[(&str, &str)], value: u64) {
        let mut counter = Counter::default();
        counter.set_value(number(value));
        let mut metric = metric(labels);
        metric.set_counter(counter);
        self.0.mut_metric().push(metric);
    }

    /// `counts[n]` of what was observed is in the class that ends at `ends_ns[n]`; the last is above all ends.
    pub(super) fn histogram(
        &mut self,
        labels: &[(&str, &str)],
        ends_ns: &[u64],
        counts: &[u64],
        sum_ns: u64,
    ) {
        let mut buckets = Vec::new();
        let mut cumulative = 0;
        for (end_ns, count) in ends_ns.iter().zip(counts) {
            cumulative += count;
            let mut bucket = Bucket::default();
            bucket.set_upper_bound(seconds(*end_ns));
            bucket.set_cumulative_count(cumulative);
            buckets.push(bucket);
        }
        let mut histogram = Histogram::default();
        histogram.set_bucket(buckets);
        histogram.set_sample_count(counts.iter().sum());
        histogram.set_sample_sum(seconds(sum_ns));
        let mut metric = metric(labels);
        metric.set_histogram(histogram);
        self.0.mut_metric().push(metric);
    }
}

fn metric(labels: &[(&str, &str)]) -> Metric {
    let pair = |(name, value): &(&str, &str)| {
        let mut pair = LabelPair::default();
        pair.set_name((*name).to_owned());
        pair.set_value((*value).to_owned());
        pair
    };
    Metric::from_label(labels.iter().map(pair).collect())
}

/// Prometheus has but floats; whole numbers are exact up to 2^53.
#[expect(clippy::cast_precision_loss, reason = "the format has no other numbers")]
pub(super) fn number(value: u64) -> f64 {
    value as f64
}

/// Prometheus' base unit of time.
pub(super) fn seconds(ns: u64) -> f64 {
    number(ns) / 1e9
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn labels_are_escaped_and_classes_add_up() {
        let mut page = Page::default();
        let mut family = Family::histograms("x_seconds", "Help.");
        family.histogram(&[("name", "a\"b\\c\nd")], &[1_000_000, 2_000_000], &[1, 2, 3], 1_500_000_000);
        page.add(family);
        page.add(Family::gauges("empty", "Is left out."));
        page.counter("y_total", "Help.", 1 << 40);
        let text = page.text();
        for line in [
            "# TYPE x_seconds histogram",
            r#"x_seconds_bucket{name="a\"b\\c\nd",le="0.001"} 1"#,
            r#"x_seconds_bucket{name="a\"b\\c\nd",le="0.002"} 3"#,
            r#"x_seconds_bucket{name="a\"b\\c\nd",le="+Inf"} 6"#,
            r#"x_seconds_sum{name="a\"b\\c\nd"} 1.5"#,
            r#"x_seconds_count{name="a\"b\\c\nd"} 6"#,
            "y_total 1099511627776",
        ] {
            assert!(text.lines().any(|one| one == line), "{line} in\n{text}");
        }
        assert!(!text.contains("empty"), "{text}");
    }
}
