//! From bytes to the facts that rules ask for. Reads only; every read may fail, then the packet passes.

use crate::mask::zero;

/// An address as four words in network byte order; IPv4 is mapped into IPv6 (RFC 4291, section
/// 2.5.5.2). Words and not bytes: the eBPF backend moves bytes one by one.
pub type Addr = [u32; 4];

/// Packet bytes, as the kernel's `bpf_skb_load_bytes` or a slice gives them.
pub trait Bytes {
    /// `N` 32-bit words in network byte order at `offset`; none when the packet is shorter.
    fn words<const N: usize>(&self, offset: u32) -> Option<[u32; N]>;

    /// A 16-bit number at `offset`.
    fn half(&self, offset: u32) -> Option<u16>;

    /// A byte at `offset`.
    fn byte(&self, offset: u32) -> Option<u8>;
}

impl Bytes for &[u8] {
    fn words<const N: usize>(&self, offset: u32) -> Option<[u32; N]> {
        let mut words = [0; N];
        let tail = self.get(offset as usize..)?;
        for (index, word) in words.iter_mut().enumerate() {
            let start = index.checked_mul(4)?;
            *word = u32::from_ne_bytes(tail.get(start..start.checked_add(4)?)?.try_into().ok()?);
        }
        Some(words)
    }

    fn half(&self, offset: u32) -> Option<u16> {
        let start = offset as usize;
        Some(u16::from_be_bytes(self.get(start..start.checked_add(2)?)?.try_into().ok()?))
    }

    fn byte(&self, offset: u32) -> Option<u8> {
        self.get(offset as usize).copied()
    }
}

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

const ETH_IPV4: u16 = 0x0800;
const ETH_IPV6: u16 = 0x86dd;
const ETH_VLAN: u16 = 0x8100;
const ETH_QINQ: u16 = 0x88a8;

const PROTO_ICMP: u8 = 1;
const PROTO_TCP: u8 = 6;
const PROTO_UDP: u8 = 17;
const PROTO_ICMP6: u8 = 58;

/// Extension headers read before giving up; RFC 8200, section 4.1 names seven, each once.
const EXTENSIONS_MAX: u32 = 6;

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

/// Where a frame begins and what the kernel took out of it.
#[derive(Clone, Copy, Debug, Default)]
pub struct Frame {
    /// The device has no MAC header: byte 0 is the IP header.
    pub l3: bool,
    /// The kernel holds a VLAN tag beside the bytes (`skb->vlan_tci`).
    pub tag_beside: bool,
    /// Bytes of the frame.
    pub len: u32,
}

/// Reads the headers into `packet`. None = it cannot be understood; then it passes.
#[inline(always)]
pub fn parse<B: Bytes>(bytes: &B, frame: Frame, packet: &mut Packet) -> Option<()> {
    packet.clear();
    if frame.tag_beside {
        packet.flags |= packet_flags::TAGGED;
    }
    let ethertype = if frame.l3 {
        match bytes.byte(0)? >> 4 {
            4 => ETH_IPV4,
            6 => ETH_IPV6,
            _ => return None,
        }
    } else {
        link(bytes, packet)?
    };
    match ethertype {
        ETH_IPV4 => ipv4(bytes, frame.len, packet),
        ETH_IPV6 => ipv6(bytes, frame.len, packet),
        _ => {
            packet.header_len = packet.network_offset;
            Some(())
        }
    }
}

/// One or two VLAN tags, either order of the two ethertypes (IEEE 802.1Q-2022, 9.6).
#[inline(always)]
fn link<B: Bytes>(bytes: &B, packet: &mut Packet) -> Option<u16> {
    let mut ethertype = bytes.half(12)?;
    packet.network_offset = 14;
    if ethertype == ETH_VLAN || ethertype == ETH_QINQ {
        packet.flags |= packet_flags::TAGGED;
        ethertype = bytes.half(16)?;
        packet.network_offset = 18;
        if ethertype == ETH_VLAN || ethertype == ETH_QINQ {
            ethertype = bytes.half(20)?;
            packet.network_offset = 22;
        }
    }
    Some(ethertype)
}

/// RFC 791, section 3.1.
#[inline(always)]
fn ipv4<B: Bytes>(bytes: &B, len: u32, packet: &mut Packet) -> Option<()> {
    let start = packet.network_offset;
    let [first, second, third, source, destination] = bytes.words::<5>(start)?.map(u32::from_be);
    let header = (first >> 24 & 0x0f) << 2;
    if first >> 28 != 4 || header < 20 {
        return None;
    }
    packet.flags |= packet_flags::IP;
    packet.source = mapped(source.to_be());
    packet.destination = mapped(destination.to_be());
    let end = ip_end(start, first & 0xffff, len);
    let later = second & 0x1fff != 0;
    packet.tos = first >> 16 & 0xff;
    if second & 0x4000 != 0 {
        packet.flags |= packet_flags::DONT_FRAGMENT;
    }
    transport(
        bytes,
        packet,
        &Transport { proto: (third >> 16) as u8, at: start.wrapping_add(header), end, later },
    )
}

