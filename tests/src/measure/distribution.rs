//! Samples of a measured time, and how far they are from a distribution.
#![expect(
    clippy::cast_precision_loss,
    clippy::cast_sign_loss,
    reason = "numbers of samples stay far below 2^52, ranks are positive"
)]

use anyhow::{Context, Result, ensure};
use statrs::distribution::{ContinuousCDF, Normal};

use super::stats::CONFIDENCE;

/// Numbers in ascending order.
#[derive(Clone, Debug)]
pub struct Samples(Vec<f64>);

impl Samples {
    /// Sorts them.
    ///
    /// # Errors
    /// When there are none.
    pub fn new(values: impl IntoIterator<Item = f64>) -> Result<Self> {
        let mut values: Vec<f64> = values.into_iter().collect();
        ensure!(!values.is_empty(), "there are no samples");
        values.sort_unstable_by(f64::total_cmp);
        Ok(Self(values))
    }

    /// Nanoseconds as milliseconds.
    ///
    /// # Errors
    /// When there are none.
    pub fn ms(nanoseconds: &[u64]) -> Result<Self> {
        Self::new(nanoseconds.iter().map(|ns| *ns as f64 / 1e6))
    }

    /// How many.
    #[must_use]
    pub fn count(&self) -> usize {
        self.0.len()
    }

    /// The value that this share of the samples does not exceed (nearest rank).
    #[must_use]
    pub fn quantile(&self, share: f64) -> f64 {
        let rank = (share * self.0.len() as f64).ceil().max(1.0);
        self.0[(rank as usize - 1).min(self.0.len() - 1)]
    }

    /// The middle one.
    #[must_use]
    pub fn median(&self) -> f64 {
        self.quantile(0.5)
    }

    /// The average.
    #[must_use]
    pub fn mean(&self) -> f64 {
        self.0.iter().sum::<f64>() / self.0.len() as f64
    }

    /// The greatest.
    #[must_use]
    pub fn max(&self) -> f64 {
        self.quantile(1.0)
    }

    /// The Kolmogorov-Smirnov distance to `theory`, with each sample allowed to be off by `resolution`
    /// (the unit of the samples) to either side: what an instrument of that precision can tell.
    #[must_use]
    pub fn distance(&self, theory: &Theory, resolution: f64) -> f64 {
        let count = self.0.len() as f64;
        let at = |(rank, value): (usize, &f64)| {
            let (below, with) = (rank as f64 / count, (rank + 1) as f64 / count);
            (with - theory.below(value + resolution)).max(theory.below(value - resolution) - below)
        };
        self.0.iter().enumerate().map(at).fold(0.0, f64::max)
    }
}

/// The distance that `count` independent samples exceed once in 1,000 times ([`CONFIDENCE`]), whatever the
/// distribution (Smirnov's limit, good to a percent from some 35 samples on).
#[must_use]
pub fn critical_distance(count: usize) -> f64 {
    ((2.0 / (1.0 - CONFIDENCE)).ln() / 2.0 / count as f64).sqrt()
}

/// The correlation of neighbours in a sequence: 0 for independent values, 1 for a constant drift.
///
/// # Errors
/// When all values are equal or there are fewer than three.
pub fn lag_one_correlation(values: &[f64]) -> Result<f64> {
    ensure!(values.len() >= 3, "three values or more have a correlation");
    let mean = values.iter().sum::<f64>() / values.len() as f64;
    let variance: f64 = values.iter().map(|value| (value - mean).powi(2)).sum();
    ensure!(variance > 0.0, "all values are equal");
    let covariance: f64 = values.windows(2).map(|pair| (pair[0] - mean) * (pair[1] - mean)).sum();
    Ok(covariance / variance)
}

/// A distribution, as its quantiles at equal steps of probability: a table, as netem has them.
#[derive(Clone, Debug)]
pub struct Theory(Vec<f64>);

/// Steps of a table made from a formula; its error in probability is below 1 / `STEPS`.
const STEPS: usize = 8192;

impl Theory {
    /// From a table of quantiles in ascending order, the lowest and the highest value among them.
    ///
    /// # Errors
    /// When there are fewer than two or they are not in order.
    pub fn table(quantiles: Vec<f64>) -> Result<Self> {
        ensure!(quantiles.len() >= 2, "a table has two values or more");
        ensure!(quantiles.is_sorted(), "the quantiles are not in ascending order");
        Ok(Self(quantiles))
    }

    /// From the inverse of its cumulative distribution function; called with probabilities above 0 and below 1.
    #[must_use]
    pub fn inverse_cdf(inverse: impl Fn(f64) -> f64) -> Self {
        let at = |step: usize| inverse((step as f64 + 0.5) / (STEPS + 1) as f64);
        Self((0..=STEPS).map(at).collect())
    }

    /// Even between `low` and `high`.
    #[must_use]
    pub fn uniform(low: f64, high: f64) -> Self {
        Self(vec![low, high])
    }

    /// The bell curve.
    ///
    /// # Errors
    /// When the deviation is not positive.
    pub fn normal(mean: f64, deviation: f64) -> Result<Self> {
        let normal = Normal::new(mean, deviation).context("a normal distribution")?;
        Ok(Self::inverse_cdf(|share| normal.inverse_cdf(share)))
    }

    /// netem's Pareto distribution with this jitter: shape 3, ended at four jitters (iproute2, `netem/pareto.c`),
    /// but, unlike there, with `mean` as its mean: what the end cuts off is given back by a shift of 0.033 jitters.
    #[must_use]
    pub fn pareto(mean: f64, jitter: f64) -> Self {
        Self::around(mean, jitter, pareto)
    }

