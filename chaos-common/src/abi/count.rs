//! What is counted, and why.

use crate::mask::masked;

macro_rules! counts {
    ($( $(#[$doc:meta])* $name:ident = $label:literal ),+ $(,)?) => {
        /// Why a packet was counted.
        #[repr(u8)]
        #[derive(Clone, Copy, Debug, PartialEq, Eq)]
        pub enum Count {
            $( $(#[$doc])* $name, )+
        }

        impl Count {
            /// Every reason.
            pub const ALL: &'static [Self] = &[ $( Self::$name, )+ ];

            /// Its name in reports and metrics.
            #[must_use]
            pub const fn label(self) -> &'static str {
                match self {
                    $( Self::$name => $label, )+
                }
            }
        }
    };
}

counts! {
    /// The rule matched, whatever happened then.
    Matched = "matched",
    /// Dropped.
    Dropped = "dropped",
    /// Would have been hit, were the rule not in shadow.
    Shadowed = "shadowed",
    /// Passed because the lease had lapsed.
    Lease = "lease",
    /// Passed because the rule had expired.
    Expired = "expired",
    /// Passed because `max_packets`, `max_bytes` or `max_flows` was used up.
    Limited = "limited",
    /// Answered instead of delivered: reset, ICMP error, DNS answer.
    Answered = "answered",
    /// Sent through the delay line.
    Delayed = "delayed",
    /// Sent twice.
    Duplicated = "duplicated",
    /// Corrupted.
    Corrupted = "corrupted",
    /// Marked with congestion experienced.
    Marked = "marked",
    /// Let go ahead of packets before it.
    Reordered = "reordered",
    /// Calls of `connect()` that were refused; bytes stay 0.
    Refused = "refused",
    /// Passed at once because the delay line did not run.
    Unheld = "unheld",
}

impl Count {
    /// Its bit in [`super::Record::verdicts`].
    #[must_use]
    pub const fn bit(self) -> u32 {
        1 << self as u32
    }

    /// Something was done to the packet.
    #[must_use]
    pub const fn is_effect(self) -> bool {
        match self {
            Self::Dropped
            | Self::Answered
            | Self::Delayed
            | Self::Duplicated
            | Self::Corrupted
            | Self::Marked
            | Self::Reordered
            | Self::Refused => true,
            Self::Matched | Self::Shadowed | Self::Lease | Self::Expired | Self::Limited | Self::Unheld => {
                false
            }
        }
    }
}

/// Number of [`Count`]s.
pub const COUNTS: usize = Count::ALL.len();

/// Packets and bytes, one pair.
#[repr(C)]
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Tally {
    /// Wire packets.
    pub packets: u64,
    /// Bytes of the frames as on the wire, from the MAC header on.
    pub bytes: u64,
}

/// One rule's counters in one direction (per CPU in the kernel), by [`Count`].
#[repr(C)]
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Counters {
    /// By [`Count`].
    pub tallies: [Tally; COUNTS],
    /// How long the rule made packets wait.
    pub delays: Delays,
}

/// Classes of delay; a power of two, for the index to be masked.
pub const DELAY_CLASSES: usize = 16;

/// Upper ends of the classes but the last, nanoseconds.
pub const DELAY_ENDS_NS: [u64; 15] = [
    100_000,
    500_000,
    1_000_000,
    2_000_000,
    5_000_000,
    10_000_000,
    20_000_000,
    50_000_000,
    100_000_000,
    200_000_000,
    500_000_000,
    1_000_000_000,
    2_000_000_000,
    5_000_000_000,
    10_000_000_000,
];

/// How long one rule made packets wait in one direction: what it asked for, of each wire packet counted as
/// [`Count::Delayed`].
#[repr(C)]
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Delays {
    /// Sum, nanoseconds.
    pub sum_ns: u64,
    /// Packets by class; the last is above every end.
    pub classes: [u64; DELAY_CLASSES],
}

impl Delays {
    /// So many wire packets wait so long.
    #[inline(always)]
    pub fn add(&mut self, delay_ns: u64, packets: u64) {
        let mut class = 0u32;
        for end_ns in DELAY_ENDS_NS {
            class = class.wrapping_add(u32::from(delay_ns > end_ns));
        }
        if let Some(count) = self.classes.get_mut(masked::<DELAY_CLASSES>(class)) {
            *count = count.wrapping_add(packets);
        }
        self.sum_ns = self.sum_ns.wrapping_add(delay_ns.wrapping_mul(packets));
    }
}
