//! Which packets a rule is for.

use chaos_common::{abi::rule_flags, env::Prob, packet::Class};
use chaos_tests::{
    oracle::{NORMALISING, PLAIN, build::loss},
    packet::{ACK, FIN, PSH, Packet, RST, SYN},
    progrun::Row,
};

use super::{ping, reply, tcp, tcp6, udp};

/// Every row of this table.
pub(crate) fn rows() -> Vec<Row> {
    [addresses(), ports(), exclusions(), classes(), flags(), flows(), owners(), several()].concat()
}

fn all() -> chaos_tests::oracle::build::RuleBuilder {
    loss("100%")
}

fn addresses() -> Vec<Row> {
    vec![
        Row::egress("peer address, leaving", all().peer("10.0.0.2"), tcp()).drops(),
        Row::egress("local address, leaving", all().local("10.0.0.1"), tcp()).drops(),
        Row::ingress("peer address, coming", all().peer("10.0.0.2"), reply()).drops(),
        Row::ingress("local address, coming", all().local("10.0.0.1"), reply()).drops(),
        Row::egress("the own address is no peer", all().peer("10.0.0.1"), tcp()),
        Row::ingress("the peer's address is not local", all().local("10.0.0.2"), reply()),
        Row::egress("a range holds", all().peer("10.0.0.0/24"), tcp()).drops(),
        Row::egress("a range beside", all().peer("10.0.1.0/24"), tcp()),
        Row::egress("one bit short", all().peer("10.0.0.3/31"), tcp()).drops(),
        Row::egress("one bit beside", all().peer("10.0.0.0/31"), tcp()),
        Row::egress("the whole of IPv4", all().peer("0.0.0.0/0"), tcp()).drops(),
        Row::egress("the whole of IPv4 has no IPv6", all().peer("0.0.0.0/0"), tcp6()),
        Row::egress("the whole of IPv6 has IPv6", all().peer("::/0"), tcp6()).drops(),
        Row::egress("the whole of IPv6 has no IPv4", all().peer("::/0"), tcp()),
        Row::egress("nor when another rule names that IPv4 address", all().peer("::/0"), tcp())
            .and(loss("0%").peer("10.0.0.2")),
        Row::egress("IPv6 address", all().peer("fd00::2"), tcp6()).drops(),
        Row::egress("IPv6 range", all().peer("fd00::/64"), tcp6()).drops(),
        Row::egress("IPv6 range beside", all().peer("fd00:0:0:1::/64"), tcp6()),
        Row::egress("one of many", all().peer("192.0.2.1").peer("10.0.0.2").peer("fd00::9"), tcp()).drops(),
        Row::egress("both ends must hold", all().peer("10.0.0.2").local("10.0.0.9"), tcp()),
        Row::egress("a range within a range", all().peer("10.0.0.0/8").peer("10.0.0.2"), tcp()).drops(),
    ]
}

fn ports() -> Vec<Row> {
    vec![
        Row::egress("peer port, leaving", all().peer_ports(6379, 6379), tcp()).drops(),
        Row::ingress("peer port, coming", all().peer_ports(6379, 6379), reply()).drops(),
        Row::egress("local port, leaving", all().local_ports(40000, 40000), tcp()).drops(),
        Row::egress("another port", all().peer_ports(6380, 6380), tcp()),
        Row::egress("a port of the own end is no peer port", all().peer_ports(40000, 40000), tcp()),
        Row::egress("first of a range", all().peer_ports(6379, 7000), tcp()).drops(),
        Row::egress("last of a range", all().peer_ports(6000, 6379), tcp()).drops(),
        Row::egress("just below a range", all().peer_ports(6380, 7000), tcp()),
        Row::egress("just above a range", all().peer_ports(6000, 6378), tcp()),
        Row::egress("every port there is", all().peer_ports(0, 65535), tcp()).drops(),
        Row::egress("one of many ports", all().peer_ports(80, 80).peer_ports(6379, 6379), tcp()).drops(),
        Row::egress("a port of UDP too", all().peer_ports(53, 53), udp()).drops(),
        Row::egress("what has no ports is not for a rule with ports", all().peer_ports(0, 65535), ping()),
    ]
}

fn exclusions() -> Vec<Row> {
    let both = || all().peer("10.0.0.0/8").except_peer("10.0.0.2");
    vec![
        Row::egress("an exclusion wins", both(), tcp()),
        Row::egress("an exclusion of others", all().except_peer("10.0.0.3"), tcp()).drops(),
        Row::egress(
            "an exclusion wins over the exact address",
            all().peer("10.0.0.2").except_peer("10.0.0.0/8"),
            tcp(),
        ),
        Row::egress("an excluded port", all().except_peer_port(6379), tcp()),
        Row::egress("one rule's exclusion is not another's", both(), tcp())
            .and(all())
            .fate(chaos_tests::oracle::Fate::Drop),
    ]
}

