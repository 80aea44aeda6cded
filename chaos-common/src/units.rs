//! Shares, durations, sizes and rates as people write them, and back. Besides [`crate::dist`] the
//! only place of this crate that knows floats.
#![expect(clippy::float_arithmetic, reason = "runs on the host only, once per rule")]

use bytesize::ByteSize;

use crate::env::Prob;

/// Reads a share: `10%`, `0.1`, `100%`, `1`. 0 is never, 1 or 100% is always.
///
/// # Errors
/// A sentence that says what was given and what is accepted.
pub fn parse_share(text: &str) -> Result<Prob, String> {
    let refuse = || {
        format!(
            "`{text}` is not a share: write a percentage from 0% to 100%, or a fraction from 0 to 1 such as 0.1"
        )
    };
    let (number, scale) = match text.strip_suffix('%') {
        Some(number) => (number.trim_end(), 100.0),
        None => (text, 1.0),
    };
    let value: f64 = number.parse().map_err(|_| refuse())?;
    let share = value / scale;
    if !(0.0..=1.0).contains(&share) || !number.starts_with(|c: char| c.is_ascii_digit() || c == '.') {
        return Err(refuse());
    }
    Ok(share_to_prob(share))
}

/// An option as it is written, and cut at its `=`.
pub(crate) type Opt<'a> = (&'a str, Option<(&'a str, &'a str)>);

/// What comes first, and the options behind it, divided by commas.
pub(crate) fn options(text: &str) -> (&str, impl Iterator<Item = Opt<'_>>) {
    let mut parts = text.split(',').map(str::trim);
    let first = parts.next().unwrap_or_default();
    (first, parts.map(|part| (part, part.split_once('='))))
}

/// A share from 0 to 1 as a 32-bit fraction. A share above 0 never becomes 0.
#[must_use]
pub fn share_to_prob(share: f64) -> Prob {
    #[expect(
        clippy::cast_possible_truncation,
        clippy::cast_sign_loss,
        reason = "clamped to the range of u32 first"
    )]
    let bits = (share * f64::from(u32::MAX)).round().clamp(0.0, f64::from(u32::MAX)) as u32;
    Prob(if share > 0.0 { bits.max(1) } else { 0 })
}

/// The share that a 32-bit fraction stands for, from 0 to 1.
#[must_use]
pub fn prob_to_share(prob: Prob) -> f64 {
    f64::from(prob.0) / f64::from(u32::MAX)
}

/// The share as people write it: `10%`, `0.5%`.
#[must_use]
pub fn percent(prob: Prob) -> String {
    let percent = prob_to_share(prob) * 100.0;
    let rounded = (percent * 1e4).round() / 1e4;
    format!("{rounded}%")
}

const DURATION_FORM: &str = "write a number and a unit, such as 100ms, 1.5s, 20us or 2m";
const SIZE_FORM: &str = "write bytes with or without a unit, such as 1500, 64KB (64,000) or 1MiB (1,048,576)";
const RATE_FORM: &str =
    "write 10Mbit/s, 1Gbps or 100kbit for bits a second (upper-case B is bytes: 1KB/s; K = 1000, Ki = 1024)";

/// The longest duration that [`parse_duration`] reads: 292 years, as `humantime` and a signed
/// 64-bit number of nanoseconds have it.
const DURATION_MAX_NS: u64 = i64::MAX as u64;

/// Reads a duration in nanoseconds: `100ms`, `1.5s`, `20us`, `2m`, `1m 30s`, a bare `0`.
///
/// # Errors
/// A sentence that says what was given and what is accepted; also for what is longer than 292 years.
pub fn parse_duration(text: &str) -> Result<u64, String> {
    let text = text.trim();
    // No duration that means something is longer, and `humantime` 2.4 panics at some that are.
    if text.len() > 24 {
        return Err(format!("this is too long for a duration: {DURATION_FORM}"));
    }
    let duration = humantime::parse_duration(text).map_err(|error| match error {
        humantime::DurationError::UnknownUnit { unit, value, .. } if unit.is_empty() => {
            format!("`{text}` has no unit: write {value}ms or {value}s, for example")
        }
        humantime::DurationError::UnknownUnit { unit, .. } => {
            format!("`{text}`: `{unit}` is not a unit of time; {DURATION_FORM}")
        }
        humantime::DurationError::InvalidCharacter(_)
        | humantime::DurationError::NumberExpected(_)
        | humantime::DurationError::NumberOverflow
        | humantime::DurationError::Empty => format!("`{text}` is not a duration: {DURATION_FORM}"),
    })?;
    u64::try_from(duration.as_nanos())
        .ok()
        .filter(|ns| *ns <= DURATION_MAX_NS)
        .ok_or_else(|| format!("`{text}` is longer than 292 years; {DURATION_FORM}"))
}

