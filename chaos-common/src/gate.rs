//! Whether a packet can be let go at the gate ([`crate::abi::Gate`]): true only when no rule matches it, and nothing
//! is to be learnt from it.

use crate::abi::{
    Direction, Gate, GateDevice, GateRange, GateSide, Side,
    dims::{self, CGROUP, FLOWS, LEARN_OWNERS, PEER_CGROUP},
    gate::{
        ANY_KEY, CGROUPS, COARSE, DEVICES, FINE, FIRST, MIDDLE, SHARED, SHORT, TARGET, WHOLE, device_place,
        place,
    },
};

/// An address in host order.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum GateAddr {
    /// IPv4.
    V4(u32),
    /// IPv6: the first and the last 64 bits.
    V6(u64, u64),
}

/// What the gate asks of a packet that carries no VLAN tag.
#[derive(Clone, Copy, Debug)]
pub struct Facts {
    /// See [`crate::packet::Class`].
    pub class: u8,
    /// Source and destination.
    pub addresses: [GateAddr; 2],
    /// Source and destination, if the packet has ports.
    pub ports: Option<[u16; 2]>,
}

/// What is not in the tables of rules.
pub trait Ends {
    /// Whether some owner was ever booked under this local port of the namespace.
    fn is_booked(&self, port: u16) -> bool;

    /// The union of [`Gate::cgroups`] over the socket's cgroup and those above it, at [`Gate::cgroup_levels`].
    fn socket(&self, gate: &Gate) -> u64;
}

/// The device, if it is known and no other has its place.
#[inline(always)]
#[must_use]
pub fn device(gate: &Gate, netns: u64, ifindex: u32) -> Known<'_> {
    let index = device_place(netns, ifindex) & gate.device_mask as usize & (DEVICES - 1);
    match gate.devices.get(index) {
        Some(device) if device.netns == netns && device.ifindex == ifindex && device.flags & SHARED == 0 => {
            Known::Here(device)
        }
        Some(device) if device.flags & SHARED != 0 => Known::Unclear,
        _ => Known::Nothing,
    }
}

/// What the gate knows of a device.
#[derive(Clone, Copy, Debug)]
pub enum Known<'a> {
    /// Rules apply to it, or could.
    Here(&'a GateDevice),
    /// None does.
    Nothing,
    /// It must be looked up.
    Unclear,
}

/// What a target cgroup may fulfil.
#[inline(always)]
#[must_use]
pub fn cgroup(gate: &Gate, id: u64) -> u64 {
    gate.cgroups.get(place(id) & (CGROUPS - 1)).copied().unwrap_or(TARGET)
}

/// Whether the packet can be let go.
#[inline(always)]
#[must_use]
pub fn lets_go<E: Ends>(gate: &Gate, groups: u64, direction: Direction, facts: &Facts, ends: &E) -> bool {
    if gate.dims & FLOWS != 0 {
        return false;
    }
    let groups = groups & narrow(gate, direction, facts);
    if gate.dims & (CGROUP | PEER_CGROUP | LEARN_OWNERS) == 0 {
        return groups == 0;
    }
    let is_egress = matches!(direction, Direction::Egress);
    let learns = is_egress && gate.dims & LEARN_OWNERS != 0;
    if groups == 0 && !learns {
        return true;
    }
    let Some([source, destination]) = facts.ports else { return false };
    let (local, peer) = if is_egress { (source, destination) } else { (destination, source) };
    owned(gate, (groups, learns), is_egress, (local, peer), ends)
}

/// The same as far as owners count.
#[inline(always)]
fn owned<E: Ends>(
    gate: &Gate,
    (mut groups, learns): (u64, bool),
    is_egress: bool,
    (local, peer): (u16, u16),
    ends: &E,
) -> bool {
    if gate.dims & CGROUP != 0 || learns {
        let socket = if is_egress { ends.socket(gate) } else { gate.any_cgroup };
        let is_target = socket & TARGET != 0;
        if learns && is_target || !is_target && ends.is_booked(local) {
            return false;
        }
        if gate.dims & CGROUP != 0 {
            groups &= socket;
        }
    }
    if groups != 0 && gate.dims & PEER_CGROUP != 0 {
        if ends.is_booked(peer) {
            return false;
        }
        groups &= gate.any_peer_cgroup;
    }
    groups == 0
}

/// Groups whose clauses may be fulfilled, but for device and owners.
#[inline(always)]
fn narrow(gate: &Gate, direction: Direction, facts: &Facts) -> u64 {
    let [local, peer] = match (direction, facts.addresses) {
        (Direction::Egress, [source, destination]) => [source, destination],
        (Direction::Ingress, [source, destination]) => [destination, source],
    };
    let ports = match (direction, facts.ports) {
        (Direction::Egress, ports) => ports,
        (Direction::Ingress, ports) => ports.map(|[source, destination]| [destination, source]),
    };
    let mut groups = gate.classes.get(facts.class as usize & 7).copied().unwrap_or(u64::MAX);
    let [local_side, peer_side] = &gate.sides;
    if gate.dims & dims::PEER_ADDR != 0 {
        groups &= address(peer_side, peer);
    }
    if gate.dims & dims::LOCAL_ADDR != 0 {
        groups &= address(local_side, local);
    }
    if gate.dims & dims::PEER_PORT != 0 {
        groups &= port(gate, peer_side, Side::Peer, ports.map(|[_, peer]| peer));
    }
    if gate.dims & dims::LOCAL_PORT != 0 {
        groups &= port(gate, local_side, Side::Local, ports.map(|[local, _]| local));
    }
    groups
}

#[inline(always)]
fn address(side: &GateSide, addr: GateAddr) -> u64 {
    let [first, short, middle, whole] = keys(addr);
    let mut groups = at(&side.first, first as usize & (FIRST - 1));
    if side.short_mask != 0 {
        groups |= range(&side.short, short, place(short) & side.short_mask as usize & (SHORT - 1));
    }
    if side.middle_mask != 0 {
        groups |= range(&side.middle, middle, place(middle) & side.middle_mask as usize & (MIDDLE - 1));
    }
    if side.whole_mask != 0 {
        groups |= range(&side.whole, whole, place(whole) & side.whole_mask as usize & (WHOLE - 1));
    }
    groups
}

#[inline(always)]
fn range<const N: usize>(places: &[GateRange; N], key: u64, index: usize) -> u64 {
    match places.get(index) {
        Some(range) if range.key == key || range.key == ANY_KEY => range.groups,
        _ => 0,
    }
}

/// The keys of an address: index of [`GateSide::first`], then what is spread over the other places.
#[inline(always)]
pub(crate) const fn keys(addr: GateAddr) -> [u64; 4] {
    match addr {
        GateAddr::V4(addr) => {
            let addr = addr as u64;
            [addr >> 24, addr >> 16, addr >> 8, addr]
        }
        GateAddr::V6(high, low) => [high >> 56 | 256, high >> 32, high, high.rotate_left(17) ^ low],
    }
}

#[inline(always)]
fn port(gate: &Gate, side: &GateSide, which: Side, port: Option<u16>) -> u64 {
    let [local, peer] = gate.no_ports;
    match (port, which) {
        (Some(port), _) => {
            let port = port as usize;
            at(&side.coarse, port >> 8 & (COARSE - 1))
                & at(&side.fine, port & side.fine_mask as usize & (FINE - 1))
        }
        (None, Side::Local) => local,
        (None, Side::Peer) => peer,
    }
}

#[inline(always)]
fn at<const N: usize>(places: &[u64; N], index: usize) -> u64 {
    places.get(index).copied().unwrap_or(u64::MAX)
}
