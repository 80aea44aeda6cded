//! What a decision says; data only. `chaos-ebpf` takes it apart exhaustively and acts.

use crate::{
    fault::FaultKind,
    judge::opens_connection,
    mask::zero,
    packet::{Addr, Packet},
};

/// What comes back instead of the packet, in [`Answer::what`]. Numbers and not an `enum`: they are
/// read back from a map, where the verifier knows no variants.
pub mod answers {
    /// A TCP reset for both ends (RFC 9293, section 3.5.2).
    pub const RESET: u32 = 1;
    /// ICMP destination unreachable (RFC 792; `ICMPv6`: RFC 4443, section 3.1).
    pub const UNREACHABLE: u32 = 2;
    /// ICMP fragmentation needed (RFC 1191), or packet too big (RFC 4443, section 3.2).
    pub const TOO_BIG: u32 = 3;
    /// The answer to a DNS query.
    pub const DNS: u32 = 4;
}

/// How long `connect()` may hold its socket after it has sent a SYN, nanoseconds: microseconds, with room for a
/// busy machine.
const LOCKED_NS: u64 = 2_000_000;

/// What comes back to the sender; the packet itself goes nowhere.
#[repr(C)]
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Answer {
    /// See [`answers`]; 0 = nothing.
    pub what: u32,
    /// Code of an ICMP message for IPv4; response code of a DNS answer.
    pub code: u32,
    /// The same for `ICMPv6`; flags of a DNS answer.
    pub code6: u32,
    /// Largest packet in bytes, for [`answers::TOO_BIG`].
    pub mtu: u32,
    /// Address for a DNS answer, network byte order, mapped if it is IPv4; zero = none.
    pub address: Addr,
    /// Address for a question of the other family.
    pub address6: Addr,
}

/// How a packet's payload is damaged.
#[repr(C)]
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Corruption {
    /// Where, together with [`crate::fault::corrupt::place`].
    pub seed: u64,
    /// Bits to flip, 1 to 16.
    pub bits: u32,
    /// 1 = the checksum is mended, so that the application reads wrong bytes.
    pub silent: u32,
    /// First byte of the payload that may be hit.
    pub first: u32,
    /// Last byte of the payload that may be hit; beyond its end means its end.
    pub last: u32,
}

/// Flags of [`Verdict::flags`].
pub mod verdict_flags {
    /// It must not leave before what went before it in its flow and direction.
    pub const ORDERED: u32 = 1;
    /// It leaves now, whatever went before it.
    pub const OVERTAKES: u32 = 2;
    /// The rule is over, but packets that it held are still leaving: behind them.
    pub const DRAIN: u32 = 4;
    /// It waits for a link: the line keeps its distance to the packet before it, even when it was late.
    pub const PACED: u32 = 8;
}

/// What shall happen to one packet. Fields that end in `_by` hold the [`FaultKind::number`] of the
/// fault that wanted it; 0 = none did.
#[repr(C)]
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Verdict {
    /// The packet vanishes without anybody being told.
    pub drop_by: u32,
    /// [`Verdict::answer`] comes back, the packet vanishes.
    pub answer_by: u32,
    /// It leaves twice.
    pub duplicate_by: u32,
    /// [`Verdict::corruption`] damages it.
    pub corrupt_by: u32,
    /// Its congestion-experienced bits are set (RFC 3168, section 5).
    pub mark_by: u32,
    /// It waits in the delay line.
    pub hold_by: u32,
    /// Slot of the rule that makes it wait longest.
    pub hold_slot: u32,
    /// See [`verdict_flags`].
    pub flags: u32,
    /// How long it waits for a link to be free and to be sent over it, nanoseconds. Of several rules the
    /// narrowest link counts.
    pub queue_ns: u64,
    /// How long it is under way after that, nanoseconds. Several rules add up.
    pub delay_ns: u64,
    /// What the rule in `hold_slot` alone makes it wait, nanoseconds.
    pub longest_ns: u64,
    /// When the rule in `hold_slot` was armed, boot clock.
    pub armed_ns: u64,
    /// See [`Answer`].
    pub answer: Answer,
    /// See [`Corruption`].
    pub corruption: Corruption,
}

/// The bit of a kind's number; 0 = no kind.
#[inline(always)]
const fn bit(number: u32) -> u32 {
    if number == 0 { 0 } else { 1u32.wrapping_shl(number) }
}

impl Verdict {
    /// Nothing happens to the packet.
    pub const PASS: Self = Self {
        drop_by: 0,
        answer_by: 0,
        duplicate_by: 0,
        corrupt_by: 0,
        mark_by: 0,
        hold_by: 0,
        hold_slot: 0,
        flags: 0,
        queue_ns: 0,
        delay_ns: 0,
        longest_ns: 0,
        armed_ns: 0,
        answer: Answer { what: 0, code: 0, code6: 0, mtu: 0, address: [0; 4], address6: [0; 4] },
        corruption: Corruption { seed: 0, bits: 0, silent: 0, first: 0, last: 0 },
    };

