//! How packets are read: tags, options, extension headers, fragments, broken ones.

use chaos_common::packet::Class;
use chaos_tests::{
    oracle::build::{RuleBuilder, loss},
    packet::{Extension, Packet},
    progrun::Row,
};

use super::{ping, tcp, tcp6, udp};

/// Every row of this table.
pub(crate) fn rows() -> Vec<Row> {
    [link_layer(), ipv4(), ipv6(), icmp(), broken()].concat()
}

/// A rule that a packet only fulfils if its ports were found.
fn redis() -> RuleBuilder {
    loss("100%").peer_ports(6379, 6379)
}

fn all() -> RuleBuilder {
    loss("100%")
}

fn link_layer() -> Vec<Row> {
    let tagged = |tags: &[u16]| {
        let eth = tags.iter().fold(Packet::new().eth(), |packet, tag| packet.vlan(*tag));
        eth.ipv4("10.0.0.1", "10.0.0.2").tcp(40000, 6379)
    };
    vec![
        Row::egress("no tag", redis(), tcp()).drops(),
        Row::egress("one tag", redis(), tagged(&[10])).drops(),
        Row::egress("two tags", redis(), tagged(&[10, 20])).drops(),
        Row::egress("three tags pass", redis(), tagged(&[10, 20, 30])),
    ]
}

fn ipv4() -> Vec<Row> {
    let options =
        |bytes: &[u8]| Packet::new().eth().ipv4("10.0.0.1", "10.0.0.2").options(bytes).tcp(40000, 6379);
    vec![
        Row::egress("four bytes of options", redis(), options(&[1; 4])).drops(),
        Row::egress("forty bytes of options", redis(), options(&[1; 40])).drops(),
        Row::egress("a first fragment has ports", redis(), tcp().fragment(0, true)).drops(),
        Row::egress("a later fragment has none", redis(), tcp().fragment(64, false)),
        Row::egress("a later fragment for a rule without ports", all(), tcp().fragment(64, false)).drops(),
        Row::egress("a later fragment is still TCP", all().class(Class::TCP), tcp().fragment(64, true))
            .drops(),
    ]
}

fn ipv6() -> Vec<Row> {
    let with = |extensions: &[Extension]| {
        let packet = Packet::new().eth().ipv6("fd00::1", "fd00::2");
        extensions.iter().cloned().fold(packet, Packet::extension).tcp(40000, 6379)
    };
    let auth = Extension::Auth(3);
    let all_of_them =
        [Extension::HopByHop(4), Extension::Routing(4, 1), Extension::Destination(20), auth.clone()];
    vec![
        Row::egress("IPv6", redis(), tcp6()).drops(),
        Row::egress("hop-by-hop options", redis(), with(&[Extension::HopByHop(4)])).drops(),
        Row::egress("destination options", redis(), with(&[Extension::Destination(30)])).drops(),
        Row::egress("a routing header", redis(), with(&[Extension::Routing(4, 2)])).drops(),
        Row::egress("an authentication header", redis(), with(&[auth])).drops(),
        Row::egress("four extension headers", redis(), with(&all_of_them)).drops(),
        Row::egress("a first IPv6 fragment has ports", redis(), tcp6().fragment(0, true)).drops(),
        Row::egress("a later IPv6 fragment has none", redis(), tcp6().fragment(64, false)),
        Row::egress("a later IPv6 fragment for a rule without ports", all(), tcp6().fragment(64, false))
            .drops(),
    ]
}

fn icmp() -> Vec<Row> {
    let unreachable = Packet::new().eth().ipv4("10.0.0.9", "10.0.0.1").icmp_error(3, 1, &tcp());
    let ping6 = Packet::new().eth().ipv6("fd00::1", "fd00::2").ping(1, 1);
    vec![
        Row::egress("an echo request", all(), ping()).drops(),
        Row::egress("an IPv6 echo request", all().class(Class::ICMP6), ping6).drops(),
        Row::ingress("an error about a flow passes a rule with ports", redis(), unreachable.clone()),
        Row::ingress("an error is hit by a rule without ports", all(), unreachable).drops(),
    ]
}

/// What cannot be parsed passes; whatever is cut off, nothing breaks.
fn broken() -> Vec<Row> {
    vec![
        Row::egress("only a MAC header", all(), tcp().cut(14)),
        Row::egress("half an IPv4 header", all(), tcp().cut(24)),
        Row::egress("half an IPv6 header", all(), tcp6().cut(40)),
        Row::egress("half a UDP header", all().peer_ports(53, 53), udp().cut(36)),
        Row::egress("an IPv4 header of the wrong version", all(), wrong_version()),
    ]
}

/// Ethertype IPv4, but an IPv6 packet.
fn wrong_version() -> Packet {
    let inner = Packet::new().ipv6("fd00::1", "fd00::2").udp(1, 2).bytes();
    Packet::new().eth().ethertype(0x0800).payload(&inner)
}
