//! Latencies in buckets of about 2 %, small enough to send five times a second.

use std::{collections::BTreeMap, time::Duration};

use serde::{Deserialize, Serialize};

/// Each bucket is this much wider than the one before.
const GROWTH: f64 = 1.02;

/// How often which latency was seen.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(from = "Vec<(u32, u64)>", into = "Vec<(u32, u64)>")]
pub(crate) struct Histogram(BTreeMap<u32, u64>);

// Pairs, since a JSON object cannot have numbers as keys inside a tagged message.
impl From<Vec<(u32, u64)>> for Histogram {
    fn from(pairs: Vec<(u32, u64)>) -> Self {
        Self(pairs.into_iter().collect())
    }
}

impl From<Histogram> for Vec<(u32, u64)> {
    fn from(histogram: Histogram) -> Self {
        histogram.0.into_iter().collect()
    }
}

impl Histogram {
    /// Counts one.
    #[expect(
        clippy::cast_possible_truncation,
        clippy::cast_sign_loss,
        reason = "a logarithm of at least one is small and not negative"
    )]
    pub(crate) fn add(&mut self, latency: Duration) {
        let micros = (latency.as_secs_f64() * 1e6).max(1.0);
        *self.0.entry((micros.ln() / GROWTH.ln()) as u32).or_default() += 1;
    }

    /// Adds another one.
    pub(crate) fn merge(&mut self, other: &Self) {
        for (bucket, count) in &other.0 {
            *self.0.entry(*bucket).or_default() += count;
        }
    }

    /// How many were counted.
    pub(crate) fn count(&self) -> u64 {
        self.0.values().sum()
    }

    /// The latency in milliseconds that `share` (0..=1) of those counted do not exceed; none if none were.
    #[expect(
        clippy::cast_possible_truncation,
        clippy::cast_sign_loss,
        clippy::cast_precision_loss,
        reason = "counts of a demo are far below 2^52"
    )]
    pub(crate) fn quantile_ms(&self, share: f64) -> Option<f64> {
        let rank = (self.count() as f64 * share).ceil().max(1.0) as u64;
        let mut seen = 0;
        for (bucket, count) in &self.0 {
            seen += count;
            if seen >= rank {
                return Some(GROWTH.powf(f64::from(*bucket) + 0.5) / 1e3);
            }
        }
        None
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::Histogram;

    #[test]
    fn quantiles_are_within_a_bucket() {
        let mut histogram = Histogram::default();
        (1..=1000).for_each(|ms| histogram.add(Duration::from_millis(ms)));
        for (share, ms) in [(0.5, 500.0), (0.99, 990.0), (1.0, 1000.0)] {
            let got = histogram.quantile_ms(share).expect("there are samples");
            assert!((got / ms - 1.0).abs() < 0.02, "{share}: {got} instead of {ms}");
        }
        assert_eq!(Histogram::default().quantile_ms(0.5), None);
        let line = serde_json::to_string(&histogram).expect("a histogram is JSON");
        assert_eq!(serde_json::from_str::<Histogram>(&line).expect("and back"), histogram);
    }
}