    /// Makes it [`Self::PASS`], word by word.
    #[inline(always)]
    pub fn clear(&mut self) {
        let Self {
            drop_by,
            answer_by,
            duplicate_by,
            corrupt_by,
            mark_by,
            hold_by,
            hold_slot,
            flags,
            queue_ns,
            delay_ns,
            longest_ns,
            armed_ns,
            answer,
            corruption,
        } = self;
        let zero = zero();
        for number in [drop_by, answer_by, duplicate_by, corrupt_by, mark_by, hold_by, hold_slot, flags] {
            *number = zero as u32;
        }
        for time in [queue_ns, delay_ns, longest_ns, armed_ns] {
            *time = zero;
        }
        let answer = core::hint::black_box(answer);
        *answer = Self::PASS.answer;
        *corruption = Self::PASS.corruption;
    }

    /// Nothing happens to the packet.
    #[inline(always)]
    #[must_use]
    pub const fn is_pass(&self) -> bool {
        self.drop_by | self.answer_by | self.duplicate_by | self.corrupt_by | self.mark_by | self.hold_by == 0
    }

    /// The faults that want something: bits by their number.
    #[inline(always)]
    #[must_use]
    pub const fn kinds(&self) -> u32 {
        let Self { drop_by, answer_by, duplicate_by, corrupt_by, mark_by, hold_by, .. } = *self;
        bit(drop_by) | bit(answer_by) | bit(duplicate_by) | bit(corrupt_by) | bit(mark_by) | bit(hold_by)
    }

    /// The packet vanishes because of `kind`.
    #[inline(always)]
    pub const fn drop(&mut self, kind: FaultKind) {
        self.drop_by = kind.number();
    }

    /// This comes back because of `kind`; of several answers the first counts.
    #[inline(always)]
    pub const fn answer(&mut self, kind: FaultKind, answer: Answer) {
        if self.answer_by == 0 {
            self.answer_by = kind.number();
            self.answer = answer;
        }
    }

    /// As [`Self::answer`], with an ICMP error. To the one that opens a connection it comes a moment later: on the
    /// way of its own SYN it would find the socket locked by `connect()`, and `tcp_v4_err` and `tcp_v6_err`
    /// (Linux 6.18; `LockDroppedIcmps` in `/proc/net/netstat`) only note an error then. The SYN sent again, a
    /// second later, would be the first to be heard of.
    #[inline(always)]
    pub const fn refuse(&mut self, kind: FaultKind, packet: &Packet, answer: Answer) {
        self.answer(kind, answer);
        if opens_connection(packet) {
            self.delay(kind, LOCKED_NS);
        }
    }

    /// It waits for its link, and keeps its order.
    #[inline(always)]
    pub const fn queue(&mut self, kind: FaultKind, queue_ns: u64) {
        self.hold_by = kind.number();
        self.flags |= verdict_flags::ORDERED | verdict_flags::PACED;
        if queue_ns > self.queue_ns {
            self.queue_ns = queue_ns;
        }
    }

    /// It is under way for longer, and keeps its order.
    #[inline(always)]
    pub const fn delay(&mut self, kind: FaultKind, delay_ns: u64) {
        self.hold_by = kind.number();
        self.flags |= verdict_flags::ORDERED;
        self.delay_ns = self.delay_ns.saturating_add(delay_ns);
    }

    /// How long it waits before its order is looked at, nanoseconds.
    #[inline(always)]
    #[must_use]
    pub const fn hold_ns(&self) -> u64 {
        self.queue_ns.saturating_add(self.delay_ns)
    }

    /// Several rules matched one packet: any drop wins, of other effects the first; delays add up, the
    /// narrowest link counts.
    #[inline(always)]
    pub const fn merge(&mut self, other: &Self) {
        let Self {
            drop_by,
            answer_by,
            duplicate_by,
            corrupt_by,
            mark_by,
            hold_by,
            hold_slot,
            flags,
            queue_ns,
            delay_ns,
            longest_ns,
            armed_ns,
            answer,
            corruption,
        } = other;
        if self.drop_by == 0 {
            self.drop_by = *drop_by;
        }
        if self.answer_by == 0 {
            self.answer_by = *answer_by;
            self.answer = *answer;
        }
        if self.duplicate_by == 0 {
            self.duplicate_by = *duplicate_by;
        }
        if self.corrupt_by == 0 {
            self.corrupt_by = *corrupt_by;
            self.corruption = *corruption;
        }
        if self.mark_by == 0 {
            self.mark_by = *mark_by;
        }
        if *hold_by != 0 && (self.hold_by == 0 || *longest_ns > self.longest_ns) {
            self.hold_by = *hold_by;
            self.hold_slot = *hold_slot;
            self.longest_ns = *longest_ns;
            self.armed_ns = *armed_ns;
        }
        if *queue_ns > self.queue_ns {
            self.queue_ns = *queue_ns;
        }
        self.delay_ns = self.delay_ns.saturating_add(*delay_ns);
        self.flags |= *flags;
    }
}
