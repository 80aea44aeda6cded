//! When a rule acts and how far: begin, expiry, lease, flapping, limits.

use chaos_tests::{
    oracle::{
        Fate,
        build::{RuleBuilder, loss},
    },
    packet::Packet,
    progrun::Row,
};

use super::tcp;

const MS: u64 = 1_000_000;

/// Every row of this table.
pub(crate) fn rows() -> Vec<Row> {
    [times(), flapping(), limits()].concat()
}

fn all() -> RuleBuilder {
    loss("100%")
}

fn passed_because(reason: &'static str) -> [(&'static str, u64); 2] {
    [("matched_packets", 1), (reason, 1)]
}

fn times() -> Vec<Row> {
    let expired = passed_because("expired_packets");
    let lapsed = passed_because("lease_packets");
    vec![
        Row::egress("before its end", all().between(0, 30 * MS), tcp()).at(30 * MS - 1).drops(),
        Row::egress("at its end", all().between(0, 30 * MS), tcp()).at(30 * MS).counts(&expired),
        Row::egress("after its end", all().between(0, 30 * MS), tcp()).at(31 * MS).counts(&expired),
        Row::egress("before its beginning", all().between(10 * MS, 30 * MS), tcp())
            .at(10 * MS - 1)
            .matches_only(),
        Row::egress("at its beginning", all().between(10 * MS, 30 * MS), tcp()).at(10 * MS).drops(),
        Row::egress("before the lease ends", all(), tcp()).lease(5 * MS).at(5 * MS - 1).drops(),
        Row::egress("when the lease ends", all(), tcp()).lease(5 * MS).at(5 * MS).counts(&lapsed),
        Row::egress("expiry goes before the lease", all().between(0, MS), tcp())
            .lease(MS)
            .at(MS)
            .counts(&expired),
    ]
}

fn flapping() -> Vec<Row> {
    let rule = || all().flapping(100 * MS, 200 * MS);
    vec![
        Row::egress("first on", rule(), tcp()).at(0).drops(),
        Row::egress("last moment on", rule(), tcp()).at(100 * MS - 1).drops(),
        Row::egress("first off", rule(), tcp()).at(100 * MS).matches_only(),
        Row::egress("last moment off", rule(), tcp()).at(200 * MS - 1).matches_only(),
        Row::egress("on again", rule(), tcp()).at(200 * MS).drops(),
        Row::egress("off in the ninth period", rule(), tcp()).at(1_700 * MS).matches_only(),
        Row::egress(
            "it begins to flap when it begins",
            all().between(50 * MS, u64::MAX / 2).flapping(100 * MS, 200 * MS),
            tcp(),
        )
        .at(149 * MS)
        .drops(),
    ]
}

/// A packet that has no flow.
fn bare() -> Packet {
    Packet::new().eth().ipv4("10.0.0.1", "10.0.0.2").protocol(47).payload(b"GRE")
}

/// [`tcp`] is 58 bytes on the wire.
fn limits() -> Vec<Row> {
    let used_up = |matched, dropped| {
        [("matched_packets", matched), ("dropped_packets", dropped), ("limited_packets", matched - dropped)]
    };
    let three = [("matched_packets", 3), ("dropped_packets", 3)];
    vec![
        Row::egress("the last of three", all().max_packets(3), tcp())
            .after(2)
            .fate(Fate::Drop)
            .counts(&three),
        Row::egress("the fourth of three", all().max_packets(3), tcp()).after(3).counts(&used_up(4, 3)),
        Row::egress("long after the limit", all().max_packets(1), tcp()).after(9).counts(&used_up(10, 1)),
        Row::egress("bytes for three", all().max_bytes(174), tcp()).after(2).fate(Fate::Drop).counts(&[
            ("matched_packets", 3),
            ("dropped_packets", 3),
            ("dropped_bytes", 174),
        ]),
        Row::egress("one byte short of three", all().max_bytes(173), tcp()).after(2).counts(&used_up(3, 2)),
        Row::egress("the same flow again is one flow", all().max_flows(1), tcp())
            .after(4)
            .fate(Fate::Drop)
            .counts(&[("matched_packets", 5), ("dropped_packets", 5), ("dropped_bytes", 5 * 58)]),
        Row::egress("what has no flow is none of the first", all().max_flows(1), bare())
            .counts(&[("matched_packets", 1), ("limited_packets", 1)]),
        Row::egress("a limit counts only what is hit", loss("every=2").max_packets(1), tcp())
            .after(3)
            .counts(&[("matched_packets", 4), ("dropped_packets", 1), ("limited_packets", 2)]),
    ]
}
