//! How far a packet's delay strays from its base: samples in netem's scale, 8192 = one sigma.
//!
//! Uniform jitter is computed ([`uniform`]); every other distribution is a table of samples of
//! which each is as likely as any other (inverse transform sampling), made or read on the host,
//! numbered by [`intern()`], looked up by [`crate::world::World::dist`], applied by [`spread`].

#[cfg(feature = "user")]
mod intern;
#[cfg(feature = "user")]
mod math;
#[cfg(feature = "user")]
mod read;

#[cfg(feature = "user")]
pub use self::{
    intern::{intern, name, tables},
    math::{Shape, generate},
    read::{parse_dist, read_dist},
};

/// The sample that stands for one sigma (`NETEM_DIST_SCALE` in
/// `include/uapi/linux/pkt_sched.h`, Linux 6.18).
pub const SCALE: u64 = 1 << SCALE_BITS;
const SCALE_BITS: u32 = 13;

/// Entries of a table (`MAX_DIST` in iproute2's `tc/q_netem.c`, `NETEM_DIST_MAX` in the kernel).
pub const ENTRIES_MAX: usize = 16_384;

/// Tables in one process; their numbers are 1 to this.
pub const TABLES_MAX: usize = 16;

/// `base_ns + jitter_ns * sample / 8192`, rounded to the nearest with halves away from zero, as
/// `tabledist` of `net/sched/sch_netem.c` (Linux 6.18) does; not below 0.
///
/// It multiplies in two parts, as netem does: exact for any jitter up to 2^48 ns.
#[inline(always)]
#[must_use]
pub const fn spread(base_ns: u64, jitter_ns: u64, sample: i16) -> u64 {
    // The kernel's compiler knows no signed division: the sign is taken off first.
    let size = sample.unsigned_abs() as u64;
    let whole = (jitter_ns >> SCALE_BITS).wrapping_mul(size);
    let part = (jitter_ns & (SCALE - 1)).wrapping_mul(size).wrapping_add(SCALE / 2) >> SCALE_BITS;
    let offset = whole.wrapping_add(part);
    if sample < 0 { base_ns.saturating_sub(offset) } else { base_ns.saturating_add(offset) }
}

/// A delay from `base_ns - jitter_ns` to `base_ns + jitter_ns`, both included; not below 0.
/// `jitter_ns` below 2^62.
///
/// It is `draw * (2 * jitter_ns + 1) / 2^32`, rounded down. Of the 2^32 draws each value gets the
/// same number or one more, so no interval is likelier or less likely than it should be by more
/// than 2^-32, and the mean is off by less than a nanosecond; above 2.1 s of jitter there are more
/// values than draws, and every `jitter / 2^31`-th value is taken (280 ns at 10 minutes).
/// netem's `draw % (2 * sigma) + mu - sigma` never reaches the upper end.
#[inline(always)]
#[must_use]
pub const fn uniform(base_ns: u64, jitter_ns: u64, draw: u32) -> u64 {
    let values = (jitter_ns << 1).wrapping_add(1);
    let draw = draw as u64;
    // The product of 32 and 63 bits, shifted right by 32, without a 128-bit number.
    let high = (values >> 32).wrapping_mul(draw);
    let low = (values & 0xffff_ffff).wrapping_mul(draw) >> 32;
    base_ns.saturating_add(high.wrapping_add(low)).saturating_sub(jitter_ns)
}
