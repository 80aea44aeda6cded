//! What the compiler is given: rules whose targets are already resolved to numbers.

use crate::{
    abi::Rule,
    packet::{Addr, unmapped},
};

/// An address range; IPv4 as mapped into IPv6, so its length is 96 or more.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct Prefix {
    /// Network byte order.
    pub addr: Addr,
    /// Bits that count, 0 to 128.
    pub len: u8,
}

impl Prefix {
    /// The range that `net`, of either family, stands for. Host bits are cleared.
    #[must_use]
    pub fn new(addr: std::net::IpAddr, len: u8) -> Self {
        let (bytes, len) = match addr {
            std::net::IpAddr::V4(v4) => (v4.to_ipv6_mapped().octets(), len.saturating_add(96)),
            std::net::IpAddr::V6(v6) => (v6.octets(), len),
        };
        let mask = u128::MAX.checked_shl(u32::from(128u8.saturating_sub(len))).unwrap_or(0);
        let masked = (u128::from_be_bytes(bytes) & mask).to_be_bytes();
        Self { addr: words(masked), len }
    }

    /// The bits that count, as an address.
    #[must_use]
    pub fn mask(&self) -> Addr {
        words(u128::MAX.checked_shl(u32::from(128u8.saturating_sub(self.len))).unwrap_or(0).to_be_bytes())
    }

    /// The range with so few of its bits, at most all of them.
    pub(super) fn widened(&self, len: u8) -> Self {
        let mask = Self { len, ..*self }.mask();
        let mut addr = self.addr;
        addr.iter_mut().zip(mask).for_each(|(word, mask)| *word &= mask);
        Self { addr, len }
    }

    /// A range of IPv4 addresses.
    #[must_use]
    pub const fn is_v4(&self) -> bool {
        self.len >= 96 && unmapped(&self.addr).is_some()
    }

    /// Whether `addr` lies in the range. IPv6 ranges hold no IPv4 address, not even `::/0`: the
    /// kernel looks the families up in tables of their own.
    #[must_use]
    pub fn holds(&self, addr: &Addr) -> bool {
        if self.is_v4() != unmapped(addr).is_some() {
            return false;
        }
        let mask = u128::MAX.checked_shl(u32::from(128u8.saturating_sub(self.len))).unwrap_or(0);
        (number(addr) ^ number(&self.addr)) & mask == 0
    }

    /// Whether every address of `other` lies in the range.
    #[must_use]
    pub fn covers(&self, other: &Self) -> bool {
        self.len <= other.len && self.holds(&other.addr)
    }
}

/// An address of either family as it stands in a packet's facts.
#[must_use]
pub fn addr_of(addr: std::net::IpAddr) -> Addr {
    Prefix::new(addr, if addr.is_ipv4() { 32 } else { 128 }).addr
}

/// An address as people write it.
#[must_use]
pub fn ip_of(addr: &Addr) -> std::net::IpAddr {
    std::net::Ipv6Addr::from(number(addr)).to_canonical()
}

fn words(bytes: [u8; 16]) -> Addr {
    let mut addr = [0; 4];
    for (word, part) in addr.iter_mut().zip(bytes.chunks_exact(4)) {
        *word = u32::from_ne_bytes(part.try_into().unwrap_or_default());
    }
    addr
}

fn number(addr: &Addr) -> u128 {
    addr.iter().fold(0, |number, word| number << 32 | u128::from(u32::from_be(*word)))
}

/// An inclusive port range.
pub type Ports = (u16, u16);

/// One alternative of a match, or one exclusion: every dimension must hold, an empty list holds
/// for every packet, otherwise one element must.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct ClauseInput {
    /// The target's own addresses.
    pub locals: Vec<Prefix>,
    /// The other end's addresses.
    pub peers: Vec<Prefix>,
    /// The target's own ports.
    pub local_ports: Vec<Ports>,
    /// The other end's ports.
    pub peer_ports: Vec<Ports>,
}

/// A device where a rule applies.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Place {
    /// `SO_NETNS_COOKIE` of the namespace.
    pub netns: u64,
    /// Index of the device in it.
    pub ifindex: u32,
    /// To what leaves it.
    pub egress: bool,
    /// To what comes to it.
    pub ingress: bool,
    /// Also to frames with a VLAN tag.
    pub tagged: bool,
}

/// Where a rule answers calls of connect(2).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct ConnectPlace {
    /// `SO_NETNS_COOKIE` of the callers' namespace.
    pub netns: u64,
    /// Inode of the callers' cgroup; 0 = whoever calls.
    pub cgroup: u64,
    /// The operator's traffic is protected there.
    pub protect: bool,
}

/// A rule with everything resolved.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct RuleInput {
    /// What errors call it.
    pub name: String,
    /// Where its state and counters live.
    pub slot: u32,
    /// What the program reads.
    pub rule: Rule,
    /// Where it applies.
    pub places: Vec<Place>,
    /// Where it answers calls of connect(2); empty = nowhere. Owners are named here, not in `cgroups`.
    pub connects: Vec<ConnectPlace>,
    /// By [`crate::packet::Class`]: bit n = class n.
    pub classes: u8,
    /// Owners of the local end, by cgroup id; empty = any.
    pub cgroups: Vec<u64>,
    /// Owners of the peer's end, by cgroup id; empty = any.
    pub peer_cgroups: Vec<u64>,
    /// Alternatives; empty = every packet.
    pub clauses: Vec<ClauseInput>,
    /// Exclusions; they win.
    pub exclusions: Vec<ClauseInput>,
}

/// A target cgroup.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct CgroupInput {
    /// Inode of the directory.
    pub id: u64,
    /// Levels below the root; the root's children are 1.
    pub level: u32,
    /// Ids of the directories above it.
    pub ancestors: Vec<u64>,
}

/// A device that carries programs.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct DeviceInput {
    /// `SO_NETNS_COOKIE` of the namespace.
    pub netns: u64,
    /// Index of the device in it.
    pub ifindex: u32,
    /// See [`crate::abi::device_flags`].
    pub flags: u32,
    /// Near end of the namespace's normaliser; 0 = none.
    pub normaliser: u32,
    /// The namespace's delay line; 0 = none.
    pub line: u32,
}

/// Everything that is armed together.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Input {
    /// The rules; slots are distinct.
    pub rules: Vec<RuleInput>,
    /// Every cgroup that a rule names.
    pub cgroups: Vec<CgroupInput>,
    /// Every device that carries programs.
    pub devices: Vec<DeviceInput>,
}
