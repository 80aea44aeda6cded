//! The gate: what lets most packets go on after a few loads, before any table is searched.
//!
//! Clauses are put into 63 groups. For each dimension the gate says which groups a packet may fulfil, never too few;
//! what no group is left of matches no rule. Addresses and ports are found by hash: two that share a place only let a
//! packet be looked at that need not be.

use super::Direction;
use crate::mask::masked;

/// Groups of clauses: bits 0 to 62 of a word.
pub const GROUPS: usize = 63;
/// The bit beside the groups of a [`Gate::cgroups`] place: a target cgroup is there.
pub const TARGET: u64 = 1 << 63;

/// Places for devices.
pub const DEVICES: usize = 512;
/// Places for target cgroups.
pub const CGROUPS: usize = 1024;
/// Places for the first byte of an address: IPv4, then IPv6.
pub const FIRST: usize = 512;
/// Places for the beginning of an address: 16 bits of IPv4, 32 of IPv6.
pub const SHORT: usize = 4096;
/// Places for more of it: 24 bits of IPv4, 64 of IPv6.
pub const MIDDLE: usize = 8192;
/// Places for whole addresses.
pub const WHOLE: usize = 8192;
/// Places for the high byte of a port.
pub const COARSE: usize = 256;
/// Places for its low bits.
pub const FINE: usize = 4096;

/// A device, or a place that several share.
#[repr(C)]
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct GateDevice {
    /// `SO_NETNS_COOKIE` of the namespace; 0 = no device is here.
    pub netns: u64,
    /// Index of the device in it.
    pub ifindex: u32,
    /// See [`super::device_flags`], and [`SHARED`].
    pub flags: u32,
    /// Groups that apply to frames without a VLAN tag, by [`Direction`].
    pub groups: [u64; 2],
}

impl GateDevice {
    /// Groups that apply to frames without a VLAN tag.
    #[inline(always)]
    #[must_use]
    pub const fn groups(&self, direction: Direction) -> u64 {
        let [egress, ingress] = self.groups;
        match direction {
            Direction::Egress => egress,
            Direction::Ingress => ingress,
        }
    }
}

/// Flag of [`GateDevice::flags`]: several devices share the place.
pub const SHARED: u32 = 1 << 31;

/// A range of addresses, or [`ANY_KEY`] where several share the place.
#[repr(C)]
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct GateRange {
    /// Its key (`crate::gate`).
    pub key: u64,
    /// The groups that name it; 0 = none is here.
    pub groups: u64,
}

/// Stands for every key.
pub const ANY_KEY: u64 = u64::MAX;

/// What is known of one end's addresses and ports. A place's groups are those whose clauses may be fulfilled there.
#[repr(C)]
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct GateSide {
    /// Places in use of [`short`](Self::short), a power of two, less one; 0 = none.
    pub short_mask: u32,
    /// The same of [`middle`](Self::middle).
    pub middle_mask: u32,
    /// The same of [`whole`](Self::whole).
    pub whole_mask: u32,
    /// The same of [`fine`](Self::fine).
    pub fine_mask: u32,
    /// By the first byte; with the groups that name no address.
    pub first: [u64; FIRST],
    /// By the beginning.
    pub short: [GateRange; SHORT],
    /// By more of it.
    pub middle: [GateRange; MIDDLE],
    /// By the whole address.
    pub whole: [GateRange; WHOLE],
    /// By the high byte of the port; a packet must find a group here and in [`fine`](Self::fine).
    pub coarse: [u64; COARSE],
    /// By the low bits of the port.
    pub fine: [u64; FINE],
}

/// The gate of one bank.
#[repr(C)]
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Gate {
    /// See [`super::dims`].
    pub dims: u32,
    /// Places in use of [`devices`](Self::devices), a power of two, less one.
    pub device_mask: u32,
    /// Bit n: a target cgroup lies n levels below the root.
    pub cgroup_levels: u64,
    /// By [`crate::packet::Class`].
    pub classes: [u64; 8],
    /// Groups without a condition on the owner.
    pub any_cgroup: u64,
    /// Groups without a condition on the peer's owner.
    pub any_peer_cgroup: u64,
    /// Groups without a condition on ports, by [`super::Side`].
    pub no_ports: [u64; 2],
    /// By namespace and index.
    pub devices: [GateDevice; DEVICES],
    /// By id: what the owner's clauses may be, and [`TARGET`] where a target has the place.
    pub cgroups: [u64; CGROUPS],
    /// By [`super::Side`].
    pub sides: [GateSide; 2],
}

#[cfg(feature = "user")]
impl Gate {
    /// One whose tables are empty.
    #[must_use]
    pub fn zeroed() -> Box<Self> {
        // SAFETY: integers only, of which every byte pattern is a value.
        unsafe { Box::new_zeroed().assume_init() }
    }
}

/// Namespace and local port: places of the table that says whether any owner is booked there.
pub const BOOKED: usize = 65_536;

/// Spreads a key over places; their number is a power of two.
#[inline(always)]
#[must_use]
pub const fn place(key: u64) -> usize {
    (key.wrapping_mul(0x9e37_79b9_7f4a_7c15) >> 40) as usize
}

/// The place of a device.
#[inline(always)]
#[must_use]
pub const fn device_place(netns: u64, ifindex: u32) -> usize {
    place(netns.rotate_left(32) ^ ifindex as u64)
}

/// The place of a namespace's local port among [`BOOKED`].
#[inline(always)]
#[must_use]
pub fn booked_place(netns: u64, port: u16) -> usize {
    masked::<BOOKED>(place(netns) as u32 ^ u32::from(port))
}
