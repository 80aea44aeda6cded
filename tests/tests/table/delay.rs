//! What has to wait: how long, which packets, in which order.

use chaos_common::{
    abi::rule_flags,
    packet::{
        Class,
        tcp::{ACK, FIN, RST, SYN},
    },
    verdict::verdict_flags,
};
use chaos_tests::{
    oracle::{
        Fate,
        build::{RuleBuilder, fault, loss},
    },
    packet::Packet,
    progrun::Row,
};

use super::{ping, reply, tcp, tcp6, udp};

const MS: u64 = 1_000_000;

/// Every row of this table.
pub(crate) fn rows() -> Vec<Row> {
    [constant(), data_only(), jitter(), several(), order(), life(), ends()].concat()
}

fn delay(value: &str) -> RuleBuilder {
    fault("delay", value)
}

/// The packet waits, and everybody counts it once.
fn waits(row: Row) -> Row {
    row.fate(Fate::Hold).counts(&[("matched_packets", 1), ("delayed_packets", 1)])
}

/// A segment without data.
fn bare(flags: u8) -> Packet {
    tcp().payload(b"").flags(flags)
}

fn constant() -> Vec<Row> {
    let fifty = || delay("50ms");
    vec![
        waits(Row::egress("what leaves waits", fifty(), tcp())).verdict(|v| {
            v.delay_ns == 50 * MS && v.queue_ns == 0 && v.flags == verdict_flags::ORDERED && v.hold_slot == 0
        }),
        waits(Row::ingress("what comes waits", fifty(), reply())).verdict(|v| v.delay_ns == 50 * MS),
        waits(Row::egress("IPv6 waits", fifty(), tcp6())).verdict(|v| v.delay_ns == 50 * MS),
        waits(Row::egress("datagrams wait", fifty(), udp())).verdict(|v| v.delay_ns == 50 * MS),
        waits(Row::egress("pings wait", fifty(), ping())).verdict(|v| v.delay_ns == 50 * MS),
        waits(Row::egress("no time is a wait too", delay("0ms"), tcp())).verdict(|v| v.delay_ns == 0),
        waits(Row::egress("microseconds", delay("20us"), tcp())).verdict(|v| v.delay_ns == 20_000),
        waits(Row::egress("ten minutes", delay("10m"), tcp())).verdict(|v| v.delay_ns == 600_000 * MS),
        waits(Row::egress("a constant delay needs no dice", fifty(), tcp()).random(u32::MAX))
            .verdict(|v| v.delay_ns == 50 * MS),
        waits(Row::egress("a constant delay needs no cut", fifty(), tcp()).on_normalising())
            .verdict(|v| v.delay_ns == 50 * MS),
        Row::egress("what strays is cut first", delay("50ms±1ms").flags(rule_flags::WIRE), tcp())
            .on_normalising()
            .fate(Fate::Normalise),
        Row::egress("what does not match goes", fifty().peer("10.9.9.9"), tcp()),
    ]
}

/// What carries no data of the application goes ahead; the end stays behind the data.
fn data_only() -> Vec<Row> {
    let only = || delay("50ms,mode=data-only");
    let passes = |name, packet| Row::egress(name, only(), packet).matches_only();
    let follows = |name, packet| {
        waits(Row::egress(name, only(), packet))
            .verdict(|v| v.delay_ns == 0 && v.flags == verdict_flags::ORDERED)
    };
    let behind = |name, packet| {
        Row::egress(name, only(), packet)
            .after_packet(tcp())
            .fate(Fate::Hold)
            .counts(&[("matched_packets", 2), ("delayed_packets", 2)])
            .verdict(|v| v.delay_ns == 50 * MS)
    };
    vec![
        passes("a SYN goes ahead", bare(SYN)),
        passes("a SYN-ACK goes ahead", bare(SYN | ACK)),
        passes("an ACK goes ahead", bare(ACK)),
        Row::egress("an ACK goes ahead of data", only(), bare(ACK))
            .after_packet(tcp())
            .counts(&[("matched_packets", 2), ("delayed_packets", 1)]),
        follows("a FIN with nothing before it", bare(FIN | ACK)),
        follows("an RST with nothing before it", bare(RST)),
        behind("a FIN stays behind the data", bare(FIN | ACK)),
        behind("an RST stays behind the data", bare(RST | ACK)),
        waits(Row::egress("data waits", only(), tcp())).verdict(|v| v.delay_ns == 50 * MS),
        waits(Row::egress("data with a FIN waits", only(), tcp().flags(FIN | ACK)))
            .verdict(|v| v.delay_ns == 50 * MS),
        waits(Row::egress("a datagram is data", only(), udp())).verdict(|v| v.delay_ns == 50 * MS),
    ]
}

