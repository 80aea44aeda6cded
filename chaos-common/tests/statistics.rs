//! Long runs from fixed seeds: rates, bursts, independence.
//!
//! Bounds hold with 99.9 %: one seed in a thousand would fail, and the seeds are fixed.

#![expect(clippy::cast_precision_loss, reason = "counts of a test are far below 2^52")]

use chaos_common::{
    abi::{Count, Direction, Rule},
    env::{DrawKind, Draws, Env, Prob, Word, mix},
    fault::{Case, Faults, States},
    job::Job,
    verdict::Verdict,
};
use statrs::distribution::{Binomial, ChiSquared, ContinuousCDF, DiscreteCDF};

use crate::support::{DEVICE, Random, arm, everywhere, faults, judge_at, tcp};

const DRAWS: u64 = 1_000_000;

/// Random words of a generator that has nothing to do with the draws under test.
struct Dice(std::cell::RefCell<Random>, std::cell::Cell<u64>);

impl Dice {
    fn new(seed: u64) -> Self {
        Self(Random::new(seed).into(), 0.into())
    }
}

impl Env for Dice {
    fn now_ns(&self) -> u64 {
        0
    }

    fn random_u32(&self) -> u32 {
        self.1.set(self.1.get() + 1);
        (self.0.borrow_mut().word() >> 32) as u32
    }

    fn read(&self, _: &Word) -> u64 {
        unreachable!("a draw reads no state")
    }

    fn write(&self, _: &Word, _: u64) {
        unreachable!("a draw changes no state")
    }

    fn fetch_add(&self, _: &Word, _: u64) -> u64 {
        unreachable!("a draw changes no state")
    }

    fn compare_exchange(&self, _: &Word, _: u64, _: u64) -> u64 {
        unreachable!("a draw changes no state")
    }
}

crate::support::knows_nothing!(Dice);

/// Which of the packets from ordinal 0 on are lost.
fn lost(faults: &Faults, seed: u64, stream: u64, count: u64, env: &Dice) -> Vec<bool> {
    let (job, rule, states) = (Job::default(), Rule::default(), States::default());
    let one = |ordinal| {
        let draws = Draws { seed, stream, ordinal };
        let mut verdict = Verdict::PASS;
        let case = Case { world: env, job: &job, rule: &rule, draws, flow: None };
        for kind in (0..32).filter(|kind| faults.kinds() >> kind & 1 != 0) {
            faults.decide(kind, &states, &case, &mut verdict);
        }
        verdict.drop_by != 0
    };
    (0..count).map(one).collect()
}

pub(crate) fn hits(lost: &[bool]) -> u64 {
    lost.iter().filter(|lost| **lost).count() as u64
}

pub(crate) fn assert_rate(what: &str, hits: u64, count: u64, p: f64) {
    let binomial = Binomial::new(p, count).unwrap();
    let (low, high) = (binomial.inverse_cdf(0.0005), binomial.inverse_cdf(0.9995));
    assert!((low..=high).contains(&hits), "{what}: {hits} of {count}, {p} gives {low} to {high}");
}

/// Chi-squared test: `seen` against `expected`; fails below p = 0.001.
fn assert_fits(what: &str, seen: &[f64], expected: &[f64], freedom: f64) {
    assert!(expected.iter().all(|expected| *expected >= 5.0), "{what}: too few for a test: {expected:?}");
    let sum: f64 =
        seen.iter().zip(expected).map(|(seen, expected)| (seen - expected).powi(2) / expected).sum();
    let p = 1.0 - ChiSquared::new(freedom).unwrap().cdf(sum);
    assert!(p > 0.001, "{what}: p = {p}, seen {seen:?}, expected {expected:?}");
}

/// Losses follow each other as independent dice make them: P(length = k) = (1-p) p^(k-1).
fn assert_geometric(what: &str, lost: &[bool], p: f64) {
    let runs: Vec<usize> = lost.split(|lost| !lost).map(<[bool]>::len).filter(|len| *len > 0).collect();
    let count = runs.len() as f64;
    let (mut seen, mut expected, mut left) = (Vec::new(), Vec::new(), count);
    for length in 1.. {
        let here = left * (1.0 - p);
        if left - here < 5.0 || here < 5.0 {
            seen.push(runs.iter().filter(|run| **run >= length).count() as f64);
            expected.push(left);
            break;
        }
        seen.push(runs.iter().filter(|run| **run == length).count() as f64);
        expected.push(here);
        left -= here;
    }
    if seen.len() > 1 {
        assert_fits(what, &seen, &expected, seen.len() as f64 - 1.0);
    }
}

/// Every second packet, and the ones after them.
pub(crate) fn neighbours(lost: &[bool]) -> (Vec<bool>, Vec<bool>) {
    lost.chunks_exact(2).map(|pair| (pair[0], pair[1])).unzip()
}

/// Two sequences know nothing of each other: the four combinations are as frequent as products.
pub(crate) fn assert_independent(what: &str, one: &[bool], other: &[bool], p: f64) {
    let mut seen = [0.0; 4];
    for (one, other) in one.iter().zip(other) {
        seen[usize::from(*one) * 2 + usize::from(*other)] += 1.0;
    }
    let n = one.len() as f64;
    let q = 1.0 - p;
    assert_fits(what, &seen, &[n * q * q, n * q * p, n * p * q, n * p * p], 3.0);
}

