//! What waits for its link, and what finds its queue full.

use chaos_common::{abi::rule_flags, fault::FaultKind, verdict::verdict_flags};
use chaos_tests::{
    oracle::{
        Fate,
        build::{RuleBuilder, fault, faults},
    },
    packet::Packet,
    progrun::Row,
};

use super::{ping, reply, tcp, udp};

/// A frame of [`tcp`] has 14 + 20 + 20 + 4 bytes: as many milliseconds at 1 KB/s.
const TCP_NS: u64 = 58 * MS;
/// A frame of [`udp`]: 14 + 20 + 8 + 5.
const UDP_NS: u64 = 47 * MS;
const MS: u64 = 1_000_000;

/// How what waits for a link waits: in its order, and keeping its distance.
const HELD: u32 = verdict_flags::ORDERED | verdict_flags::PACED;

/// Every row of this table.
pub(crate) fn rows() -> Vec<Row> {
    [link(), queue(), several(), others()].concat()
}

fn rate(value: &str) -> RuleBuilder {
    fault("rate", value)
}

/// One packet like this in a second per kilobyte.
fn slow() -> RuleBuilder {
    rate("1KB/s,queue=10s")
}

fn waits(row: Row, packets: u64) -> Row {
    row.fate(Fate::Hold).counts(&[("matched_packets", packets), ("delayed_packets", packets)])
}

fn link() -> Vec<Row> {
    vec![
        waits(Row::egress("it takes its time to be sent", slow(), tcp()), 1)
            .verdict(|v| v.delay_ns == TCP_NS && v.flags == HELD && v.hold_by == FaultKind::Rate.number()),
        waits(Row::ingress("what comes has a link too", slow(), reply()), 1)
            .verdict(|v| v.delay_ns == TCP_NS),
        waits(Row::egress("it waits for the one before", slow(), tcp()).after(1), 2)
            .verdict(|v| v.delay_ns == 2 * TCP_NS),
        waits(Row::egress("it waits for all before", slow(), tcp()).after(9), 10)
            .verdict(|v| v.delay_ns == 10 * TCP_NS),
        waits(Row::egress("all connections share a link", slow(), tcp()).after_packet(udp()), 2)
            .verdict(|v| v.delay_ns == UDP_NS + TCP_NS),
        waits(Row::egress("a megabit", rate("1Mbit/s"), tcp()), 1).verdict(|v| v.delay_ns == 464_000),
        waits(Row::egress("a hundred megabits", rate("100Mbit/s"), tcp()), 1)
            .verdict(|v| v.delay_ns == 4_640),
        waits(Row::egress("ten gigabits, rounded up", rate("10Gbit/s"), tcp()), 1)
            .verdict(|v| v.delay_ns == 47),
        waits(Row::egress("a burst leaves at once", rate("1KB/s,burst=58,queue=10s"), tcp()), 1)
            .verdict(|v| v.delay_ns == 0),
        waits(Row::egress("after the burst it waits", rate("1KB/s,burst=58,queue=10s"), tcp()).after(1), 2)
            .verdict(|v| v.delay_ns == TCP_NS),
        Row::egress("below a gigabit it is cut first", slow().flags(rule_flags::WIRE), tcp())
            .on_normalising()
            .fate(Fate::Normalise),
        waits(Row::egress("from a gigabit on it is not", rate("1Gbit/s"), tcp()).on_normalising(), 1),
    ]
}

fn queue() -> Vec<Row> {
    let short = || rate("1KB/s,queue=100ms");
    vec![
        waits(Row::egress("what fits the queue waits", short(), tcp()), 1),
        Row::egress("what does not fit vanishes", short(), tcp())
            .after(1)
            .fate(Fate::Drop)
            .verdict(|v| v.drop_by == FaultKind::Rate.number())
            .counts(&[("matched_packets", 2), ("delayed_packets", 1), ("dropped_packets", 1)]),
        waits(Row::egress("a free link takes what exceeds its queue", rate("1KB/s,queue=1ms"), tcp()), 1)
            .verdict(|v| v.delay_ns == TCP_NS),
        Row::egress("what was dropped did not use the link", rate("1KB/s,queue=110ms"), udp())
            .after_packet(tcp())
            .after_packet(tcp())
            .fate(Fate::Hold)
            .verdict(|v| v.delay_ns == TCP_NS + UDP_NS)
            .counts(&[("matched_packets", 3), ("delayed_packets", 2), ("dropped_packets", 1)]),
        Row::egress("a queue in bytes", rate("1KB/s,queue=100B"), tcp()).after(1).fate(Fate::Drop).counts(&[
            ("matched_packets", 2),
            ("delayed_packets", 1),
            ("dropped_packets", 1),
        ]),
    ]
}

/// The narrowest link counts; delays add to it.
fn several() -> Vec<Row> {
    let both = faults(&[("rate", "1KB/s,queue=10s"), ("delay", "50ms")]);
    let twice = faults(&[("duplicate", "100%"), ("rate", "1KB/s,queue=10s")]);
    let lost = faults(&[("loss", "100%"), ("rate", "1KB/s,queue=10s")]);
    vec![
        waits(Row::egress("the narrowest of two links", slow(), tcp()).and(rate("2KB/s")), 1)
            .verdict(|v| v.delay_ns == TCP_NS && v.hold_slot == 0),
        waits(Row::egress("the narrowest, in the other order", rate("2KB/s"), tcp()).and(slow()), 1)
            .verdict(|v| v.delay_ns == TCP_NS && v.hold_slot == 1),
        waits(Row::egress("a delay adds to the queue", both.clone(), tcp()), 1)
            .verdict(|v| v.delay_ns == TCP_NS + 50 * MS),
        waits(Row::egress("the delay counts once", both, tcp()).after(1), 2)
            .verdict(|v| v.delay_ns == 2 * TCP_NS + 50 * MS),
        waits(Row::egress("a delay of another rule adds", slow(), tcp()).and(fault("delay", "50ms")), 1)
            .verdict(|v| v.delay_ns == TCP_NS + 50 * MS),
        Row::egress("a copy uses the link too", twice, tcp())
            .fate(Fate::Hold)
            .verdict(|v| v.delay_ns == 2 * TCP_NS)
            .counts(&[("matched_packets", 1), ("delayed_packets", 1), ("duplicated_packets", 1)]),
        Row::egress("what is lost before the link does not use it", lost, tcp())
            .after(3)
            .fate(Fate::Drop)
            .counts(&[("matched_packets", 4), ("dropped_packets", 4)]),
    ]
}

fn others() -> Vec<Row> {
    let each = || rate("1KB/s,queue=10s,per=connection");
    let neighbour = Packet::new().eth().ipv4("10.0.0.1", "10.0.0.2").tcp(40001, 6379).payload(b"PING");
    vec![
        waits(Row::egress("each connection has its link", each(), tcp()).after_packet(neighbour), 2)
            .verdict(|v| v.delay_ns == TCP_NS),
        waits(Row::egress("a connection waits for itself", each(), tcp()).after(1), 2)
            .verdict(|v| v.delay_ns == 2 * TCP_NS),
        waits(Row::egress("what is no connection shares one", each(), ping()).after(1), 2),
        Row::egress("a link in shadow", slow().flags(rule_flags::SHADOW), tcp())
            .after(1)
            .counts(&[("matched_packets", 2), ("shadowed_packets", 2)]),
        Row::egress("a link that has expired", slow().between(0, 1), tcp())
            .at(1)
            .counts(&[("matched_packets", 1), ("expired_packets", 1)]),
    ]
}
