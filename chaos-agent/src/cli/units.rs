//! Values as people write them: durations, sizes, shares, counts, seeds. Human units end here.
//!
//! Every parser returns a sentence that says what is accepted; clap puts the flag's name and the
//! value given in front of it and exits with 2.

use std::time::Duration;

use bytesize::ByteSize;

use crate::{safety::limits, spec::PortRange};

/// How long `inject` and `partition` hold a fault when the user does not say.
pub(crate) const DEFAULT_DURATION: Duration = Duration::from_mins(1);
/// The longest a fault may last, `exec` included.
pub(crate) const MAX_DURATION: Duration = Duration::from_hours(1);
/// How long the kernel keeps a rule without hearing from us, unless told otherwise.
pub(crate) const DEFAULT_LEASE: Duration = Duration::from_secs(5);
/// The shortest lease that a busy machine can renew in time.
pub(crate) const MIN_LEASE: Duration = Duration::from_secs(1);

const DURATION_FORM: &str = "write a number and a unit, such as 100ms, 1.5s, 2m or 1h";
const SIZE_FORM: &str = "write bytes with or without a unit, such as 1500, 10kB (10,000) or 1MiB (1,048,576)";

/// Refuses a value that is really the next option, so that `--for --json` does not read as a duration.
///
/// The options that use this allow a leading hyphen, because clap would otherwise answer `-5s` with
/// advice that cannot help.
pub(crate) fn refuse_option(text: &str, form: &str) -> Result<(), String> {
    if text == "--" || text.strip_prefix("--").is_some_and(|rest| rest.starts_with(char::is_alphabetic)) {
        return Err(format!("the value is missing (the next word is an option); {form}"));
    }
    Ok(())
}

/// Any duration, 0 included.
pub(crate) fn duration(text: &str) -> Result<Duration, String> {
    refuse_option(text, DURATION_FORM)?;
    if text.starts_with('-') {
        return Err(format!("a duration cannot be negative; {DURATION_FORM}"));
    }
    humantime::parse_duration(text.trim()).map_err(|error| match error {
        humantime::DurationError::UnknownUnit { unit, value, .. } if unit.is_empty() => {
            format!("the unit is missing; write {value}s for seconds, or ms, m, h")
        }
        humantime::DurationError::UnknownUnit { unit, .. } => {
            format!("`{unit}` is not a unit of time; {DURATION_FORM}")
        }
        humantime::DurationError::InvalidCharacter(_)
        | humantime::DurationError::NumberExpected(_)
        | humantime::DurationError::NumberOverflow
        | humantime::DurationError::Empty => DURATION_FORM.to_owned(),
    })
}

/// How long a fault lasts: above 0, at most what [`limits`] say.
pub(crate) fn fault_duration(text: &str) -> Result<Duration, String> {
    let value = duration(text)?;
    if value.is_zero() {
        return Err(format!("a fault that lasts no time does nothing; {DURATION_FORM}"));
    }
    let cap = limits().max_duration;
    if value > cap {
        return Err(format!(
            "a fault may last at most {}; start it again if it must go on",
            show_duration(cap)
        ));
    }
    Ok(value)
}

/// How long to wait before acting; 0 is allowed, and there is the same cap as for [`fault_duration`].
pub(crate) fn start_delay(text: &str) -> Result<Duration, String> {
    let value = duration(text)?;
    if value >= MAX_DURATION {
        return Err(format!(
            "must be less than {}, the longest a rule may last",
            show_duration(MAX_DURATION)
        ));
    }
    Ok(value)
}

/// A lease, from [`MIN_LEASE`] to [`MAX_DURATION`].
pub(crate) fn lease(text: &str) -> Result<Duration, String> {
    let value = duration(text)?;
    if !(MIN_LEASE..=MAX_DURATION).contains(&value) {
        return Err(format!(
            "a lease lasts from {} to {}; {DURATION_FORM}",
            show_duration(MIN_LEASE),
            show_duration(MAX_DURATION)
        ));
    }
    Ok(value)
}

/// Flapping, `ON/OFF`: acts for the first, rests for the second, again and again.
pub(crate) fn flap(text: &str) -> Result<(Duration, Duration), String> {
    const FORM: &str = "write how long it acts and how long it rests, such as 100ms/100ms or 2s/500ms";
    refuse_option(text, FORM)?;
    let (on, off) = text.split_once('/').ok_or_else(|| FORM.to_owned())?;
    let part = |name: &str, text: &str| match duration(text) {
        Ok(Duration::ZERO) => Err(format!("the {name} part is 0: that is no flapping; {FORM}")),
        Ok(value) if value > MAX_DURATION => {
            Err(format!("the {name} part is longer than {}; {FORM}", show_duration(MAX_DURATION)))
        }
        Ok(value) => Ok(value),
        Err(error) => Err(format!("the {name} part `{text}` is wrong: {error}")),
    };
    Ok((part("acting", on)?, part("resting", off)?))
}

