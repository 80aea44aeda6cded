//! What becomes of DNS queries.

use chaos_common::verdict::answers;
use chaos_tests::{
    oracle::{Fate, build::fault},
    packet::{ACK, Link, PSH, Packet, SYN, random::query},
    progrun::Row,
};

/// Every row of this table.
pub(crate) fn rows() -> Vec<Row> {
    [errors(), addresses(), places(), names(), untouched(), over_tcp()].concat()
}

/// A packet like this with a query, from the target's 10.0.0.1:40000 to the resolver.
fn v4(payload: &[u8]) -> Packet {
    Packet::new().eth().ipv4("10.0.0.1", "10.0.0.2").udp(40000, 53).payload(payload)
}

fn v6(payload: &[u8]) -> Packet {
    Packet::new().eth().ipv6("fd00::1", "fd00::2").udp(40000, 53).payload(payload)
}

/// The way back of a packet from [`Packet::eth`].
fn turned(mut packet: Packet) -> Packet {
    if let Link::Eth { dst, src, .. } = &mut packet.link {
        std::mem::swap(dst, src);
    }
    packet
}

fn back4(payload: &[u8]) -> Packet {
    turned(Packet::new().eth().ipv4("10.0.0.2", "10.0.0.1").udp(53, 40000).payload(payload))
}

fn back6(payload: &[u8]) -> Packet {
    turned(Packet::new().eth().ipv6("fd00::2", "fd00::1").udp(53, 40000).payload(payload))
}

/// A query with these flags in its header.
fn flagged(mut query: Vec<u8>, flags: [u8; 2]) -> Vec<u8> {
    query[2..4].copy_from_slice(&flags);
    query
}

/// The answer with a record of this type.
fn record(query: Vec<u8>, qtype: u8, address: &[u8]) -> Vec<u8> {
    let mut out = flagged(query, [0x81, 0x80]);
    out[7] = 1;
    out.extend([0xc0, 12, 0, qtype, 0, 1, 0, 0, 0, 0, 0, u8::try_from(address.len()).unwrap()]);
    out.extend(address);
    out
}

fn row(name: &'static str, value: &str, packet: Packet) -> Row {
    Row::egress(name, fault("dns", value), packet)
}

fn answered(row: Row) -> Row {
    row.fate(Fate::Answer).counts(&[("matched_packets", 1), ("answered_packets", 1)])
}

fn becomes(name: &'static str, value: &str, packet: Packet, after: &Packet) -> Row {
    answered(row(name, value, packet)).becomes(after)
}

/// What came with the question goes back with it.
fn errors() -> Vec<Row> {
    let (short, long) = (query("api.internal", 1, false), query("api.internal", 28, true));
    let with = |query: &Vec<u8>, flags| flagged(query.clone(), flags);
    vec![
        becomes("nxdomain", "nxdomain:*", v4(&short), &back4(&with(&short, [0x81, 0x83]))),
        becomes("nxdomain with EDNS", "nxdomain:*", v4(&long), &back4(&with(&long, [0x81, 0x83]))),
        becomes("servfail by IPv6", "servfail:*", v6(&long), &back6(&with(&long, [0x81, 0x82]))),
        becomes("refused", "refused:*", v6(&short), &back6(&with(&short, [0x81, 0x85]))),
        becomes("truncate", "truncate:*", v4(&short), &back4(&with(&short, [0x83, 0x80]))),
        becomes(
            "no recursion desired, but checking disabled",
            "nxdomain:*",
            v4(&with(&short, [0x00, 0x10])),
            &back4(&with(&short, [0x80, 0x93])),
        ),
        becomes(
            "what is long is cut behind the question",
            "nxdomain:*",
            v4(&[&long[..], &[7; 600]].concat()),
            &back4(&with(&query("api.internal", 28, false), [0x81, 0x83])),
        ),
        row("silence", "silence:*", v4(&short)).drops(),
    ]
}

fn addresses() -> Vec<Row> {
    let bytes4 = [10, 9, 9, 9];
    let bytes6 = [0xfd, 0x99, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 9];
    let value = "address=[10.9.9.9,fd99::9]:*";
    let plain = |name: &str, qtype| query(name, qtype, false);
    // Names of even and odd length, because sums are of 16-bit numbers.
    vec![
        becomes(
            "an IPv4 address",
            value,
            v4(&plain("redis", 1)),
            &back4(&record(plain("redis", 1), 1, &bytes4)),
        ),
        becomes(
            "an IPv4 address by IPv6",
            value,
            v6(&plain("cache", 1)),
            &back6(&record(plain("cache", 1), 1, &bytes4)),
        ),
        becomes(
            "an IPv6 address in place of EDNS",
            value,
            v4(&query("red.is", 28, true)),
            &back4(&record(plain("red.is", 28), 28, &bytes6)),
        ),
        becomes(
            "an IPv6 address by IPv6",
            value,
            v6(&query("redi", 28, true)),
            &back6(&record(plain("redi", 28), 28, &bytes6)),
        ),
        becomes(
            "no address of the other family",
            "address=10.9.9.9:*",
            v4(&query("redis", 28, true)),
            &back4(&flagged(plain("redis", 28), [0x81, 0x80])),
        ),
        becomes(
            "no address where none was asked for",
            value,
            v6(&plain("redis", 15)),
            &back6(&flagged(plain("redis", 15), [0x81, 0x80])),
        ),
    ]
}

