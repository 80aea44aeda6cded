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

    /// The clock of the delay line, nanoseconds (`bpf_ktime_get_ns`, `CLOCK_MONOTONIC`).
    fn line_ns(&self) -> u64 {
        self.now_ns()
    }

    /// 32 uniformly distributed bits.
    fn random_u32(&self) -> u32;

    /// What `word` holds.
    fn read(&self, word: &Word) -> u64;

    /// Sets `word`; of several CPUs that do so at once the last wins.
    fn write(&self, word: &Word, value: u64);

    /// Adds `n` to `word` in one atomic step and returns what it held before.
    fn fetch_add(&self, word: &Word, n: u64) -> u64;

    /// Sets `word` to `new` if it holds `old`, in one atomic step, and returns what it held before.
    fn compare_exchange(&self, word: &Word, old: u64, new: u64) -> u64;
}

/// What a draw is for; part of the hash, so that one fault's draws never shift another's.
#[repr(u32)]
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum DrawKind {
    /// Random loss.
    Loss = 1,
    /// Whether this packet is sent twice.
    Duplicate = 2,
    /// Whether this packet is corrupted.
    Corrupt = 3,
    /// Where it is corrupted.
    CorruptPlace = 4,
    /// Whether this packet ends its connection.
    Reset = 5,
    /// How late this packet is.
    Delay = 6,
    /// The same for the round trip.
    Rtt = 7,
    /// Whether this packet overtakes.
    Reorder = 8,
    /// Which state the link goes over to (Gilbert-Elliott).
    LossState = 9,
    /// Whether `connect()` is refused.
    Refuse = 10,
}

/// What is added to a kind's number for the draw that decides whether the draw before is used again.
const CORRELATION: u32 = 1 << 16;

/// Marks a remembered draw as one that was made.
const DRAWN: u64 = 1 << 32;

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
    #[inline(always)]
    pub fn next<E: Env>(&self, env: &E, kind: DrawKind) -> u32 {
        self.salted(env, kind as u32)
    }

    /// The same, but with the chance `rho` the draw before, which `last` remembers.
    ///
    /// Every value stays as likely as every other, and two neighbours are correlated by `rho`. The
    /// weighted sum of `get_crandom` in `net/sched/sch_netem.c` (Linux 6.18) does not keep the first:
    /// with it 10 % loss at 25 % correlation is far less than 10 %.
    #[inline(always)]
    pub fn correlated<E: Env>(&self, env: &E, kind: DrawKind, rho: Prob, last: &Word) -> u32 {
        let fresh = self.next(env, kind);
        if rho == Prob::NEVER {
            return fresh;
        }
        let again = rho.hits(self.salted(env, kind as u32 | CORRELATION));
        let before = env.read(last);
        let value = if again && before & DRAWN != 0 { before as u32 } else { fresh };
        env.write(last, DRAWN | u64::from(value));
        value
    }

    #[inline(always)]
    fn salted<E: Env>(&self, env: &E, salt: u32) -> u32 {
        if self.seed == 0 {
            return env.random_u32();
        }
        let salt = u64::from(salt) << 32;
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
