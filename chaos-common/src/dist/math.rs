//! Tables made from the mathematics. Nothing is copied from iproute2.
#![expect(clippy::float_arithmetic, reason = "runs on the host only, once per process")]

use super::SCALE;

/// Entries of a table that is made here, as in the tables that come with iproute2.
const ENTRIES: u32 = 4096;

/// The distributions that need no file.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Shape {
    /// Gauss's: the jitter is its standard deviation.
    Normal,
    /// Pareto's with exponent 3, netem's choice: never far below the base, now and then far above
    /// it. Scaled as in iproute2 (4/3 of the distance from the mean, ended at four jitters): its
    /// standard deviation is 0.82 jitters. Unlike iproute2's table it has the base as its mean.
    Pareto,
    /// A quarter of the normal quantile and three quarters of the Pareto quantile, netem's mix;
    /// its standard deviation is 0.83 jitters, and again its mean is the base.
    ParetoNormal,
}

impl Shape {
    /// Every shape.
    pub const ALL: [Self; 3] = [Self::Normal, Self::Pareto, Self::ParetoNormal];

    /// What it is called on the command line, as in `tc`.
    #[must_use]
    pub const fn name(self) -> &'static str {
        match self {
            Self::Normal => "normal",
            Self::Pareto => "pareto",
            Self::ParetoNormal => "paretonormal",
        }
    }

    /// The value that a share `u` (above 0, below 1) of all samples lies below; in sigmas.
    fn quantile(self, u: f64) -> f64 {
        match self {
            Self::Normal => normal_quantile(u),
            Self::Pareto => pareto_quantile(u),
            Self::ParetoNormal => 0.25 * normal_quantile(u) + 0.75 * pareto_quantile(u),
        }
    }
}

/// The table of a shape: 4096 quantiles, each from the middle of its share, ascending.
#[must_use]
pub fn generate(shape: Shape) -> Vec<i16> {
    let quantiles: Vec<f64> =
        (0..ENTRIES).map(|i| shape.quantile((f64::from(i) + 0.5) / f64::from(ENTRIES))).collect();
    #[expect(clippy::cast_precision_loss, reason = "8192")]
    let scale = SCALE as f64;
    let ends = (f64::from(i16::MIN) / scale, f64::from(i16::MAX) / scale);
    // A table ends at four sigmas. What is cut off there has to come back elsewhere, or the mean
    // of all delays is not the base: iproute2's Pareto is 0.033 jitters early.
    let mut shift = 0.0;
    for _ in 0..20 {
        let sum: f64 = quantiles.iter().map(|q| (q + shift).clamp(ends.0, ends.1)).sum();
        shift -= sum / f64::from(ENTRIES);
    }
    #[expect(clippy::cast_possible_truncation, reason = "clamped to the range of i16")]
    quantiles.iter().map(|q| ((q + shift).clamp(ends.0, ends.1) * scale).round() as i16).collect()
}

/// Exponent 3: F(x) = 1 - x^-3 from 1 on, with mean 3/2. Ended at four jitters, also within the mix.
fn pareto_quantile(u: f64) -> f64 {
    (((1.0 - u).powf(-1.0 / 3.0) - 1.5) * (4.0 / 3.0)).min(4.0)
}

/// Where the distribution function of the normal distribution is `u`, by Newton's method.
fn normal_quantile(u: f64) -> f64 {
    let mut x = 0.0;
    for _ in 0..60 {
        // Never a step above 1: in the tails the tangent points far too far.
        let step = ((normal_cdf(x) - u) / normal_density(x)).clamp(-1.0, 1.0);
        x -= step;
        if step.abs() < 1e-12 {
            break;
        }
    }
    x
}

fn normal_density(x: f64) -> f64 {
    (-0.5 * x * x).exp() / core::f64::consts::TAU.sqrt()
}

/// 1/2 + density * (x + x^3/3 + x^5/(3*5) + x^7/(3*5*7) + ...); Marsaglia, "Evaluating the normal
/// distribution", Journal of Statistical Software 11 (2004). Good to 1e-13 within six sigmas.
fn normal_cdf(x: f64) -> f64 {
    let (mut sum, mut term, mut odd) = (x, x, 1.0);
    while term.abs() > 1e-17 {
        odd += 2.0;
        term *= x * x / odd;
        sum += term;
    }
    0.5 + normal_density(x) * sum
}
