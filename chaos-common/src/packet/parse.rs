//! From bytes to facts. Reads only; every read may fail, then the packet passes.

use super::{Bytes, Class, Packet, mapped, packet_flags};

const ETH_IPV4: u16 = 0x0800;
const ETH_IPV6: u16 = 0x86dd;
const ETH_VLAN: u16 = 0x8100;
const ETH_QINQ: u16 = 0x88a8;

const PROTO_ICMP: u8 = 1;
const PROTO_TCP: u8 = 6;
const PROTO_UDP: u8 = 17;
const PROTO_ICMP6: u8 = 58;

/// Extension headers read before giving up; RFC 8200, section 4.1 names seven, each once.
const EXTENSIONS_MAX: u32 = 6;
const FRAGMENT: u8 = 44;
const AUTHENTICATION: u8 = 51;

/// Where a frame begins and what the kernel took out of it.
#[derive(Clone, Copy, Debug, Default)]
pub struct Frame {
    /// The device has no MAC header: byte 0 is the IP header.
    pub l3: bool,
    /// The kernel holds a VLAN tag beside the bytes (`skb->vlan_tci`).
    pub tag_beside: bool,
    /// Bytes of the frame.
    pub len: u32,
}

/// Reads the headers into `packet`. None = it cannot be understood; then it passes.
#[inline(always)]
pub fn parse<B: Bytes>(bytes: &B, frame: Frame, packet: &mut Packet) -> Option<()> {
    packet.clear();
    if frame.tag_beside {
        packet.flags |= packet_flags::TAGGED;
    }
    let ethertype = if frame.l3 {
        match bytes.byte(0)? >> 4 {
            4 => ETH_IPV4,
            6 => ETH_IPV6,
            _ => return None,
        }
    } else {
        link(bytes, packet)?
    };
    match ethertype {
        ETH_IPV4 => ipv4(bytes, frame.len, packet),
        ETH_IPV6 => ipv6(bytes, frame.len, packet),
        _ => {
            packet.header_len = packet.network_offset;
            Some(())
        }
    }
}

/// One or two VLAN tags, either order of the two ethertypes (IEEE 802.1Q-2022, 9.6).
#[inline(always)]
fn link<B: Bytes>(bytes: &B, packet: &mut Packet) -> Option<u16> {
    let mut ethertype = bytes.half(12)?;
    packet.network_offset = 14;
    if ethertype == ETH_VLAN || ethertype == ETH_QINQ {
        packet.flags |= packet_flags::TAGGED;
        ethertype = bytes.half(16)?;
        packet.network_offset = 18;
        if ethertype == ETH_VLAN || ethertype == ETH_QINQ {
            ethertype = bytes.half(20)?;
            packet.network_offset = 22;
        }
    }
    Some(ethertype)
}

/// RFC 791, section 3.1.
#[inline(always)]
fn ipv4<B: Bytes>(bytes: &B, len: u32, packet: &mut Packet) -> Option<()> {
    let start = packet.network_offset;
    let [first, second, third, source, destination] = bytes.words::<5>(start)?.map(u32::from_be);
    let header = (first >> 24 & 0x0f) << 2;
    if first >> 28 != 4 || header < 20 {
        return None;
    }
    packet.flags |= packet_flags::IP;
    packet.source = mapped(source.to_be());
    packet.destination = mapped(destination.to_be());
    let end = ip_end(start, first & 0xffff, len);
    let later = second & 0x1fff != 0;
    packet.tos = first >> 16 & 0xff;
    if second & 0x4000 != 0 {
        packet.flags |= packet_flags::DONT_FRAGMENT;
    }
    transport(
        bytes,
        packet,
        &Transport { proto: (third >> 16) as u8, at: start.wrapping_add(header), end, later },
    )
}

