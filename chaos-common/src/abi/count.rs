//! What is counted, and why.

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
    /// Passed because `max_packets` or `max_bytes` was used up.
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
}
