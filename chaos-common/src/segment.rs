//! Packets made from nothing: resets and the headers of ICMP messages, with their checksums.

use crate::packet::{Addr, tcp, unmapped};

/// Who a made packet comes from, and where it goes.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Ends {
    /// Source address, as in [`crate::packet::Packet`].
    pub source: Addr,
    /// Destination address.
    pub destination: Addr,
    /// Source port, host order.
    pub source_port: u16,
    /// Destination port, host order.
    pub destination_port: u16,
}

impl Ends {
    /// The way back.
    #[inline(always)]
    #[must_use]
    pub const fn reversed(&self) -> Self {
        Self {
            source: self.destination,
            destination: self.source,
            source_port: self.destination_port,
            destination_port: self.source_port,
        }
    }
}

/// What a reset says besides its ends.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Reset {
    /// Sequence number: what the receiver expects next, or it would ask back (RFC 5961, section 3.2).
    pub seq: u32,
    /// Acknowledgement number.
    pub ack: u32,
    /// The checksum field holds the sum of the pseudo header, for a device to complete
    /// (`CHECKSUM_PARTIAL`).
    pub partial: bool,
}

const PROTO_TCP: u32 = 6;
const TTL: u32 = 64;
const TCP_LEN: u32 = 20;

/// Sum of 16-bit numbers, not yet folded.
#[inline(always)]
const fn halves(word: u32) -> u32 {
    (word >> 16).wrapping_add(word & 0xffff)
}

/// Folds a sum of 16-bit numbers to 16 bits (RFC 1071).
#[inline(always)]
#[must_use]
pub const fn fold(sum: u32) -> u16 {
    let once = halves(sum);
    let twice = halves(once);
    twice as u16
}

/// Sum of the 16-bit numbers of an address, in host order.
#[inline(always)]
#[must_use]
pub const fn sum_addr(addr: &Addr) -> u32 {
    if let Some(v4) = unmapped(addr) {
        return halves(u32::from_be(v4));
    }
    let [a, b, c, d] = *addr;
    halves(u32::from_be(a))
        .wrapping_add(halves(u32::from_be(b)))
        .wrapping_add(halves(u32::from_be(c)))
        .wrapping_add(halves(u32::from_be(d)))
}

/// The five words of a TCP header with RST and ACK, network byte order, checksum included.
#[inline(always)]
#[must_use]
pub const fn reset(ends: &Ends, reset: &Reset) -> [u32; 5] {
    let ports = (ends.source_port as u32) << 16 | ends.destination_port as u32;
    let flags = 5 << 28 | ((tcp::RST | tcp::ACK) as u32) << 16;
    let pseudo = sum_addr(&ends.source)
        .wrapping_add(sum_addr(&ends.destination))
        .wrapping_add(PROTO_TCP)
        .wrapping_add(TCP_LEN);
    let checksum = if reset.partial {
        fold(pseudo)
    } else {
        let sum = pseudo
            .wrapping_add(halves(ports))
            .wrapping_add(halves(reset.seq))
            .wrapping_add(halves(reset.ack))
            .wrapping_add(halves(flags));
        !fold(sum)
    };
    [ports.to_be(), reset.seq.to_be(), reset.ack.to_be(), flags.to_be(), ((checksum as u32) << 16).to_be()]
}

/// The five words of an IPv4 header, network byte order (RFC 791): don't fragment, no options.
#[inline(always)]
#[must_use]
pub const fn ipv4(ends: &Ends, proto: u32, payload_len: u32) -> [u32; 5] {
    let [_, _, _, source] = ends.source;
    let [_, _, _, destination] = ends.destination;
    let first = 0x4500_0000 | payload_len.wrapping_add(20) & 0xffff;
    let second = 0x0000_4000;
    let third = TTL << 24 | proto << 16;
    let sum = halves(first)
        .wrapping_add(second)
        .wrapping_add(halves(third))
        .wrapping_add(halves(u32::from_be(source)))
        .wrapping_add(halves(u32::from_be(destination)));
    let third = third | !fold(sum) as u32;
    [first.to_be(), second.to_be(), third.to_be(), source, destination]
}

/// The ten words of an IPv6 header, network byte order (RFC 8200).
#[inline(always)]
#[must_use]
pub const fn ipv6(ends: &Ends, next: u32, payload_len: u32) -> [u32; 10] {
    let second = payload_len << 16 | next << 8 | TTL;
    let [from0, from1, from2, from3] = ends.source;
    let [to0, to1, to2, to3] = ends.destination;
    let first = 0x6000_0000_u32;
    [first.to_be(), second.to_be(), from0, from1, from2, from3, to0, to1, to2, to3]
}

/// What an ICMP message says.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Icmp {
    /// Type.
    pub kind: u32,
    /// Code.
    pub code: u32,
    /// The second word: unused, or the largest packet.
    pub word: u32,
}

/// The two words of an ICMP header (RFC 792, RFC 4443), network byte order. `rest` is the sum of the
/// packet behind it (and for `ICMPv6` of the pseudo header), in host order, not yet folded.
#[inline(always)]
#[must_use]
pub const fn icmp(message: &Icmp, rest: u32) -> [u32; 2] {
    let first = message.kind << 24 | message.code << 16;
    let sum = halves(first).wrapping_add(halves(message.word)).wrapping_add(fold(rest) as u32);
    let first = first | !fold(sum) as u32;
    [first.to_be(), message.word.to_be()]
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::packet::mapped;

    fn sum(words: &[u32]) -> u32 {
        words.iter().map(|word| halves(u32::from_be(*word))).sum()
    }

    fn ends() -> Ends {
        Ends {
            source: mapped(0x0a00_0001_u32.to_be()),
            destination: mapped(0x0a00_0002_u32.to_be()),
            source_port: 40_000,
            destination_port: 6379,
        }
    }

    #[test]
    fn checksums_add_up_to_all_ones() {
        assert_eq!(fold(sum(&ipv4(&ends(), 6, 20))), 0xffff);
        let pseudo = sum_addr(&ends().source) + sum_addr(&ends().destination) + 6 + 20;
        let said = Reset { seq: 0xdead_beef, ack: 0x1234_5678, partial: false };
        assert_eq!(fold(pseudo + sum(&reset(&ends(), &said))), 0xffff);
        let partial = reset(&ends(), &Reset { partial: true, ..said });
        assert_eq!(u32::from_be(partial[4]) >> 16, u32::from(fold(pseudo)));
        let rest = 0x1_2345;
        let header = icmp(&Icmp { kind: 3, code: 4, word: 1400 }, rest);
        assert_eq!(fold(sum(&header) + u32::from(fold(rest))), 0xffff);
    }

    #[test]
    fn the_way_back_swaps_both_ends() {
        let back = ends().reversed();
        assert_eq!((back.source, back.source_port), (ends().destination, 6379));
        assert_eq!(back.reversed(), ends());
    }
}
