//! The statistics of the tests: exact binomial bounds and a chi-squared test of run lengths.

use anyhow::{Context, Result, ensure};
use statrs::distribution::{Binomial, ChiSquared, ContinuousCDF, DiscreteCDF};

/// The confidence that every statistical test of this project uses: one false alarm in 1,000.
pub const CONFIDENCE: f64 = 0.999;

/// The counts that `n` draws of probability `p` give with [`CONFIDENCE`], both ends included:
/// the central region of the exact binomial distribution.
///
/// # Errors
/// When `p` is not a probability.
pub fn binomial_bounds(n: u64, p: f64) -> Result<(u64, u64)> {
    let distribution = Binomial::new(p, n).with_context(|| format!("{p} is not a probability"))?;
    if p <= 0.0 || n == 0 {
        return Ok((0, 0));
    }
    if p >= 1.0 {
        return Ok((n, n));
    }
    let tail = (1.0 - CONFIDENCE) / 2.0;
    Ok((distribution.inverse_cdf(tail), distribution.inverse_cdf(1.0 - tail)))
}

/// Checks that `hits` out of `n` is what probability `p` gives.
///
/// # Errors
/// When it lies outside [`binomial_bounds`]; the error has the figures.
pub fn check_rate(what: &str, hits: u64, n: u64, p: f64) -> Result<()> {
    let (low, high) = binomial_bounds(n, p)?;
    #[expect(clippy::cast_precision_loss, reason = "for a message")]
    let share = hits as f64 / n.max(1) as f64;
    ensure!(
        (low..=high).contains(&hits),
        "{what}: {hits} of {n} = {:.3} %, but {:.3} % gives {low}..={high} with 99.9 % confidence",
        share * 100.0,
        p * 100.0,
    );
    Ok(())
}

/// The lengths of the runs of `true` in `sequence`, first and last run included.
#[must_use]
pub fn run_lengths(sequence: &[bool]) -> Vec<u64> {
    sequence.split(|hit| !hit).map(|run| run.len() as u64).filter(|length| *length > 0).collect()
}

/// How likely run lengths at least this uneven are if they are geometric, P(length = k) =
/// (1-`go_on`)·`go_on`^(k-1): the p-value of a chi-squared test.
///
/// # Errors
/// When there are too few runs for two bins of at least five expected runs: such data shows nothing.
pub fn geometric_p_value(lengths: &[u64], go_on: f64) -> Result<f64> {
    let runs = to_f64(lengths.len() as u64);
    let bins = geometric_bins(go_on, runs);
    ensure!(bins.len() >= 2, "{runs} runs that go on with {go_on} are too few to test");
    let mut chi_squared = 0.0;
    for (first, last) in &bins {
        let seen = lengths.iter().filter(|length| (*first..=*last).contains(length)).count();
        let expected = runs * share(go_on, *first, *last);
        chi_squared += (to_f64(seen as u64) - expected).powi(2) / expected;
    }
    let freedom = to_f64(bins.len() as u64 - 1);
    Ok(ChiSquared::new(freedom).context("degrees of freedom")?.sf(chi_squared))
}

/// Checks that losses fell independently with probability `p`: the runs of losses and the runs
/// of arrivals between them are both geometric, each with a chi-squared p-value above 0.001.
///
/// # Errors
/// When one is not, or the data are too few; the error has the p-values.
pub fn check_runs(what: &str, sequences: &[Vec<bool>], p: f64) -> Result<()> {
    let losses: Vec<u64> = sequences.iter().flat_map(|lost| run_lengths(lost)).collect();
    let arrived = |lost: &Vec<bool>| run_lengths(&lost.iter().map(|lost| !lost).collect::<Vec<_>>());
    let arrivals: Vec<u64> = sequences.iter().flat_map(arrived).collect();
    let of_losses = geometric_p_value(&losses, p)?;
    let of_arrivals = geometric_p_value(&arrivals, 1.0 - p)?;
    ensure!(
        of_losses > 0.001 && of_arrivals > 0.001,
        "{what}: {} runs of losses (longest {}), chi-squared p = {of_losses:.2e} for them and \
         {of_arrivals:.2e} for the arrivals between them; independent losses give more than 0.001",
        losses.len(),
        losses.iter().max().unwrap_or(&0),
    );
    Ok(())
}

