//! What `stall` stops, and when it closes.

use chaos_tests::{
    oracle::{Fate, build::fault},
    packet::{ACK, FIN, PSH, Packet, RST, SYN},
    progrun::Row,
};

use super::{ping, reply, reset::bytes_of, tcp, tcp6, udp};

/// Every row of this table.
pub(crate) fn rows() -> Vec<Row> {
    [stops(), closes()].concat()
}

fn stops() -> Vec<Row> {
    let stall = || fault("stall", "");
    let empty = || tcp().payload(b"");
    vec![
        Row::egress("data", stall(), tcp()).drops(),
        Row::egress("data that is pushed", stall(), tcp().flags(ACK | PSH)).drops(),
        Row::egress("data over IPv6", stall(), tcp6()).drops(),
        Row::ingress("data that comes", stall(), reply()).drops(),
        Row::egress("a datagram", stall(), udp()).drops(),
        Row::egress("a FIN is behind the data", stall(), empty().flags(FIN | ACK)).drops(),
        Row::egress("a FIN with data", stall(), tcp().flags(FIN | ACK)).drops(),
        Row::egress("a SYN gets through", stall(), empty().flags(SYN)).matches_only(),
        Row::egress("a SYN-ACK gets through", stall(), empty().flags(SYN | ACK)).matches_only(),
        Row::egress("an acknowledgement gets through", stall(), empty()).matches_only(),
        Row::egress("a reset gets through", stall(), empty().flags(RST)).matches_only(),
        Row::egress("a ping gets through", stall(), ping()).matches_only(),
    ]
}

/// The first data that is stopped begins the time.
fn closes() -> Vec<Row> {
    let stall = || fault("stall", "close=1s");
    let empty = || tcp().payload(b"");
    let counts = |matched, dropped| [("matched_packets", matched), ("dropped_packets", dropped)];
    let mut closed = Row::egress("stopped long enough: both ends are reset", stall(), tcp())
        .after_packet(tcp())
        .earlier_at(0)
        .at(1_000_000_000)
        .fate(Fate::Answer)
        .counts(&[("matched_packets", 2), ("dropped_packets", 1), ("answered_packets", 1)]);
    closed.after = Some(bytes_of(&empty().flags(RST | ACK)));
    let mut by_ack = Row::egress("an acknowledgement shows it, too", stall(), empty())
        .after_packet(tcp())
        .earlier_at(0)
        .at(1_000_000_000)
        .fate(Fate::Answer)
        .counts(&[("matched_packets", 2), ("dropped_packets", 1), ("answered_packets", 1)]);
    by_ack.after = Some(bytes_of(&empty().flags(RST | ACK)));
    vec![
        closed,
        by_ack,
        Row::egress("not yet long enough", stall(), tcp())
            .after_packet(tcp())
            .earlier_at(0)
            .at(999_999_999)
            .fate(Fate::Drop)
            .counts(&counts(2, 2)),
        Row::egress("acknowledgements begin nothing", stall(), tcp())
            .after_packet(empty())
            .earlier_at(0)
            .at(1_000_000_000)
            .fate(Fate::Drop)
            .counts(&counts(2, 1)),
        Row::egress("each connection for itself", stall(), tcp())
            .after_packet(other())
            .earlier_at(0)
            .at(1_000_000_000)
            .fate(Fate::Drop)
            .counts(&counts(2, 2)),
    ]
}

fn other() -> Packet {
    Packet::new().eth().ipv4("10.0.0.1", "10.0.0.2").tcp(40001, 6379).payload(b"PING")
}