/// RFC 8200, section 3; extension headers of section 4, authentication header of RFC 4302.
#[inline(always)]
fn ipv6<B: Bytes>(bytes: &B, len: u32, packet: &mut Packet) -> Option<()> {
    let start = packet.network_offset;
    let [first, second] = bytes.words::<2>(start)?.map(u32::from_be);
    if first >> 28 != 6 {
        return None;
    }
    packet.flags |= packet_flags::IP | packet_flags::V6 | packet_flags::DONT_FRAGMENT;
    packet.tos = first >> 20 & 0xff;
    packet.source = bytes.words(start.wrapping_add(8))?;
    packet.destination = bytes.words(start.wrapping_add(24))?;
    let payload = second >> 16;
    let mut next = (second >> 8) as u8;
    let mut at = start.wrapping_add(40);
    let end = ip_end(start, if payload == 0 { 0 } else { payload.wrapping_add(40) }, len);
    let mut later = false;
    for _ in 0..EXTENSIONS_MAX {
        if later || !is_extension(next) {
            break;
        }
        let [head] = bytes.words::<1>(at)?.map(u32::from_be);
        let units = head >> 16 & 0xff;
        at = at.wrapping_add(match next {
            FRAGMENT => {
                later = head & 0xfff8 != 0;
                8
            }
            // Length in 4-byte units, less two.
            AUTHENTICATION => units.wrapping_add(2) << 2,
            // Length in 8-byte units, less one.
            _ => units.wrapping_add(1) << 3,
        });
        next = (head >> 24) as u8;
    }
    if is_extension(next) && !later {
        return None;
    }
    transport(bytes, packet, &Transport { proto: next, at, end, later })
}

const FRAGMENT: u8 = 44;
const AUTHENTICATION: u8 = 51;

/// Hop-by-hop options, routing, fragment, authentication, destination options, mobility.
#[inline(always)]
const fn is_extension(next: u8) -> bool {
    matches!(next, 0 | 43 | FRAGMENT | AUTHENTICATION | 60 | 135)
}

/// Where the IP packet ends within the frame. A length of 0 (GSO, jumbogram) or beyond the frame
/// means: to the end of the frame.
#[inline(always)]
const fn ip_end(start: u32, total: u32, frame_len: u32) -> u32 {
    let end = start.wrapping_add(total);
    if total == 0 || end > frame_len { frame_len } else { end }
}

struct Transport {
    proto: u8,
    at: u32,
    end: u32,
    later: bool,
}

#[inline(always)]
fn transport<B: Bytes>(bytes: &B, packet: &mut Packet, t: &Transport) -> Option<()> {
    packet.proto = t.proto;
    packet.header_len = t.at;
    packet.transport_offset = t.at;
    packet.class = match t.proto {
        PROTO_TCP => Class::TCP,
        PROTO_UDP => Class::UDP,
        PROTO_ICMP => Class::ICMP,
        PROTO_ICMP6 => Class::ICMP6,
        _ => Class::OTHER,
    };
    if t.later {
        packet.flags |= packet_flags::LATER_FRAGMENT;
        return Some(());
    }
    let header = match t.proto {
        PROTO_TCP => {
            let word = u32::from_be(*bytes.words::<1>(t.at.wrapping_add(12))?.first()?);
            // RFC 9293, section 3.1: five words at least; Linux drops less (`tcp_v4_rcv`).
            if word >> 28 < 5 {
                return None;
            }
            packet.tcp_flags = (word >> 16) as u8;
            word >> 28 << 2
        }
        PROTO_UDP => 8,
        PROTO_ICMP | PROTO_ICMP6 => return icmp(bytes, packet, t),
        _ => 0,
    };
    if header != 0 {
        let ports = u32::from_be(*bytes.words::<1>(t.at)?.first()?);
        packet.source_port = (ports >> 16) as u16;
        packet.destination_port = ports as u16;
        packet.flags |= packet_flags::PORTS;
    }
    packet.header_len = t.at.wrapping_add(header);
    packet.payload_len = t.end.saturating_sub(packet.header_len);
    if packet.payload_len != 0 {
        packet.flags |= packet_flags::DATA;
    }
    Some(())
}

/// RFC 792 and RFC 4443: echo carries an identifier; RFC 4861: neighbour discovery is 133 to 137;
/// RFC 2710 and RFC 3810: listener reports are 130 to 132 and 143.
#[inline(always)]
fn icmp<B: Bytes>(bytes: &B, packet: &mut Packet, t: &Transport) -> Option<()> {
    let at = t.at;
    let kind = bytes.byte(at)?;
    packet.header_len = at.wrapping_add(8);
    packet.payload_len = t.end.saturating_sub(packet.header_len);
    let is_v4 = packet.proto == PROTO_ICMP;
    let echo = if is_v4 { matches!(kind, 0 | 8) } else { matches!(kind, 128 | 129) };
    if !is_v4 && matches!(kind, 130..=137 | 143) {
        packet.class = Class::LINK;
    }
    if echo {
        let id = bytes.half(at.wrapping_add(4))?;
        packet.source_port = id;
        packet.destination_port = id;
        packet.flags |= packet_flags::ECHO;
    }
    Some(())
}