/// RFC 8200, section 3; extension headers of section 4, authentication header of RFC 4302.
#[inline(always)]
fn ipv6<B: Bytes>(bytes: &B, len: u32, packet: &mut Packet) -> Option<()> {
    let start = packet.network_offset;
    let [first, second] = bytes.words::<2>(start)?.map(u32::from_be);
    if first >> 28 != 6 {
        return None;
    }
    packet.flags |= packet_flags::IP | packet_flags::V6 | packet_flags::DONT_FRAGMENT;
    packet.tos = first >> 20 & 0xff;
    packet.source = bytes.words(start.wrapping_add(8))?;
    packet.destination = bytes.words(start.wrapping_add(24))?;
    let payload = second >> 16;
    let mut next = (second >> 8) as u8;
    let mut at = start.wrapping_add(40);
    let end = ip_end(start, if payload == 0 { 0 } else { payload.wrapping_add(40) }, len);
    let mut later = false;
    for _ in 0..EXTENSIONS_MAX {
        if later || !is_extension(next) {
            break;
        }
        let [head] = bytes.words::<1>(at)?.map(u32::from_be);
        let units = head >> 16 & 0xff;
        at = at.wrapping_add(match next {
            FRAGMENT => {
                later = head & 0xfff8 != 0;
                8
            }
            // Length in 4-byte units, less two.
            AUTHENTICATION => units.wrapping_add(2) << 2,
            // Length in 8-byte units, less one.
            _ => units.wrapping_add(1) << 3,
        });
        next = (head >> 24) as u8;
    }
    if is_extension(next) && !later {
        return None;
    }
    transport(bytes, packet, &Transport { proto: next, at, end, later })
}

/// Hop-by-hop options, routing, fragment, authentication, destination options, mobility.
#[inline(always)]
const fn is_extension(next: u8) -> bool {
    matches!(next, 0 | 43 | FRAGMENT | AUTHENTICATION | 60 | 135)
}

/// Where the IP packet ends within the frame. A length of 0 (GSO, jumbogram) or beyond the frame
/// means: to the end of the frame.
#[inline(always)]
const fn ip_end(start: u32, total: u32, frame_len: u32) -> u32 {
    let end = start.wrapping_add(total);
    if total == 0 || end > frame_len { frame_len } else { end }
}

struct Transport {
    proto: u8,
    at: u32,
    end: u32,
    later: bool,
}

#[inline(always)]
fn transport<B: Bytes>(bytes: &B, packet: &mut Packet, t: &Transport) -> Option<()> {
    packet.proto = t.proto;
    packet.header_len = t.at;
    packet.transport_offset = t.at;
    packet.class = match t.proto {
        PROTO_TCP => Class::TCP,
        PROTO_UDP => Class::UDP,
        PROTO_ICMP => Class::ICMP,
        PROTO_ICMP6 => Class::ICMP6,
        _ => Class::OTHER,
    };
    if t.later {
        packet.flags |= packet_flags::LATER_FRAGMENT;
        return Some(());
    }
    let header = match t.proto {
        PROTO_TCP => {
            let word = u32::from_be(*bytes.words::<1>(t.at.wrapping_add(12))?.first()?);
            // RFC 9293, section 3.1: five words at least; Linux drops less (`tcp_v4_rcv`).
            if word >> 28 < 5 {
                return None;
            }
            packet.tcp_flags = (word >> 16) as u8;
            word >> 28 << 2
        }
        PROTO_UDP => 8,
        PROTO_ICMP | PROTO_ICMP6 => return icmp(bytes, packet, t),
        _ => 0,
    };
    if header != 0 {
        let ports = u32::from_be(*bytes.words::<1>(t.at)?.first()?);
        packet.source_port = (ports >> 16) as u16;
        packet.destination_port = ports as u16;
        packet.flags |= packet_flags::PORTS;
    }
    packet.header_len = t.at.wrapping_add(header);
    packet.payload_len = t.end.saturating_sub(packet.header_len);
    if packet.payload_len != 0 {
        packet.flags |= packet_flags::DATA;
    }
    Some(())
}

/// RFC 792 and RFC 4443: echo carries an identifier; RFC 4861: neighbour discovery is 133 to 137;
/// RFC 2710 and RFC 3810: listener reports are 130 to 132 and 143.
#[inline(always)]
fn icmp<B: Bytes>(bytes: &B, packet: &mut Packet, t: &Transport) -> Option<()> {
    let at = t.at;
    let kind = bytes.byte(at)?;
    packet.header_len = at.wrapping_add(8);
    packet.payload_len = t.end.saturating_sub(packet.header_len);
    let is_v4 = packet.proto == PROTO_ICMP;
    let echo = if is_v4 { matches!(kind, 0 | 8) } else { matches!(kind, 128 | 129) };
    if !is_v4 && matches!(kind, 130..=137 | 143) {
        packet.class = Class::LINK;
    }
    if echo {
        let id = bytes.half(at.wrapping_add(4))?;
        packet.source_port = id;
        packet.destination_port = id;
        packet.flags |= packet_flags::ECHO;
    }
    Some(())
}
