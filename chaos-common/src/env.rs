//! Time and randomness, as arguments.

use core::cell::UnsafeCell;

/// A 64-bit word that several CPUs change at once; only [`Env`] touches it.
#[repr(transparent)]
#[derive(Debug, Default)]
pub struct Word(UnsafeCell<u64>);

impl Word {
    /// A word that holds `value`.
    #[must_use]
    pub const fn new(value: u64) -> Self {
        Self(UnsafeCell::new(value))
    }

    /// The address, for the atomic operations of an [`Env`].
    #[must_use]
    pub const fn as_ptr(&self) -> *mut u64 {
        self.0.get()
    }
}

// SAFETY: a `Word` is only read and changed through `Env`, whose implementations are atomic.
unsafe impl Sync for Word {}

/// Everything a decision may depend on besides its arguments.
pub trait Env {
    /// Nanoseconds since boot, suspend included (`bpf_ktime_get_boot_ns`, `CLOCK_BOOTTIME`).
    fn now_ns(&self) -> u64;

    /// 32 uniformly distributed bits.
    fn random_u32(&self) -> u32;

    /// What `word` holds.
    fn read(&self, word: &Word) -> u64;

    /// Adds `n` to `word` in one atomic step and returns what it held before.
    fn fetch_add(&self, word: &Word, n: u64) -> u64;
}

/// What a draw is for; part of the hash, so that one fault's draws never shift another's.
#[repr(u32)]
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum DrawKind {
    /// Random loss.
    Loss = 1,
}

/// The source of one packet's draws within one rule and direction.
#[derive(Clone, Copy, Debug)]
pub struct Draws {
    /// The rule's seed; 0 = draws come from [`Env::random_u32`].
    pub seed: u64,
    /// The rule's stable id and the direction, mixed.
    pub stream: u64,
    /// The packet's ordinal in the rule and direction, from 0.
    pub ordinal: u64,
}

impl Draws {
    /// 32 random bits: with a seed a pure hash of (seed, rule, direction, kind, ordinal).
    pub fn next<E: Env>(&self, env: &E, kind: DrawKind) -> u32 {
        if self.seed == 0 {
            return env.random_u32();
        }
        let salt = (kind as u64) << 32;
        let mixed = mix(self.seed ^ mix(self.stream ^ salt)).wrapping_add(self.ordinal);
        (mix(mixed) >> 32) as u32
    }
}

/// A 64-bit finaliser in which every input bit reaches every output bit (splitmix64,
/// Steele, Lea, Flood, "Fast splittable pseudorandom number generators", 2014).
#[must_use]
pub const fn mix(value: u64) -> u64 {
    let mut z = value.wrapping_add(0x9e37_79b9_7f4a_7c15);
    z = (z ^ (z >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
    z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
    z ^ (z >> 31)
}

/// A probability as a 32-bit fraction: 0 = never, all ones = always, as in `sch_netem.c`.
#[repr(transparent)]
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Prob(pub u32);

impl Prob {
    /// Never.
    pub const NEVER: Self = Self(0);
    /// Always.
    pub const ALWAYS: Self = Self(u32::MAX);

    /// Whether 32 uniform bits fall into this probability.
    #[must_use]
    pub const fn hits(self, draw: u32) -> bool {
        self.0 != 0 && draw <= self.0
    }
}
