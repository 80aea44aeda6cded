//! Loss in bursts, with correlation, and marks instead of losses. One word stands for every draw.

use chaos_common::verdict::Verdict;
use chaos_tests::{
    oracle::{Fate, build::loss},
    packet::{Extension, Packet},
    progrun::Row,
};

use super::{ping, tcp, tcp6};

/// Every row of this table.
pub(crate) fn rows() -> Vec<Row> {
    [bursts(), correlated(), marked()].concat()
}

/// The word 0 hits every chance but none, the highest word only a certainty.
fn bursts() -> Vec<Row> {
    let lost = |matched, dropped| [("matched_packets", matched), ("dropped_packets", dropped)];
    vec![
        Row::egress("the good state loses nothing", loss("p=50%,r=50%"), tcp()).random(0).matches_only(),
        Row::egress("the bad state loses all", loss("p=50%,r=0%"), tcp())
            .random(0)
            .after(1)
            .fate(Fate::Drop)
            .counts(&lost(2, 1)),
        Row::egress("without r it comes back with the rest to p", loss("p=100%"), tcp())
            .random(0)
            .after(3)
            .fate(Fate::Drop)
            .counts(&lost(4, 3)),
        Row::egress("back in the good state", loss("p=50%,r=50%"), tcp())
            .random(0)
            .after(2)
            .counts(&lost(3, 1)),
        Row::egress("h survives in the bad state", loss("p=50%,r=0%,h=100%"), tcp())
            .random(0)
            .after(3)
            .counts(&[("matched_packets", 4)]),
        Row::egress("1-h is the rest to h", loss("p=50%,r=0%,1-h=100%"), tcp())
            .random(0)
            .after(1)
            .fate(Fate::Drop)
            .counts(&lost(2, 1)),
        Row::egress("k dies in the good state", loss("p=0%,r=0%,k=50%"), tcp()).random(0).drops(),
        Row::egress("k survives with a high word", loss("p=0%,r=0%,k=50%"), tcp())
            .random(u32::MAX)
            .matches_only(),
        Row::egress("never bad", loss("p=0%,r=100%"), tcp())
            .random(0)
            .after(5)
            .counts(&[("matched_packets", 6)]),
    ]
}

fn correlated() -> Vec<Row> {
    vec![
        Row::egress("a correlated draw is hit as any", loss("25%,correlation=50%"), tcp())
            .random(0x3fff_0000)
            .drops(),
        Row::egress("a correlated draw is spared as any", loss("25%,correlation=50%"), tcp())
            .random(0xffff_0000)
            .after(3)
            .counts(&[("matched_packets", 4)]),
    ]
}

const fn is_marked(verdict: &Verdict) -> bool {
    verdict.mark_by != 0 && verdict.drop_by == 0
}

/// Marks where the packet says that its ends understand them (RFC 3168, section 5).
fn marked() -> Vec<Row> {
    let ecn = || loss("100%,ecn");
    let options = Packet::new().eth().ipv4("10.0.0.1", "10.0.0.2").options(&[1; 8]).tcp(1, 2);
    let extended = Packet::new().eth().ipv6("fd00::1", "fd00::2").extension(Extension::HopByHop(4)).tcp(1, 2);
    let marks = |name, packet: Packet, before: u8, after: u8| {
        Row::egress(name, ecn(), packet.clone().tos(before))
            .verdict(is_marked)
            .counts(&[("matched_packets", 1), ("marked_packets", 1)])
            .becomes(&packet.tos(after))
    };
    vec![
        marks("ECT(0) is marked", tcp(), 2, 3),
        marks("ECT(1) is marked", tcp(), 1, 3),
        marks("a mark stays", tcp(), 3, 3),
        marks("the other bits stay", tcp(), 0xb8 | 2, 0xb8 | 3),
        marks("IPv6 ECT(0)", tcp6(), 2, 3),
        marks("IPv6 ECT(1) with other bits", tcp6(), 0xb8 | 1, 0xb8 | 3),
        marks("behind IPv4 options", options, 2, 3),
        marks("behind extension headers", extended, 2, 3),
        marks("a ping that says so", ping(), 2, 3),
        Row::egress("what does not understand marks is lost", ecn(), tcp()).drops(),
        Row::egress("and in IPv6", ecn(), tcp6()).drops(),
    ]
}