fn classes() -> Vec<Row> {
    let nd = || Packet::new().eth().ipv6("fd00::1", "ff02::1:ff00:2").neighbour_solicitation("fd00::2");
    let arp = || Packet::new().eth().arp("10.0.0.1", "10.0.0.2");
    vec![
        Row::egress("TCP for TCP", all().class(Class::TCP), tcp()).drops(),
        Row::egress("UDP is not TCP", all().class(Class::TCP), udp()),
        Row::egress("UDP for UDP", all().class(Class::UDP), udp()).drops(),
        Row::egress("ICMP for ICMP", all().class(Class::ICMP), ping()).drops(),
        Row::egress("GRE is another protocol", all().class(Class::OTHER), tcp_less(47)).drops(),
        Row::egress("ARP passes", all(), arp()),
        Row::egress("neighbour discovery passes", all(), nd()),
        Row::egress("a full partition takes ARP", all().everything(), arp()).drops(),
        Row::egress("a full partition takes neighbour discovery", all().everything(), nd()).drops(),
        Row::ingress("LLDP passes", all(), Packet::new().eth().ethertype(0x88cc).payload(b"lldp")),
    ]
}

fn tcp_less(protocol: u8) -> Packet {
    Packet::new().eth().ipv4("10.0.0.1", "10.0.0.2").protocol(protocol).payload(b"data")
}

fn flags() -> Vec<Row> {
    let syn = || tcp().flags(SYN).payload(b"");
    vec![
        Row::egress("SYN for SYN", all().tcp_flags(SYN), syn()).drops(),
        Row::egress("SYN-ACK for SYN", all().tcp_flags(SYN), tcp().flags(SYN | ACK)).drops(),
        Row::egress("ACK is not SYN", all().tcp_flags(SYN), tcp().flags(ACK | PSH)),
        Row::egress("one of FIN and RST", all().tcp_flags(FIN | RST), tcp().flags(RST | ACK)).drops(),
        Row::egress("UDP has no flags", all().tcp_flags(SYN), udp()),
        Row::egress("data for data only", all().flags(rule_flags::DATA_ONLY), tcp()).drops(),
        Row::egress("no data for data only", all().flags(rule_flags::DATA_ONLY), tcp().payload(b"")),
        Row::egress("only one device", all().only_on(NORMALISING, true, true), tcp()),
        Row::egress("only what leaves", all().only_on(PLAIN, true, false), tcp()).drops(),
        Row::ingress("not what comes", all().only_on(PLAIN, true, false), reply()),
        Row::ingress("only what comes", all().only_on(PLAIN, false, true), reply()).drops(),
    ]
}

fn flows() -> Vec<Row> {
    let syn = || tcp().flags(SYN).payload(b"");
    let new = || all().flags(rule_flags::NEW);
    let old = || all().flags(rule_flags::ESTABLISHED);
    vec![
        Row::egress("a share of all", all().share(Prob::ALWAYS), tcp()).drops(),
        Row::egress("a share of none", all().share(Prob::NEVER), tcp()),
        Row::egress("a connection from before is not new", new(), tcp()),
        Row::egress("a connection from before is established", old(), tcp()).drops(),
        Row::egress("its SYN makes it new", new(), syn()).drops(),
        Row::egress("its SYN makes it not established", old(), syn()),
        Row::egress("after its SYN it stays new", old(), tcp()).after_packet(syn()),
        Row::egress("the first datagram makes a flow new", new(), udp()).drops(),
    ]
}

fn owners() -> Vec<Row> {
    vec![
        Row::egress("the target's own socket", all().cgroup(11), tcp()).from_cgroup(&[11]).drops(),
        Row::egress("a socket below the target", all().cgroup(11), tcp()).from_cgroup(&[11, 12]).drops(),
        Row::egress("a socket beside the target", all().cgroup(12), tcp()).from_cgroup(&[11, 13]),
        Row::egress("a socket above the target", all().cgroup(12), tcp()).from_cgroup(&[11]),
        Row::egress("a socket of nobody", all().cgroup(11), tcp()),
        Row::egress("deep below", all().cgroup(21), tcp()).from_cgroup(&[21, 99, 22]).drops(),
        Row::egress("one of two targets", all().cgroup(12).cgroup(22), tcp())
            .from_cgroup(&[21, 99, 22])
            .drops(),
        Row::ingress("an answer nobody asked for", all().cgroup(11), reply()),
    ]
}

fn several() -> Vec<Row> {
    let zero = || loss("0%");
    let one = [("matched_packets", 1)];
    let fate = chaos_tests::oracle::Fate::Drop;
    vec![
        Row::egress("any drop wins", zero(), tcp()).and(all()).fate(fate).counts(&one),
        Row::egress("each rule counts", all(), tcp()).and(all()).drops(),
        Row::egress("a rule that does not match changes nothing", all().peer("10.9.9.9"), tcp()).and(zero()),
        Row::egress("shadow counts and passes", all().flags(rule_flags::SHADOW), tcp())
            .counts(&[("matched_packets", 1), ("shadowed_packets", 1)]),
    ]
}
