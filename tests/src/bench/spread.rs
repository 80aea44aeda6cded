//! Samples in three figures.

use serde::Serialize;

/// The middle of samples, and where the middle half of them lies.
#[derive(Clone, Copy, Debug, PartialEq, Serialize)]
pub struct Spread {
    /// Half of the samples are below it.
    pub median: f64,
    /// A quarter of the samples is below it.
    pub low: f64,
    /// A quarter of the samples is above it.
    pub high: f64,
    /// How many there are.
    pub samples: usize,
}

impl Spread {
    /// None of no samples.
    #[must_use]
    pub fn of(samples: &[f64]) -> Option<Self> {
        let mut sorted = samples.to_vec();
        sorted.sort_by(f64::total_cmp);
        let at = |percent| quantile(&sorted, percent);
        Some(Self { median: at(50)?, low: at(25)?, high: at(75)?, samples: sorted.len() })
    }

    /// In a table: the median, and the quarters in brackets.
    #[must_use]
    pub fn told(&self, digits: usize) -> String {
        let Self { median, low, high, .. } = self;
        format!("{median:.digits$} ({low:.digits$}–{high:.digits$})")
    }

    /// One standard error of the median, if the samples are spread as by a normal distribution and do not depend on
    /// each other: 1.253 standard deviations over the root of their number, 1.349 of which are between the quarters.
    #[must_use]
    #[expect(clippy::cast_precision_loss, reason = "samples are few")]
    pub fn unsure(&self) -> f64 {
        1.253 * (self.high - self.low) / 1.349 / (self.samples as f64).sqrt()
    }
}

/// Between the two samples around the place.
fn quantile(sorted: &[f64], percent: usize) -> Option<f64> {
    let place = sorted.len().checked_sub(1)? * percent;
    let (index, rest) = (place / 100, place % 100);
    let low = sorted.get(index)?;
    let high = sorted.get(index + 1).unwrap_or(low);
    #[expect(clippy::cast_precision_loss, reason = "below 100")]
    let share = rest as f64 / 100.0;
    Some(low + (high - low) * share)
}

#[cfg(test)]
mod tests {
    use super::Spread;

    #[test]
    fn the_middle_and_the_quarters() {
        let spread = Spread::of(&[5.0, 1.0, 2.0, 4.0, 3.0]).unwrap();
        assert_eq!(spread, Spread { median: 3.0, low: 2.0, high: 4.0, samples: 5 });
        assert_eq!(spread.told(1), "3.0 (2.0–4.0)");
        assert_eq!(Spread::of(&[1.0, 2.0]).unwrap().told(2), "1.50 (1.25–1.75)");
        assert_eq!(Spread::of(&[]), None);
        assert!((spread.unsure() - 0.83).abs() < 0.005, "{}", spread.unsure());
    }
}
