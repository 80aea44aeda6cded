//! Loss with memory: correlation, the bursts of Gilbert and Elliott, and marks instead of losses.
//!
//! Bounds hold with 99.9 %: one seed in a thousand would fail, and the seeds are fixed.

#![expect(clippy::cast_precision_loss, reason = "numbers of a test are far below 2^52")]

use chaos_common::fault::FaultKind;

use crate::bench::{Bench, described};

const DRAWS: usize = 1_000_000;

fn lost(options: &str, seed: u64) -> Vec<bool> {
    let mut bench = Bench::new(&[("loss", options)], seed);
    (0..DRAWS).map(|_| bench.step().drop_by != 0).collect()
}

fn share(lost: &[bool]) -> f64 {
    lost.iter().filter(|lost| **lost).count() as f64 / lost.len() as f64
}

fn mean_burst(lost: &[bool]) -> f64 {
    let bursts: Vec<f64> =
        lost.split(|lost| !lost).filter(|burst| !burst.is_empty()).map(|burst| burst.len() as f64).collect();
    bursts.iter().sum::<f64>() / bursts.len() as f64
}

/// The 99.9 % bound of a share whose neighbours are correlated by `rho`, falling off as powers of it.
fn bound(p: f64, rho: f64) -> f64 {
    3.3 * (p * (1.0 - p) / DRAWS as f64 * (1.0 + rho) / (1.0 - rho)).sqrt()
}

/// netem would lose 1.8 % instead of 10 % at a correlation of 25 %, and nothing instead of 1 %.
#[test]
fn correlation_keeps_the_share_exact() {
    for (p, rho) in [(0.1, 0.25), (0.01, 0.25), (0.1, 0.5), (0.5, 0.9), (0.9, 0.25)] {
        let lost = lost(&format!("{p},correlation={rho}"), 1);
        let seen = share(&lost);
        assert!((seen - p).abs() < bound(p, rho), "{p}, correlation {rho}: {seen}");
        let both = lost.windows(2).filter(|pair| pair[0] && pair[1]).count() as f64 / (DRAWS - 1) as f64;
        let lag_one = (both - p * p) / (p * (1.0 - p));
        assert!((lag_one - rho).abs() < 0.02, "{p}, correlation {rho}: lag 1 {lag_one}");
        // After a loss the next is lost with rho + (1 - rho) p.
        let burst = 1.0 / (1.0 - rho - (1.0 - rho) * p);
        assert!(
            (mean_burst(&lost) / burst - 1.0).abs() < 0.02,
            "{p}, {rho}: bursts of {}",
            mean_burst(&lost)
        );
    }
}

/// p / (p + r) of all packets are in the bad state, in visits of 1 / r.
#[test]
fn bursts_are_those_of_gilbert() {
    for (p, r) in [(0.01, 0.25), (0.001, 0.1), (0.1, 0.5), (0.05, 1.0)] {
        let lost = lost(&format!("p={p},r={r}"), 2);
        let (expected, seen) = (p / (p + r), share(&lost));
        assert!((seen - expected).abs() < bound(expected, 1.0 - p - r), "{p}, {r}: {seen}, not {expected}");
        let bursts = DRAWS as f64 * expected * r;
        let error = 3.3 * (1.0 - r).sqrt() / bursts.sqrt() + 1e-9;
        assert!((mean_burst(&lost) * r - 1.0).abs() < error, "{p}, {r}: bursts of {}", mean_burst(&lost));
    }
}

#[test]
fn bursts_are_those_of_gilbert_and_elliott() {
    for (p, r, h, k) in [(0.02, 0.2, 0.3, 0.99), (0.05, 0.1, 0.5, 0.95), (0.01, 0.5, 0.0, 1.0)] {
        let lost = lost(&format!("p={p},r={r},h={h},k={k}"), 3);
        let bad = p / (p + r);
        let expected = bad * (1.0 - h) + (1.0 - bad) * (1.0 - k);
        let seen = share(&lost);
        assert!((seen - expected).abs() < bound(expected, 1.0 - p - r), "{h}, {k}: {seen}, not {expected}");
        // Two in a row: both in states that last with 1 - r and 1 - p.
        let both = bad * (1.0 - h) * ((1.0 - r) * (1.0 - h) + r * (1.0 - k))
            + (1.0 - bad) * (1.0 - k) * ((1.0 - p) * (1.0 - k) + p * (1.0 - h));
        let pairs = lost.windows(2).filter(|pair| pair[0] && pair[1]).count() as f64 / (DRAWS - 1) as f64;
        assert!((pairs / both - 1.0).abs() < 0.05, "{h}, {k}: pairs {pairs}, not {both}");
    }
}

/// `tc-netem(8)`: p alone is Bernoulli's model, since r is 1 - p.
#[test]
fn p_alone_has_no_bursts() {
    let lost = lost("p=10%", 4);
    assert!((share(&lost) - 0.1).abs() < bound(0.1, 0.0));
    assert!((mean_burst(&lost) - 1.0 / 0.9).abs() < 0.01, "{}", mean_burst(&lost));
    let (by_loss, by_survival) = ("p=1%,r=20%,1-h=70%,1-k=1%", "p=1%,r=20%,h=30%,k=99%");
    assert_eq!(described(&[("loss", by_loss)]), described(&[("loss", by_survival)]));
}

#[test]
fn seeded_bursts_repeat() {
    let run = |seed: u64, other: u64| {
        let mut bench = Bench::new(&[("loss", "p=5%,r=30%,h=20%")], other);
        bench.rule.seed = seed;
        (0..2000).map(|_| bench.step().drop_by).collect::<Vec<_>>()
    };
    assert_eq!(run(5, 1), run(5, 2), "the environment's dice do not matter");
    assert_ne!(run(5, 1), run(6, 1));
}

#[test]
fn ecn_marks_what_can_be_marked() {
    let loss = FaultKind::Loss.number();
    for (tos, marked) in [(0, false), (1, true), (2, true), (3, true), (0xfc, false), (0xfe, true)] {
        let mut bench = Bench::new(&[("loss", "100%,ecn")], 1);
        bench.packet.tos = tos;
        let verdict = bench.step();
        let expected = if marked { (loss, 0) } else { (0, loss) };
        assert_eq!((verdict.mark_by, verdict.drop_by), expected, "type of service {tos}");
    }
    let mut bench = Bench::new(&[("loss", "20%,ecn")], 2);
    bench.packet.tos = 2;
    let marked = (0..100_000).filter(|_| bench.step().mark_by != 0).count();
    assert!((19_500..20_500).contains(&marked), "{marked}");
    let mut without = Bench::new(&[("loss", "100%")], 1);
    without.packet.tos = 2;
    assert_eq!(without.step().drop_by, loss);
}
