//! Which clauses a packet fulfils: one set per dimension, intersected. The cost does not grow
//! with the number of rules, only with the number that match.

use crate::{
    abi::{Direction, FlowKey, Header, Set, Side, dims},
    job::{Job, View, job_flags},
    packet::{Addr, Packet, packet_flags},
    world::World,
};

/// One set per dimension: device, class, local and peer address, local and peer port, owner,
/// peer's owner.
pub const DIMENSIONS: usize = 8;

/// The sets, by number, whose intersection are the clauses that a packet fulfils.
pub type Candidates = [u32; DIMENSIONS];

/// Looks every dimension up. None = no rule can match.
#[inline(always)]
pub fn candidates<W: World>(world: &W, header: &Header, job: &Job, view: &View) -> Option<Candidates> {
    let packet = &job.packet;
    let direction = view.direction();
    let [egress, ingress] = if packet.is_tagged() { job.device.tagged_sets } else { job.device.sets };
    let on_device = if direction == Direction::Egress { egress } else { ingress };
    if world.set(on_device)?.summary == 0 {
        return None;
    }
    Some([
        on_device,
        *header.class_sets.get(packet.class.0 as usize & 7)?,
        address(world, header, packet, direction, Side::Local),
        address(world, header, packet, direction, Side::Peer),
        port(world, header, packet, direction, Side::Local)?,
        port(world, header, packet, direction, Side::Peer)?,
        view.own,
        view.peer,
    ])
}

/// Words of the intersection that may hold a clause.
#[inline(always)]
pub fn summary<W: World>(world: &W, candidates: &Candidates) -> u64 {
    let mut bits = u64::MAX;
    for number in candidates {
        bits &= world.set(*number).map_or(0, |set| set.summary);
    }
    bits
}

/// One word of the intersection.
#[inline(always)]
pub fn word<W: World>(world: &W, candidates: &Candidates, index: usize) -> u64 {
    let mut bits = u64::MAX;
    for number in candidates {
        bits &= world.set(*number).map_or(0, |set| word_of(set, index));
    }
    bits
}

/// One word of a set.
#[inline(always)]
pub(crate) fn word_of(set: &Set, index: usize) -> u64 {
    set.words.get(index).copied().unwrap_or(0)
}

#[inline(always)]
fn address<W: World>(world: &W, header: &Header, packet: &Packet, view: Direction, side: Side) -> u32 {
    let (dim, any) = match (side, header.any_addr_sets) {
        (Side::Local, [local, _]) => (dims::LOCAL_ADDR, local),
        (Side::Peer, [_, peer]) => (dims::PEER_ADDR, peer),
    };
    if header.dims & dim == 0 {
        return header.all_set;
    }
    if !packet.is_ip() {
        return any;
    }
    let addr = if is_source(view, side) { &packet.source } else { &packet.destination };
    world.address_set(side, addr).unwrap_or(any)
}

#[inline(always)]
fn port<W: World>(world: &W, header: &Header, packet: &Packet, view: Direction, side: Side) -> Option<u32> {
    let (dim, none) = match (side, header.no_port_sets) {
        (Side::Local, [local, _]) => (dims::LOCAL_PORT, local),
        (Side::Peer, [_, peer]) => (dims::PEER_PORT, peer),
    };
    if header.dims & dim == 0 {
        return Some(header.all_set);
    }
    if !packet.has_ports() {
        return Some(none);
    }
    world.port_set(side, if is_source(view, side) { packet.source_port } else { packet.destination_port })
}

/// The source is the local end of what leaves and the peer of what comes.
const fn is_source(view: Direction, side: Side) -> bool {
    matches!((view, side), (Direction::Egress, Side::Local) | (Direction::Ingress, Side::Peer))
}

/// Notes in `view` who owns the local and the peer's end.
#[inline(always)]
pub fn find_owners<W: World>(world: &W, header: &Header, job: &Job, view: &mut View) {
    view.own = header.all_set;
    view.peer = header.all_set;
    if header.dims & (dims::CGROUP | dims::PEER_CGROUP) == 0 {
        return;
    }
    let mut key = flow_key(&job.packet, job.netns, view.direction());
    if header.dims & dims::CGROUP != 0 {
        // What waited has the socket of the device where it did.
        let asks_socket = job.direction() == Direction::Egress && !job.has(job_flags::HELD);
        let by_socket = if asks_socket { world.socket_owner(header) } else { None };
        view.own = match by_socket.or_else(|| world.table_owner(&key)) {
            Some(sets) => sets.own,
            None => header.any_cgroup_set,
        };
    }
    if header.dims & dims::PEER_CGROUP != 0 {
        key = reverse(&key);
        view.peer = world.table_owner(&key).map_or(header.any_peer_cgroup_set, |sets| sets.peer);
    }
}

/// The conversation of a packet, from the namespace's point of view.
#[inline(always)]
#[must_use]
pub fn flow_key(packet: &Packet, netns: u64, direction: Direction) -> FlowKey {
    let key = FlowKey {
        netns,
        local: packet.source,
        peer: packet.destination,
        local_port: packet.source_port,
        peer_port: packet.destination_port,
        proto: u32::from(packet.proto),
    };
    if direction == Direction::Egress { key } else { reverse(&key) }
}

/// The same conversation seen from the other end.
#[inline(always)]
#[must_use]
pub const fn reverse(key: &FlowKey) -> FlowKey {
    FlowKey {
        netns: key.netns,
        local: key.peer,
        peer: key.local,
        local_port: key.peer_port,
        peer_port: key.local_port,
        proto: key.proto,
    }
}

/// One key for both directions of a conversation: the smaller end is the local one.
#[inline(always)]
#[must_use]
pub fn symmetric(key: &FlowKey) -> FlowKey {
    let local = ends(&key.local);
    let peer = ends(&key.peer);
    let swap = if local == peer { key.local_port > key.peer_port } else { local > peer };
    if swap { reverse(key) } else { *key }
}

/// Any total order does, as long as both directions use the same.
#[inline(always)]
const fn ends(addr: &Addr) -> (u64, u64) {
    let [a, b, c, d] = *addr;
    ((a as u64) << 32 | b as u64, (c as u64) << 32 | d as u64)
}

/// A number that both directions, and retransmissions, of a conversation share.
#[inline(always)]
#[must_use]
pub fn flow_hash(seed: u64, key: &FlowKey) -> u64 {
    let key = symmetric(key);
    let (a, b) = ends(&key.local);
    let (c, d) = ends(&key.peer);
    let ports = u64::from(key.local_port) << 16 | u64::from(key.peer_port) | u64::from(key.proto) << 32;
    let mut hash = seed;
    for part in [a, b, c, d, ports] {
        hash = crate::env::mix(hash ^ part);
    }
    hash
}

/// The packet belongs to a conversation: it has ports or an echo identifier.
#[must_use]
pub const fn has_flow(packet: &Packet) -> bool {
    packet.flags & (packet_flags::PORTS | packet_flags::ECHO) != 0
}
