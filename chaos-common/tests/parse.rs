//! Every header form that `packet` reads, and what it must not trip over.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};

use chaos_common::{
    compile::addr_of,
    packet::{Class, Frame, Packet, packet_flags as flag, parse},
};
use proptest::prelude::*;

use crate::wire::{
    AUTHENTICATION, DESTINATION, FRAGMENT, HOP_BY_HOP, MOBILITY, ROUTING, TCP, UDP, V4, V6, authentication,
    extension, fragment, frame, icmp, ipv4, ipv4_with, ipv6, tagged, tcp, udp,
};
use crate::{
    checks::{self, facts as read},
    corpus::packets,
};

fn parsed(bytes: &[u8]) -> Packet {
    read(bytes, false).unwrap_or_else(|| panic!("refused: {bytes:02x?}"))
}

/// TCP from 40000 to 6379 with payload at `header_len`, whatever lies between.
fn assert_tcp(packet: &Packet, header_len: usize) {
    assert_eq!((packet.class, packet.proto), (Class::TCP, TCP));
    assert_eq!((packet.source_port, packet.destination_port), (40000, 6379));
    assert!(packet.has_ports() && packet.has_data() && packet.is_ip());
    assert_eq!(packet.flags & (flag::LATER_FRAGMENT | flag::ECHO), 0);
    assert_eq!(packet.header_len as usize, header_len);
}

fn ends(packet: &Packet, (source, destination): (impl Into<IpAddr>, impl Into<IpAddr>)) {
    assert_eq!(packet.source, addr_of(source.into()));
    assert_eq!(packet.destination, addr_of(destination.into()));
}

#[test]
fn tcp_over_ipv4_with_all_lengths_of_options() {
    for ip_options in (0..=40).step_by(4) {
        for tcp_options in (0..=40).step_by(4) {
            let segment = tcp(0x18, tcp_options, b"data");
            let packet = parsed(&frame(&ipv4_with(ip_options, 0, TCP, &segment)));
            assert_tcp(&packet, 14 + 20 + usize::from(ip_options) + 20 + usize::from(tcp_options));
            assert_eq!((packet.network_offset, packet.tcp_flags), (14, 0x18));
            ends(&packet, V4);
        }
    }
}

#[test]
fn every_tcp_flag_is_kept() {
    for flags in 0..=255 {
        assert_eq!(parsed(&frame(&ipv4(TCP, &tcp(flags, 0, b"")))).tcp_flags, flags);
        assert_eq!(parsed(&frame(&ipv6(TCP, &tcp(flags, 0, b"")))).tcp_flags, flags);
    }
}

#[test]
fn udp_has_ports_and_data() {
    let packet = parsed(&frame(&ipv4(UDP, &udp(b"x"))));
    assert_eq!((packet.class, packet.source_port, packet.destination_port), (Class::UDP, 5353, 53));
    assert!(packet.has_data());
    assert_eq!(packet.header_len, 14 + 20 + 8);
    assert!(!parsed(&frame(&ipv4(UDP, &udp(b"")))).has_data());
}

#[test]
fn the_first_fragment_has_ports_the_later_ones_have_none() {
    let (more, offset) = (0x2000, 185);
    let first = parsed(&frame(&ipv4_with(0, more, TCP, &tcp(0x10, 0, b"data"))));
    assert_tcp(&first, 54);
    for field in [offset, offset | more, 1, 0x1fff] {
        let later = parsed(&frame(&ipv4_with(0, field, TCP, &tcp(0x10, 0, b"data"))));
        assert_eq!((later.class, later.source_port, later.tcp_flags), (Class::TCP, 0, 0));
        assert_eq!(later.flags, flag::IP | flag::LATER_FRAGMENT);
        assert_eq!(later.header_len, 34);
        let later6 = parsed(&frame(&ipv6(FRAGMENT, &fragment(UDP, field << 3, b"no header here"))));
        let v6 = flag::IP | flag::V6 | flag::DONT_FRAGMENT;
        assert_eq!((later6.class, later6.flags), (Class::UDP, v6 | flag::LATER_FRAGMENT));
        assert_eq!(later6.header_len, 14 + 40 + 8);
    }
    let reserved_bits_and_more = 0b111;
    let first6 = fragment(TCP, reserved_bits_and_more, &tcp(0x10, 0, b"data"));
    assert_tcp(&parsed(&frame(&ipv6(FRAGMENT, &first6))), 14 + 40 + 8 + 20);
}

