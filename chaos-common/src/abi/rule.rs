//! Rules and what they remember.

use crate::{
    env::{Prob, Word},
    fault::{Faults, States},
    sample::SampleState,
};

/// Flags of [`Rule::flags`].
pub mod rule_flags {
    /// Count what would be hit, touch nothing.
    pub const SHADOW: u32 = 1;
    /// Only packets that carry payload.
    pub const DATA_ONLY: u32 = 2;
    /// Only flows whose first packet was seen since arming.
    pub const NEW: u32 = 4;
    /// Only the other flows.
    pub const ESTABLISHED: u32 = 8;
    /// Also packets that only pass through the namespace.
    pub const FORWARDED: u32 = 16;
    /// Only the share of flows in [`super::Rule::share`].
    pub const SHARE: u32 = 32;
    /// Faults or limits must see single wire packets.
    pub const WIRE: u32 = 64;
    /// Draws or faults need the packet's ordinal.
    pub const ORDINAL: u32 = 128;
    /// Packets may have to wait in the delay line.
    pub const LINE: u32 = 256;
    /// Faults remember something about each connection.
    pub const MEMORY: u32 = 512;
    /// Checksums must be complete, on the loopback device too.
    pub const CHECKSUM: u32 = 1024;
    /// It lets nothing through, so it also acts on packets that were held before it began.
    pub const CUTS: u32 = 2048;
}

/// A rule as the program reads it; never changed in place.
#[repr(C)]
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Rule {
    /// Stable id; 0 = no rule.
    pub id: u64,
    /// Seed of draws; 0 = random draws.
    pub seed: u64,
    /// Seed of the share of flows.
    pub share_seed: u64,
    /// When it was armed, boot clock: flows first seen later are new.
    pub armed_ns: u64,
    /// Acts from here on, boot clock.
    pub starts_ns: u64,
    /// Acts until here, boot clock.
    pub expires_ns: u64,
    /// Flapping: acts this long at the start of each period.
    pub flap_on_ns: u64,
    /// Flapping: length of a period; 0 = always on.
    pub flap_period_ns: u64,
    /// Hits at most this many packets; 0 = no limit.
    pub max_packets: u64,
    /// Hits at most this many bytes; 0 = no limit.
    pub max_bytes: u64,
    /// Hits packets of at most this many flows; 0 = no limit.
    pub max_flows: u64,
    /// See [`rule_flags`].
    pub flags: u32,
    /// Share of flows.
    pub share: Prob,
    /// TCP flags of which one must be set; 0 = no condition.
    pub tcp_flags: u32,
    /// The kinds that are set: bit [`crate::fault::FaultKind`] as a number. The rule compiler fills it in.
    pub kinds: u32,
    /// Those of them that let nothing through, likewise.
    pub cut_kinds: u32,
    /// Keeps the next field aligned.
    pub reserved: u32,
    /// What happens.
    pub faults: Faults,
}

/// What a rule remembers; lives by slot and survives every swap that keeps the rule.
#[repr(C)]
#[derive(Debug, Default)]
pub struct RuleState {
    /// Boot clock; written by the agent once a second. Passed = the rule is inert.
    pub lease_until_ns: u64,
    /// Packets hit, for `max_packets`.
    pub packets: Word,
    /// Bytes hit, for `max_bytes`.
    pub bytes: Word,
    /// Flows met, for `max_flows`.
    pub flows: Word,
    /// Which of its packets are told of.
    pub sample: SampleState,
    /// Packets judged, by [`super::Direction`].
    pub ordinals: [Word; 2],
    /// Packets that wait in the delay line; the line's thread counts down.
    pub held: Word,
    /// What the faults remember, by [`super::Direction`].
    pub states: [States; 2],
}