#[test]
fn loss_with_and_without_seed_has_its_rate_and_no_bursts() {
    for (text, p) in [("0.1%", 0.001), ("1%", 0.01), ("10%", 0.1), ("50%", 0.5), ("90%", 0.9)] {
        for seed in [0, 1, 42, u64::MAX] {
            let dice = Dice::new(seed ^ 7);
            let what = format!("loss {text}, seed {seed}");
            let lost = lost(&faults(text), seed, 200, DRAWS, &dice);
            assert_rate(&what, hits(&lost), DRAWS, p);
            assert_geometric(&what, &lost, p);
            if p >= 0.01 {
                let (one, next) = neighbours(&lost);
                assert_independent(&format!("{what}: neighbours"), &one, &next, p);
            }
            assert_eq!(dice.1.get(), if seed == 0 { DRAWS } else { 0 }, "{what}: draws from the environment");
        }
    }
}

#[test]
fn one_seed_gives_other_losses_to_each_rule_and_direction() {
    let dice = Dice::new(1);
    let streams: Vec<Vec<bool>> =
        [200, 201, 202, 203, 400].map(|stream| lost(&faults("20%"), 9, stream, DRAWS, &dice)).to_vec();
    for (index, one) in streams.iter().enumerate() {
        for other in &streams[index + 1..] {
            assert_independent("streams of one seed", one, other, 0.2);
        }
        // Nor is one the other, some packets later.
        for shift in 1..50 {
            let other = &streams[(index + 1) % streams.len()];
            assert_independent("shifted", &one[shift..100_000 + shift], other, 0.2);
        }
    }
    let other_seed = lost(&faults("20%"), 10, 200, DRAWS, &dice);
    assert_independent("neighbouring seeds", &streams[0], &other_seed, 0.2);
    assert_eq!(streams[0], lost(&faults("20%"), 9, 200, DRAWS, &dice), "same seed, same losses");
}

/// The same through all of `judge`: rules and directions of one host.
#[test]
fn rules_and_directions_with_one_seed_are_independent_when_judged() {
    let with_seed = |slot| {
        let mut rule = everywhere(slot, "25%");
        rule.rule.seed = 78;
        rule
    };
    let host = arm(vec![with_seed(1), with_seed(2)]);
    let count = 200_000;
    let dropped = |slot: u32, direction: Direction| {
        let counters = host.counters.borrow();
        counters.get(&(slot, direction as u32)).map_or(0, |c| c.tallies[Count::Dropped as usize].packets)
    };
    let mut sequences = vec![Vec::new(); 4];
    for _ in 0..count {
        for (pair, direction) in [(0, Direction::Egress), (2, Direction::Ingress)] {
            let before = [dropped(1, direction), dropped(2, direction)];
            judge_at(&host, &tcp(), DEVICE, direction);
            sequences[pair].push(dropped(1, direction) > before[0]);
            sequences[pair + 1].push(dropped(2, direction) > before[1]);
        }
    }
    for (index, one) in sequences.iter().enumerate() {
        assert_rate("judged", hits(one), count, 0.25);
        for other in &sequences[index + 1..] {
            assert_independent("judged", one, other, 0.25);
        }
    }
}

#[test]
fn never_and_always_are_exact() {
    for seed in [0, 3] {
        let dice = Dice::new(5);
        assert_eq!(hits(&lost(&faults("0%"), seed, 1, DRAWS, &dice)), 0);
        assert_eq!(hits(&lost(&faults("100%"), seed, 1, DRAWS, &dice)), DRAWS);
        assert_eq!(hits(&lost(&faults("partition"), seed, 1, 1000, &dice)), 1000);
    }
    assert!(!Prob::NEVER.hits(0) && Prob::ALWAYS.hits(u32::MAX) && Prob(1).hits(0) && !Prob(1).hits(2));
}

#[test]
fn every_nth_is_exact_in_each_direction() {
    for n in [1u64, 2, 3, 7, 1000] {
        let dice = Dice::new(1);
        let lost = lost(&faults(&format!("every={n}")), 0, 1, 100_000, &dice);
        let expected: Vec<bool> = (1..=100_000).map(|number| number % n == 0).collect();
        assert_eq!(lost, expected, "every {n}.");
    }
    let host = arm(vec![everywhere(1, "every=7")]);
    let mut numbers = [0u64; 2];
    let mut random = Random::new(4);
    for _ in 0..100_000 {
        let direction = *random.pick(&[Direction::Egress, Direction::Ingress]);
        numbers[direction as usize] += 1;
        let is_lost = judge_at(&host, &tcp(), DEVICE, direction) != 0;
        assert_eq!(is_lost, numbers[direction as usize].is_multiple_of(7), "{direction:?} {numbers:?}");
    }
}

/// One fault's settings never shift another's draws, and a draw is always made.
#[test]
fn the_number_of_draws_never_depends_on_the_outcome() {
    for text in ["0%", "10%", "100%", "every=3"] {
        let dice = Dice::new(8);
        lost(&faults(text), 0, 1, 1000, &dice);
        assert_eq!(dice.1.get(), 1000, "{text}");
    }
    let (draws, dice) = (Draws { seed: 5, stream: 6, ordinal: 7 }, Dice::new(1));
    assert_eq!(draws.next(&dice, DrawKind::Loss), draws.next(&dice, DrawKind::Loss));
}

#[test]
fn mixing_spreads_every_bit() {
    let mut random = Random::new(12);
    let mut flips = [[0u32; 64]; 64];
    for _ in 0..2000 {
        let word = random.word();
        for (bit, row) in flips.iter_mut().enumerate() {
            let changed = mix(word) ^ mix(word ^ 1 << bit);
            for (to, flips) in row.iter_mut().enumerate() {
                *flips += u32::from(changed >> to & 1 != 0);
            }
        }
    }
    let odd = flips.iter().flatten().filter(|flips| !(800..1200).contains(*flips)).count();
    assert_eq!(odd, 0, "a bit that changes another in less than 40 % or more than 60 % of all words");
}
