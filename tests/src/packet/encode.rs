//! From description to bytes: lengths, next-header chains, checksums.

use std::net::{Ipv4Addr, Ipv6Addr};

use super::{Extension, Fragment, Link, Net, Packet, Transport};

/// IP protocol numbers (IANA "Protocol Numbers").
pub const ICMP: u8 = 1;
/// TCP.
pub const TCP: u8 = 6;
/// UDP.
pub const UDP: u8 = 17;
/// `ICMPv6`.
pub const ICMPV6: u8 = 58;
/// No next header (RFC 8200 section 4.7).
pub const NO_NEXT: u8 = 59;

/// The Internet checksum (RFC 1071) of `bytes`, added to `start`, complemented.
#[must_use]
pub fn checksum(start: u32, bytes: &[u8]) -> u16 {
    let mut sum = u64::from(start);
    for pair in bytes.chunks(2) {
        let low = pair.get(1).copied().unwrap_or(0);
        sum += u64::from(u16::from_be_bytes([pair[0], low]));
    }
    while sum > 0xffff {
        sum = (sum & 0xffff) + (sum >> 16);
    }
    !(u16::try_from(sum).unwrap_or(u16::MAX))
}

impl Packet {
    /// The packet as it lies on the wire (from the MAC header on, if it has one).
    #[must_use]
    pub fn bytes(&self) -> Vec<u8> {
        let mut out = self.link_header();
        out.extend(self.datagram());
        if let Some(length) = self.cut {
            out.truncate(length);
        }
        out
    }

    /// The ethertype of the network layer, 0 for none (`__sk_buff.protocol` in host order).
    #[must_use]
    pub fn ethertype_value(&self) -> u16 {
        match self.net {
            Net::None => 0,
            Net::Arp(..) => 0x0806,
            Net::V4 { .. } => 0x0800,
            Net::V6 { .. } => 0x86dd,
            Net::Other(value) => value,
        }
    }

    fn link_header(&self) -> Vec<u8> {
        let Link::Eth { dst, src, tags } = &self.link else { return Vec::new() };
        let mut out = [&dst[..], &src[..]].concat();
        for (tpid, id) in tags {
            out.extend(tpid.to_be_bytes());
            out.extend((id & 0x0fff).to_be_bytes());
        }
        out.extend(self.ethertype_value().to_be_bytes());
        out
    }

    fn datagram(&self) -> Vec<u8> {
        match &self.net {
            Net::None | Net::Other(_) => self.payload.clone(),
            Net::Arp(sender, target) => arp(*sender, *target, &self.link),
            Net::V4 { src, dst, options, fragment } => {
                let pseudo = pseudo_v4(*src, *dst);
                let later = fragment.is_some_and(|part| part.offset > 0);
                let (protocol, segment) = self.segment(pseudo, later, false);
                v4((*src, *dst), self.tos, options, *fragment, (protocol, &segment))
            }
            Net::V6 { src, dst, extensions } => {
                let pseudo = pseudo_v6(*src, *dst);
                let later =
                    extensions.iter().any(|ext| matches!(ext, Extension::Fragment(part) if part.offset > 0));
                let (protocol, segment) = self.segment(pseudo, later, true);
                v6((*src, *dst), self.tos, extensions, (protocol, &segment))
            }
        }
    }

