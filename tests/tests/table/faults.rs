//! What the faults do.

use chaos_common::abi::rule_flags;
use chaos_tests::{
    oracle::{
        Fate,
        build::{fault, loss},
    },
    packet::Packet,
    progrun::Row,
};

use super::{ping, reply, tcp, udp};

/// Every row of this table.
pub(crate) fn rows() -> Vec<Row> {
    [random_loss(), regular_loss(), partition(), normaliser()].concat()
}

/// 25 % is a quarter of all 32-bit words; the table gives the word.
fn random_loss() -> Vec<Row> {
    let quarter = || loss("25%");
    vec![
        Row::egress("the lowest word is lost", quarter(), tcp()).random(0).drops(),
        Row::egress("a word below a quarter is lost", quarter(), tcp()).random(0x3fff_0000).drops(),
        Row::egress("a word above a quarter is not", quarter(), tcp()).random(0x4000_1000).matches_only(),
        Row::egress("the highest word is not", quarter(), tcp()).random(u32::MAX).matches_only(),
        Row::egress("never is never", loss("0%"), tcp()).random(0).matches_only(),
        Row::egress("always is always", loss("100%"), tcp()).random(u32::MAX).drops(),
        Row::ingress("loss of what comes", quarter(), reply()).random(0).drops(),
        Row::egress("with a seed the word does not count", loss("100%").seed(9), tcp())
            .random(u32::MAX)
            .drops(),
    ]
}

fn regular_loss() -> Vec<Row> {
    let third = || loss("every=3");
    let counts = |matched, dropped| {
        let all = [("matched_packets", matched), ("dropped_packets", dropped)];
        if dropped == 0 { all[..1].to_vec() } else { all.to_vec() }
    };
    vec![
        Row::egress("the second of every third", third(), tcp()).after(1).counts(&counts(2, 0)),
        Row::egress("the third of every third", third(), tcp())
            .after(2)
            .fate(Fate::Drop)
            .counts(&counts(3, 1)),
        Row::egress("the fourth of every third", third(), tcp()).after(3).counts(&counts(4, 1)),
        Row::egress("the sixth of every third", third(), tcp())
            .after(5)
            .fate(Fate::Drop)
            .counts(&counts(6, 2)),
        Row::egress("what does not match does not count", third().peer("10.0.0.2"), tcp())
            .after_packet(other())
            .after_packet(other())
            .counts(&counts(1, 0)),
    ]
}

fn other() -> Packet {
    Packet::new().eth().ipv4("10.0.0.1", "10.0.0.3").tcp(40000, 6379)
}

fn partition() -> Vec<Row> {
    let cut = || fault("partition", "");
    vec![
        Row::egress("what leaves vanishes", cut(), tcp()).drops(),
        Row::ingress("what comes vanishes", cut(), reply()).drops(),
        Row::egress("datagrams too", cut(), udp()).drops(),
        Row::egress("pings too", cut(), ping()).drops(),
        Row::egress("only for the peer", cut().peer("10.0.0.9"), tcp()),
        Row::egress("partition in shadow", cut().flags(rule_flags::SHADOW), tcp())
            .counts(&[("matched_packets", 1), ("shadowed_packets", 1)]),
    ]
}

/// What must be judged per wire packet goes to the normaliser and is not counted here.
fn normaliser() -> Vec<Row> {
    let wire = || loss("50%").flags(rule_flags::WIRE);
    vec![
        Row::egress("TCP for a partial loss is cut first", wire(), tcp())
            .on_normalising()
            .fate(Fate::Normalise),
        Row::ingress("coming TCP too", wire(), reply()).on_normalising().fate(Fate::Normalise),
        Row::egress("and UDP", wire(), udp()).on_normalising().fate(Fate::Normalise),
        Row::egress("a ping is whole already", wire(), ping()).on_normalising().random(0).drops(),
        Row::egress("without a normaliser it is judged in place", wire(), tcp()).random(0).drops(),
        Row::egress("a whole loss needs no cut", loss("100%"), tcp()).on_normalising().drops(),
        Row::egress("what does not match is not cut", wire().peer("10.9.9.9"), tcp()).on_normalising(),
        Row::egress("a rule in shadow is not worth the way", wire().flags(rule_flags::SHADOW), tcp())
            .on_normalising()
            .random(0)
            .counts(&[("matched_packets", 1), ("shadowed_packets", 1)]),
        Row::egress("a rule that has expired neither", wire().between(0, 1), tcp())
            .on_normalising()
            .at(1)
            .counts(&[("matched_packets", 1), ("expired_packets", 1)]),
    ]
}