/// A share of flows, above 0 and at most 1; `25%` or `0.25`.
pub(crate) fn share(text: &str) -> Result<f64, String> {
    refuse_option(text, "write a percentage such as 25%, or a fraction such as 0.25")?;
    let prob = chaos_common::units::parse_share(text)?;
    let share = chaos_common::units::prob_to_share(prob);
    if share == 0.0 {
        return Err("a share of 0 hits no flow at all; write more than 0%, up to 100%".to_owned());
    }
    Ok(share)
}

/// A size in bytes above 0, with or without a unit; `kB` is 1,000 bytes, `KiB` 1,024.
pub(crate) fn bytes(text: &str) -> Result<u64, String> {
    refuse_option(text, SIZE_FORM)?;
    let size: ByteSize = text.trim().parse().map_err(|_| SIZE_FORM.to_owned())?;
    match size.as_u64() {
        0 => Err(format!("a limit of 0 bytes hits nothing; {SIZE_FORM}")),
        bytes => Ok(bytes),
    }
}

/// A number of packets above 0.
pub(crate) fn packets(text: &str) -> Result<u64, String> {
    const FORM: &str = "write a whole number from 1, such as 10000";
    refuse_option(text, FORM)?;
    match text.parse() {
        Ok(0) => Err(format!("a limit of 0 packets hits nothing; {FORM}")),
        Ok(value) => Ok(value),
        Err(_) => Err(FORM.to_owned()),
    }
}

/// How many namespaces, cgroups or devices: from 1.
pub(crate) fn targets(text: &str) -> Result<u32, String> {
    const FORM: &str = "write a whole number from 1, such as 10";
    refuse_option(text, FORM)?;
    text.parse().ok().filter(|number| *number > 0).ok_or_else(|| FORM.to_owned())
}

/// A seed: any 64-bit number but 0, which means "no seed" to the kernel program.
pub(crate) fn seed(text: &str) -> Result<u64, String> {
    const FORM: &str =
        "write a whole number from 1 to 18446744073709551615, or a hexadecimal one such as 0x5eed";
    refuse_option(text, FORM)?;
    let parsed = match text.strip_prefix("0x") {
        Some(hex) => u64::from_str_radix(hex, 16),
        None => text.parse(),
    };
    parsed.ok().filter(|seed| *seed != 0).ok_or_else(|| FORM.to_owned())
}

/// A port or an inclusive range of ports: `6379`, `8000-8100`.
pub(crate) fn ports(text: &str) -> Result<PortRange, String> {
    const FORM: &str = "write a port from 1 to 65535, or a range such as 8000-8100";
    refuse_option(text, FORM)?;
    let port = |text: &str| text.parse::<u16>().ok().filter(|port| *port != 0).ok_or_else(|| FORM.to_owned());
    let (first, last) = match text.split_once('-') {
        Some((first, last)) => (port(first)?, port(last)?),
        None => (port(text)?, port(text)?),
    };
    if first > last {
        return Err(format!("the range runs backwards; write {last}-{first}"));
    }
    Ok(PortRange { first, last })
}

/// A duration as people write it: `1m 30s`, `1s 500ms`; nothing below a millisecond once it is a second.
pub(crate) fn show_duration(value: Duration) -> String {
    let value = if value >= Duration::from_secs(1) {
        Duration::from_millis(u64::try_from(value.as_millis()).unwrap_or(u64::MAX))
    } else {
        value
    };
    humantime::format_duration(value).to_string()
}

