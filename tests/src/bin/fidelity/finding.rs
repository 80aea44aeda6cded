//! What was seen beside what may be seen, and why.

use anyhow::Result;
use chaos_tests::measure::stats::{binomial_bounds, geometric_p_value, run_lengths};

/// One thing that was looked at.
#[derive(Clone, Debug)]
pub(crate) struct Finding {
    /// With its name and unit.
    pub(crate) seen: String,
    /// With their reason.
    pub(crate) bounds: String,
    /// Seen lies within the bounds.
    pub(crate) ok: bool,
    /// It is about time: a machine that stands still changes it.
    pub(crate) timed: bool,
    /// What was compared.
    number: Option<Number>,
}

/// A number and what it was held against.
#[derive(Clone, Copy, Debug)]
struct Number {
    seen: f64,
    low: f64,
    high: f64,
    unit: Unit,
}

/// What kind of number.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Unit {
    /// Milliseconds, those of the fastest half.
    Early,
    /// Milliseconds of any other.
    Late,
    Seconds,
    Other,
}

/// By how much a clock of an emulated machine may show too little, ms.
const GRAIN_MS: f64 = 3.0;
/// How much longer the fastest half may take there, ms.
const SLOW_MS: f64 = 40.0;

impl Finding {
    /// A number between two others, both included.
    pub(crate) fn between(what: &str, seen: f64, (low, high): (f64, f64), unit: &str, why: &str) -> Self {
        Self {
            seen: format!("{what} {} {unit}", short(seen)),
            bounds: format!("{} to {} {unit} ({why})", short(low), short(high)),
            ok: (low..=high).contains(&seen),
            timed: matches!(unit, "ms" | "s" | "Mbit/s"),
            number: Some(Number { seen, low, high, unit: Unit::of(what, unit) }),
        }
    }

    /// As it is judged on a machine that is ten times as slow: nothing may come early, and the fastest half hardly
    /// later; how late the others are says nothing. Of a throughput there may not be too much.
    pub(crate) fn leniently(self) -> Self {
        let Some(Number { seen, low, high, unit }) = self.number.filter(|_| self.timed) else { return self };
        let bounds = match unit {
            Unit::Early => low - GRAIN_MS..=high + SLOW_MS,
            Unit::Late => low - GRAIN_MS..=f64::MAX,
            Unit::Seconds => low - GRAIN_MS / 1e3..=f64::MAX,
            Unit::Other => low / 4.0..=high * 1.02,
        };
        Self { ok: bounds.contains(&seen), ..self }
    }

    /// A machine that stands still changes this, too.
    pub(crate) fn timed(self) -> Self {
        Self { timed: true, ..self }
    }

    /// A count that must be exactly this.
    pub(crate) fn exactly(what: &str, seen: u64, wanted: u64) -> Self {
        Self {
            seen: format!("{what} {seen}"),
            bounds: format!("{wanted}"),
            ok: seen == wanted,
            timed: false,
            number: None,
        }
    }

    /// Something that must be so, shown as it is.
    pub(crate) fn so(seen: impl Into<String>, wanted: impl Into<String>, ok: bool) -> Self {
        Self { seen: seen.into(), bounds: wanted.into(), ok, timed: false, number: None }
    }

    /// A share of `n` independent draws of probability `p`: exact binomial bounds.
    pub(crate) fn share(what: &str, hits: u64, n: u64, p: f64) -> Result<Self> {
        let (low, high) = binomial_bounds(n, p)?;
        let percent = |count: u64| format!("{:.2}", count as f64 * 100.0 / n.max(1) as f64);
        Ok(Self {
            seen: format!("{what} {} % of {n}", percent(hits)),
            bounds: format!("{} to {} % (99.9 %, binomial)", percent(low), percent(high)),
            ok: n > 0 && (low..=high).contains(&hits),
            timed: false,
            number: None,
        })
    }

    /// A share of `n` draws of mean `p` whose neighbours correlate with `rho`: the normal approximation, its
    /// variance enlarged by (1 + rho) / (1 - rho), as for a Markov chain.
    pub(crate) fn correlated_share(what: &str, hits: u64, n: u64, p: f64, rho: f64) -> Self {
        let count = n.max(1) as f64;
        let spread = 3.29 * (p * (1.0 - p) / count * (1.0 + rho) / (1.0 - rho)).sqrt() * 100.0;
        let seen = hits as f64 * 100.0 / count;
        let bounds = (p * 100.0 - spread, p * 100.0 + spread);
        Self::between(what, seen, bounds, "%", "99.9 %, Markov chain")
    }

    /// The lengths of runs of `true` are geometric: each goes on with probability `go_on`.
    pub(crate) fn runs(what: &str, sequences: &[Vec<bool>], go_on: f64) -> Result<Self> {
        let lengths: Vec<u64> = sequences.iter().flat_map(|sequence| run_lengths(sequence)).collect();
        let p = geometric_p_value(&lengths, go_on)?;
        let mean = lengths.iter().sum::<u64>() as f64 / lengths.len().max(1) as f64;
        Ok(Self {
            seen: format!("{what}: mean {}, chi-squared p {p:.3}", short(mean)),
            bounds: format!("mean about {}, p > 0.001 (geometric)", short(1.0 / (1.0 - go_on))),
            ok: p > 0.001,
            timed: false,
            number: None,
        })
    }
}

impl Unit {
    fn of(what: &str, unit: &str) -> Self {
        match unit {
            "ms" if what.contains("p50") || what.starts_with("shortest") => Self::Early,
            "ms" => Self::Late,
            "s" => Self::Seconds,
            _ => Self::Other,
        }
    }
}

/// Three or four figures.
fn short(value: f64) -> String {
    match value.abs() {
        large if large >= 1000.0 => format!("{value:.0}"),
        middle if middle >= 10.0 => format!("{value:.2}"),
        _ => format!("{value:.3}"),
    }
}

#[cfg(test)]
mod tests {
    use super::Finding;

    #[test]
    fn bounds_decide() {
        assert!(Finding::between("x", 1.0, (1.0, 2.0), "ms", "because").ok);
        assert!(!Finding::between("x", 2.1, (1.0, 2.0), "ms", "because").ok);
        assert!(!Finding::between("x", f64::NAN, (1.0, 2.0), "ms", "because").ok);
        assert!(Finding::share("lost", 1000, 10_000, 0.1).is_ok_and(|finding| finding.ok));
        assert!(Finding::share("lost", 1200, 10_000, 0.1).is_ok_and(|finding| !finding.ok));
        assert!(Finding::share("lost", 0, 0, 0.1).is_ok_and(|finding| !finding.ok));
        assert!(Finding::correlated_share("lost", 1060, 10_000, 0.1, 0.5).ok);
    }

    #[test]
    fn a_slow_machine_is_late_and_never_early() {
        let ok = |what: &str, seen: f64, unit: &str| {
            Finding::between(what, seen, (49.9, 50.1), unit, "").leniently().ok
        };
        assert!(ok("p99", 500.0, "ms") && ok("added p50", 55.0, "ms"));
        assert!(!ok("p99", 40.0, "ms") && !ok("added p50", 95.0, "ms"));
        assert!(!ok("p99", f64::INFINITY, "ms"));
        assert!(ok("throughput", 20.0, "Mbit/s") && !ok("throughput", 60.0, "Mbit/s"));
        assert!(!ok("damaged", 51.0, ""), "what is not about time is judged as ever");
    }
}
