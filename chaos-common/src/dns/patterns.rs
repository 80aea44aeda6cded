//! The patterns of this process, by number: rules hold the numbers, the kernel's table the patterns.

use std::sync::{Mutex, MutexGuard, PoisonError};

use super::glob::{PATTERN_MAX, PATTERNS, Pattern};

/// Only ever grows, so that a number that a rule holds keeps its meaning.
static KNOWN: Mutex<Vec<Pattern>> = Mutex::new(Vec::new());

fn known() -> MutexGuard<'static, Vec<Pattern>> {
    // A push that panicked has left the list whole.
    KNOWN.lock().unwrap_or_else(PoisonError::into_inner)
}

/// The number of a pattern, the same for the same pattern. Upper case and one dot at the end do
/// not count: DNS compares without them.
///
/// # Errors
/// A sentence that says what was given and what is accepted.
pub fn intern(text: &str) -> Result<u32, String> {
    let pattern = parse(text)?;
    let mut known = known();
    if let Some(number) = known.iter().position(|other| *other == pattern) {
        return Ok(number as u32);
    }
    if known.len() >= PATTERNS {
        return Err(format!(
            "`{text}`: this process knows {PATTERNS} names and patterns already, and no more fit; use a pattern such as `*.internal` instead of many names"
        ));
    }
    known.push(pattern);
    Ok(known.len().saturating_sub(1) as u32)
}

/// Every pattern so far, in the order of their numbers.
#[must_use]
pub fn all() -> Vec<Pattern> {
    known().clone()
}

/// The pattern of a number.
#[must_use]
pub fn get(number: u32) -> Option<Pattern> {
    known().get(number as usize).copied()
}

/// The pattern of a number, as text.
#[must_use]
pub fn text(number: u32) -> Option<String> {
    get(number).map(|pattern| pattern.text().to_owned())
}

fn parse(text: &str) -> Result<Pattern, String> {
    let name = text.strip_suffix('.').unwrap_or(text).to_ascii_lowercase();
    if name.is_empty() {
        return Err(format!(
            "`{text}` is no name: write one such as api.example.com or *.internal, or * for all"
        ));
    }
    if !name.is_ascii() {
        return Err(format!("`{text}`: write it as resolvers ask for it, in Punycode (xn--...)"));
    }
    let allowed = |c: char| c.is_ascii_alphanumeric() || "-_./*?".contains(c);
    if let Some(wrong) = name.chars().find(|c| !allowed(*c)) {
        return Err(format!(
            "`{text}`: names are made of letters, digits, `-`, `_`, `/` and dots, `*` stands for any characters and `?` for one; `{wrong}` is none of them"
        ));
    }
    if name.split('.').any(str::is_empty) {
        return Err(format!(
            "`{text}` has two dots in a row, or begins with one; *.example.com means all names below"
        ));
    }
    Pattern::new(name.as_bytes())
        .ok_or_else(|| format!("`{text}` has {} characters, at most {PATTERN_MAX} are possible", name.len()))
}

#[cfg(test)]
#[expect(clippy::unwrap_used, reason = "a failed unwrap in a test is a failed test")]
mod tests {
    use super::{intern, parse, text};

    #[test]
    fn one_number_for_one_name() {
        let number = intern("Api.Example.COM.").unwrap();
        assert_eq!(intern("api.example.com").unwrap(), number);
        assert_ne!(intern("api.example.org").unwrap(), number);
        assert_eq!(text(number).as_deref(), Some("api.example.com"));
    }

    #[test]
    fn what_is_no_name_is_refused_with_the_reason() {
        for (wrong, reason) in [
            ("", "is no name"),
            (".", "is no name"),
            ("a b", "` ` is none of them"),
            ("a..b", "two dots"),
            (".internal", "*.example.com"),
            ("bücher.example", "Punycode"),
            ("[ab].example", "`[` is none"),
        ] {
            let error = parse(wrong).unwrap_err();
            assert!(error.contains(reason), "{wrong}: {error}");
        }
        assert!(parse(&"a".repeat(127)).is_ok());
        assert!(parse(&"a".repeat(128)).unwrap_err().contains("127"));
        assert!(parse("redis").is_ok() && parse("*").is_ok() && parse("0/25.2.0.192.in-addr.arpa").is_ok());
    }
}