#[test]
fn ipv6_extension_headers() {
    let segment = tcp(0x10, 0, b"data");
    let at = |extensions: usize| 14 + 40 + extensions + 20;
    assert_tcp(&parsed(&frame(&ipv6(TCP, &segment))), at(0));
    ends(&parsed(&frame(&ipv6(TCP, &segment))), V6);
    for kind in [HOP_BY_HOP, ROUTING, DESTINATION, MOBILITY] {
        for units in [0, 1, 7, 255] {
            let packet = parsed(&frame(&ipv6(kind, &extension(TCP, units, &segment))));
            assert_tcp(&packet, at(8 + 8 * usize::from(units)));
        }
    }
    for words in [0, 3, 200] {
        let packet = parsed(&frame(&ipv6(AUTHENTICATION, &authentication(TCP, words, &segment))));
        assert_tcp(&packet, at(12 + 4 * usize::from(words)));
    }
    // Each once, in the order of RFC 8200, section 4.1.
    let chain = authentication(DESTINATION, 3, &extension(TCP, 1, &segment));
    let chain = extension(ROUTING, 0, &extension(FRAGMENT, 2, &fragment(AUTHENTICATION, 1, &chain)));
    assert_tcp(&parsed(&frame(&ipv6(HOP_BY_HOP, &chain))), at(8 + 24 + 8 + 24 + 16));
}

#[test]
fn six_extension_headers_are_read_seven_are_not() {
    let chain = |count: usize| {
        let last = extension(TCP, 0, &tcp(0x10, 0, b"data"));
        (1..count).fold(last, |carries, _| extension(DESTINATION, 0, &carries))
    };
    for count in 1..=6 {
        assert_tcp(&parsed(&frame(&ipv6(DESTINATION, &chain(count)))), 14 + 40 + 8 * count + 20);
    }
    assert_eq!(read(&frame(&ipv6(DESTINATION, &chain(7))), false), None);
}

#[test]
fn vlan_tags_in_any_order() {
    let packet = ipv4(TCP, &tcp(0x10, 0, b"data"));
    for one in [0x8100, 0x88a8] {
        let single = parsed(&tagged(&[(one, 10)], 0x0800, &packet));
        assert_tcp(&single, 4 + 54);
        assert!(single.is_tagged());
        assert_eq!(single.network_offset, 18);
        for other in [0x8100, 0x88a8] {
            let double = parsed(&tagged(&[(one, 10), (other, 20)], 0x0800, &packet));
            assert_tcp(&double, 8 + 54);
            assert!(double.is_tagged());
        }
        let triple = parsed(&tagged(&[(one, 1), (one, 2), (one, 3)], 0x0800, &packet));
        assert_eq!((triple.class, triple.flags), (Class::LINK, flag::TAGGED), "not understood as IP");
    }
    let mut beside = Packet::default();
    let bytes = frame(&packet);
    let given = Frame { l3: false, tag_beside: true, len: bytes.len() as u32 };
    parse(&bytes.as_slice(), given, &mut beside).unwrap();
    assert_tcp(&beside, 54);
    assert!(beside.is_tagged());
}

#[test]
fn devices_without_mac_header() {
    let packet = read(&ipv4(TCP, &tcp(0x10, 0, b"data")), true).unwrap();
    assert_tcp(&packet, 40);
    assert_eq!(packet.network_offset, 0);
    assert_tcp(&read(&ipv6(TCP, &tcp(0x10, 0, b"data")), true).unwrap(), 60);
    for version in (0..16).filter(|version| *version != 4 && *version != 6) {
        let mut bytes = ipv4(TCP, &tcp(0x10, 0, b"data"));
        bytes[0] = version << 4 | 5;
        assert_eq!(read(&bytes, true), None, "version {version}");
    }
}

#[test]
fn what_the_link_layer_needs_is_link() {
    for ethertype in [0x0806, 0x88cc, 0x0026, 0x8847] {
        let packet = parsed(&tagged(&[], ethertype, &[0; 46]));
        assert_eq!((packet.class, packet.flags, packet.header_len), (Class::LINK, 0, 14));
        assert_eq!((packet.source, packet.destination), ([0; 4], [0; 4]));
    }
    for kind in 0..=255 {
        let packet = parsed(&frame(&ipv6(58, &icmp(kind))));
        let link = matches!(kind, 130..=137 | 143);
        assert_eq!(packet.class, if link { Class::LINK } else { Class::ICMP6 }, "ICMPv6 type {kind}");
        assert_eq!(parsed(&frame(&ipv4(1, &icmp(kind)))).class, Class::ICMP);
    }
}

#[test]
fn echo_has_an_identifier_and_other_icmp_has_none() {
    for (bytes, echo) in [
        (ipv4(1, &icmp(8)), true),
        (ipv4(1, &icmp(0)), true),
        (ipv4(1, &icmp(3)), false),
        (ipv6(58, &icmp(128)), true),
        (ipv6(58, &icmp(129)), true),
        (ipv6(58, &icmp(1)), false),
    ] {
        let packet = parsed(&frame(&bytes));
        let id = if echo { 0x1234 } else { 0 };
        assert_eq!((packet.source_port, packet.destination_port), (id, id));
        assert_eq!(packet.flags & flag::ECHO != 0, echo);
        assert!(!packet.has_ports(), "rules that name ports pass ICMP");
    }
}