    /// netem's mixture, a quarter normal and three quarters Pareto at the same probability
    /// (`netem/paretonormal.c`), with `mean` as its mean, too.
    ///
    /// # Errors
    /// Never with finite numbers.
    pub fn pareto_normal(mean: f64, jitter: f64) -> Result<Self> {
        let normal = Normal::new(0.0, 1.0).context("a normal distribution")?;
        let mixed = |share: f64| 0.25 * normal.inverse_cdf(share) + 0.75 * pareto(share);
        Ok(Self::around(mean, jitter, mixed))
    }

    /// A shape in units of the jitter, ended at four of them, shifted so that its mean is zero.
    fn around(mean: f64, jitter: f64, shape: impl Fn(f64) -> f64) -> Self {
        let quantiles = Self::inverse_cdf(shape).0;
        let ended = |value: f64| value.clamp(-4.0, 4.0);
        let mut shift = 0.0;
        for _ in 0..10 {
            let sum: f64 = quantiles.iter().map(|quantile| ended(quantile + shift)).sum();
            shift -= sum / quantiles.len() as f64;
        }
        Self(quantiles.iter().map(|quantile| mean + jitter * ended(quantile + shift)).collect())
    }

    /// The value that this share of the distribution does not exceed.
    #[must_use]
    pub fn quantile(&self, share: f64) -> f64 {
        let last = self.0.len() - 1;
        let place = (share * last as f64).clamp(0.0, last as f64);
        let (index, part) = (place as usize, place.fract());
        let next = self.0[(index + 1).min(last)];
        self.0[index] * (1.0 - part) + next * part
    }

    /// P(value < `value`), linear between the quantiles; where the distribution has a step, its lower end.
    #[must_use]
    pub fn below(&self, value: f64) -> f64 {
        let place = self.0.partition_point(|quantile| *quantile < value);
        let last = self.0.len() - 1;
        match place {
            0 => 0.0,
            place if place > last => 1.0,
            place => {
                let (low, high) = (self.0[place - 1], self.0[place]);
                ((place - 1) as f64 + (value - low) / (high - low)) / last as f64
            }
        }
    }
}

fn pareto(share: f64) -> f64 {
    (((1.0 - share).powf(-1.0 / 3.0) - 1.5) * 4.0 / 3.0).min(4.0)
}

#[cfg(test)]
mod tests {
    use rand::{Rng, SeedableRng, rngs::StdRng};

    use super::{Samples, Theory, critical_distance, lag_one_correlation, pareto};

    fn uniform(seed: u64, low: f64, high: f64) -> Samples {
        let mut rng = StdRng::seed_from_u64(seed);
        Samples::new((0..2000).map(|_| rng.random_range(low..high))).unwrap()
    }

    #[test]
    fn uniform_samples_fit_and_shifted_ones_do_not() {
        let theory = Theory::uniform(80.0, 120.0);
        let critical = critical_distance(2000);
        assert!((critical - 0.0436).abs() < 0.0001, "{critical}");
        let far = (0..200).filter(|seed| uniform(*seed, 80.0, 120.0).distance(&theory, 0.0) > critical);
        assert!(far.count() <= 2);
        assert!(uniform(1, 84.0, 124.0).distance(&theory, 0.0) > critical);
        assert!(uniform(1, 85.0, 115.0).distance(&theory, 0.0) > critical);
        // A shift within the resolution is not held against the samples.
        assert!(uniform(1, 80.1, 120.1).distance(&theory, 0.2) < critical);
    }

    #[test]
    fn every_theory_accepts_its_own_and_refuses_the_others() {
        let theories = [
            Theory::uniform(80.0, 120.0),
            Theory::normal(100.0, 20.0).unwrap(),
            Theory::pareto(100.0, 20.0),
            Theory::pareto_normal(100.0, 20.0).unwrap(),
        ];
        let mut rng = StdRng::seed_from_u64(3);
        for (own, theory) in theories.iter().enumerate() {
            let draws = (0..4000).map(|_| theory.quantile(rng.random_range(0.0..1.0)));
            let samples = Samples::new(draws).unwrap();
            for (other, theory) in theories.iter().enumerate() {
                let fits = samples.distance(theory, 0.05) < critical_distance(4000);
                assert_eq!(fits, own == other, "samples of {own} against {other}");
            }
        }
    }

    #[test]
    fn the_pareto_table_is_the_one_of_netem() {
        // First and last value of pareto.dist, divided by 8192.
        assert!((pareto(0.0) + 5461.0 / 8192.0).abs() < 1e-3);
        assert!((pareto(0.9999) - 4.0).abs() < 1e-9);
        let shifted = Theory::pareto(0.0, 1.0).quantile(0.5) - pareto(0.5);
        assert!((shifted - 0.033).abs() < 0.001, "{shifted}");
    }

    #[test]
    fn quantiles_and_correlations() {
        let samples = Samples::new([3.0, 1.0, 2.0, 10.0]).unwrap();
        assert_eq!((samples.median(), samples.max(), samples.quantile(0.75)), (2.0, 10.0, 3.0));
        assert!(Samples::new([]).is_err());
        let mut rng = StdRng::seed_from_u64(5);
        let mut last = 0.0;
        let mut again = || {
            if !rng.random_bool(0.25) {
                last = rng.random_range(0.0..1.0);
            }
            last
        };
        let values: Vec<f64> = (0..20_000).map(|_| again()).collect();
        assert!((lag_one_correlation(&values).unwrap() - 0.25).abs() < 0.03);
    }
}
