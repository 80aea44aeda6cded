//! Durations, sizes and rates as people write them, and back.

use chaos_common::units::{parse_duration, parse_rate, parse_size, show_duration, show_rate, show_size};
use proptest::prelude::*;

#[test]
fn durations() {
    for (text, ns) in [
        ("100ms", 100_000_000),
        ("1.5s", 1_500_000_000),
        ("20us", 20_000),
        ("20µs", 20_000),
        ("7ns", 7),
        ("2m", 120_000_000_000),
        ("1m 30s", 90_000_000_000),
        (" 1h ", 3_600_000_000_000),
        ("0", 0),
        ("0ms", 0),
    ] {
        assert_eq!(parse_duration(text), Ok(ns), "{text}");
    }
    for (text, says) in [
        ("100", "has no unit: write 100ms"),
        ("1.5", "has no unit"),
        ("5 parsecs", "`parsecs` is not a unit of time"),
        ("", "is not a duration"),
        ("-5ms", "is not a duration"),
        ("fast", "is not a duration"),
        ("300y", "longer than 292 years"),
        ("18446744073709551615s 1000ms", "too long"),
    ] {
        let error = parse_duration(text).expect_err(text);
        assert!(error.contains(says) && error.contains("ms"), "{text}: {error}");
    }
}

#[test]
fn sizes() {
    for (text, bytes) in [
        ("1500", 1500),
        ("1500B", 1500),
        ("64KB", 64_000),
        ("64k", 64_000),
        ("1.5kB", 1500),
        ("64KiB", 65_536),
        ("1MiB", 1 << 20),
        ("2GB", 2_000_000_000),
        ("0", 0),
    ] {
        assert_eq!(parse_size(text), Ok(bytes), "{text}");
    }
    for text in ["", "big", "-1", "10 stones", "1e3", "1.2.3KB"] {
        let error = parse_size(text).expect_err(text);
        assert!(error.contains(&format!("`{text}`")) && error.contains("64KB"), "{error}");
    }
}

#[test]
fn rates() {
    for (text, bits) in [
        ("1KB/s", 8_000),
        ("1KiB/s", 8_192),
        ("125000B/s", 1_000_000),
        ("1MBps", 8_000_000),
        ("10Mbit/s", 10_000_000),
        ("10mbit", 10_000_000),
        ("100kbit", 100_000),
        ("1Gbps", 1_000_000_000),
        ("1.5Mbps", 1_500_000),
        ("1Kibit", 1024),
        ("8kb/s", 8_000),
        ("56 kbit/s", 56_000),
        ("1000bit", 1000),
        ("1Tbit/s", 1_000_000_000_000),
        ("0bit", 0),
    ] {
        assert_eq!(parse_rate(text), Ok(bits), "{text}");
    }
    for (text, says) in [
        ("1000", "bits or bytes"),
        ("10M", "bits or bytes"),
        ("", "is not a rate"),
        ("fast", "is not a rate"),
        ("-1Mbit", "is not a rate"),
        ("1e9bit", "unknown unit"),
        ("10Mfoo", "unknown unit"),
        ("10Xbit", "unknown unit"),
        ("99999999999999Tbit", "more than any link"),
    ] {
        let error = parse_rate(text).expect_err(text);
        assert!(error.contains(says) && error.contains("1KB/s"), "{text}: {error}");
    }
}

#[test]
fn they_are_shown_as_people_write_them() {
    for (ns, text) in [
        (0, "0s"),
        (7, "7ns"),
        (20_000, "20us"),
        (1_500_000, "1.5ms"),
        (100_000_000, "100ms"),
        (1_500_000_000, "1.5s"),
        (1_234_567_000, "1234.567ms"),
        (1_234_567_891, "1234567.891us"),
    ] {
        assert_eq!(show_duration(ns), text);
    }
    for (bytes, text) in [
        (0, "0B"),
        (1500, "1500B"),
        (64_000, "64KB"),
        (65_536, "64KiB"),
        (1 << 20, "1MiB"),
        (1_000_000, "1MB"),
    ] {
        assert_eq!(show_size(bytes), text);
    }
    for (bits, text) in [
        (0, "0bit/s"),
        (8_000, "8kbit/s"),
        (1_500_000, "1.5Mbit/s"),
        (1_000_000_000, "1Gbit/s"),
        (8_192, "8.192kbit/s"),
        (1_234_567, "1234.567kbit/s"),
    ] {
        assert_eq!(show_rate(bits), text);
    }
}

proptest! {
    #![proptest_config(ProptestConfig { failure_persistence: None, ..ProptestConfig::default() })]

    #[test]
    fn what_is_shown_is_read_back(value in 0..1u64 << 52, zeros in 0u32..10) {
        let round = value / 10u64.pow(zeros) * 10u64.pow(zeros);
        prop_assert_eq!(parse_duration(&show_duration(round)), Ok(round));
        prop_assert_eq!(parse_size(&show_size(round)), Ok(round));
        // Up to 35 Tbit/s: beyond, a fraction of a unit has more digits than a float.
        prop_assert_eq!(parse_rate(&show_rate(round >> 7)), Ok(round >> 7));
    }

    #[test]
    fn any_text_is_read_or_refused(text in "[0-9.]{0,22}[ a-zA-Zµ/%±-]{0,8}") {
        for result in [parse_duration(&text), parse_size(&text), parse_rate(&text)] {
            if let Err(error) = result {
                prop_assert!(error.len() > 20);
            }
        }
    }
}
