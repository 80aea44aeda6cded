//! The ICMP errors that come back: bytes, codes, and about what there is none.

use chaos_tests::{
    oracle::{
        Fate, LOOPBACK,
        build::{RuleBuilder, fault},
    },
    packet::{ACK, Extension, Link, Net, Packet, RST, SYN},
    progrun::Row,
};

use super::{ping, reply, reset::bytes_of, tcp, tcp6, udp};

/// Every row of this table.
pub(crate) fn rows() -> Vec<Row> {
    [quotes(), codes(), devices(), resets(), silent()].concat()
}

/// What comes back about `packet`: the error with its IP header and the first eight bytes behind it.
pub(crate) fn error(packet: &Packet, code: u8, code6: u8, word: u32) -> Vec<u8> {
    let datagram = Packet { link: Link::None, ..packet.clone() }.bytes();
    let headers = datagram.len() - packet.payload.len() - transport_len(packet);
    let quote = &datagram[..(headers + 8).min(datagram.len())];
    let back = if packet.link == Link::None { Packet::new() } else { Packet::new().eth_reversed() };
    let answer = match packet.net {
        Net::V4 { src, dst, .. } => back.ip(dst.into(), src.into()).icmp(3, code, word),
        Net::V6 { src, dst, .. } if word == 0 => back.ip(dst.into(), src.into()).icmp(1, code6, 0),
        Net::V6 { src, dst, .. } => back.ip(dst.into(), src.into()).icmp(2, 0, word),
        _ => panic!("{packet} has no IP header"),
    };
    answer.payload(quote).bytes()
}

fn transport_len(packet: &Packet) -> usize {
    use chaos_tests::packet::Transport::{Icmp, None, Other, Tcp, Udp};
    match packet.transport {
        Tcp { .. } => 20,
        Udp(..) | Icmp(..) => 8,
        None | Other(_) => 0,
    }
}

fn answered(row: Row) -> Row {
    row.fate(Fate::Answer).counts(&[("matched_packets", 1), ("answered_packets", 1)])
}

fn about(name: &'static str, rule: RuleBuilder, packet: Packet, code: u8, code6: u8) -> Row {
    let mut row = answered(Row::egress(name, rule, packet.clone()));
    row.after = Some(error(&packet, code, code6, 0));
    row
}

/// Unless told otherwise: port unreachable.
fn quotes() -> Vec<Row> {
    let port = || fault("reject", "");
    let row = |name, packet| about(name, port(), packet, 3, 4);
    let v4 = || Packet::new().eth().ipv4("10.0.0.1", "10.0.0.2");
    let v6 = || Packet::new().eth().ipv6("fd00::1", "fd00::2");
    let all_of_them = [Extension::HopByHop(4), Extension::Routing(4, 1), Extension::Destination(20)];
    let extended = all_of_them.into_iter().fold(v6(), Packet::extension).udp(40000, 53);
    vec![
        row("data", tcp()),
        row("a SYN", tcp().payload(b"").flags(SYN)),
        row("a datagram", udp()),
        row("an empty datagram", udp().payload(b"")),
        row("a large datagram", udp().payload(&[0x5a; 1400])),
        row("an odd number of bytes", udp().payload(b"odd")),
        row("a ping", ping()),
        row("IPv4 options are quoted", v4().options(&[1; 40]).udp(40000, 53).payload(b"query")),
        row("a protocol without ports", v4().protocol(47).payload(b"some data")),
        row("IPv6 data", tcp6()),
        row("an IPv6 datagram", v6().udp(40000, 53).payload(b"query")),
        row("an IPv6 ping", v6().ping(7, 1)),
        row("extension headers are quoted", extended.payload(b"query")),
        row("a first fragment", udp().payload(&[1; 64]).fragment(0, true)),
        row("a first IPv6 fragment", v6().fragment(0, true).udp(40000, 53).payload(&[1; 64])),
    ]
}

