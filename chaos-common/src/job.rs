//! One packet's way through the rules: the facts it starts with and what the steps add.
//!
//! It lies in a map in the kernel, because the stack has 512 bytes, and because the verifier
//! forgets what is in a map: each step is proved alone, whatever the steps before it did.

use crate::{
    abi::{Device, Direction, MATCHES_MAX, device_flags},
    lookup::Candidates,
    packet::Packet,
    verdict::Verdict,
};

/// How a packet looks when it crosses in a direction; on loopback that is also asked for the
/// direction it crossed in before.
#[repr(C)]
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct View {
    /// See [`Direction`].
    pub direction: u32,
    /// Set for who owns the local end.
    pub own: u32,
    /// Set for who owns the peer's end.
    pub peer: u32,
}

impl View {
    /// Which end is local.
    #[inline(always)]
    #[must_use]
    pub const fn direction(&self) -> Direction {
        direction(self.direction)
    }
}

/// The rules that match, by slot.
#[repr(C)]
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Matches {
    /// The first `count` are valid.
    pub slots: [u32; MATCHES_MAX],
    /// How many.
    pub count: u32,
}

impl Matches {
    /// Whether the rule in `slot` is one of them.
    #[inline(always)]
    #[must_use]
    pub fn contains(&self, slot: u32) -> bool {
        let mut left = self.count;
        for known in &self.slots {
            if left == 0 {
                return false;
            }
            if *known == slot {
                return true;
            }
            left = left.wrapping_sub(1);
        }
        false
    }
}

/// Where the walk over the candidates is.
#[repr(C)]
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Walk {
    /// Words still to look at.
    pub words: u64,
    /// Clauses of the current word still to look at.
    pub bits: u64,
    /// Index of the current word's first clause.
    pub base: u32,
    /// The rule last decided about: its clauses stand together, exclusions first, and the first
    /// that holds decides.
    pub decided: u32,
}

impl Walk {
    /// A walk over these words.
    #[inline(always)]
    pub(crate) const fn over(words: u64) -> Self {
        Self { words, bits: 0, base: 0, decided: u32::MAX }
    }
}

/// How a packet counts and whether it can still be cut.
#[repr(C)]
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Size {
    /// Wire packets in it; 1 unless GSO.
    pub segments: u64,
    /// Bytes of its wire packets.
    pub bytes: u64,
}

impl Size {
    /// A frame of `len` bytes that the wire sees as `segments` packets: each repeats the headers.
    #[inline(always)]
    #[must_use]
    pub fn of(packet: &Packet, len: u32, segments: u32) -> Self {
        let segments = u64::from(if segments == 0 { 1 } else { segments });
        let repeated = segments.wrapping_sub(1).wrapping_mul(u64::from(packet.header_len));
        Self { segments, bytes: u64::from(len).wrapping_add(repeated) }
    }
}

/// Where a packet is, in [`Job::place`].
pub mod places {
    /// At a device, leaving.
    pub const EGRESS: u32 = 0;
    /// At a device, coming.
    pub const INGRESS: u32 = 1;
    /// Behind the normaliser.
    pub const RETURN: u32 = 2;
    /// Behind the delay line.
    pub const DUE: u32 = 3;
}

/// Flags of [`Job::flags`].
pub mod job_flags {
    /// Judge it as it is: it comes from the normaliser, or there is nothing to cut.
    pub const FINAL: u32 = 1;
    /// It only passes through the namespace.
    pub const FORWARDED: u32 = 2;
    /// It is one wire packet: cutting it would change nothing.
    pub const WHOLE: u32 = 4;
    /// It was judged, waited in the delay line and goes on: only what lets nothing through still counts.
    pub const HELD: u32 = 8;
    /// It was taken from its device into a private one, and must be sent back there.
    pub const AWAY: u32 = 16;
}

/// Everything known about one packet at one place.
#[repr(C)]
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Job {
    /// Facts from its bytes.
    pub packet: Packet,
    /// Where it is.
    pub device: Device,
    /// How it counts.
    pub size: Size,
    /// `SO_NETNS_COOKIE` of the namespace.
    pub netns: u64,
    /// Boot clock.
    pub now_ns: u64,
    /// Clock of the delay line, from when its wait counts; only if it waits.
    pub line_ns: u64,
    /// The walk over the candidates.
    pub walk: Walk,
    /// The bank that this packet reads from beginning to end.
    pub bank: u32,
    /// See [`Direction`].
    pub direction: u32,
    /// See [`job_flags`].
    pub flags: u32,
    /// Number of what it needs to come back from a private device; 0 = none yet.
    pub intern: u32,
    /// The device it is on, or was taken from.
    pub way_ifindex: u32,
    /// Which way it goes there: see [`crate::abi::intern_flags`].
    pub way_flags: u32,
    /// How it looks here.
    pub view: View,
    /// How it looked when it left, if it comes back by loopback.
    pub before: View,
    /// What it may match here.
    pub candidates: Candidates,
    /// What it may have matched when it left, if it comes back by loopback.
    pub candidates_before: Candidates,
    /// 1 = the walk is over those.
    pub looks_back: u32,
    /// The rules for both directions that matched when it left: they have judged it.
    pub judged: Matches,
    /// The rules that match.
    pub matches: Matches,
    /// Kinds of the rule that is asked which still have to be: see [`crate::abi::Rule::kinds`].
    pub kinds: u32,
    /// See [`places`]: what the program that took the packet says to the one that judges it.
    pub place: u32,
    /// Keeps the next field aligned.
    pub reserved: u32,
    /// The packet's ordinal in that rule and direction.
    pub ordinal: u64,
    /// What all want.
    pub verdict: Verdict,
}

impl Job {
    /// Which way it crosses the device.
    #[inline(always)]
    #[must_use]
    pub const fn direction(&self) -> Direction {
        direction(self.direction)
    }

    /// See [`job_flags`].
    #[inline(always)]
    #[must_use]
    pub const fn has(&self, flag: u32) -> bool {
        self.flags & flag != 0
    }

    /// The packet leaves and comes by the same device, and now it comes: what a rule for both
    /// directions judged when it left is not judged again.
    #[inline(always)]
    #[must_use]
    pub const fn comes_back(&self) -> bool {
        self.device.flags & device_flags::LOOPBACK != 0 && self.direction == Direction::Ingress as u32
    }
}

const fn direction(number: u32) -> Direction {
    if number == Direction::Egress as u32 { Direction::Egress } else { Direction::Ingress }
}
