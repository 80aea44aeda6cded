//! What `reset` sends in place of a packet, byte by byte. A test run shows the one that goes on; its twin
//! for the sender leaves as a clone that nobody sees, and is judged by programs (`e2e_reset`).

use chaos_tests::{
    oracle::{
        Fate, LOOPBACK, TUN,
        build::{fault, faults},
    },
    packet::{ACK, Extension, FIN, PSH, Packet, RST, SYN},
    progrun::Row,
};

use super::{ping, reply, tcp, tcp6, udp};

/// Every row of this table.
pub(crate) fn rows() -> Vec<Row> {
    [segments(), headers(), devices(), spared(), chances(), after_bytes(), after_time(), ended()].concat()
}

/// A reset says that its window is closed; the checksum stays, as 0 and 0xffff are the same in it.
pub(crate) fn bytes_of(reset: &Packet) -> Vec<u8> {
    let mut bytes = reset.bytes();
    let window = bytes.len() - 6;
    bytes[window..window + 2].fill(0);
    bytes
}

fn resets(row: Row, reset: &Packet) -> Row {
    let mut row = row.fate(Fate::Answer).counts(&[("matched_packets", 1), ("answered_packets", 1)]);
    row.after = Some(bytes_of(reset));
    row
}

fn now() -> chaos_tests::oracle::build::RuleBuilder {
    fault("reset", "")
}

/// From the target to the peer.
fn onward(seq: u32, ack: u32) -> Packet {
    tcp().payload(b"").flags(RST | ACK).numbers(seq, ack)
}

/// The other way, MAC addresses included.
fn backward(seq: u32, ack: u32) -> Packet {
    reply().payload(b"").eth_reversed().flags(RST | ACK).numbers(seq, ack)
}

/// A reset has the number that its receiver expects next.
fn segments() -> Vec<Row> {
    let syn = || tcp().payload(b"").flags(SYN).numbers(1000, 0);
    vec![
        resets(Row::egress("data", now(), tcp()), &onward(1000, 2000)),
        resets(Row::egress("data that is pushed", now(), tcp().flags(ACK | PSH)), &onward(1000, 2000)),
        resets(Row::egress("an acknowledgement", now(), tcp().payload(b"")), &onward(1000, 2000)),
        resets(Row::egress("a FIN", now(), tcp().payload(b"").flags(FIN | ACK)), &onward(1000, 2000)),
        resets(Row::egress("a SYN is answered only", now(), syn()), &backward(0, 1001)),
        resets(
            Row::egress("a SYN with data (fast open)", now(), syn().payload(b"early")),
            &backward(0, 1006),
        ),
        resets(
            Row::egress("a SYN-ACK", now(), tcp().payload(b"").flags(SYN | ACK).numbers(7, 8)),
            &onward(7, 8),
        ),
        resets(
            Row::egress("a retransmission", now(), tcp())
                .after(1)
                .counts(&[("matched_packets", 2), ("answered_packets", 2)]),
            &onward(1000, 2000),
        )
        .counts(&[("matched_packets", 2), ("answered_packets", 2)]),
        resets(
            Row::egress("numbers at their end", now(), tcp().numbers(u32::MAX, u32::MAX)),
            &onward(u32::MAX, u32::MAX),
        ),
        resets(Row::ingress("data that comes", now(), reply()), &reply().payload(b"").flags(RST | ACK)),
    ]
}

/// What the packet had besides its addresses is not in the reset.
fn headers() -> Vec<Row> {
    let options = Packet::new().eth().ipv4("10.0.0.1", "10.0.0.2").options(&[1; 40]).tcp(40000, 6379);
    let extended = Packet::new()
        .eth()
        .ipv6("fd00::1", "fd00::2")
        .extension(Extension::HopByHop(4))
        .extension(Extension::Destination(20))
        .tcp(40000, 6379)
        .payload(b"PING");
    let onward6 = || tcp6().payload(b"").flags(RST | ACK);
    let tagged = |tags: &[u16]| tags.iter().fold(Packet::new().eth(), |packet, tag| packet.vlan(*tag));
    let v4 = |packet: Packet| packet.ipv4("10.0.0.1", "10.0.0.2").tcp(40000, 6379);
    vec![
        resets(Row::egress("IPv6", now(), tcp6()), &onward6()),
        resets(
            Row::egress("IPv6 SYN", now(), tcp6().payload(b"").flags(SYN)),
            &Packet::new()
                .eth_reversed()
                .ipv6("fd00::2", "fd00::1")
                .tcp(6379, 40000)
                .flags(RST | ACK)
                .numbers(0, 1001),
        ),
        resets(Row::egress("IPv4 with options", now(), options.payload(b"PING")), &onward(1000, 2000)),
        resets(Row::egress("IPv6 with extension headers", now(), extended), &onward6()),
        resets(
            Row::egress("a VLAN tag is kept", now(), v4(tagged(&[10])).payload(b"PING")),
            &v4(tagged(&[10])).flags(RST | ACK),
        ),
        resets(
            Row::egress("two VLAN tags are kept", now(), v4(tagged(&[10, 20])).payload(b"PING")),
            &v4(tagged(&[10, 20])).flags(RST | ACK),
        ),
        resets(Row::egress("a large packet", now(), tcp().payload(&[7; 1400])), &onward(1000, 2000)),
    ]
}

