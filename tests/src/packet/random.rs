//! Random packets from a seed, for the comparison of kernel and host.
//!
//! Addresses and ports come from small pools, so that random rules drawn from the same pools
//! match a good share of them; some packets are broken on purpose.

use std::net::IpAddr;

use rand::{Rng, rngs::StdRng, seq::IndexedRandom};

use super::{ACK, Extension, FIN, PSH, Packet, RST, SYN, Transport};

/// IPv4 addresses that random packets and random rules share.
pub const V4_POOL: &[&str] = &["10.0.0.1", "10.0.0.2", "10.0.1.1", "192.168.7.9", "127.0.0.1", "203.0.113.5"];
/// IPv6 addresses that random packets and random rules share.
pub const V6_POOL: &[&str] = &["fd00::1", "fd00::2", "fd00:1::1", "2001:db8::9", "::1"];
/// Where resolvers listen.
const DNS_PORT: u16 = 53;
/// Ports that random packets and random rules share.
pub const PORT_POOL: &[u16] = &[22, 53, 80, 443, 6379, 8080, 40000, 65535];

/// One packet; about one in twenty is cut short, one in twenty has a flipped byte in a header
/// (that one is returned by [`random_bytes`] only).
#[must_use]
pub fn random_packet(rng: &mut StdRng, with_link: bool) -> Packet {
    let mut packet = Packet::new();
    if with_link {
        packet = packet.eth();
        for _ in 0..[0, 0, 0, 1, 2].choose(rng).copied().unwrap_or(0) {
            packet = packet.vlan(rng.random_range(1..4095));
        }
    }
    packet = match rng.random_range(0..20) {
        0 if with_link => return packet.arp(pick(rng, V4_POOL), pick(rng, V4_POOL)),
        1 if with_link => return packet.ethertype(0x88cc).payload(&random_payload(rng)),
        0..10 => random_v4(rng, packet),
        _ => random_v6(rng, packet),
    };
    packet = random_transport(rng, packet);
    let asks = rng.random::<bool>();
    packet.payload = match packet.transport {
        Transport::Udp(_, port) if port == DNS_PORT && asks => random_query(rng),
        Transport::Tcp { dst, .. } if dst == DNS_PORT && asks => {
            let query = random_query(rng);
            [&u16::try_from(query.len()).unwrap_or(0).to_be_bytes(), &query[..]].concat()
        }
        Transport::None
        | Transport::Tcp { .. }
        | Transport::Udp(..)
        | Transport::Icmp(..)
        | Transport::Other(_) => random_payload(rng),
    };
    if rng.random_ratio(1, 20) {
        let length = packet.bytes().len();
        let shortest = if with_link { 14 } else { 1 };
        packet = packet.cut(rng.random_range(shortest..=length.max(shortest)));
    }
    packet
}

/// The bytes of [`random_packet`], one in twenty of them with a byte changed at random.
#[must_use]
pub fn random_bytes(rng: &mut StdRng, with_link: bool) -> Vec<u8> {
    let mut bytes = random_packet(rng, with_link).bytes();
    if rng.random_ratio(1, 20) {
        let place = rng.random_range(0..bytes.len().min(80));
        bytes[place] = rng.random();
    }
    bytes
}

/// One address of either pool.
#[must_use]
pub fn random_address(rng: &mut StdRng) -> IpAddr {
    let text = if rng.random() { pick(rng, V4_POOL) } else { pick(rng, V6_POOL) };
    text.parse().unwrap_or(IpAddr::from([0, 0, 0, 0]))
}

fn pick(rng: &mut StdRng, pool: &'static [&'static str]) -> &'static str {
    pool.choose(rng).copied().unwrap_or_default()
}

fn random_v4(rng: &mut StdRng, packet: Packet) -> Packet {
    let mut packet = packet.ipv4(pick(rng, V4_POOL), pick(rng, V4_POOL));
    if rng.random_ratio(1, 6) {
        packet = packet.options(&vec![1; rng.random_range(1..=40)]); // 1 = NOP
    }
    if rng.random_ratio(1, 8) {
        packet = packet.fragment(rng.random_range(0..4) * 8, rng.random());
    }
    packet
}

