//! Frames byte by byte: headers are put in front of what they carry, as on the wire.

use std::net::{Ipv4Addr, Ipv6Addr};

/// Source and destination of all IPv4 packets here.
pub(crate) const V4: (Ipv4Addr, Ipv4Addr) = (Ipv4Addr::new(10, 0, 0, 1), Ipv4Addr::new(10, 0, 0, 2));
/// Source and destination of all IPv6 packets here.
pub(crate) const V6: (Ipv6Addr, Ipv6Addr) =
    (Ipv6Addr::new(0xfd00, 0, 0, 0, 0, 0, 0, 1), Ipv6Addr::new(0xfd00, 0, 0, 0, 0, 0, 0, 2));

pub(crate) const TCP: u8 = 6;
pub(crate) const UDP: u8 = 17;
pub(crate) const HOP_BY_HOP: u8 = 0;
pub(crate) const ROUTING: u8 = 43;
pub(crate) const FRAGMENT: u8 = 44;
pub(crate) const AUTHENTICATION: u8 = 51;
pub(crate) const DESTINATION: u8 = 60;
pub(crate) const MOBILITY: u8 = 135;

/// A TCP header with ports 40000 and 6379, these flags and so many bytes of options.
pub(crate) fn tcp(flags: u8, options: u8, payload: &[u8]) -> Vec<u8> {
    let mut header = vec![0; 20 + usize::from(options)];
    header[..4].copy_from_slice(&[0x9c, 0x40, 0x18, 0xeb]);
    header[12] = (5 + options / 4) << 4;
    header[13] = flags;
    [&header, payload].concat()
}

/// A UDP header with ports 5353 and 53.
pub(crate) fn udp(payload: &[u8]) -> Vec<u8> {
    let len = (8 + payload.len() as u16).to_be_bytes();
    [&[0x14, 0xe9, 0, 53], &len[..], &[0, 0], payload].concat()
}

/// An ICMP or `ICMPv6` message with identifier 0x1234.
pub(crate) fn icmp(kind: u8) -> Vec<u8> {
    vec![kind, 0, 0, 0, 0x12, 0x34, 0, 1, b'p', b'i', b'n', b'g']
}

/// IPv4 with so many bytes of options; `fragment` is the field of flags and offset.
pub(crate) fn ipv4_with(options: u8, fragment: u16, proto: u8, carries: &[u8]) -> Vec<u8> {
    let header = 20 + usize::from(options);
    let mut bytes = vec![0; header];
    bytes[0] = 0x45 + options / 4;
    bytes[2..4].copy_from_slice(&((header + carries.len()) as u16).to_be_bytes());
    bytes[6..8].copy_from_slice(&fragment.to_be_bytes());
    bytes[8] = 64;
    bytes[9] = proto;
    bytes[12..16].copy_from_slice(&V4.0.octets());
    bytes[16..20].copy_from_slice(&V4.1.octets());
    [&bytes, carries].concat()
}

/// IPv4 as it mostly is.
pub(crate) fn ipv4(proto: u8, carries: &[u8]) -> Vec<u8> {
    ipv4_with(0, 0x4000, proto, carries)
}

/// IPv6; `next` is the protocol of the first thing it carries.
pub(crate) fn ipv6(next: u8, carries: &[u8]) -> Vec<u8> {
    let mut bytes = vec![0x60, 0, 0, 0, 0, 0, next, 64];
    bytes[4..6].copy_from_slice(&(carries.len() as u16).to_be_bytes());
    bytes.extend(V6.0.octets());
    bytes.extend(V6.1.octets());
    [&bytes, carries].concat()
}

/// An extension header of `units` more than its least length, before `next`.
pub(crate) fn extension(next: u8, units: u8, carries: &[u8]) -> Vec<u8> {
    let mut bytes = vec![0; 8 + 8 * usize::from(units)];
    (bytes[0], bytes[1]) = (next, units);
    [&bytes, carries].concat()
}

/// An authentication header with so many 4-byte words of integrity check value (RFC 4302, 2.2).
pub(crate) fn authentication(next: u8, words: u8, carries: &[u8]) -> Vec<u8> {
    let mut bytes = vec![0; 12 + 4 * usize::from(words)];
    (bytes[0], bytes[1]) = (next, 1 + words);
    [&bytes, carries].concat()
}

/// A fragment header; `field` is offset, reserved bits and the flag for more.
pub(crate) fn fragment(next: u8, field: u16, carries: &[u8]) -> Vec<u8> {
    let [high, low] = field.to_be_bytes();
    [&[next, 0, high, low, 0, 0, 0, 7], carries].concat()
}

/// An Ethernet frame with these VLAN tags (ethertype, id).
pub(crate) fn tagged(tags: &[(u16, u16)], ethertype: u16, carries: &[u8]) -> Vec<u8> {
    let mut bytes = vec![2, 0, 0, 0, 0, 2, 2, 0, 0, 0, 0, 1];
    for (kind, id) in tags {
        bytes.extend(kind.to_be_bytes());
        bytes.extend(id.to_be_bytes());
    }
    bytes.extend(ethertype.to_be_bytes());
    [&bytes, carries].concat()
}

/// An Ethernet frame around an IP packet.
pub(crate) fn frame(ip: &[u8]) -> Vec<u8> {
    tagged(&[], if ip[0] >> 4 == 4 { 0x0800 } else { 0x86dd }, ip)
}
