//! Both ends of a TCP connection get a reset with the sequence number they expect.

use aya_ebpf::helpers::{bpf_l4_csum_replace, bpf_skb_change_tail};
use chaos_common::{
    job::Job,
    packet::{Bytes as _, tcp},
    segment::{self, Ends, Reset},
};

use super::{
    hold::hold,
    way::{back, copy_back, forth},
};
use crate::{error::Error, frame::Skb};

const PROTO_TCP: u32 = 6;
const TCP_LEN: u32 = 20;
/// Where the checksum lies in a TCP header.
const CHECKSUM: u32 = 16;

/// Turns the packet into a reset for its receiver and sends another to its sender (RFC 9293, section
/// 3.10.7.1); a SYN is answered only. Each has the sequence number that its receiver expects next, as
/// far as this packet tells, because another would be asked back (RFC 5961, section 3.2).
#[inline(always)]
pub(super) fn both_ends(skb: Skb, job: &mut Job) -> Result<i32, Error> {
    let packet = job.packet;
    let [seq, ack] = skb.words::<2>(packet.transport_offset.wrapping_add(4)).ok_or(Error::Unparsable)?;
    let (seq, ack) = (u32::from_be(seq), u32::from_be(ack));
    let opens = packet.tcp_flags & (tcp::SYN | tcp::ACK) == tcp::SYN;
    let counted = packet.tcp_flags & (tcp::SYN | tcp::FIN) != 0;
    let after = seq.wrapping_add(packet.payload_len).wrapping_add(u32::from(counted));
    let forward = Ends {
        source: packet.source,
        destination: packet.destination,
        source_port: packet.source_port,
        destination_port: packet.destination_port,
    };
    let start = packet.network_offset;
    let transport = start.wrapping_add(if packet.is_v6() { 40 } else { 20 });
    // SAFETY: the kernel passes a valid context. It also ends what GSO said about the packet.
    if unsafe { bpf_skb_change_tail(skb.0, transport.wrapping_add(TCP_LEN), 0) } != 0 {
        return Err(Error::Effect);
    }
    let partial = is_partial(skb, transport.wrapping_add(CHECKSUM))?;
    skb.swap_macs(job)?;
    let to_sender = Reset { seq: if opens { 0 } else { ack }, ack: after, partial };
    write(skb, job, &forward.reversed(), &to_sender)?;
    if opens {
        return Ok(back(skb, job));
    }
    copy_back(skb, job);
    skb.swap_macs(job)?;
    write(skb, job, &forward, &Reset { seq, ack, partial })?;
    if job.verdict.hold_by != 0 {
        // Data before it waits in the delay line; ahead of that it would have a number from the future.
        return hold(skb, job, false).or_else(|_| Ok(forth(skb, job)));
    }
    Ok(forth(skb, job))
}

#[inline(always)]
fn write(skb: Skb, job: &Job, ends: &Ends, reset: &Reset) -> Result<(), Error> {
    let start = job.packet.network_offset;
    let transport = if job.packet.is_v6() {
        skb.put(start, &segment::ipv6(ends, PROTO_TCP, TCP_LEN)).ok_or(Error::Effect)?;
        start.wrapping_add(40)
    } else {
        skb.put(start, &segment::ipv4(ends, PROTO_TCP, TCP_LEN)).ok_or(Error::Effect)?;
        start.wrapping_add(20)
    };
    skb.put(transport, &segment::reset(ends, reset)).ok_or(Error::Effect)
}

/// The checksum is left for a device to complete (`CHECKSUM_PARTIAL`), which no field of the context tells:
/// `inet_proto_csum_replace4` (net/core/utils.c, Linux 6.1 to 6.18) leaves it alone then.
#[inline(always)]
pub(super) fn is_partial(skb: Skb, checksum: u32) -> Result<bool, Error> {
    const PROBE: u16 = 0x1111;
    skb.put(checksum, &[PROBE]).ok_or(Error::Effect)?;
    // SAFETY: the kernel passes a valid context.
    if unsafe { bpf_l4_csum_replace(skb.0, checksum, 0, 0x0101, 2) } != 0 {
        return Err(Error::Effect);
    }
    let [now] = skb.raw::<u16, 1>(checksum).ok_or(Error::Effect)?;
    Ok(now == PROBE)
}