/// RFC 792 and RFC 1812 for IPv4, RFC 4443 for IPv6.
fn codes() -> Vec<Row> {
    let row = |name, with, packet, code, code6| about(name, fault("reject", with), packet, code, code6);
    vec![
        row("net", "net", udp(), 0, 0),
        row("host", "host", udp(), 1, 3),
        row("proto", "proto", udp(), 2, 4),
        row("port", "port", udp(), 3, 4),
        row("net-admin", "net-admin", udp(), 9, 1),
        row("host-admin", "host-admin", udp(), 10, 1),
        row("admin", "admin", udp(), 13, 1),
        row("IPv6 net", "net", tcp6(), 0, 0),
        row("IPv6 host", "host", tcp6(), 1, 3),
        row("IPv6 proto", "proto", tcp6(), 2, 4),
        row("IPv6 admin", "admin", tcp6(), 13, 1),
    ]
}

/// A test run gives every packet a MAC header in its own notes; without one: `e2e_reject`.
fn devices() -> Vec<Row> {
    let on = |ifindex| fault("reject", "").only_on(ifindex, true, true);
    vec![about("on loopback", on(LOOPBACK), udp(), 3, 4).on(LOOPBACK)]
}

fn resets() -> Vec<Row> {
    let rst = || fault("reject", "rst");
    let back = Packet::new().eth_reversed().ipv4("10.0.0.2", "10.0.0.1").tcp(6379, 40000);
    let mut refused = answered(Row::egress("rst: a SYN is refused", rst(), tcp().payload(b"").flags(SYN)));
    refused.after = Some(bytes_of(&back.flags(RST | ACK).numbers(0, 1001)));
    let mut ended = answered(Row::egress("rst: data is reset", rst(), tcp()));
    ended.after = Some(bytes_of(&tcp().payload(b"").flags(RST | ACK)));
    vec![refused, ended, about("rst: a datagram hears of its port", rst(), udp(), 3, 4)]
}

/// No error is about an error, a later fragment, or what was not for us alone; a reset gets through.
fn silent() -> Vec<Row> {
    let port = || fault("reject", "");
    let vanishes = |row: Row| {
        let mut row = answered(row);
        row.after = Some(row.packet.bytes());
        row
    };
    let unreachable = Packet::new().eth().ipv4("10.0.0.1", "10.0.0.2").icmp_error(3, 1, &reply());
    let reply6 = Packet::new().eth().ipv6("fd00::2", "fd00::1").udp(53, 40000);
    let too_big = Packet::new().eth().ipv6("fd00::1", "fd00::2").icmp_error(2, 0, &reply6);
    let later6 = Packet::new().eth().ipv6("fd00::1", "fd00::2").fragment(64, false).udp(1, 2).payload(b"x");
    let mut many = Packet::new().eth().ipv4("10.0.0.1", "224.0.0.251").udp(5353, 5353).payload(b"who");
    many.link = Link::Eth { dst: [1, 0, 0x5e, 0, 0, 0xfb], src: [2, 0, 0, 0, 0, 1], tags: Vec::new() };
    let tagged = Packet::new().eth().vlan(10).ipv4("10.0.0.1", "10.0.0.2").udp(1, 2);
    vec![
        vanishes(Row::egress("an ICMP error", port(), unreachable)),
        vanishes(Row::egress("an ICMPv6 error", port(), too_big)),
        vanishes(Row::egress("a later fragment", port(), udp().fragment(64, false))),
        vanishes(Row::egress("a later IPv6 fragment", port(), later6)),
        vanishes(Row::egress("a tagged frame", port(), tagged)),
        // The device of the tests has another MAC address than the frame.
        vanishes(Row::ingress("what comes for another host", port(), reply())),
        vanishes(Row::egress("what many receive", port(), many)),
        Row::egress("a TCP reset", port(), tcp().flags(RST | ACK)).matches_only(),
    ]
}
