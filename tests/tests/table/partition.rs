//! The ways to part: silence, resets, errors.

use chaos_tests::{
    oracle::{
        Fate, NORMALISING,
        build::{RuleBuilder, fault},
    },
    packet::{ACK, Packet, RST, SYN},
    progrun::Row,
};

use super::{ping, reject::error, reply, reset::bytes_of, tcp, tcp6, udp};

/// Every row of this table.
pub(crate) fn rows() -> Vec<Row> {
    [reset(), reject()].concat()
}

fn answered(row: Row) -> Row {
    row.fate(Fate::Answer).counts(&[("matched_packets", 1), ("answered_packets", 1)])
}

fn becomes(row: Row, bytes: Vec<u8>) -> Row {
    let mut row = answered(row);
    row.after = Some(bytes);
    row
}

fn reset() -> Vec<Row> {
    let cut = || fault("partition", "reset");
    let back = Packet::new().eth_reversed().ipv4("10.0.0.2", "10.0.0.1").tcp(6379, 40000);
    vec![
        becomes(Row::egress("data is reset", cut(), tcp()), bytes_of(&tcp().payload(b"").flags(RST | ACK))),
        becomes(
            Row::egress("a SYN is refused", cut(), tcp().payload(b"").flags(SYN)),
            bytes_of(&back.flags(RST | ACK).numbers(0, 1001)),
        ),
        becomes(
            Row::ingress("what comes is reset", cut(), reply()),
            bytes_of(&reply().payload(b"").flags(RST | ACK)),
        ),
        Row::egress("a reset gets through", cut(), tcp().flags(RST)).matches_only(),
        Row::egress("a datagram vanishes", cut(), udp()).drops(),
        Row::egress("a ping vanishes", cut(), ping()).drops(),
        Row::egress("a later fragment of TCP vanishes", cut(), tcp().fragment(64, false)).drops(),
    ]
}

fn everything(rule: RuleBuilder) -> RuleBuilder {
    rule.everything().only_on(NORMALISING, true, true)
}

fn reject() -> Vec<Row> {
    let cut = || fault("partition", "reject");
    let prohibited = |packet: &Packet| error(packet, 13, 1, 0);
    vec![
        becomes(Row::egress("TCP is prohibited", cut(), tcp()), prohibited(&tcp())),
        becomes(Row::egress("a datagram is prohibited", cut(), udp()), prohibited(&udp())),
        becomes(Row::egress("a ping is prohibited", cut(), ping()), prohibited(&ping())),
        becomes(Row::egress("IPv6 is prohibited", cut(), tcp6()), prohibited(&tcp6())),
        Row::egress("a TCP reset gets through", cut(), tcp().flags(RST)).matches_only(),
        Row::egress("ARP vanishes", everything(cut()), Packet::new().eth().arp("10.0.0.1", "10.0.0.2"))
            .on(NORMALISING)
            .drops(),
    ]
}
