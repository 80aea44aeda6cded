//! Distributions: the tables, their file format, and the arithmetic that applies them.

#![expect(clippy::cast_precision_loss, reason = "numbers of a test are far below 2^52")]

use std::path::Path;

use chaos_common::dist::{
    ENTRIES_MAX, SCALE, Shape, TABLES_MAX, generate, intern, name, parse_dist, read_dist, spread, tables,
    uniform,
};
use proptest::prelude::*;
use statrs::distribution::{ContinuousCDF, Normal};

use crate::support::Random;

/// Where `tc` of the usual distributions looks for them.
const TC_FOLDERS: [&str; 4] =
    ["/usr/lib/tc", "/usr/share/tc", "/usr/lib64/tc", "/usr/lib/x86_64-linux-gnu/tc"];

fn mean_and_deviation(table: &[i16]) -> (f64, f64) {
    let n = table.len() as f64;
    let mean = table.iter().map(|x| f64::from(*x)).sum::<f64>() / n;
    let square = table.iter().map(|x| (f64::from(*x) - mean).powi(2)).sum::<f64>() / n;
    (mean / SCALE as f64, square.sqrt() / SCALE as f64)
}

#[test]
fn tables_have_the_mean_and_the_deviation_they_promise() {
    for (shape, deviation) in [(Shape::Normal, 1.0), (Shape::Pareto, 0.825), (Shape::ParetoNormal, 0.835)] {
        let table = generate(shape);
        let (mean, seen) = mean_and_deviation(&table);
        assert_eq!(table.len(), 4096);
        assert!(table.is_sorted(), "{shape:?}");
        assert!(mean.abs() < 1e-5, "{shape:?}: mean {mean}");
        assert!((seen - deviation).abs() < 0.01, "{shape:?}: deviation {seen}");
        assert_eq!(table, generate(shape), "the same every time");
    }
    let normal = generate(Shape::Normal);
    assert!(normal.iter().zip(normal.iter().rev()).all(|(low, high)| *low == -*high), "symmetric");
}

/// The largest distance between the table's distribution function and the theory's.
fn distance(table: &[i16], theory: impl Fn(f64) -> f64) -> f64 {
    let n = table.len() as f64;
    let gaps = table.iter().enumerate().map(|(i, x)| ((i as f64 + 0.5) / n - theory(f64::from(*x))).abs());
    gaps.fold(0.0, f64::max)
}

#[test]
fn tables_are_the_theory() {
    let normal = Normal::new(0.0, SCALE as f64).unwrap();
    let half = 0.5 / 4096.0 * 1.05;
    assert!(distance(&generate(Shape::Normal), |x| normal.cdf(x)) < half);
    // The Pareto shapes are moved so that their mean is the base: by how much is measured at the
    // first quantile and must fit all others.
    let pareto = generate(Shape::Pareto);
    let begin = f64::from(pareto[0]) / SCALE as f64 + 2.0 / 3.0;
    assert!((0.03..0.04).contains(&begin), "{begin}");
    let theory = |x: f64| 1.0 - ((x / SCALE as f64 - begin) * 0.75 + 1.5).max(1.0).powi(-3);
    let until = pareto.iter().position(|x| *x == i16::MAX).unwrap();
    let below = (until as f64) / 4096.0;
    let cut = |x: f64| if x >= f64::from(i16::MAX) { 1.0 } else { theory(x) };
    // Cut off at four jitters; up to there the shape is exact but for rounding where it is dense.
    assert!(below > 0.985, "{below}");
    let seen = pareto[..until].iter().enumerate();
    let worst = seen.map(|(i, x)| ((i as f64 + 0.5) / 4096.0 - cut(f64::from(*x))).abs()).fold(0.0, f64::max);
    assert!(worst < 4e-4, "{worst}");
}

/// iproute2's tables are a third of a bin early in the tails, its Pareto's mean is 0.033 jitters
/// early, and its normal ends at -4.0 and +3.5: so they differ, but by no more than that.
#[test]
fn tables_are_those_of_iproute2_but_for_its_rounding() {
    let mut compared = 0;
    for shape in Shape::ALL {
        let file = format!("{}.dist", shape.name());
        let Some(path) =
            TC_FOLDERS.iter().map(|folder| Path::new(folder).join(&file)).find(|path| path.exists())
        else {
            continue;
        };
        compared += 1;
        let (ours, theirs) = (generate(shape), read_dist(&path).unwrap());
        assert_eq!(ours.len(), theirs.len());
        let (their_mean, their_deviation) = mean_and_deviation(&theirs);
        let (_, our_deviation) = mean_and_deviation(&ours);
        assert!((our_deviation - their_deviation).abs() < 0.01, "{shape:?}");
        for (i, (our, their)) in ours.iter().zip(&theirs).enumerate().take(4055).skip(41) {
            let gap = f64::from(i32::from(*our) - i32::from(*their)) / SCALE as f64 + their_mean;
            assert!(gap.abs() < 0.04, "{shape:?}, entry {i}: {our} and {their}");
        }
    }
    if compared == 0 {
        println!(
            "SKIPPED: tables_are_those_of_iproute2_but_for_its_rounding: iproute2's tables are not installed"
        );
    }
}