    /// Protocol number, transport header (unless `later`: a later fragment) and payload.
    fn segment(&self, pseudo: u32, later: bool, v6: bool) -> (u8, Vec<u8>) {
        let (protocol, mut out, field) = match &self.transport {
            Transport::None => (NO_NEXT, Vec::new(), None),
            Transport::Other(number) => (*number, Vec::new(), None),
            Transport::Tcp { src, dst, flags, seq, ack } => {
                let mut out = [src.to_be_bytes(), dst.to_be_bytes()].concat();
                out.extend(seq.to_be_bytes());
                out.extend(ack.to_be_bytes());
                out.extend([5 << 4, *flags, 0xff, 0xff, 0, 0, 0, 0]);
                (TCP, out, Some(16))
            }
            Transport::Udp(src, dst) => {
                let length = be16(8 + self.payload.len());
                (UDP, [src.to_be_bytes(), dst.to_be_bytes(), length, [0, 0]].concat(), Some(6))
            }
            Transport::Icmp(kind, code, word) => {
                let mut out = vec![*kind, *code, 0, 0];
                out.extend(word.to_be_bytes());
                (if v6 { ICMPV6 } else { ICMP }, out, Some(2))
            }
        };
        if later {
            return (protocol, self.payload.clone());
        }
        out.extend(&self.payload);
        if let Some(field) = field {
            let length = u32::try_from(out.len()).unwrap_or(0);
            let start = if protocol == ICMP { 0 } else { pseudo + u32::from(protocol) + length };
            let sum = match checksum(start, &out) {
                0 if protocol == UDP => 0xffff, // RFC 768: 0 means "no checksum"
                sum => sum,
            };
            out[field..field + 2].copy_from_slice(&sum.to_be_bytes());
        }
        (protocol, out)
    }
}

fn be16(length: usize) -> [u8; 2] {
    u16::try_from(length).unwrap_or(u16::MAX).to_be_bytes()
}

fn sum_words(bytes: &[u8]) -> u32 {
    bytes.chunks_exact(2).map(|pair| u32::from(u16::from_be_bytes([pair[0], pair[1]]))).sum()
}

fn pseudo_v4(src: Ipv4Addr, dst: Ipv4Addr) -> u32 {
    sum_words(&src.octets()) + sum_words(&dst.octets())
}

fn pseudo_v6(src: Ipv6Addr, dst: Ipv6Addr) -> u32 {
    sum_words(&src.octets()) + sum_words(&dst.octets())
}

/// RFC 826 for Ethernet and IPv4, opcode 1 (request).
fn arp(sender: Ipv4Addr, target: Ipv4Addr, link: &Link) -> Vec<u8> {
    let mac = if let Link::Eth { src, .. } = link { *src } else { [0; 6] };
    let mut out = vec![0, 1, 8, 0, 6, 4, 0, 1];
    out.extend(mac);
    out.extend(sender.octets());
    out.extend([0; 6]);
    out.extend(target.octets());
    out
}

fn v4(
    (src, dst): (Ipv4Addr, Ipv4Addr),
    tos: u8,
    options: &[u8],
    fragment: Option<Fragment>,
    (protocol, segment): (u8, &[u8]),
) -> Vec<u8> {
    let mut options = options[..options.len().min(40)].to_vec();
    options.resize(options.len().next_multiple_of(4), 0);
    let header = 20 + options.len();
    let words = u8::try_from(header / 4).unwrap_or(5);
    let (id, place) = match fragment {
        None => (0, 0x4000),
        Some(part) => (part.id, u16::from(part.more) << 13 | part.offset & 0x1fff),
    };
    let mut out = vec![0x40 | words, tos];
    out.extend(be16(header + segment.len()));
    out.extend(&id.to_be_bytes()[2..]);
    out.extend(place.to_be_bytes());
    out.extend([64, protocol, 0, 0]);
    out.extend(src.octets());
    out.extend(dst.octets());
    out.extend(&options);
    let sum = checksum(0, &out);
    out[10..12].copy_from_slice(&sum.to_be_bytes());
    out.extend(segment);
    out
}

fn v6(
    (src, dst): (Ipv6Addr, Ipv6Addr),
    tos: u8,
    extensions: &[Extension],
    (protocol, segment): (u8, &[u8]),
) -> Vec<u8> {
    let numbers: Vec<u8> = extensions.iter().map(extension_number).chain([protocol]).collect();
    let mut body = Vec::new();
    for (index, extension) in extensions.iter().enumerate() {
        body.extend(encode_extension(extension, numbers[index + 1]));
    }
    body.extend(segment);
    let mut out = vec![0x60 | tos >> 4, tos << 4, 0, 0];
    out.extend(be16(body.len()));
    out.extend([numbers[0], 64]);
    out.extend(src.octets());
    out.extend(dst.octets());
    out.extend(body);
    out
}

