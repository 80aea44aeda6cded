//! How many rules the tables hold, and which tables that makes larger.

use chaos_common::abi::{BANKS, RULES_MAX};

/// How many rules the tables hold at once. A rule takes some 5 KiB of the kernel's memory, and 720 bytes more on each
/// CPU: that is why those who need few do not take all.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Sizes {
    rules: u32,
}

/// Sets of conditions a bank has for few rules.
const SETS: u32 = 4096;
/// What a rule may need of them: one for its addresses, two for its ports (where they begin and where they end).
const SETS_OF_RULE: u32 = 3;

impl Default for Sizes {
    /// As the object says.
    fn default() -> Self {
        Self { rules: Self::FEW }
    }
}

impl Sizes {
    /// Rules for everyday use.
    pub const FEW: u32 = 256;
    /// Rules that the layout of the tables reaches to ([`RULES_MAX`]).
    pub const MOST: u32 = RULES_MAX as u32;

    /// For so many rules, at least 1 and at most [`Self::MOST`].
    #[must_use]
    pub const fn new(rules: u32) -> Self {
        Self {
            rules: if rules == 0 {
                1
            } else if rules > Self::MOST {
                Self::MOST
            } else {
                rules
            },
        }
    }

    /// The same, or more if so many rules need it.
    #[must_use]
    pub fn for_at_least(self, rules: usize) -> Self {
        Self::new(self.rules.max(u32::try_from(rules).unwrap_or(u32::MAX)))
    }

    /// Rules at once.
    #[must_use]
    pub const fn rules(self) -> u32 {
        self.rules
    }

    /// Sets of conditions that a bank holds.
    const fn sets(self) -> u32 {
        let sets = self.rules * SETS_OF_RULE;
        if sets > SETS { sets } else { SETS }
    }

    /// Entries of the tables that depend on it.
    pub(super) const fn tables(self) -> [(&'static str, u32); 4] {
        [
            ("CHAOS_SETS", BANKS * self.sets()),
            ("CHAOS_RULES", BANKS * self.rules),
            ("CHAOS_STATES", self.rules),
            ("CHAOS_COUNTERS", self.rules * 2),
        ]
    }
}