fn places() -> Vec<Row> {
    let short = query("redis", 1, false);
    let answer = record(short.clone(), 1, &[10, 9, 9, 9]);
    let value = "address=10.9.9.9:redis";
    let with = |payload: &Vec<u8>, from: &str, to: &str, ports: (u16, u16)| {
        Packet::new().eth().vlan(10).ipv4(from, to).options(&[1; 8]).udp(ports.0, ports.1).payload(payload)
    };
    let docker = |payload: &Vec<u8>, from: &str, to: &str, ports: (u16, u16)| {
        Packet::new().eth().ipv4(from, to).udp(ports.0, ports.1).payload(payload)
    };
    vec![
        becomes(
            "with options behind a VLAN tag",
            value,
            with(&short, "10.0.0.1", "10.0.0.2", (40000, 53)),
            &turned(with(&answer, "10.0.0.2", "10.0.0.1", (53, 40000))),
        ),
        becomes(
            "Docker's resolver, whose port NAT has changed",
            value,
            docker(&short, "127.0.0.1", "127.0.0.11", (40000, 40053)),
            &turned(docker(&answer, "127.0.0.11", "127.0.0.1", (40053, 40000))),
        ),
        answered(Row::ingress("a query that comes", fault("dns", value), v4(&short)))
            .becomes(&back4(&answer)),
    ]
}

fn names() -> Vec<Row> {
    let asks = |name: &str| v4(&query(name, 1, false));
    vec![
        answered(row("case does not count", "nxdomain:Redis.Internal", asks("rEDIS.iNTERNAL"))),
        answered(row("a dot at the end does not count", "nxdomain:redis.", asks("redis"))),
        answered(row("the last of eight", "nxdomain:a,b,c,d,e,f,g,*.h", asks("x.y.h"))),
        answered(row("several stars", "nxdomain:*-db-*.corp", asks("a-db-b-db-c.corp"))),
        answered(row("the root", "nxdomain:*", asks(""))),
        row("only a part of the name", "nxdomain:internal", asks("redis.internal")).matches_only(),
        row("no name below it", "nxdomain:*.internal", asks("internal")).matches_only(),
        row("none of several", "nxdomain:a,*.b,c-?", asks("c-12")).matches_only(),
    ]
}

fn untouched() -> Vec<Row> {
    let short = query("redis", 1, false);
    let mut two = short.clone();
    two[5] = 2;
    let mut pointer = short.clone();
    pointer[12] = 0xc0;
    let elsewhere = Packet::new().eth().ipv4("10.0.0.1", "10.0.0.2").udp(40000, 5353).payload(&short);
    vec![
        row("an answer", "nxdomain:*", v4(&flagged(short.clone(), [0x81, 0x80]))).matches_only(),
        row("an update", "nxdomain:*", v4(&flagged(short.clone(), [0x28, 0]))).matches_only(),
        row("two questions", "nxdomain:*", v4(&two)).matches_only(),
        row("a pointer in the question", "nxdomain:*", v4(&pointer)).matches_only(),
        row("a question cut short", "nxdomain:*", v4(&short[..short.len() - 1])).matches_only(),
        row("no question at all", "nxdomain:*", v4(b"x")).matches_only(),
        row("mDNS", "nxdomain:*", elsewhere).matches_only(),
    ]
}

fn over_tcp() -> Vec<Row> {
    let short = query("redis", 1, false);
    let length = u16::try_from(short.len()).unwrap().to_be_bytes();
    let segment = |payload: &[u8], flags| {
        Packet::new().eth().ipv4("10.0.0.1", "10.0.0.2").tcp(40000, 53).flags(flags).payload(payload)
    };
    let whole = [&length, &short[..]].concat();
    vec![
        answered(row("a query over TCP is reset", "nxdomain:redis", segment(&whole, PSH | ACK)))
            .verdict(|verdict| verdict.answer.what == answers::RESET),
        row("another name over TCP", "nxdomain:other", segment(&whole, PSH | ACK)).matches_only(),
        row("the opening of a connection", "nxdomain:*", segment(&[], SYN)).matches_only(),
        row("a query over TCP in two parts", "nxdomain:*", segment(&whole[..9], ACK)).matches_only(),
        row("a query over TCP vanishes", "silence:*", segment(&whole, PSH | ACK)).drops(),
    ]
}
