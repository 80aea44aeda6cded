//! The sender gets an ICMP error about the packet, as from a router or the receiver itself.

use aya_ebpf::{
    bindings::bpf_adj_room_mode::BPF_ADJ_ROOM_MAC,
    helpers::{bpf_csum_diff, bpf_skb_adjust_room, bpf_skb_change_tail, bpf_skb_load_bytes},
};
use chaos_common::{
    job::Job,
    packet::{Bytes as _, Class},
    segment::{self, Ends, Icmp},
    verdict::answers,
};

use super::{
    hold::answer,
    way::{MAC_HEADER_LEN, vanish},
};
use crate::{error::Error, frame::Skb, maps::CHAOS_SCRATCH};

const PROTO_ICMP: u32 = 1;
const PROTO_ICMP6: u32 = 58;
const ICMP_LEN: u32 = 8;
/// The longest part of the packet that is quoted; a power of two, for the verifier.
const QUOTE_MAX: u32 = 128;
const QUOTE_WORDS: u32 = QUOTE_MAX / 4;
/// Types and codes: RFC 792; RFC 1191, section 4; RFC 4443, sections 3.1 and 3.2.
const V4_UNREACHABLE: u32 = 3;
const V4_TOO_BIG_CODE: u32 = 4;
const V6_UNREACHABLE: u32 = 1;
const V6_TOO_BIG: u32 = 2;

/// Puts a new IP and ICMP header before the quoted packet and sends it back. No error is ever about another
/// error, a later fragment or what many receive (RFC 1122, section 3.2.2; RFC 4443, section 2.4).
#[inline(always)]
pub(super) fn tell(skb: Skb, job: &mut Job) -> Result<i32, Error> {
    const PACKET_HOST: u32 = 0;
    // The bit of a MAC address by which many receive it (IEEE 802, clause 8.2.2).
    const GROUP: u8 = 1;
    let packet = job.packet;
    let is_error = matches!(packet.class, Class::ICMP | Class::ICMP6) && !packet.is_echo();
    // What has a VLAN tag within the frame is rare, and would need its tags moved.
    let bare = packet.network_offset == 0;
    if is_error
        || packet.is_later_fragment()
        || !packet.is_ip()
        || (!bare && packet.network_offset != MAC_HEADER_LEN)
        || (skb.pkt_type() != PACKET_HOST && job.direction == 1)
        || (!bare && skb.byte(0).ok_or(Error::Effect)? & GROUP != 0)
    {
        return Ok(vanish(job));
    }
    let headers = packet.transport_offset.wrapping_sub(packet.network_offset);
    let quote = headers.wrapping_add(ICMP_LEN);
    if quote > QUOTE_MAX {
        return Ok(vanish(job));
    }
    let v6 = packet.is_v6();
    let added = ICMP_LEN.wrapping_add(if v6 { 40 } else { 20 });
    // SAFETY: the kernel passes a valid context.
    if unsafe { bpf_skb_change_tail(skb.0, packet.network_offset.wrapping_add(quote), 0) } != 0 {
        return Err(Error::Effect);
    }
    let quoted = sum_of_quote(skb, packet.network_offset, quote)?;
    // Room behind the MAC header: unlike `bpf_skb_change_head` this moves the place of the network header, by
    // which the kernel takes MAC headers off for devices that have none (`__bpf_redirect_no_mac`).
    // SAFETY: the kernel passes a valid context.
    if unsafe { bpf_skb_adjust_room(skb.0, added as i32, BPF_ADJ_ROOM_MAC, 0) } != 0 {
        return Err(Error::Effect);
    }
    skb.swap_macs(job)?;
    let ends = Ends { source: packet.destination, destination: packet.source, ..Ends::default() };
    let length = quote.wrapping_add(ICMP_LEN);
    let at = packet.network_offset;
    let message = message(job);
    if v6 {
        let pseudo = segment::sum_addr(&ends.source)
            .wrapping_add(segment::sum_addr(&ends.destination))
            .wrapping_add(PROTO_ICMP6)
            .wrapping_add(length);
        skb.put(at, &segment::ipv6(&ends, PROTO_ICMP6, length)).ok_or(Error::Effect)?;
        skb.put(at.wrapping_add(40), &segment::icmp(&message, pseudo.wrapping_add(quoted)))
            .ok_or(Error::Effect)?;
    } else {
        skb.put(at, &segment::ipv4(&ends, PROTO_ICMP, length)).ok_or(Error::Effect)?;
        skb.put(at.wrapping_add(20), &segment::icmp(&message, quoted)).ok_or(Error::Effect)?;
    }
    Ok(answer(skb, job))
}

#[inline(always)]
fn message(job: &Job) -> Icmp {
    let answer = &job.verdict.answer;
    let too_big = answer.what == answers::TOO_BIG;
    match (job.packet.is_v6(), too_big) {
        (false, false) => Icmp { kind: V4_UNREACHABLE, code: answer.code & 0xff, word: 0 },
        (false, true) => Icmp { kind: V4_UNREACHABLE, code: V4_TOO_BIG_CODE, word: answer.mtu & 0xffff },
        (true, false) => Icmp { kind: V6_UNREACHABLE, code: answer.code6 & 0xff, word: 0 },
        (true, true) => Icmp { kind: V6_TOO_BIG, code: 0, word: answer.mtu },
    }
}

/// Sum of the 16-bit numbers of the part that is quoted, in host order.
#[inline(always)]
fn sum_of_quote(skb: Skb, at: u32, len: u32) -> Result<u32, Error> {
    let bytes = CHAOS_SCRATCH.get_ptr_mut(0).ok_or(Error::Tables)?;
    // Headers are whole words, so the quote is, and needs no padding. The compiler must not know its bound,
    // or it would leave the mask out that tells the verifier; that it is not 0 comes from the addition,
    // because Linux 6.1 learns nothing from a comparison with 0.
    let words = (core::hint::black_box(len) >> 2).wrapping_sub(1) & (QUOTE_WORDS - 1);
    let len = words.wrapping_add(1) << 2;
    // SAFETY: the helper writes exactly `len` bytes, within this CPU's element; the verifier checks it.
    if unsafe { bpf_skb_load_bytes(skb.0.cast(), at, bytes.cast(), len) } != 0 {
        return Err(Error::Effect);
    }
    // SAFETY: the helper reads exactly `len` bytes, within the element; the verifier checks it.
    let sum = unsafe { bpf_csum_diff(core::ptr::null_mut(), 0, bytes.cast(), len, 0) };
    let sum = u32::try_from(sum).map_err(|_| Error::Effect)?;
    // The sum is of numbers in network order; of the folded one the two bytes are swapped.
    Ok(u32::from(segment::fold(sum).swap_bytes()))
}
