//! A DNS query becomes its answer, in place: the message, lengths, ports, addresses, checksums.

use aya_ebpf::{
    bindings::BPF_F_RECOMPUTE_CSUM,
    helpers::{bpf_csum_diff, bpf_l3_csum_replace, bpf_skb_change_tail, bpf_skb_store_bytes},
};
use chaos_common::{
    abi::Direction,
    job::{Job, job_flags},
    packet::{Class, Packet, unmapped},
    segment,
};

use super::{reset::is_partial, way::back};
use crate::{
    error::Error,
    frame::Skb,
    question::{asked, bounded, read},
};

const PROTO_UDP: u32 = 17;
const UDP_LEN: u32 = 8;
/// Where the checksum lies in a UDP header.
const CHECKSUM: u32 = 6;
/// `query::ANSWER_MAX` as a mask of whole words.
const WORDS_MASK: u32 = 0x1fc;

/// Writes the answer over the query and sends it back. Nothing is changed before it is known to fit.
#[inline(always)]
pub(super) fn answer(skb: Skb, job: &Job) -> Result<i32, Error> {
    let packet = &job.packet;
    // Read again: what this CPU read last may have been another packet.
    if packet.class != Class::UDP || !read(skb) {
        return Err(Error::Effect);
    }
    let before = packet.payload_len;
    let after = asked().ok_or(Error::Tables)?.query.answer(&job.verdict.answer, before);
    let start = packet.header_len;
    // SAFETY: the kernel passes a valid context.
    if unsafe { bpf_skb_change_tail(skb.0, start.wrapping_add(after), 0) } != 0 {
        return Err(Error::Effect);
    }
    let message = asked().ok_or(Error::Tables)?.query.message.as_ptr();
    let flags = u64::from(BPF_F_RECOMPUTE_CSUM);
    // SAFETY: the helper reads exactly so many bytes; the verifier checks the length.
    if unsafe { bpf_skb_store_bytes(skb.0, start, message.cast(), bounded(after), flags) } != 0 {
        return Err(Error::Effect);
    }
    put_header(skb, job, after)?;
    mend_lengths(skb, packet, before, after)?;
    swap_addresses(skb, packet)?;
    skb.swap_macs(job)?;
    Ok(back(skb, job))
}

/// Writes the UDP header: ports swapped, length, checksum.
#[inline(always)]
fn put_header(skb: Skb, job: &Job, message_len: u32) -> Result<(), Error> {
    let packet = &job.packet;
    let len = message_len.wrapping_add(UDP_LEN);
    let pseudo = segment::sum_addr(&packet.source)
        .wrapping_add(segment::sum_addr(&packet.destination))
        .wrapping_add(PROTO_UDP)
        .wrapping_add(len);
    let at = packet.transport_offset;
    let sum = if is_left_open(skb, job, at.wrapping_add(CHECKSUM))? {
        segment::fold(pseudo)
    } else {
        let ports = u32::from(packet.destination_port).wrapping_add(u32::from(packet.source_port));
        let header = pseudo.wrapping_add(ports).wrapping_add(len);
        match !segment::fold(header.wrapping_add(message_sum(message_len)?)) {
            // 0 means "no checksum" (RFC 768).
            0 => u16::MAX,
            sum => sum,
        }
    };
    let header = [packet.destination_port, packet.source_port, len as u16, sum];
    skb.put(at, &header.map(u16::to_be)).ok_or(Error::Effect)
}

/// The checksum is left for a device to complete, which may be a real one: then the field holds the sum of
/// the pseudo header only. What goes back to a socket of this namespace meets no device, and gets the whole
/// sum for those who capture it; the socket does not look at it.
#[inline(always)]
fn is_left_open(skb: Skb, job: &Job, checksum: u32) -> Result<bool, Error> {
    if job.direction() == Direction::Egress && !job.has(job_flags::FORWARDED) {
        return Ok(false);
    }
    is_partial(skb, checksum)
}

/// The sum of the answer, in host order; the bytes up to the next word are zero.
#[inline(always)]
fn message_sum(len: u32) -> Result<u32, Error> {
    let message = asked().ok_or(Error::Tables)?.query.message.as_mut_ptr();
    // A mask, because Linux 6.1 loses what a comparison finds; the compiler must not leave it out.
    let len = core::hint::black_box(len.wrapping_add(3)) & WORDS_MASK;
    // SAFETY: the helper reads exactly `len` bytes; the verifier checks the length.
    let sum = unsafe { bpf_csum_diff(core::ptr::null_mut(), 0, message.cast(), len, 0) };
    let sum = u32::try_from(sum).map_err(|_| Error::Effect)?;
    Ok(u32::from(segment::fold(sum).swap_bytes()))
}

/// Corrects the lengths in the IP header.
#[inline(always)]
fn mend_lengths(skb: Skb, packet: &Packet, before: u32, after: u32) -> Result<(), Error> {
    if before == after {
        return Ok(());
    }
    let field = packet.network_offset.wrapping_add(if packet.is_v6() { 4 } else { 2 });
    let [old] = skb.raw::<u16, 1>(field).ok_or(Error::Effect)?;
    let new = (u32::from(u16::from_be(old)).wrapping_add(after).wrapping_sub(before) as u16).to_be();
    skb.put(field, &[new]).ok_or(Error::Effect)?;
    if packet.is_v6() {
        return Ok(());
    }
    let checksum = packet.network_offset.wrapping_add(10);
    // SAFETY: the kernel passes a valid context.
    let result = unsafe { bpf_l3_csum_replace(skb.0, checksum, u64::from(old), u64::from(new), 2) };
    if result == 0 { Ok(()) } else { Err(Error::Effect) }
}

#[inline(always)]
fn swap_addresses(skb: Skb, packet: &Packet) -> Result<(), Error> {
    let at = packet.network_offset;
    if packet.is_v6() {
        skb.put(at.wrapping_add(8), &packet.destination).ok_or(Error::Effect)?;
        return skb.put(at.wrapping_add(24), &packet.source).ok_or(Error::Effect);
    }
    let v4 = |addr| unmapped(addr).unwrap_or(0);
    let swapped = [v4(&packet.destination), v4(&packet.source)];
    skb.put(at.wrapping_add(12), &swapped).ok_or(Error::Effect)
}
