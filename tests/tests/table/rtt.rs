//! Half of a round trip's time in each direction.

use chaos_common::{
    abi::rule_flags,
    fault::FaultKind,
    packet::tcp::{ACK, FIN},
};
use chaos_tests::{
    oracle::{
        Fate,
        build::{fault, faults},
    },
    progrun::Row,
};

use super::{ping, reply, tcp, tcp6, udp};

const MS: u64 = 1_000_000;

fn waits(row: Row) -> Row {
    row.fate(Fate::Hold).counts(&[("matched_packets", 1), ("delayed_packets", 1)])
}

/// Every row of this table.
pub(crate) fn rows() -> Vec<Row> {
    let trip = || fault("rtt", "100ms");
    let data_only = || fault("rtt", "100ms,mode=data-only");
    vec![
        waits(Row::egress("half on the way out", trip(), tcp()))
            .verdict(|v| v.delay_ns == 50 * MS && v.hold_by == FaultKind::Rtt.number()),
        waits(Row::ingress("half on the way back", trip(), reply())).verdict(|v| v.delay_ns == 50 * MS),
        waits(Row::egress("half of IPv6", trip(), tcp6())).verdict(|v| v.delay_ns == 50 * MS),
        waits(Row::egress("half of a datagram", trip(), udp())).verdict(|v| v.delay_ns == 50 * MS),
        waits(Row::egress("half of a ping", trip(), ping())).verdict(|v| v.delay_ns == 50 * MS),
        waits(Row::egress("half of the jitter, earliest", fault("rtt", "100ms±20ms"), tcp()).random(0))
            .verdict(|v| v.delay_ns == 40 * MS),
        waits(Row::egress("half of the jitter, latest", fault("rtt", "100ms±20ms"), tcp()).random(u32::MAX))
            .verdict(|v| v.delay_ns.abs_diff(60 * MS) < 1_000),
        waits(Row::egress("a delay adds", faults(&[("rtt", "100ms"), ("delay", "7ms")]), tcp()))
            .verdict(|v| v.delay_ns == 57 * MS),
        Row::egress("of data only: acknowledgements go ahead", data_only(), tcp().payload(b"").flags(ACK))
            .matches_only(),
        waits(Row::egress(
            "of data only: the end keeps its place",
            data_only(),
            tcp().payload(b"").flags(FIN),
        ))
        .verdict(|v| v.delay_ns == 0),
        Row::egress("a round trip in shadow", trip().flags(rule_flags::SHADOW), tcp())
            .counts(&[("matched_packets", 1), ("shadowed_packets", 1)]),
        Row::egress("a round trip that has expired", trip().between(0, 1), tcp())
            .at(1)
            .counts(&[("matched_packets", 1), ("expired_packets", 1)]),
    ]
}
