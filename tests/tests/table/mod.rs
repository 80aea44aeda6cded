//! The tables, by topic.

pub(crate) mod corrupt;
pub(crate) mod delay;
pub(crate) mod dns;
pub(crate) mod duplicate;
pub(crate) mod faults;
pub(crate) mod life;
pub(crate) mod loss;
pub(crate) mod matching;
pub(crate) mod mtu;
pub(crate) mod parsing;
pub(crate) mod partition;
pub(crate) mod rate;
pub(crate) mod reject;
pub(crate) mod reorder;
pub(crate) mod reset;
pub(crate) mod rtt;
pub(crate) mod stall;

use chaos_tests::packet::Packet;

/// From the target's 10.0.0.1:40000 to the peer's 10.0.0.2:6379, with four bytes of data.
pub(crate) fn tcp() -> Packet {
    Packet::new().eth().ipv4("10.0.0.1", "10.0.0.2").tcp(40000, 6379).payload(b"PING")
}

/// The answer to [`tcp`].
pub(crate) fn reply() -> Packet {
    Packet::new().eth().ipv4("10.0.0.2", "10.0.0.1").tcp(6379, 40000).payload(b"PONG")
}

/// The same conversation in IPv6.
pub(crate) fn tcp6() -> Packet {
    Packet::new().eth().ipv6("fd00::1", "fd00::2").tcp(40000, 6379).payload(b"PING")
}

/// A datagram from port 40000 to port 53.
pub(crate) fn udp() -> Packet {
    Packet::new().eth().ipv4("10.0.0.1", "10.0.0.2").udp(40000, 53).payload(b"query")
}

/// An echo request.
pub(crate) fn ping() -> Packet {
    Packet::new().eth().ipv4("10.0.0.1", "10.0.0.2").ping(7, 1)
}