/// Bytes as people read them: `512 B`, `1.5 MiB`.
pub(crate) fn show_bytes(bytes: u64) -> String {
    ByteSize(bytes).display().iec().to_string()
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn durations_as_written() {
        for (text, ms) in
            [("100ms", 100), ("1.5s", 1500), ("2m", 120_000), ("1h", 3_600_000), ("1m 30s", 90_000)]
        {
            assert_eq!(duration(text), Ok(Duration::from_millis(ms)), "{text}");
        }
    }

    #[test]
    fn wrong_durations_say_what_is_accepted() {
        for (text, phrase) in [
            ("30", "write 30s"),
            ("", "write a number and a unit"),
            ("-5s", "cannot be negative"),
            ("5 parsecs", "`parsecs` is not a unit"),
            ("1,5s", "1.5s"),
            ("--json", "the value is missing"),
        ] {
            let error = duration(text).expect_err(text);
            assert!(error.contains(phrase), "{text}: {error}");
        }
        assert!(fault_duration("0s").expect_err("0").contains("does nothing"));
        assert!(fault_duration("61m").expect_err("61m").contains("at most 1h"));
        assert!(lease("10ms").expect_err("10ms").contains("from 1s to 1h"));
    }

    #[test]
    fn flapping() {
        assert_eq!(flap("100ms/1.5s"), Ok((Duration::from_millis(100), Duration::from_millis(1500))));
        for (text, phrase) in [
            ("100ms", "such as 100ms/100ms"),
            ("0s/1s", "acting part is 0"),
            ("1s/0", "resting part is 0"),
            ("1s/x", "resting part `x`"),
            ("2h/1s", "longer than 1h"),
        ] {
            let error = flap(text).expect_err(text);
            assert!(error.contains(phrase), "{text}: {error}");
        }
    }

    #[test]
    fn shares() {
        assert_eq!(share("100%"), Ok(1.0));
        assert!((share("25%").unwrap() - 0.25).abs() < 1e-9);
        assert!((share("0.25").unwrap() - 0.25).abs() < 1e-9);
        assert!(share("0%").expect_err("0%").contains("hits no flow"));
        for text in ["25", "101%", "-1%", "x", "NaN", "inf", "1e9"] {
            assert!(share(text).is_err(), "{text}");
        }
    }

    #[test]
    fn sizes() {
        for (text, bytes_) in [
            ("1500", 1500),
            ("10kB", 10_000),
            ("1MiB", 1 << 20),
            ("1.5 MiB", 3 << 19),
            ("2GB", 2_000_000_000),
        ] {
            assert_eq!(bytes(text), Ok(bytes_), "{text}");
        }
        for text in ["", "0", "0kB", "ten", "-1", "10 potatoes", "1.2.3kB"] {
            assert!(bytes(text).expect_err(text).contains("such as 1500"), "{text}");
        }
    }

    #[test]
    fn seeds_and_counts() {
        assert_eq!(seed("0x5eed"), Ok(0x5eed));
        assert_eq!(seed("18446744073709551615"), Ok(u64::MAX));
        assert!(seed("0").is_err());
        assert!(seed("-1").is_err());
        assert_eq!(packets("10000"), Ok(10_000));
        assert!(packets("0").expect_err("0").contains("hits nothing"));
    }

    #[test]
    fn port_ranges() {
        assert_eq!(ports("6379"), Ok(PortRange { first: 6379, last: 6379 }));
        assert_eq!(ports("8000-8100"), Ok(PortRange { first: 8000, last: 8100 }));
        assert!(ports("8100-8000").expect_err("backwards").contains("8000-8100"));
        for text in ["0", "65536", "http", "", "1-", "-1", "1-2-3"] {
            assert!(ports(text).is_err(), "{text}");
        }
    }

    proptest! {
        #[test]
        fn no_text_makes_a_parser_panic(text in "\\PC{0,24}") {
            let _ = (duration(&text), fault_duration(&text), start_delay(&text), lease(&text), flap(&text));
            let _ = (share(&text), bytes(&text), packets(&text), seed(&text), ports(&text));
        }

        #[test]
        fn what_looks_like_a_value_does_not_panic_either(text in "-{0,2}[0-9./%x]{1,30}(ns|us|ms|s|m|h|d|M|y|kB|MiB|EiB|%)?") {
            let _ = (duration(&text), fault_duration(&text), start_delay(&text), lease(&text), flap(&text));
            let _ = (share(&text), bytes(&text), packets(&text), seed(&text), ports(&text));
        }

        #[test]
        fn a_shown_duration_reads_back(ms in 1_u64..=3_600_000) {
            let value = Duration::from_millis(ms);
            prop_assert_eq!(fault_duration(&show_duration(value)), Ok(value));
        }

        #[test]
        fn milliseconds_and_fractions_of_seconds_agree(ms in 1_u64..=3_600_000) {
            let fraction = format!("{}.{:03}s", ms / 1000, ms % 1000);
            prop_assert_eq!(duration(&fraction), duration(&format!("{ms}ms")));
        }

        #[test]
        fn percent_and_fraction_agree(ppm in 1_u32..=1_000_000) {
            let fraction = share(&format!("{}.{:06}", ppm / 1_000_000, ppm % 1_000_000)).unwrap();
            let percent = share(&format!("{}.{:04}%", ppm / 10_000, ppm % 10_000)).unwrap();
            prop_assert!((fraction - percent).abs() < 1e-9);
        }

        #[test]
        fn bytes_with_decimal_and_binary_units(n in 1_u64..1_000_000) {
            prop_assert_eq!(bytes(&format!("{n}")), Ok(n));
            prop_assert_eq!(bytes(&format!("{n}kB")), Ok(n * 1000));
            prop_assert_eq!(bytes(&format!("{n}KiB")), Ok(n * 1024));
        }

        #[test]
        fn every_range_of_ports_reads_back(a in 1_u16.., b in 1_u16..) {
            let (first, last) = (a.min(b), a.max(b));
            prop_assert_eq!(ports(&format!("{first}-{last}")), Ok(PortRange { first, last }));
        }
    }
}