fn random_v6(rng: &mut StdRng, packet: Packet) -> Packet {
    let mut packet = packet.ipv6(pick(rng, V6_POOL), pick(rng, V6_POOL));
    if rng.random_ratio(1, 6) {
        packet = packet.extension(Extension::HopByHop(rng.random_range(0..30)));
    }
    if rng.random_ratio(1, 8) {
        packet = packet.extension(Extension::Destination(rng.random_range(0..30)));
    }
    if rng.random_ratio(1, 10) {
        packet = packet.extension(Extension::Routing(4, rng.random_range(0..3)));
    }
    if rng.random_ratio(1, 8) {
        packet = packet.fragment(rng.random_range(0..4) * 8, rng.random());
    }
    if rng.random_ratio(1, 12) {
        packet = packet.extension(Extension::Auth(rng.random_range(3..9)));
    }
    packet
}

fn random_transport(rng: &mut StdRng, packet: Packet) -> Packet {
    let source = PORT_POOL.choose(rng).copied().unwrap_or(1);
    let destination = PORT_POOL.choose(rng).copied().unwrap_or(2);
    match rng.random_range(0..10) {
        0..5 => {
            let flags = [SYN, SYN | ACK, ACK, PSH | ACK, FIN | ACK, RST, RST | ACK];
            packet.tcp(source, destination).flags(flags.choose(rng).copied().unwrap_or(ACK))
        }
        5..8 => packet.udp(source, destination),
        8 => packet.ping(rng.random(), rng.random()),
        _ => packet.protocol([47, 50, 132, 253].choose(rng).copied().unwrap_or(47)),
    }
}

fn random_payload(rng: &mut StdRng) -> Vec<u8> {
    let length = [0, 0, 1, 7, 64, 512, 1400].choose(rng).copied().unwrap_or(0);
    (0..length).map(|_| rng.random()).collect()
}

/// A DNS query for one of a few names (RFC 1035, section 4.1), some of them with EDNS behind the question.
fn random_query(rng: &mut StdRng) -> Vec<u8> {
    let name = pick(rng, &["redis", "redis.internal", "Api.Internal", "db-7", "db-77", ""]);
    let edns = rng.random::<bool>();
    query(name, [1, 28, 15].choose(rng).copied().unwrap_or(1), edns)
}

/// A DNS query for a name and a type, with EDNS behind the question if asked (RFC 6891).
#[must_use]
pub fn query(name: &str, qtype: u16, edns: bool) -> Vec<u8> {
    let mut out = vec![0x12, 0x34, 0x01, 0, 0, 1, 0, 0, 0, 0, 0, u8::from(edns)];
    for label in name.split('.').filter(|label| !label.is_empty()) {
        out.push(u8::try_from(label.len()).unwrap_or(0));
        out.extend(label.as_bytes());
    }
    out.push(0);
    out.extend(qtype.to_be_bytes());
    out.extend([0, 1]);
    if edns {
        out.extend([0, 0, 41, 4, 208, 0, 0, 0, 0, 0, 0]);
    }
    out
}

#[cfg(test)]
mod tests {
    use rand::{SeedableRng, rngs::StdRng};

    use super::random_packet;
    use crate::packet::{Net, Transport};

    #[test]
    fn one_seed_gives_one_sequence_and_every_sort_of_packet() {
        let mut first = StdRng::seed_from_u64(7);
        let mut second = StdRng::seed_from_u64(7);
        let packets: Vec<_> = (0..2000).map(|_| random_packet(&mut first, true)).collect();
        assert!(packets.iter().all(|packet| *packet == random_packet(&mut second, true)));
        assert!(packets.iter().any(|packet| matches!(packet.net, Net::Arp(..))));
        assert!(packets.iter().any(|packet| matches!(packet.net, Net::V4 { fragment: Some(_), .. })));
        assert!(packets.iter().any(|packet| matches!(packet.transport, Transport::Icmp(..))));
        assert!(packets.iter().any(|packet| packet.cut.is_some()));
    }
}