const fn extension_number(extension: &Extension) -> u8 {
    match extension {
        Extension::HopByHop(_) => 0,
        Extension::Routing(..) => 43,
        Extension::Fragment(_) => 44,
        Extension::Auth(_) => 51,
        Extension::Destination(_) => 60,
    }
}

fn encode_extension(extension: &Extension, next: u8) -> Vec<u8> {
    match extension {
        Extension::HopByHop(padding) | Extension::Destination(padding) => {
            let total = (2 + padding.clamp(&2, &257)).next_multiple_of(8);
            let option = u8::try_from(total - 4).unwrap_or(0);
            let mut out = vec![next, u8::try_from(total / 8 - 1).unwrap_or(0), 1, option]; // 1 = PadN
            out.resize(total, 0);
            out
        }
        Extension::Routing(kind, addresses) => {
            let mut out = vec![next, u8::try_from(addresses * 2).unwrap_or(0), *kind, 0, 0, 0, 0, 0];
            out.resize(8 + addresses * 16, 0x20);
            out
        }
        Extension::Fragment(part) => {
            let mut out = vec![next, 0];
            out.extend((part.offset << 3 | u16::from(part.more)).to_be_bytes());
            out.extend(part.id.to_be_bytes());
            out
        }
        Extension::Auth(icv_words) => {
            // RFC 4302 section 2.2: length in 4-byte words, minus 2.
            let words = (3 + icv_words).next_multiple_of(2);
            let mut out = vec![next, u8::try_from(words - 2).unwrap_or(0)];
            out.resize(words * 4, 0);
            out
        }
    }
}

#[cfg(test)]
mod tests {
    use crate::packet::{Extension, Packet, SYN, encode::checksum};

    #[test]
    fn ipv4_header_of_a_known_packet() {
        // The worked example everybody uses: 172.16.10.99 -> 172.16.10.12, checksum b1e6.
        let header = [
            0x45, 0, 0, 0x3c, 0x1c, 0x46, 0x40, 0, 0x40, 6, 0, 0, 0xac, 0x10, 0x0a, 0x63, 0xac, 0x10, 0x0a,
            0x0c,
        ];
        assert_eq!(checksum(0, &header), 0xb1e6);
    }

    #[test]
    fn lengths_follow_the_layers() {
        let packet = Packet::new().eth().vlan(10).ipv4("10.0.0.1", "10.0.0.2").tcp(40000, 6379).flags(SYN);
        let bytes = packet.payload(b"PING").bytes();
        assert_eq!(bytes.len(), 14 + 4 + 20 + 20 + 4);
        assert_eq!(bytes[12..18], [0x81, 0, 0, 10, 8, 0]);
        assert_eq!(bytes[20..22], [0, 44]);
    }

    #[test]
    fn checksums_verify_to_zero() {
        let bytes = Packet::new().ipv4("192.0.2.1", "192.0.2.2").options(&[7, 3, 4]).udp(1, 2).bytes();
        assert_eq!(bytes[0], 0x46);
        assert_eq!(checksum(0, &bytes[..24]), 0);
    }

    #[test]
    fn extension_headers_chain() {
        let packet = Packet::new()
            .ipv6("fd00::1", "fd00::2")
            .extension(Extension::HopByHop(4))
            .extension(Extension::Routing(2, 1))
            .extension(Extension::Auth(3))
            .extension(Extension::Destination(9))
            .fragment(0, true)
            .udp(53, 53);
        let bytes = packet.bytes();
        let (mut number, mut at, mut chain) = (bytes[6], 40, Vec::new());
        while [0, 43, 44, 51, 60].contains(&number) {
            chain.push(number);
            let units = usize::from(bytes[at + 1]);
            let length = match number {
                44 => 8,
                51 => (units + 2) * 4,
                _ => (units + 1) * 8,
            };
            number = bytes[at];
            at += length;
        }
        assert_eq!((chain, number, bytes.len() - at), (vec![0, 43, 51, 60, 44], 17, 8));
    }

    #[test]
    fn a_later_fragment_has_no_transport_header() {
        let packet =
            Packet::new().ipv4("10.0.0.1", "10.0.0.2").fragment(3, false).tcp(1, 2).payload(b"12345678");
        assert_eq!(packet.bytes().len(), 28);
    }
}
