//! Whether a name is meant: `*` stands for any characters (dots, too, and none), `?` for one.
//!
//! Two pointers and one place to come back to. What follows the last `*` is compared at the end
//! of the name, so that a pattern with one `*` never comes back.

use super::query::{NAME_MAX, Query};
use crate::mask::masked;

/// Longest pattern.
pub const PATTERN_MAX: usize = 127;
/// Patterns that the table holds.
pub const PATTERNS: usize = 256;

const ROOM: usize = PATTERN_MAX + 1;
/// Characters compared in one step.
const CHARACTERS_PER_STEP: u32 = 8;
/// Steps in one round of the kernel's loop, and rounds: together enough for every pattern and name,
/// because each comparison moves within the pattern or to the next place in the name.
pub const STEPS: u32 = 64;
/// See [`STEPS`].
pub const ROUNDS: u32 = 64;

const _: () = assert!(STEPS * ROUNDS * CHARACTERS_PER_STEP >= (NAME_MAX * ROOM) as u32);

/// A pattern in lower case, as it lies in the kernel's table; a zeroed one matches nothing.
#[repr(C)]
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Pattern {
    /// Its characters.
    pub bytes: [u8; ROOM],
    /// How many.
    pub len: u32,
    /// One more than the place of the last `*`; 0 = there is none.
    pub anchor: u32,
}

impl Default for Pattern {
    fn default() -> Self {
        Self { bytes: [0; ROOM], len: 0, anchor: 0 }
    }
}

impl Pattern {
    /// The character at `index`; 0 beyond the end.
    #[inline(always)]
    fn character(&self, index: u32) -> u8 {
        if index < self.len { self.bytes.get(masked::<ROOM>(index)).copied().unwrap_or(0) } else { 0 }
    }
}

/// Where a comparison is.
#[repr(C)]
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Scan {
    /// In the pattern.
    at: u32,
    /// In the name.
    place: u32,
    /// In the pattern, behind the last `*` met; 0 = there is none to come back to.
    star: u32,
    /// In the name, where that `*` was tried last.
    mark: u32,
    /// 1 = the pattern matches.
    matched: u32,
}

impl Scan {
    /// A comparison from the beginning.
    #[inline(always)]
    #[must_use]
    pub const fn new() -> Self {
        Self { at: 0, place: 0, star: 0, mark: 0, matched: 0 }
    }

    /// The pattern matches the name; known when [`Self::advance`] says that it is done.
    #[inline(always)]
    #[must_use]
    pub const fn matched(&self) -> bool {
        self.matched != 0
    }

    /// Compares some characters. False = done.
    #[inline(always)]
    pub fn advance(&mut self, pattern: &Pattern, query: &Query) -> bool {
        for _ in 0..CHARACTERS_PER_STEP {
            if !self.compare(pattern, query) {
                return false;
            }
        }
        true
    }

    #[inline(always)]
    fn compare(&mut self, pattern: &Pattern, query: &Query) -> bool {
        let wanted = pattern.character(self.at);
        if wanted == b'*' {
            return self.star(pattern, query);
        }
        if self.place >= query.name_len {
            self.matched = u32::from(wanted == 0 && pattern.len != 0);
            return false;
        }
        if wanted != 0 && (wanted == b'?' || wanted == query.character(self.place)) {
            self.at = self.at.wrapping_add(1);
            self.place = self.place.wrapping_add(1);
            return true;
        }
        self.mark = self.mark.wrapping_add(1);
        self.place = self.mark;
        self.at = self.star;
        self.star != 0
    }

    /// A `*`: either a place to come back to, or what follows must be the end of the name.
    #[inline(always)]
    fn star(&mut self, pattern: &Pattern, query: &Query) -> bool {
        self.at = self.at.wrapping_add(1);
        self.star = self.at;
        self.mark = self.place;
        if self.at != pattern.anchor {
            return true;
        }
        let tail = pattern.len.wrapping_sub(self.at);
        let fits = self.place.wrapping_add(tail) <= query.name_len;
        self.star = 0;
        self.place = query.name_len.wrapping_sub(tail);
        fits
    }
}

#[cfg(feature = "user")]
impl Pattern {
    /// The pattern of a name or glob, which must be in lower case and fit.
    #[must_use]
    pub fn new(text: &[u8]) -> Option<Self> {
        let mut pattern = Self { len: u32::try_from(text.len()).ok()?, ..Self::default() };
        pattern.bytes.get_mut(..text.len()).filter(|_| text.len() <= PATTERN_MAX)?.copy_from_slice(text);
        let last = text.iter().rposition(|character| *character == b'*');
        pattern.anchor = last.and_then(|place| place.checked_add(1)).unwrap_or(0) as u32;
        Some(pattern)
    }

    /// Its characters.
    #[must_use]
    pub fn text(&self) -> &str {
        let bytes = self.bytes.get(..self.len as usize).unwrap_or_default();
        str::from_utf8(bytes).unwrap_or_default()
    }

    /// Whether it means the name that `query` asks for.
    #[must_use]
    pub fn matches(&self, query: &Query) -> bool {
        let mut scan = Scan::new();
        while scan.advance(self, query) {}
        scan.matched()
    }
}