/// Ranges of lengths, each with at least five runs expected, at most about 20 of them.
fn geometric_bins(go_on: f64, runs: f64) -> Vec<(u64, u64)> {
    let wanted = (runs / 20.0).max(5.0);
    let mut bins = Vec::new();
    let (mut first, mut last) = (1, 1);
    loop {
        let rest = runs * share(go_on, last + 1, u64::MAX);
        let here = runs * share(go_on, first, last);
        if rest < 5.0 {
            bins.push((first, u64::MAX));
            return bins;
        }
        if here >= wanted {
            bins.push((first, last));
            first = last + 1;
        }
        last += 1;
    }
}

/// P(first <= length <= last).
fn share(go_on: f64, first: u64, last: u64) -> f64 {
    let beyond = if last == u64::MAX { 0.0 } else { go_on.powf(to_f64(last)) };
    go_on.powf(to_f64(first - 1)) - beyond
}

#[expect(clippy::cast_precision_loss, reason = "counts stay far below 2^52")]
const fn to_f64(count: u64) -> f64 {
    count as f64
}

#[cfg(test)]
mod tests {
    use rand::{Rng, SeedableRng, rngs::StdRng};

    use super::{binomial_bounds, check_rate, check_runs, geometric_p_value, run_lengths};

    #[test]
    fn bounds_are_those_of_the_tables() {
        // Normal approximation with z = 3.29: 1000 ± 103.5.
        let (low, high) = binomial_bounds(100_000, 0.01).unwrap();
        assert!((895..=900).contains(&low) && (1101..=1106).contains(&high), "{low} {high}");
        assert_eq!(binomial_bounds(5000, 0.0).unwrap(), (0, 0));
        assert_eq!(binomial_bounds(5000, 1.0).unwrap(), (5000, 5000));
    }

    #[test]
    fn a_naive_drop_is_caught() {
        assert!(check_rate("TC_ACT_SHOT at 50 %", 100, 5000, 0.5).is_err());
        assert!(check_rate("silent drop at 50 %", 2520, 5000, 0.5).is_ok());
    }

    #[test]
    fn runs_are_counted() {
        assert_eq!(run_lengths(&[true, true, false, true, false, false]), [2, 1]);
        assert!(run_lengths(&[false]).is_empty());
    }

    /// p-values of a right model are uniform: of 400 seeds few fall below 1 %.
    #[test]
    fn p_values_of_independent_losses_are_uniform() {
        let (mut low, p) = ([0, 0], 0.05);
        for seed in 0..400 {
            let mut rng = StdRng::seed_from_u64(seed);
            let lost: Vec<bool> = (0..20_000).map(|_| rng.random_bool(p)).collect();
            let arrived: Vec<bool> = lost.iter().map(|lost| !lost).collect();
            low[0] += u32::from(geometric_p_value(&run_lengths(&lost), p).unwrap() < 0.01);
            low[1] += u32::from(geometric_p_value(&run_lengths(&arrived), 1.0 - p).unwrap() < 0.01);
        }
        assert!(low.iter().all(|low| *low <= 13), "{low:?} of 400");
    }

    /// What dice per skb do: 45 segments lost together, at the right average.
    #[test]
    fn bursts_at_the_right_rate_are_caught() {
        let mut rng = StdRng::seed_from_u64(1);
        let bursts: Vec<bool> = (0..3000).flat_map(|_| [rng.random_ratio(1, 100); 45]).collect();
        assert!(check_runs("bursts", &[bursts], 0.01).is_err());
        let single: Vec<bool> = (0..120_000).map(|_| rng.random_ratio(1, 100)).collect();
        check_runs("single", &[single], 0.01).unwrap();
    }
}