fn devices() -> Vec<Row> {
    let bare = || Packet::new().ipv4("10.0.0.1", "10.0.0.2").tcp(40000, 6379);
    let on_tun = || now().only_on(TUN, true, true);
    let on_lo = || now().only_on(LOOPBACK, true, true);
    vec![
        resets(
            Row::egress("without MAC header", on_tun(), bare().payload(b"PING")).on(TUN),
            &bare().flags(RST | ACK),
        ),
        resets(
            Row::egress("a SYN without MAC header", on_tun(), bare().flags(SYN)).on(TUN),
            &Packet::new().ipv4("10.0.0.2", "10.0.0.1").tcp(6379, 40000).flags(RST | ACK).numbers(0, 1001),
        ),
        resets(Row::egress("on loopback", on_lo(), tcp()).on(LOOPBACK), &onward(1000, 2000)),
        resets(
            Row::egress("a SYN on loopback", on_lo(), tcp().payload(b"").flags(SYN)).on(LOOPBACK),
            &backward(0, 1001),
        ),
    ]
}

/// A reset is never answered, and nothing but TCP is.
fn spared() -> Vec<Row> {
    vec![
        Row::egress("a reset passes", now(), tcp().payload(b"").flags(RST)).matches_only(),
        Row::egress("a reset with acknowledgement passes", now(), tcp().payload(b"").flags(RST | ACK))
            .matches_only(),
        Row::egress("a datagram passes", now(), udp()).matches_only(),
        Row::egress("a ping passes", now(), ping()).matches_only(),
        Row::egress("a later fragment passes", now(), tcp().fragment(64, false)).matches_only(),
        Row::egress("syn: data passes", fault("reset", "syn"), tcp()).matches_only(),
        Row::egress("syn: a SYN-ACK passes", fault("reset", "syn"), tcp().flags(SYN | ACK)).matches_only(),
        resets(
            Row::egress("syn: a SYN is refused", fault("reset", "syn"), tcp().payload(b"").flags(SYN)),
            &backward(0, 1001),
        ),
    ]
}

fn chances() -> Vec<Row> {
    let tenth = || fault("reset", "10%");
    vec![
        resets(Row::egress("the lowest word is hit", tenth(), tcp()).random(0), &onward(1000, 2000)),
        Row::egress("the highest word is not hit", tenth(), tcp()).random(u32::MAX).matches_only(),
        resets(
            Row::egress("all connections are chosen", fault("reset", "100%/connection"), tcp())
                .random(u32::MAX),
            &onward(1000, 2000),
        ),
        Row::egress("no connection is chosen", fault("reset", "0%/connection"), tcp())
            .random(0)
            .matches_only(),
    ]
}

/// Four bytes in each packet.
fn after_bytes() -> Vec<Row> {
    let eight = || fault("reset", "after=8");
    let counts = |matched, answered| {
        let all = [("matched_packets", matched), ("answered_packets", answered)];
        if answered == 0 { all[..1].to_vec() } else { all.to_vec() }
    };
    let syn = || tcp().payload(b"").flags(SYN);
    vec![
        Row::egress("the last byte that may pass", eight(), tcp()).after(1).counts(&counts(2, 0)),
        resets(Row::egress("the first byte too many", eight(), tcp()).after(2), &onward(1000, 2000))
            .counts(&counts(3, 1)),
        Row::egress("acknowledgements are no bytes", eight(), tcp().payload(b""))
            .after(9)
            .counts(&counts(10, 0)),
        Row::egress("another connection has its own bytes", eight(), tcp())
            .after_packet(other())
            .after_packet(other())
            .after_packet(other())
            .counts(&counts(4, 1)),
        Row::egress("a new connection begins anew", eight(), tcp())
            .after_packet(tcp())
            .after_packet(tcp())
            .after_packet(syn())
            .counts(&counts(4, 0)),
    ]
}

/// Once a packet was answered, so is what comes after it, whatever loss says of it.
fn ended() -> Vec<Row> {
    // The words of a row's packets are alike: what differs is how many came before, which is what `every` counts.
    let second = || faults(&[("reset", "after=4"), ("loss", "every=3")]);
    let third = || faults(&[("reset", "after=8"), ("loss", "every=3")]);
    let counts = |matched, answered, dropped| {
        let all =
            [("matched_packets", matched), ("answered_packets", answered), ("dropped_packets", dropped)];
        all.into_iter().filter(|(_, count)| *count != 0).collect::<Vec<_>>()
    };
    vec![
        resets(Row::egress("ended before it would be lost", second(), tcp()).after(2), &onward(1000, 2000))
            .counts(&counts(3, 2, 0)),
        Row::egress("what is lost ends nothing", third(), tcp())
            .after(2)
            .fate(Fate::Drop)
            .counts(&counts(3, 0, 1)),
    ]
}

fn other() -> Packet {
    Packet::new().eth().ipv4("10.0.0.1", "10.0.0.2").tcp(40001, 6379).payload(b"PING")
}

/// A connection that was there before counts from the rule's beginning.
fn after_time() -> Vec<Row> {
    let second = || fault("reset", "after=1s").between(0, 10_000_000_000);
    vec![
        Row::egress("just before its time", second(), tcp()).at(999_999_999).matches_only(),
        resets(Row::egress("at its time", second(), tcp()).at(1_000_000_000), &onward(1000, 2000)),
        Row::egress("its SYN is when it begins", second(), tcp().payload(b"").flags(SYN))
            .at(5_000_000_000)
            .matches_only(),
    ]
}
