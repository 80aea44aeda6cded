//! Which bits `corrupt` flips, and what becomes of the checksum. Where one byte may be hit and eight bits shall
//! flip, the outcome is known without the dice.

use chaos_common::verdict::Verdict;
use chaos_tests::{
    oracle::build::{RuleBuilder, fault},
    packet::{Extension, Packet},
    progrun::Row,
};

use super::{ping, reply, tcp, tcp6, udp};

/// Every row of this table.
pub(crate) fn rows() -> Vec<Row> {
    [silent(), detectable(), chosen()].concat()
}

/// All bits of the payload's byte at `place`.
fn whole_byte(place: usize, how: &str) -> RuleBuilder {
    fault("corrupt", &format!("100%,bits=8,bytes={place},{how}"))
}

fn flipped(packet: &Packet, place: usize) -> Packet {
    let mut payload = packet.payload.clone();
    payload[place] ^= 0xff;
    packet.clone().payload(&payload)
}

fn damaged(row: Row) -> Row {
    row.counts(&[("matched_packets", 1), ("corrupted_packets", 1)])
}

/// The checksum is right for the wrong bytes.
fn silent() -> Vec<Row> {
    let row = |name, packet: Packet, place| {
        damaged(Row::egress(name, whole_byte(place, "silent"), packet.clone()))
            .becomes(&flipped(&packet, place))
    };
    let ping6 = Packet::new().eth().ipv6("fd00::1", "fd00::2").ping(1, 1).payload(b"echo");
    let udp6 = || Packet::new().eth().ipv6("fd00::1", "fd00::2").udp(40000, 53).payload(b"query");
    let options = Packet::new().eth().ipv4("10.0.0.1", "10.0.0.2").options(&[1; 8]).tcp(40000, 6379);
    let extended = Packet::new().eth().ipv6("fd00::1", "fd00::2").extension(Extension::Destination(20));
    let tagged = Packet::new().eth().vlan(10).ipv4("10.0.0.1", "10.0.0.2").udp(40000, 53);
    vec![
        row("the first byte of TCP", tcp(), 0),
        row("an odd byte of TCP", tcp(), 1),
        row("the last byte of TCP", tcp(), 3),
        row("the last byte of an odd length", tcp().payload(b"three"), 4),
        row("TCP over IPv6", tcp6(), 1),
        row("UDP", udp(), 0),
        row("an odd byte of UDP", udp(), 3),
        row("UDP over IPv6", udp6(), 2),
        row("ICMP", ping().payload(b"echo"), 1),
        row("ICMPv6", ping6, 2),
        row("behind IPv4 options", options.payload(b"PING"), 1),
        row("behind extension headers", extended.tcp(40000, 6379).payload(b"PING"), 2),
        row("behind a VLAN tag", tagged.payload(b"query"), 3),
        damaged(Row::ingress("what comes", whole_byte(2, "silent"), reply())).becomes(&flipped(&reply(), 2)),
    ]
}

/// The checksum stays as it was, and is wrong.
fn detectable() -> Vec<Row> {
    let row = |name, packet: Packet, place: usize| {
        let mut row = damaged(Row::egress(name, whole_byte(place, "detectable"), packet.clone()));
        let mut bytes = packet.bytes();
        let at = bytes.len() - packet.payload.len() + place;
        bytes[at] ^= 0xff;
        row.after = Some(bytes);
        row
    };
    vec![
        row("detectable in TCP", tcp(), 1),
        row("detectable in TCP over IPv6", tcp6(), 0),
        row("detectable in UDP", udp(), 4),
        row("detectable in a ping", ping().payload(b"echo"), 0),
    ]
}

const fn nothing(verdict: &Verdict) -> bool {
    verdict.is_pass()
}

const fn three_bits(verdict: &Verdict) -> bool {
    verdict.corrupt_by != 0 && verdict.corruption.bits == 3
}

fn chosen() -> Vec<Row> {
    let quarter = || fault("corrupt", "25%,bits=3");
    vec![
        damaged(Row::egress("the lowest word is hit", quarter(), tcp()).random(0).verdict(three_bits)),
        Row::egress("a word above a quarter is not", quarter(), tcp())
            .random(0x4000_1000)
            .verdict(nothing)
            .matches_only(),
        Row::egress("without payload there is nothing to hit", fault("corrupt", "100%"), tcp().payload(b""))
            .verdict(nothing)
            .matches_only(),
        Row::egress("bytes that are not there are not hit", whole_byte(4, "silent"), tcp())
            .verdict(nothing)
            .matches_only(),
        Row::egress("a later fragment is not hit", fault("corrupt", "100%"), tcp().fragment(64, false))
            .verdict(nothing)
            .matches_only(),
    ]
}
