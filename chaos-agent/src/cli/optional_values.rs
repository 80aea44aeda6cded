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
    let end = words.iter().position(|word| word == "--").unwrap_or(words.len());
    let ours = words.get(..end).unwrap_or_default();
    // `exec` has no target, and without a `--` it is that which is missing.
    let exec = is_exec(ours).then_some(end < words.len());
    let mut joined = Vec::with_capacity(words.len());
    let mut rest = words.iter().enumerate().peekable();
    while let Some((_, word)) = rest.next() {
        let value = rest.peek().filter(|(next, _)| *next < end);
        match (optional(word), value) {
            (Some(info), Some((at, value))) if is_value(info, value, line(ours, *at, exec)) => {
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

/// What the rest of the line has besides the word in question.
#[derive(Clone, Copy)]
struct Line {
    /// The target is there, or none is needed.
    has_target: bool,
    /// A word that is no target can only be meant as the value.
    value_expected: bool,
}

fn line(words: &[OsString], at: usize, exec: Option<bool>) -> Line {
    if let Some(has_command) = exec {
        return Line { has_target: true, value_expected: has_command };
    }
    let mut others = words.iter().enumerate().filter(|(other, _)| *other != at);
    let has_target = others.any(|(_, word)| is_own_target(word));
    Line { has_target, value_expected: has_target }
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

/// A word that the fault reads is its value, unless it is the only target there is (`--reject host`). What
/// is no value and no target either is more likely a mistyped value, if a value is all that can be
/// expected here: then the fault says what is wrong with it.
fn is_value(info: &FaultInfo, word: &OsStr, line: Line) -> bool {
    let Some(text) = word.to_str().filter(|text| !text.starts_with('-')) else { return false };
    if (info.parse)(text, &mut Faults::default()).is_ok() {
        return line.has_target || !is_own_target(word);
    }
    line.value_expected && !is_target(word)
}

fn is_target(word: &OsStr) -> bool {
    let Some(text) = word.to_str() else { return false };
    matches!(text.parse::<Target>(), Ok(_) | Err(TargetParseError::NotYet { .. }))
}

/// A target that programs can be attached to; an address may be the value of `--peer`.
fn is_own_target(word: &OsStr) -> bool {
    let Some(text) = word.to_str() else { return false };
    match text.parse::<Target>() {
        Ok(target) => !target.is_peer_only(),
        Err(error) => matches!(error, TargetParseError::NotYet { .. }),
    }
}

fn is_exec(words: &[OsString]) -> bool {
    words.iter().skip(1).any(|word| word == "exec")
}
