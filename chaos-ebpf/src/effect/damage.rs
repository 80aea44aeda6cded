//! What happens to a packet that arrives: flipped bits, a congestion mark.

use aya_ebpf::{
    bindings::{BPF_CSUM_LEVEL_RESET, BPF_F_MARK_MANGLED_0},
    helpers::{bpf_csum_level, bpf_l4_csum_replace, bpf_skb_ecn_set_ce},
};
use chaos_common::{
    fault::corrupt::{BITS_MAX, place},
    job::Job,
    packet::{Bytes as _, Class},
};

use crate::frame::Skb;

/// Flips bits of the payload. Silent: the checksum is mended. Otherwise the receiver's kernel is made to look
/// at it. None = a byte could not be read or written.
#[inline(always)]
pub(super) fn corrupt(skb: Skb, job: &Job) -> Option<()> {
    let packet = &job.packet;
    let corruption = &job.verdict.corruption;
    for index in 0..BITS_MAX {
        if index >= corruption.bits {
            break;
        }
        let Some((offset, mask)) = place(corruption, index, packet.payload_len) else { break };
        let at = packet.header_len.wrapping_add(offset);
        let before = skb.byte(at)?;
        let after = before ^ mask;
        skb.put(at, &[after])?;
        if corruption.silent != 0 {
            mend(skb, job, at, (before, after));
        }
    }
    if corruption.silent == 0 {
        // A device may have looked at the checksum already (`CHECKSUM_UNNECESSARY`).
        // SAFETY: the kernel passes a valid context.
        unsafe { bpf_csum_level(skb.0, u64::from(BPF_CSUM_LEVEL_RESET)) };
    }
    Some(())
}

/// Makes the checksum right again after one byte has changed.
#[inline(always)]
fn mend(skb: Skb, job: &Job, at: u32, (before, after): (u8, u8)) {
    let start = job.packet.transport_offset;
    let (field, flags) = match job.packet.class {
        Class::TCP => (16, 0),
        Class::UDP => (6, u64::from(BPF_F_MARK_MANGLED_0)),
        Class::ICMP | Class::ICMP6 => (2, 0),
        _ => return,
    };
    // A byte's place in its 16-bit number, counted from the transport header; numbers as in memory.
    let odd = at.wrapping_sub(start) & 1 != 0;
    let number = |byte: u8| u64::from(if odd { u16::from(byte) << 8 } else { u16::from(byte) });
    // SAFETY: the kernel passes a valid context.
    unsafe {
        bpf_l4_csum_replace(skb.0, start.wrapping_add(field), number(before), number(after), flags | 2)
    };
}

/// Sets the congestion-experienced bits (RFC 3168, section 5); a packet that is not capable keeps its own.
#[inline(always)]
pub(super) fn mark_congestion(skb: Skb) {
    // SAFETY: the kernel passes a valid context.
    unsafe { bpf_skb_ecn_set_ce(skb.0) };
}