#[test]
fn other_protocols_have_no_ports() {
    for proto in [2, 47, 50, 89, 132] {
        let packet = parsed(&frame(&ipv4(proto, &[0xff; 40])));
        assert_eq!((packet.class, packet.proto), (Class::OTHER, proto));
        assert!(!packet.has_ports() && packet.has_data());
    }
}

/// Ethernet fills short frames up to 60 bytes; what stands after the IP packet is nobody's data.
#[test]
fn padding_is_not_data() {
    for packet in [ipv4(TCP, &tcp(0x10, 0, b"")), ipv4(UDP, &udp(b"")), ipv6(TCP, &tcp(0x10, 0, b""))] {
        let mut bytes = frame(&packet);
        assert!(!parsed(&bytes).has_data());
        bytes.extend([0; 6]);
        assert!(!parsed(&bytes).has_data());
    }
    let mut one_byte = frame(&ipv4(TCP, &tcp(0x10, 0, b"x")));
    one_byte.extend([0; 6]);
    assert!(parsed(&one_byte).has_data());
}

/// A GSO packet over 64 KiB has a total length of 0 (`skb_gso_...` big TCP, Linux 6.3), and its
/// bytes are all there: it ends where the frame ends.
#[test]
fn a_length_of_zero_or_beyond_the_frame_reaches_to_the_end() {
    for total in [0u16, 60_000] {
        let mut four = frame(&ipv4(TCP, &tcp(0x10, 0, b"data")));
        four[16..18].copy_from_slice(&total.to_be_bytes());
        assert_tcp(&parsed(&four), 54);
        let mut six = frame(&ipv6(TCP, &tcp(0x10, 0, b"data")));
        six[18..20].copy_from_slice(&total.to_be_bytes());
        assert_tcp(&parsed(&six), 74);
    }
}

#[test]
fn impossible_headers_are_refused() {
    for words in 0..5 {
        let mut short = frame(&ipv4(TCP, &tcp(0x10, 0, b"data")));
        short[14] = 0x40 | words;
        assert_eq!(read(&short, false), None, "an IPv4 header of {words} words");
        let mut offset = frame(&ipv4(TCP, &tcp(0x10, 0, b"data")));
        offset[14 + 20 + 12] = words << 4;
        assert_eq!(read(&offset, false), None, "a TCP header of {words} words");
    }
    let mut six_as_four = frame(&ipv6(TCP, &tcp(0x10, 0, b"data")));
    six_as_four[12..14].copy_from_slice(&[8, 0]);
    assert_eq!(read(&six_as_four, false), None);
    let mut four_as_six = frame(&ipv4(TCP, &tcp(0x10, 0, &[0; 40])));
    four_as_six[12..14].copy_from_slice(&[0x86, 0xdd]);
    assert_eq!(read(&four_as_six, false), None);
}

/// Cut anywhere: refused, or the facts of the whole packet as far as they were reached.
#[test]
fn truncated_at_every_offset() {
    for (_, bytes) in packets() {
        for l3 in [false, true] {
            let whole = read(&bytes, l3);
            for cut in 0..bytes.len() {
                let Some(part) = read(&bytes[..cut], l3) else { continue };
                let whole = whole.expect("a part is understood, the whole is not");
                let without_data =
                    |packet: Packet| Packet { flags: packet.flags & !flag::DATA, payload_len: 0, ..packet };
                assert_eq!(without_data(part), without_data(whole), "cut at {cut}: {bytes:02x?}");
                assert!(!part.has_data() || whole.has_data());
            }
        }
    }
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 20_000, failure_persistence: None, ..ProptestConfig::default() })]

    #[test]
    fn random_bytes_never_panic(bytes in proptest::collection::vec(any::<u8>(), 0..200)) {
        checks::parse(&bytes);
    }

    /// Mostly right packets with some bytes changed reach deeper.
    #[test]
    fn damaged_packets_never_panic(
        which in 0..22usize,
        damage in proptest::collection::vec((0..100usize, any::<u8>()), 0..6),
        cut in 0..200usize,
    ) {
        let mut bytes = packets()[which].1.clone();
        for (place, value) in damage {
            if let Some(byte) = bytes.get_mut(place) {
                *byte = value;
            }
        }
        bytes.truncate(cut.max(1));
        checks::parse(&bytes);
    }

    #[test]
    fn addresses_keep_their_meaning(four: [u8; 4], six: [u8; 16]) {
        let four = Ipv4Addr::from(four);
        prop_assert_eq!(chaos_common::compile::ip_of(&addr_of(four.into())), IpAddr::from(four));
        let six = Ipv6Addr::from(six);
        prop_assert_eq!(chaos_common::compile::ip_of(&addr_of(six.into())), IpAddr::from(six).to_canonical());
    }
}
