//! Shares of packets as people write them. The only place of this crate that knows floats.
#![expect(clippy::float_arithmetic, reason = "runs on the host only, once per rule")]

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
