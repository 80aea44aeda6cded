//! Packets written as a sentence: `Packet::new().eth().ipv4("10.0.0.1", "10.0.0.2").tcp(40000, 6379)`.
//!
//! A [`Packet`] is a description; [`Packet::bytes`] encodes it with right lengths and checksums
//! (RFC 791, RFC 8200, RFC 9293, RFC 768, RFC 792, RFC 4443), [`std::fmt::Display`] prints it as
//! the sentence that built it, and [`random::random_packet`] draws one from a seeded generator.

pub mod encode;
pub mod random;
mod show;

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};

/// TCP FIN.
pub const FIN: u8 = 0x01;
/// TCP SYN.
pub const SYN: u8 = 0x02;
/// TCP RST.
pub const RST: u8 = 0x04;
/// TCP PSH.
pub const PSH: u8 = 0x08;
/// TCP ACK.
pub const ACK: u8 = 0x10;

/// The link layer.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Link {
    /// None: what an L3 device (tun, `WireGuard`) carries.
    None,
    /// Ethernet with any number of VLAN tags, outermost first.
    Eth {
        /// Destination MAC.
        dst: [u8; 6],
        /// Source MAC.
        src: [u8; 6],
        /// (TPID, VLAN id) of every tag in the packet's bytes.
        tags: Vec<(u16, u16)>,
    },
}

/// A part of a datagram that was cut (RFC 791 section 3.2, RFC 8200 section 4.5).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Fragment {
    /// Offset in units of 8 bytes; above 0 there is no transport header.
    pub offset: u16,
    /// More fragments follow.
    pub more: bool,
    /// Which datagram it belongs to.
    pub id: u32,
}

/// An IPv6 extension header (RFC 8200 section 4, RFC 4302 for AH).
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Extension {
    /// Hop-by-hop options: this many bytes of padding options (rounded up to the 8-byte unit).
    HopByHop(usize),
    /// Destination options, likewise.
    Destination(usize),
    /// Routing header of this type with no segments left and this many addresses.
    Routing(u8, usize),
    /// Fragment header.
    Fragment(Fragment),
    /// Authentication header with an ICV of this many 4-byte words.
    Auth(usize),
}

/// The network layer.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Net {
    /// Nothing.
    None,
    /// An ARP request from one address for another.
    Arp(Ipv4Addr, Ipv4Addr),
    /// IPv4.
    V4 {
        /// Source.
        src: Ipv4Addr,
        /// Destination.
        dst: Ipv4Addr,
        /// Options, padded to a multiple of 4, at most 40 bytes.
        options: Vec<u8>,
        /// Set when this is a fragment.
        fragment: Option<Fragment>,
    },
    /// IPv6.
    V6 {
        /// Source.
        src: Ipv6Addr,
        /// Destination.
        dst: Ipv6Addr,
        /// Extension headers in order.
        extensions: Vec<Extension>,
    },
    /// Any other ethertype, the payload following.
    Other(u16),
}

/// The transport layer.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Transport {
    /// None: the payload follows the network header, IP protocol 59 (no next header).
    None,
    /// TCP.
    Tcp {
        /// Source port.
        src: u16,
        /// Destination port.
        dst: u16,
        /// Flag bits.
        flags: u8,
        /// Sequence number.
        seq: u32,
        /// Acknowledgement number.
        ack: u32,
    },
    /// UDP.
    Udp(u16, u16),
    /// `ICMP`, or `ICMPv6` over IPv6: type, code, and the second word.
    Icmp(u8, u8, u32),
    /// Any other protocol number, the payload following.
    Other(u8),
}

/// A described packet.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Packet {
    /// Link layer.
    pub link: Link,
    /// Network layer.
    pub net: Net,
    /// Transport layer.
    pub transport: Transport,
    /// Type of service, or traffic class: the two lowest bits are ECN (RFC 3168).
    pub tos: u8,
    /// What the innermost header carries.
    pub payload: Vec<u8>,
    /// Encode only this many bytes, as a broken packet would have.
    pub cut: Option<usize>,
}

impl Default for Packet {
    fn default() -> Self {
        let (link, net, transport) = (Link::None, Net::None, Transport::None);
        Self { link, net, transport, tos: 0, payload: Vec::new(), cut: None }
    }
}

impl Packet {
    /// An empty packet to which layers are added.
    #[must_use]
    pub fn new() -> Self {
        Self::default()
    }

    /// Ethernet between two fixed, locally administered MACs.
    #[must_use]
    pub fn eth(mut self) -> Self {
        self.link = Link::Eth { dst: [2, 0, 0, 0, 0, 2], src: [2, 0, 0, 0, 0, 1], tags: Vec::new() };
        self
    }

    /// The same the other way.
    #[must_use]
    pub fn eth_reversed(mut self) -> Self {
        self.link = Link::Eth { dst: [2, 0, 0, 0, 0, 1], src: [2, 0, 0, 0, 0, 2], tags: Vec::new() };
        self
    }

    /// One more VLAN tag inside those already there: 802.1Q, or 802.1ad around it when called twice.
    #[must_use]
    pub fn vlan(mut self, id: u16) -> Self {
        if let Link::Eth { tags, .. } = &mut self.link {
            if let [(tpid, _)] = tags.as_mut_slice() {
                *tpid = 0x88a8;
            }
            tags.push((0x8100, id));
        }
        self
    }

    /// IPv4 between two literal addresses.
    ///
    /// # Panics
    /// When one is not an IPv4 address.
    #[must_use]
    pub fn ipv4(mut self, src: &str, dst: &str) -> Self {
        self.net = Net::V4 { src: literal(src), dst: literal(dst), options: Vec::new(), fragment: None };
        self
    }

