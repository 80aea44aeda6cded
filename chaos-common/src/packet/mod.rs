//! The facts about a packet that rules ask for.

mod bytes;
mod parse;

pub use bytes::Bytes;
pub use parse::{Frame, parse};

use crate::mask::zero;

/// An address as four words in network byte order; IPv4 is mapped into IPv6 (RFC 4291, section
/// 2.5.5.2). Words and not bytes: the eBPF backend moves bytes one by one.
pub type Addr = [u32; 4];

/// What a rule's protocol condition tells apart; the index of [`crate::abi::Header::class_sets`].
/// A number and not an `enum`: it is read back from a map, where the verifier knows no variants.
#[repr(transparent)]
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Class(pub u8);

impl Class {
    /// ARP, neighbour discovery, multicast listener reports, and whatever is not IP: only a full
    /// partition of an interface hits it.
    pub const LINK: Self = Self(0);
    /// TCP.
    pub const TCP: Self = Self(1);
    /// UDP.
    pub const UDP: Self = Self(2);
    /// ICMP for IPv4.
    pub const ICMP: Self = Self(3);
    /// `ICMPv6` but neighbour discovery.
    pub const ICMP6: Self = Self(4);
    /// Any other IP protocol.
    pub const OTHER: Self = Self(5);
}

/// Facts about a packet in [`Packet::flags`].
pub mod packet_flags {
    /// Ports are known.
    pub const PORTS: u8 = 1;
    /// A fragment that is not the first.
    pub const LATER_FRAGMENT: u8 = 2;
    /// Carries transport payload.
    pub const DATA: u8 = 4;
    /// `flow_id` is known: an ICMP echo identifier.
    pub const ECHO: u8 = 8;
    /// IP addresses are known.
    pub const IP: u8 = 16;
    /// The frame carries a VLAN tag.
    pub const TAGGED: u8 = 32;
    /// Routers must not cut it (IPv4's don't-fragment bit; IPv6 always).
    pub const DONT_FRAGMENT: u8 = 64;
    /// IPv6.
    pub const V6: u8 = 128;
}

/// The facts.
#[repr(C)]
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Packet {
    /// Source address.
    pub source: Addr,
    /// Destination address.
    pub destination: Addr,
    /// Source port or echo identifier, host order.
    pub source_port: u16,
    /// Destination port or echo identifier, host order.
    pub destination_port: u16,
    /// What rules tell apart.
    pub class: Class,
    /// IP protocol number.
    pub proto: u8,
    /// TCP flags as in the header (FIN 1, SYN 2, RST 4, PSH 8, ACK 16, URG 32).
    pub tcp_flags: u8,
    /// See [`packet_flags`].
    pub flags: u8,
    /// First byte after the MAC header and VLAN tags.
    pub network_offset: u32,
    /// Bytes of all headers up to the payload: what every wire packet of a GSO packet repeats.
    pub header_len: u32,
    /// First byte of the transport header.
    pub transport_offset: u32,
    /// Bytes of the transport payload.
    pub payload_len: u32,
    /// Type of service, or traffic class; the two lowest bits are ECN (RFC 3168, section 5).
    pub tos: u32,
    /// Keeps the size a multiple of eight bytes.
    pub reserved: u32,
}

/// FIN, SYN, RST, ACK as in the TCP header (RFC 9293, section 3.1).
pub mod tcp {
    /// No more data from the sender.
    pub const FIN: u8 = 1;
    /// Synchronise sequence numbers.
    pub const SYN: u8 = 2;
    /// Reset the connection.
    pub const RST: u8 = 4;
    /// The acknowledgement field is significant.
    pub const ACK: u8 = 16;
}

/// What marks an IPv4 address among IPv6 ones.
const MAPPED: u32 = 0xffff_u32.to_be();

impl Packet {
    /// Makes it the default, word by word.
    #[inline(always)]
    fn clear(&mut self) {
        let (long, short) = (zero() as u32, zero() as u16);
        *self = Self {
            source: [long; 4],
            destination: [long; 4],
            source_port: short,
            destination_port: short,
            class: Class(zero() as u8),
            proto: zero() as u8,
            tcp_flags: zero() as u8,
            flags: zero() as u8,
            network_offset: long,
            header_len: long,
            transport_offset: long,
            payload_len: long,
            tos: long,
            reserved: long,
        };
    }

    const fn has(&self, flag: u8) -> bool {
        self.flags & flag != 0
    }

    /// Ports are known.
    #[must_use]
    pub const fn has_ports(&self) -> bool {
        self.has(packet_flags::PORTS)
    }

    /// Carries transport payload.
    #[must_use]
    pub const fn has_data(&self) -> bool {
        self.has(packet_flags::DATA)
    }

    /// IP addresses are known.
    #[must_use]
    pub const fn is_ip(&self) -> bool {
        self.has(packet_flags::IP)
    }

    /// It is IPv6.
    #[must_use]
    pub const fn is_v6(&self) -> bool {
        self.has(packet_flags::V6)
    }

    /// Routers must not cut it.
    #[must_use]
    pub const fn is_whole(&self) -> bool {
        self.has(packet_flags::DONT_FRAGMENT)
    }

    /// An ICMP echo request or reply.
    #[must_use]
    pub const fn is_echo(&self) -> bool {
        self.has(packet_flags::ECHO)
    }

    /// A fragment that is not the first.
    #[must_use]
    pub const fn is_later_fragment(&self) -> bool {
        self.has(packet_flags::LATER_FRAGMENT)
    }

    /// The frame carries a VLAN tag.
    #[must_use]
    pub const fn is_tagged(&self) -> bool {
        self.has(packet_flags::TAGGED)
    }
}

/// An IPv4 address (network byte order) as it stands in [`Packet`].
#[must_use]
pub const fn mapped(addr: u32) -> Addr {
    [0, 0, MAPPED, addr]
}

/// The IPv4 address that `addr` stands for.
#[inline(always)]
#[must_use]
pub const fn unmapped(addr: &Addr) -> Option<u32> {
    match *addr {
        [0, 0, MAPPED, v4] => Some(v4),
        _ => None,
    }
}
