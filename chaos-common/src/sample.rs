//! Which of the packets that a rule affects are told of: the first of each second, then one in so many.

use crate::env::{Env, Word};

/// Nanoseconds of the window in which the first packets are told of.
const WINDOW_NS: u64 = 1_000_000_000;

/// How much is told, in one word: the kernel reads it from a map.
#[repr(transparent)]
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Sampling(pub u64);

impl Sampling {
    /// Nothing.
    pub const OFF: Self = Self(0);
    /// Everything.
    pub const ALL: Self = Self::new(0, 1);

    /// The first `first` of each rule and second, then one in `every`; `every` 0 = no more.
    #[must_use]
    pub const fn new(first: u32, every: u32) -> Self {
        Self(first as u64 | (every as u64) << 32)
    }

    const fn first(self) -> u64 {
        self.0 & 0xffff_ffff
    }

    const fn every(self) -> u64 {
        self.0 >> 32
    }
}

/// What a rule remembers for it.
#[repr(C)]
#[derive(Debug, Default)]
pub struct SampleState {
    /// The second that is counted, of the boot clock.
    pub second: Word,
    /// Packets in it so far.
    pub seen: Word,
}

/// Whether the packet that the rule affects now is told of. Where CPUs meet at the turn of a second, a few more
/// or fewer are.
#[inline(always)]
pub fn takes<E: Env>(env: &E, state: &SampleState, sampling: Sampling, now_ns: u64) -> bool {
    if sampling == Sampling::OFF {
        return false;
    }
    let Some(second) = now_ns.checked_div(WINDOW_NS) else { return false };
    let before = env.read(&state.second);
    if before != second && env.compare_exchange(&state.second, before, second) == before {
        env.write(&state.seen, 0);
    }
    let seen = env.fetch_add(&state.seen, 1);
    if seen < sampling.first() {
        return true;
    }
    seen.wrapping_sub(sampling.first()).checked_rem(sampling.every()) == Some(0)
}