#[test]
fn files_are_read_as_netem_reads_them() {
    let text = "# a comment\n\n -32768 0\t32767 # the ends\r\n12\n";
    assert_eq!(parse_dist(text), Ok(vec![-32768, 0, 32767, 12]));
    for (text, says) in [
        ("", "no numbers"),
        ("# nothing\n", "no numbers"),
        ("1 2\n3 x 4", "line 2: `x`"),
        ("1.5", "line 1: `1.5`"),
        ("32768", "from -32768 to 32767"),
        ("-32769", "from -32768 to 32767"),
        (&"7 ".repeat(ENTRIES_MAX + 1), "more than 16384"),
    ] {
        let error = parse_dist(text).expect_err(says);
        assert!(error.contains(says), "{error}");
    }
    assert_eq!(parse_dist(&"7 ".repeat(ENTRIES_MAX)).map(|table| table.len()), Ok(ENTRIES_MAX));
    for (path, says) in
        [("/does/not/exist.dist", "No such file"), ("/dev/zero", "not a regular file"), ("/", "regular")]
    {
        let error = read_dist(Path::new(path)).expect_err(path);
        assert!(error.contains(says) && error.contains(path), "{error}");
    }
}

#[test]
fn one_table_has_one_number() {
    let (one, other) = (intern("one of two", &[1, 2, 3]).unwrap(), intern("the other", &[3, 2, 1]).unwrap());
    assert!(one != other && one >= 1);
    assert_eq!(intern("by another name", &[1, 2, 3]), Ok(one));
    assert_eq!(name(one).as_deref(), Some("one of two"));
    assert_eq!(*tables()[one as usize - 1], [1, 2, 3]);
    assert!(one as usize <= TABLES_MAX && name(0).is_none() && name(99).is_none());
    assert!(intern("none", &[]).unwrap_err().contains("0 entries"));
    assert!(intern("huge", &vec![0; ENTRIES_MAX + 1]).unwrap_err().contains("16385 entries"));
}

#[test]
fn uniform_reaches_both_ends_and_all_between() {
    assert_eq!(uniform(100, 10, 0), 90);
    assert_eq!(uniform(100, 10, u32::MAX), 110);
    assert_eq!(uniform(5, 10, 0), 0, "not below 0");
    assert_eq!(uniform(5, 10, u32::MAX), 15);
    assert_eq!(uniform(7, 0, 12345), 7);
    let mut seen = [0u32; 21];
    let mut random = Random::new(3);
    for _ in 0..210_000 {
        seen[uniform(100, 10, (random.word() >> 32) as u32) as usize - 90] += 1;
    }
    assert!(seen.iter().all(|n| (9_600..10_400).contains(n)), "{seen:?}");
}

proptest! {
    #![proptest_config(ProptestConfig { failure_persistence: None, ..ProptestConfig::default() })]

    #[test]
    fn uniform_is_the_product_of_128_bits(base in 0..1u64 << 40, jitter in 0..1u64 << 62, draw: u32) {
        let exact = (u128::from(draw) * (2 * u128::from(jitter) + 1)) >> 32;
        let expected = (u128::from(base) + exact).saturating_sub(u128::from(jitter));
        prop_assert_eq!(u128::from(uniform(base, jitter, draw)), expected);
    }

    /// `tabledist` of `net/sched/sch_netem.c`, in signed numbers.
    #[test]
    fn spread_is_netems(base in 0..1u64 << 40, jitter in 0..i64::from(i32::MAX), sample: i16) {
        let (scale, t) = (SCALE.cast_signed(), i64::from(sample));
        let mut x = (jitter % scale) * t;
        x += if x >= 0 { scale / 2 } else { -scale / 2 };
        let netem = x / scale + (jitter / scale) * t + base.cast_signed();
        prop_assert_eq!(spread(base, jitter.cast_unsigned(), sample), netem.max(0).cast_unsigned());
    }

    #[test]
    fn spread_of_long_jitter_is_exact(base in 0..1u64 << 50, jitter in 0..1u64 << 48, sample: i16) {
        let exact = i128::from(jitter) * i128::from(sample);
        let seen = i128::from(spread(base, jitter, sample));
        let twice = (2 * (seen - i128::from(base)) * 8192 - 2 * exact).abs();
        prop_assert!(seen == 0 || twice <= 8192, "off by more than half a nanosecond");
    }

    #[test]
    fn any_text_is_a_table_or_refused(text in "[0-9 \\n#x-]{0,40}") {
        if let Ok(table) = parse_dist(&text) {
            prop_assert!(!table.is_empty() && table.len() <= ENTRIES_MAX);
        }
    }
}
