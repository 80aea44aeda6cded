//! Which packets are too large, and what their sender is told.

use chaos_tests::{
    oracle::{
        Fate, TUN,
        build::{RuleBuilder, fault},
    },
    packet::Packet,
    progrun::Row,
};

use super::{reject::error, tcp, tcp6, udp};

/// Every row of this table.
pub(crate) fn rows() -> Vec<Row> {
    [sizes(), told()].concat()
}

/// TCP packets of `total` bytes from the IP header on.
fn of(total: usize) -> Packet {
    tcp().payload(&vec![0x5a; total - 40])
}

fn of6(total: usize) -> Packet {
    tcp6().payload(&vec![0x5a; total - 60])
}

fn sizes() -> Vec<Row> {
    let hole = || fault("mtu", "100");
    let bare = |total: usize| {
        Packet::new().ipv4("10.0.0.1", "10.0.0.2").tcp(40000, 6379).payload(&vec![0; total - 40])
    };
    let tagged = |total: usize| {
        let packet = Packet::new().eth().vlan(10).ipv4("10.0.0.1", "10.0.0.2").tcp(40000, 6379);
        packet.payload(&vec![0; total - 40])
    };
    let on_tun = || hole().only_on(TUN, true, true);
    vec![
        Row::egress("as large as may be", hole(), of(100)).matches_only(),
        Row::egress("one byte too large", hole(), of(101)).drops(),
        Row::egress("IPv6 as large as may be", hole(), of6(100)).matches_only(),
        Row::egress("IPv6 one byte too large", hole(), of6(101)).drops(),
        Row::egress("a VLAN tag does not count", hole(), tagged(100)).matches_only(),
        Row::egress("tagged and one byte too large", hole(), tagged(101)).drops(),
        Row::egress("without MAC header as large as may be", on_tun(), bare(100)).on(TUN).matches_only(),
        Row::egress("without MAC header one byte too large", on_tun(), bare(101)).on(TUN).drops(),
        Row::egress("a large datagram", hole(), udp().payload(&[0; 500])).drops(),
        Row::ingress("what comes", hole(), of(101)).drops(),
        Row::egress("what is no IP packet", hole().everything(), arp()).matches_only(),
    ]
}

fn arp() -> Packet {
    Packet::new().eth().arp("10.0.0.1", "10.0.0.2")
}

/// RFC 1191, section 4; RFC 4443, section 3.2.
fn told() -> Vec<Row> {
    let reply = || fault("mtu", "1400,reply");
    let tell = |name, rule: RuleBuilder, packet: Packet| {
        let mut row = Row::egress(name, rule, packet.clone())
            .fate(Fate::Answer)
            .counts(&[("matched_packets", 1), ("answered_packets", 1)]);
        row.after = Some(error(&packet, 4, 0, 1400));
        row
    };
    vec![
        tell("the sender is told", reply(), of(1401)),
        tell("IPv6: packet too big", reply(), of6(1401)),
        tell("a datagram's sender is told", reply(), udp().payload(&[1; 1400])),
        Row::egress("what fits is not", reply(), of(1400)).matches_only(),
        Row::egress("a router would cut it", reply(), of(1401).fragment(0, true)).matches_only(),
    ]
}
