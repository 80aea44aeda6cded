//! Which packets `duplicate` doubles. The copy leaves as a clone that a test run does not show; that it arrives,
//! and only once, is for `e2e_content`.

use chaos_common::verdict::Verdict;
use chaos_tests::{
    oracle::{
        Fate,
        build::{RuleBuilder, fault, loss},
    },
    progrun::Row,
};

use super::{ping, reply, tcp, tcp6, udp};

const fn doubles(verdict: &Verdict) -> bool {
    verdict.duplicate_by != 0
}

const fn does_not(verdict: &Verdict) -> bool {
    verdict.is_pass()
}

/// Doubles all and loses a share, in one rule.
fn both(lost: &str) -> RuleBuilder {
    let mut rule = loss(lost);
    rule.0.rule.faults.duplicate = fault("duplicate", "100%").0.rule.faults.duplicate;
    rule
}

/// Every row of this table.
pub(crate) fn rows() -> Vec<Row> {
    let quarter = || fault("duplicate", "25%");
    let all = || fault("duplicate", "100%");
    let doubled =
        |row: Row| row.counts(&[("matched_packets", 1), ("duplicated_packets", 1)]).verdict(doubles);
    vec![
        doubled(Row::egress("the lowest word is doubled", quarter(), tcp()).random(0)),
        doubled(Row::egress("a word below a quarter is doubled", quarter(), tcp()).random(0x3fff_0000)),
        Row::egress("a word above a quarter is not", quarter(), tcp())
            .random(0x4000_1000)
            .verdict(does_not)
            .matches_only(),
        Row::egress("never is never", fault("duplicate", "0%"), tcp())
            .random(0)
            .verdict(does_not)
            .matches_only(),
        doubled(Row::ingress("what comes", all(), reply())),
        doubled(Row::egress("IPv6", all(), tcp6())),
        doubled(Row::egress("a datagram", all(), udp())),
        doubled(Row::egress("a ping", all(), ping())),
        Row::egress("two rules double once", all(), tcp())
            .and(all())
            .counts(&[("matched_packets", 1), ("duplicated_packets", 1)])
            .verdict(doubles),
        Row::egress("what another rule drops is not there twice either", all(), tcp())
            .and(loss("100%"))
            .fate(Fate::Drop)
            .counts(&[("matched_packets", 1), ("duplicated_packets", 1)]),
        Row::egress("of the two that one rule makes it loses one", both("100%"), tcp())
            .verdict(does_not)
            .matches_only(),
        Row::egress("only the peer's", all().peer("10.0.0.9"), tcp()),
    ]
}