/// The dice give a word; uniform from base - jitter to base + jitter.
fn jitter() -> Vec<Row> {
    let strays = || delay("50ms±20ms");
    let normal = || delay("50ms±5ms,distribution=normal");
    vec![
        waits(Row::egress("the lowest word is the earliest", strays(), tcp()).random(0))
            .verdict(|v| v.delay_ns == 30 * MS),
        waits(Row::egress("the middle word is the middle", strays(), tcp()).random(1 << 31))
            .verdict(|v| v.delay_ns.abs_diff(50 * MS) <= 1),
        waits(Row::egress("a quarter of all words", strays(), tcp()).random(1 << 30))
            .verdict(|v| v.delay_ns.abs_diff(40 * MS) <= 1),
        waits(Row::egress("the highest word is the latest", strays(), tcp()).random(u32::MAX))
            .verdict(|v| v.delay_ns.abs_diff(70 * MS) <= 1_000),
        waits(Row::egress("never before its sending", delay("10ms±20ms"), tcp()).random(0))
            .verdict(|v| v.delay_ns == 0),
        waits(Row::egress("normal, the first entry of the table", normal(), tcp()).random(0))
            .verdict(|v| (25 * MS..50 * MS).contains(&v.delay_ns)),
        waits(Row::egress("normal, the middle of the table", normal(), tcp()).random(2048))
            .verdict(|v| v.delay_ns.abs_diff(50 * MS) < MS / 10),
        waits(Row::egress("normal, the last entry of the table", normal(), tcp()).random(4095))
            .verdict(|v| (50 * MS..75 * MS).contains(&v.delay_ns)),
    ]
}

/// Several rules on one packet.
fn several() -> Vec<Row> {
    vec![
        waits(Row::egress("delays of two rules add", delay("50ms"), tcp()).and(delay("7ms")))
            .verdict(|v| v.delay_ns == 57 * MS && v.hold_slot == 0),
        waits(Row::egress("the longest holds it", delay("7ms"), tcp()).and(delay("50ms")))
            .verdict(|v| v.delay_ns == 57 * MS && v.hold_slot == 1),
        waits(Row::egress("three add", delay("1ms"), tcp()).and(delay("2ms")).and(delay("4ms")))
            .verdict(|v| v.delay_ns == 7 * MS && v.hold_slot == 2),
        Row::egress("what is lost does not wait", delay("50ms"), tcp())
            .and(loss("100%"))
            .fate(Fate::Drop)
            .counts(&[("matched_packets", 1), ("delayed_packets", 1)]),
        Row::egress("what is cut off does not wait", fault("partition", ""), tcp())
            .and(delay("50ms"))
            .drops(),
        waits(
            Row::egress("each to its own packets", delay("50ms").class(Class::TCP), tcp())
                .and(delay("7ms").class(Class::UDP)),
        )
        .verdict(|v| v.delay_ns == 50 * MS),
    ]
}

/// Nothing overtakes within a flow and a direction; others are not held back.
fn order() -> Vec<Row> {
    let data_only = || delay("50ms,mode=data-only");
    let second = |row: Row| row.fate(Fate::Hold).counts(&[("matched_packets", 2), ("delayed_packets", 2)]);
    let other_port = Packet::new().eth().ipv4("10.0.0.1", "10.0.0.2").tcp(40001, 6379).payload(b"PING");
    let other_peer = Packet::new().eth().ipv4("10.0.0.1", "10.0.0.3").tcp(40000, 6379).payload(b"PING");
    let end = |packet: Packet| packet.payload(b"").flags(FIN | ACK);
    vec![
        second(Row::egress("the second leaves no earlier", data_only(), bare(FIN | ACK)).after_packet(tcp()))
            .verdict(|v| v.delay_ns == 50 * MS),
        second(
            Row::egress("another connection is not held back", data_only(), end(other_port))
                .after_packet(tcp()),
        )
        .verdict(|v| v.delay_ns == 0),
        second(
            Row::egress("another peer is not held back", data_only(), end(other_peer)).after_packet(tcp()),
        )
        .verdict(|v| v.delay_ns == 0),
        second(Row::egress("datagrams keep their order", delay("50ms"), udp()).after_packet(udp()))
            .verdict(|v| v.delay_ns == 50 * MS),
    ]
}

/// A rule acts while it lives.
fn life() -> Vec<Row> {
    vec![
        Row::egress("a delay in shadow", delay("50ms").flags(rule_flags::SHADOW), tcp())
            .counts(&[("matched_packets", 1), ("shadowed_packets", 1)]),
        Row::egress("a delay that has expired", delay("50ms").between(0, 1), tcp())
            .at(1)
            .counts(&[("matched_packets", 1), ("expired_packets", 1)]),
        Row::egress("a delay without its lease", delay("50ms"), tcp())
            .lease(1)
            .at(1)
            .counts(&[("matched_packets", 1), ("lease_packets", 1)]),
        Row::egress("a delay that has not begun", delay("50ms").between(5, 1000), tcp()).matches_only(),
        waits(Row::egress("a delay in its last moment", delay("50ms").between(0, 2), tcp()).at(1)),
        Row::egress("a delay in its pause", delay("50ms").flapping(10, 20), tcp()).at(10).matches_only(),
    ]
}

/// Packets are still held (on the host and in a test run nobody takes them out): what comes after the end
/// goes behind them.
fn ends() -> Vec<Row> {
    let one = || delay("50ms").max_packets(1);
    vec![
        Row::egress("with its limit used up others are not held back", one(), udp())
            .after_packet(tcp())
            .verdict(|v| v.delay_ns == 0)
            .fate(Fate::Hold)
            .counts(&[("matched_packets", 2), ("delayed_packets", 1), ("limited_packets", 1)]),
        Row::egress("with its limit used up it stays behind", one(), tcp())
            .after_packet(tcp())
            .verdict(|v| v.delay_ns == 50 * MS && v.flags == verdict_flags::ORDERED)
            .fate(Fate::Hold)
            .counts(&[("matched_packets", 2), ("delayed_packets", 1), ("limited_packets", 1)]),
    ]
}
