//! What overtakes others that wait.

use chaos_common::{abi::rule_flags, fault::FaultKind, verdict::verdict_flags};
use chaos_tests::{
    oracle::{
        Fate,
        build::{RuleBuilder, faults},
    },
    progrun::Row,
};

use super::{reply, tcp, udp};

const MS: u64 = 1_000_000;

fn reorder(value: &str) -> RuleBuilder {
    faults(&[("delay", "50ms"), ("reorder", value)])
}

fn overtakes(row: Row, before: u64) -> Row {
    let mut counts = vec![("matched_packets", before + 1), ("reordered_packets", 1)];
    if before > 0 {
        counts.push(("delayed_packets", before));
    }
    row.fate(Fate::Hold).counts(&counts).verdict(|v| {
        v.delay_ns == 0 && v.flags & verdict_flags::OVERTAKES != 0 && v.hold_by == FaultKind::Reorder.number()
    })
}

fn waits(row: Row, packets: u64) -> Row {
    row.fate(Fate::Hold)
        .counts(&[("matched_packets", packets), ("delayed_packets", packets)])
        .verdict(|v| v.delay_ns == 50 * MS && v.flags == verdict_flags::ORDERED)
}

/// Every row of this table.
pub(crate) fn rows() -> Vec<Row> {
    let with_link = faults(&[("delay", "50ms"), ("rate", "1KB/s,queue=10s"), ("reorder", "100%")]);
    vec![
        overtakes(Row::egress("the lowest word overtakes", reorder("25%"), tcp()).random(0), 0),
        overtakes(Row::egress("a word below a quarter overtakes", reorder("25%"), udp()).random(1 << 29), 0),
        waits(Row::egress("a word above a quarter waits", reorder("25%"), tcp()).random(0x4000_1000), 1),
        overtakes(Row::ingress("what comes overtakes too", reorder("25%"), reply()).random(0), 0),
        waits(Row::egress("never overtakes", reorder("0%"), tcp()).random(0).after(3), 4),
        waits(Row::egress("the fourth of a gap of five waits", reorder("100%,gap=5"), tcp()).after(3), 4),
        overtakes(Row::egress("the fifth overtakes", reorder("100%,gap=5"), tcp()).after(4), 4),
        Row::egress("the link is still waited for", with_link, tcp())
            .after(1)
            .fate(Fate::Hold)
            .verdict(|v| v.delay_ns == 2 * 58 * MS)
            .counts(&[("matched_packets", 2), ("reordered_packets", 2)]),
        Row::egress("reordering needs wire packets", reorder("25%").flags(rule_flags::WIRE), tcp())
            .on_normalising()
            .fate(Fate::Normalise),
        Row::egress("reordering in shadow", reorder("100%").flags(rule_flags::SHADOW), tcp())
            .counts(&[("matched_packets", 1), ("shadowed_packets", 1)]),
        Row::egress("reordering that has expired", reorder("100%").between(0, 1), tcp())
            .at(1)
            .counts(&[("matched_packets", 1), ("expired_packets", 1)]),
        Row::egress(
            "what is lost overtakes nobody",
            faults(&[("delay", "5ms"), ("reorder", "100%"), ("loss", "100%")]),
            tcp(),
        )
        .drops(),
    ]
}