/// A duration as people write it, exact and in one word: `100ms`, `1.5s`, `20us`, `0s`.
/// [`parse_duration`] reads it back.
#[must_use]
pub fn show_duration(ns: u64) -> String {
    for (unit, name) in [(1_000_000_000, "s"), (1_000_000, "ms"), (1_000, "us")] {
        if (ns >= unit || ns == 0)
            && let Some(number) = thousandths(ns, unit)
        {
            return format!("{number}{name}");
        }
    }
    format!("{ns}ns")
}

/// `value / unit` with up to three decimals; none if that is not exact.
fn thousandths(value: u64, unit: u64) -> Option<String> {
    let whole = value.checked_div(unit)?;
    let thousandth = value.checked_rem(unit)?.checked_mul(1000)?;
    if thousandth.checked_rem(unit)? != 0 {
        return None;
    }
    let decimals = format!("{:03}", thousandth.checked_div(unit)?);
    let decimals = decimals.trim_end_matches('0');
    Some(if decimals.is_empty() { whole.to_string() } else { format!("{whole}.{decimals}") })
}

/// Reads a number of bytes: `1500`, `64KB` (64,000), `1MiB` (1,048,576), `1.5kB`.
///
/// # Errors
/// A sentence that says what was given and what is accepted.
pub fn parse_size(text: &str) -> Result<u64, String> {
    let size: ByteSize = text.trim().parse().map_err(|_| format!("`{text}` is not a size: {SIZE_FORM}"))?;
    Ok(size.as_u64())
}

/// A number of bytes as people write it, exact: `1500B`, `64KB`, `1MiB`. [`parse_size`] reads it back.
#[must_use]
pub fn show_size(bytes: u64) -> String {
    const UNITS: [(u64, &str); 6] = [
        (1 << 30, "GiB"),
        (1_000_000_000, "GB"),
        (1 << 20, "MiB"),
        (1_000_000, "MB"),
        (1 << 10, "KiB"),
        (1_000, "KB"),
    ];
    for (unit, name) in UNITS {
        if bytes >= unit && bytes.checked_rem(unit) == Some(0) {
            return format!("{}{name}", bytes.checked_div(unit).unwrap_or_default());
        }
    }
    format!("{bytes}B")
}

/// Reads a rate in bits per second: `1KB/s` (8,000), `10Mbit/s`, `100kbit`, `1Gbps`, `125000B/s`.
///
/// K, M, G and T are powers of 1000, Ki, Mi, Gi and Ti of 1024, in either case. An upper-case `B`
/// is bytes; `b`, `bit` and `bps` are bits. (`tc` reads `bps` as *bytes*; everybody else as bits.)
///
/// # Errors
/// A sentence that says what was given and what is accepted: no unit, an unknown one, no number,
/// or more than a 64-bit number of bits.
pub fn parse_rate(text: &str) -> Result<u64, String> {
    let refuse = |why: &str| format!("`{text}` {why}: {RATE_FORM}");
    let text = text.trim();
    let split = text.find(|c: char| !c.is_ascii_digit() && c != '.').unwrap_or(text.len());
    let (number, unit) = text.split_at(split);
    let value: f64 = number.parse().map_err(|_| refuse("is not a rate"))?;
    let unit = unit.trim_start();
    let (scale, rest) = scale(unit);
    let each = match rest {
        "B" | "B/s" | "Bps" | "bytes/s" | "byte/s" => 8.0,
        "b" | "b/s" | "bit" | "bit/s" | "bits/s" | "bits" | "bps" => 1.0,
        "" => return Err(refuse("does not say of what: bits or bytes")),
        _ => return Err(refuse("has an unknown unit")),
    };
    let bits = (value * scale * each).round();
    #[expect(clippy::cast_precision_loss, reason = "a bound, and 2^64 is a power of two")]
    if bits >= u64::MAX as f64 {
        return Err(refuse("is more than any link carries"));
    }
    #[expect(
        clippy::cast_possible_truncation,
        clippy::cast_sign_loss,
        reason = "compared with the bound of u64 above, and no sign was read"
    )]
    Ok(bits as u64)
}

/// The prefix of a unit, and what follows it.
fn scale(unit: &str) -> (f64, &str) {
    let mut rest = unit.chars();
    let power = match rest.next() {
        Some('k' | 'K') => 1,
        Some('m' | 'M') => 2,
        Some('g' | 'G') => 3,
        Some('t' | 'T') => 4,
        _ => return (1.0, unit),
    };
    let rest = rest.as_str();
    // `Kibit` is a prefix of two letters.
    match rest.strip_prefix('i') {
        Some(rest) => (1024f64.powi(power), rest),
        None => (1000f64.powi(power), rest),
    }
}

/// A rate as people write it, exact: `8kbit/s`, `1.5Mbit/s`, `1Gbit/s`. [`parse_rate`] reads it back.
#[must_use]
pub fn show_rate(bits_per_second: u64) -> String {
    for (unit, name) in [(1_000_000_000, "Gbit/s"), (1_000_000, "Mbit/s"), (1_000, "kbit/s")] {
        if bits_per_second >= unit
            && let Some(number) = thousandths(bits_per_second, unit)
        {
            return format!("{number}{name}");
        }
    }
    format!("{bits_per_second}bit/s")
}
