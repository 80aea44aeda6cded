//! Sets of clauses, each kept once.

use std::collections::HashMap;

use crate::abi::{SET_WORDS, Set};

/// A set while it is built.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub(super) struct Bits([u64; SET_WORDS]);

impl Default for Bits {
    fn default() -> Self {
        Self([0; SET_WORDS])
    }
}

impl Bits {
    /// Adds a clause.
    pub(super) fn insert(&mut self, index: usize) {
        if let Some(word) = self.0.get_mut(index >> 6) {
            *word |= 1 << (index & 63);
        }
    }

    /// Takes a clause out.
    pub(super) fn remove(&mut self, index: usize) {
        if let Some(word) = self.0.get_mut(index >> 6) {
            *word &= !(1 << (index & 63));
        }
    }

    /// Adds the clauses of another set.
    pub(super) fn join(&mut self, other: &Self) {
        for (word, more) in self.0.iter_mut().zip(other.0) {
            *word |= more;
        }
    }

    /// The set as the program reads it.
    fn finish(&self) -> Set {
        let summary = self.0.iter().enumerate().filter(|(_, word)| **word != 0);
        Set { summary: summary.fold(0, |bits, (index, _)| bits | 1 << index), words: self.0 }
    }
}

/// All sets; equal ones share a number. The first one asked for gets 0.
#[derive(Default)]
pub(super) struct Sets {
    numbers: HashMap<Bits, u32>,
    sets: Vec<Set>,
}

impl Sets {
    /// The number of a set.
    pub(super) fn number(&mut self, bits: &Bits) -> u32 {
        if let Some(number) = self.numbers.get(bits) {
            return *number;
        }
        let number = u32::try_from(self.sets.len()).unwrap_or(u32::MAX);
        self.sets.push(bits.finish());
        self.numbers.insert(bits.clone(), number);
        number
    }

    /// The sets by number.
    pub(super) fn finish(self) -> Vec<Set> {
        self.sets
    }
}
