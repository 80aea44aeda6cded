//! What a DNS query asks for, whether a name is meant, and the answer to it.
//!
//! All of it runs in the kernel, too: bounded steps that the verifier proves one by one, indices
//! that are masked and not compared. On the host the same steps run in a plain loop.

pub mod glob;
#[cfg(feature = "user")]
pub mod patterns;
pub mod query;

use crate::packet::{Addr, Bytes, Class, Packet, mapped};

/// Where resolvers listen (RFC 1035, section 4.2).
pub const PORT: u16 = 53;

/// Docker's resolver within a container. The container's own NAT has turned port 53 into another
/// one before a packet reaches the device (`iptables -t nat -S DOCKER_OUTPUT` shows it).
pub const DOCKER: Addr = mapped(0x7f00_000b_u32.to_be());

/// The packet may carry a query: data over UDP or TCP to a resolver.
#[inline(always)]
#[must_use]
pub fn may_ask(packet: &Packet) -> bool {
    matches!(packet.class, Class::UDP | Class::TCP)
        && packet.has_ports()
        && packet.has_data()
        && (packet.destination_port == PORT || packet.destination == DOCKER)
}

/// Where the message lies in a packet that may carry a query, and its bytes.
#[inline(always)]
pub fn message<B: Bytes>(bytes: &B, packet: &Packet) -> Option<(u32, u32)> {
    if !may_ask(packet) {
        return None;
    }
    if packet.class == Class::UDP {
        return Some((packet.header_len, packet.payload_len));
    }
    // Over TCP a length comes first (RFC 1035, section 4.2.2); all of it must be here.
    let len = u32::from(bytes.half(packet.header_len)?);
    (len.wrapping_add(2) <= packet.payload_len).then_some((packet.header_len.wrapping_add(2), len))
}

/// A query as the kernel reads it: its bytes, its question, and the comparison with a pattern.
#[repr(C)]
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Asked {
    /// The message and its question.
    pub query: query::Query,
    /// Where the comparison is.
    pub scan: glob::Scan,
    /// Keeps the size a multiple of eight bytes.
    pub reserved: u32,
}

/// Which addresses an answer has, in [`Answer::code6`](crate::verdict::Answer::code6).
pub mod shape {
    /// The answer is an address, not the query sent back with an error.
    pub const ADDRESS: u32 = 1;
    /// There is an IPv4 address.
    pub const V4: u32 = 2;
    /// There is an IPv6 address.
    pub const V6: u32 = 4;
}

/// Bits of the second word of a DNS header (RFC 1035, section 4.1.1), for
/// [`Answer::code`](crate::verdict::Answer::code).
pub mod code {
    /// No error.
    pub const NOERROR: u32 = 0;
    /// The server failed.
    pub const SERVFAIL: u32 = 2;
    /// There is no such name.
    pub const NXDOMAIN: u32 = 3;
    /// The server does not want to.
    pub const REFUSED: u32 = 5;
    /// TC: the answer was too long for UDP, ask again over TCP.
    pub const TRUNCATED: u32 = 0x0200;
}