    /// IPv6 between two literal addresses.
    ///
    /// # Panics
    /// When one is not an IPv6 address.
    #[must_use]
    pub fn ipv6(mut self, src: &str, dst: &str) -> Self {
        self.net = Net::V6 { src: literal(src), dst: literal(dst), extensions: Vec::new() };
        self
    }

    /// IP of the version of the addresses.
    ///
    /// # Panics
    /// When the versions differ.
    #[must_use]
    pub fn ip(mut self, src: IpAddr, dst: IpAddr) -> Self {
        self.net = match (src, dst) {
            (IpAddr::V4(src), IpAddr::V4(dst)) => Net::V4 { src, dst, options: Vec::new(), fragment: None },
            (IpAddr::V6(src), IpAddr::V6(dst)) => Net::V6 { src, dst, extensions: Vec::new() },
            (IpAddr::V4(_), IpAddr::V6(_)) | (IpAddr::V6(_), IpAddr::V4(_)) => {
                panic!("{src} and {dst} are of different IP versions")
            }
        };
        self
    }

    /// An ARP request of `sender` for `target`.
    ///
    /// # Panics
    /// When one is not an IPv4 address.
    #[must_use]
    pub fn arp(mut self, sender: &str, target: &str) -> Self {
        self.net = Net::Arp(literal(sender), literal(target));
        self
    }

    /// Any other ethertype.
    #[must_use]
    pub fn ethertype(mut self, value: u16) -> Self {
        self.net = Net::Other(value);
        self
    }

    /// IPv4 options, padded to a multiple of 4 bytes. Without effect on other network layers.
    #[must_use]
    pub fn options(mut self, bytes: &[u8]) -> Self {
        if let Net::V4 { options, .. } = &mut self.net {
            *options = bytes.to_vec();
        }
        self
    }

    /// Makes it a fragment: `offset` in 8-byte units. An offset above 0 leaves out the transport header.
    #[must_use]
    pub fn fragment(mut self, offset: u16, more: bool) -> Self {
        let part = Fragment { offset, more, id: 0x4242 };
        match &mut self.net {
            Net::V4 { fragment, .. } => *fragment = Some(part),
            Net::V6 { extensions, .. } => extensions.push(Extension::Fragment(part)),
            Net::None | Net::Arp(..) | Net::Other(_) => {}
        }
        self
    }

    /// One more IPv6 extension header after those already there.
    #[must_use]
    pub fn extension(mut self, extension: Extension) -> Self {
        if let Net::V6 { extensions, .. } = &mut self.net {
            extensions.push(extension);
        }
        self
    }

    /// Type of service, or traffic class.
    #[must_use]
    pub const fn tos(mut self, bits: u8) -> Self {
        self.tos = bits;
        self
    }

    /// TCP from one port to another, flags ACK, sequence numbers 1000 and 2000.
    #[must_use]
    pub fn tcp(mut self, src: u16, dst: u16) -> Self {
        self.transport = Transport::Tcp { src, dst, flags: ACK, seq: 1000, ack: 2000 };
        self
    }

    /// The flags of the TCP header.
    #[must_use]
    pub fn flags(mut self, bits: u8) -> Self {
        if let Transport::Tcp { flags, .. } = &mut self.transport {
            *flags = bits;
        }
        self
    }

    /// Sequence and acknowledgement number of the TCP header.
    #[must_use]
    pub fn numbers(mut self, sequence: u32, acknowledged: u32) -> Self {
        if let Transport::Tcp { seq, ack, .. } = &mut self.transport {
            *seq = sequence;
            *ack = acknowledged;
        }
        self
    }

    /// UDP from one port to another.
    #[must_use]
    pub fn udp(mut self, src: u16, dst: u16) -> Self {
        self.transport = Transport::Udp(src, dst);
        self
    }

    /// ICMP or `ICMPv6`: type, code, second word.
    #[must_use]
    pub fn icmp(mut self, kind: u8, code: u8, word: u32) -> Self {
        self.transport = Transport::Icmp(kind, code, word);
        self
    }

    /// An echo request (ping) of the IP version already chosen.
    #[must_use]
    pub fn ping(self, id: u16, seq: u16) -> Self {
        let kind = if matches!(self.net, Net::V6 { .. }) { 128 } else { 8 };
        self.icmp(kind, 0, u32::from(id) << 16 | u32::from(seq))
    }

    /// An ICMP error (`kind`, `code`) about `cause`, which must have an IP header.
    #[must_use]
    pub fn icmp_error(self, kind: u8, code: u8, cause: &Self) -> Self {
        let inner = Self { link: Link::None, ..cause.clone() }.bytes();
        self.icmp(kind, code, 0).payload(&inner)
    }

    /// A neighbour solicitation for `target` (RFC 4861 section 4.3), hop limit 255.
    ///
    /// # Panics
    /// When it is not an IPv6 address.
    #[must_use]
    pub fn neighbour_solicitation(self, target: &str) -> Self {
        let target: Ipv6Addr = literal(target);
        self.icmp(135, 0, 0).payload(&target.octets())
    }

    /// Any other protocol number.
    #[must_use]
    pub fn protocol(mut self, number: u8) -> Self {
        self.transport = Transport::Other(number);
        self
    }

    /// What the innermost header carries.
    #[must_use]
    pub fn payload(mut self, bytes: &[u8]) -> Self {
        self.payload = bytes.to_vec();
        self
    }

    /// Only the first `length` bytes are there.
    #[must_use]
    pub fn cut(mut self, length: usize) -> Self {
        self.cut = Some(length);
        self
    }
}

fn literal<T: std::str::FromStr>(text: &str) -> T {
    text.parse().unwrap_or_else(|_| panic!("`{text}` is not an address of the wanted version"))
}
