//! What is remembered about connections and flows, and the distributions.

use crate::{abi::FlowKey, env::Word};

/// What a rule remembers about one connection.
#[repr(C)]
#[derive(Debug, Default)]
pub struct FlowMemory {
    /// Boot clock of the first packet that the rule saw.
    pub first_ns: Word,
    /// Bytes of payload seen so far, both directions together.
    pub bytes: Word,
    /// Whether the rule may act on it, if it has `max_flows`: see [`crate::life`].
    pub admitted: Word,
    /// Not 0 once one of its packets was answered with resets ([`crate::fault::reset`]).
    pub ended: Word,
    /// What a link of the connection's own remembers ([`crate::fault::rate::RateState`]), by [`super::Direction`].
    pub clocks: [Word; 2],
}

/// Key of the connection memory.
#[repr(C)]
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash)]
pub struct MemoryKey {
    /// The [`crate::lookup::symmetric`] key.
    pub flow: FlowKey,
    /// The rule's id and arming, mixed: a rule that is armed anew remembers nothing.
    pub rule: u64,
}

/// When the last packet of a flow leaves the delay line, in one direction.
#[repr(C)]
#[derive(Debug, Default)]
pub struct Lane {
    /// Which rule holds it: the time of its arming without the low 12 bits, which are its slot. Once that is
    /// over its packets have left, and the time is void.
    pub holder: Word,
    /// Clock of the delay line.
    pub release_ns: Word,
}

/// The same for both directions, by [`super::Direction`].
#[repr(C)]
#[derive(Debug, Default)]
pub struct FlowOrder {
    /// By [`super::Direction`].
    pub lanes: [Lane; 2],
}

/// Entries of the longest distribution table (`NETEM_DIST_MAX` in `include/uapi/linux/pkt_sched.h`).
pub const DIST_ENTRIES: usize = 16_384;
/// Distribution tables that the map holds; number 0 is not used.
pub const DIST_TABLES: u32 = 20;

/// A distribution as netem keeps it: equally likely values in units of a 8192nd of the jitter.
#[repr(C)]
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct DistTable {
    /// Entries in use; 0 = no table.
    pub len: u32,
    /// Keeps the entries aligned.
    pub reserved: u32,
    /// The first `len` are valid.
    pub entries: [i16; DIST_ENTRIES],
}

#[cfg(feature = "user")]
#[expect(clippy::large_stack_arrays, reason = "a constant; the host copies it into a box")]
impl DistTable {
    /// No table.
    pub const EMPTY: Self = Self { len: 0, reserved: 0, entries: [0; DIST_ENTRIES] };
}
