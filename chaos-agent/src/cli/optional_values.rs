//! `--partition reject` and `--partition unit:api.service`: which of the two is a value?
//!
//! clap knows no flag whose value may be absent and yet stand behind a space: it takes any next word,
//! or only what follows a `=`. So before clap reads the line, a next word that the fault's own parser
//! takes is joined to the flag with a `=`; every other word stays what it was.

use std::ffi::{OsStr, OsString};

use chaos_common::fault::{FAULTS, FaultInfo, Faults, Value};

use crate::targets::{Target, TargetParseError};

/// The line with every optional value joined to its flag. What follows a `--` is left alone.
pub(super) fn join(words: &[OsString]) -> Vec<OsString> {
    let end = words.iter().position(|word| word == "--");
    let ours = words.get(..end.unwrap_or(words.len())).unwrap_or_default();
    // `exec` has no target, and without a `--` it is that which is missing.
    let value_expected = if is_exec(ours) { end.is_some() } else { ours.iter().any(|word| is_target(word)) };
    let mut joined = Vec::with_capacity(words.len());
    let mut rest = words.iter().enumerate().peekable();
    while let Some((index, word)) = rest.next() {
        let own = end.is_none_or(|end| index < end);
        let value = rest.peek().filter(|(next, _)| own && end.is_none_or(|end| *next < end));
        let info = optional(word);
        match (info, value) {
            (Some(info), Some((_, value))) if is_value(info, value, value_expected) => {
                let mut both = word.clone();
                both.push("=");
                both.push(value);
                joined.push(both);
                rest.next();
            }
            _ => joined.push(word.clone()),
        }
    }
    joined
}

/// For a wrong word right after a flag whose value may be absent: what else it may have been meant as.
pub(super) fn advice(words: &[OsString], wrong: &str) -> Option<String> {
    words.windows(2).find_map(|pair| {
        let [flag, word] = pair else { return None };
        let info = optional(flag)?;
        (word == wrong).then(|| {
            format!(
                "if `{wrong}` is meant as the value of --{0}, write --{0}={wrong}; a target can also be put before the flags",
                info.name
            )
        })
    })
}

/// The fault whose flag this is, if its value may be absent.
fn optional(word: &OsStr) -> Option<&'static FaultInfo> {
    let name = word.to_str()?.strip_prefix("--")?;
    FAULTS.iter().find(|info| info.name == name && matches!(info.value, Value::Optional(_)))
}

/// What is no value and no target either is more likely a mistyped value, if a value is all that can
/// be expected here: then the fault says what is wrong with it.
fn is_value(info: &FaultInfo, word: &OsStr, value_expected: bool) -> bool {
    let Some(text) = word.to_str().filter(|text| !text.starts_with('-')) else { return false };
    (info.parse)(text, &mut Faults::default()).is_ok() || (value_expected && !is_target(word))
}

fn is_target(word: &OsStr) -> bool {
    let Some(text) = word.to_str() else { return false };
    matches!(text.parse::<Target>(), Ok(_) | Err(TargetParseError::NotYet { .. }))
}

fn is_exec(words: &[OsString]) -> bool {
    words.iter().skip(1).any(|word| word == "exec")
}
