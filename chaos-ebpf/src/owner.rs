//! The owner table: which target cgroup has which conversation or port.
//!
//! tc does not know the receiving socket, so ownership is learnt where it is known: when a
//! socket of the cgroup binds, and when it sends. Seeded by the agent for what was there before.

use aya_ebpf::{
    EbpfContext as _,
    helpers::{bpf_get_netns_cookie, bpf_get_socket_cookie},
    programs::SockContext,
};
use chaos_common::{
    abi::{Direction, Flow, FlowKey, Header, Owner, UDP_IDLE_NS},
    job::Job,
    judge::opens_connection,
    lookup::{flow_key, has_flow, symmetric},
    packet::{Addr, Class, mapped, tcp},
};

use crate::{
    gate,
    maps::{CHAOS_FLOWS, CHAOS_OWNERS, CHAOS_SOCKETS},
    source,
    world::Tables,
};

const PROTO_TCP: u32 = 6;

/// The conversation's owner: booked whole, or by local address and port, or by port alone.
#[inline(never)]
pub(crate) fn find(key: &FlowKey) -> Option<u64> {
    // SAFETY: a value read while it is replaced names the old or the new owner, both right.
    if let Some(owner) = unsafe { CHAOS_OWNERS.get(key) } {
        return Some(owner.cgroup);
    }
    // Not known to be zero, so that no loop over bytes clears it: its frame is one too many for Linux 6.1, which lets
    // the stack of a chain of calls be 512 bytes and rounds each up to 32 (`check_max_stack_depth`).
    let nobody = [core::hint::black_box(0); 4];
    let mut port = FlowKey { peer: nobody, peer_port: 0, ..*key };
    // SAFETY: as above.
    if let Some(owner) = unsafe { CHAOS_OWNERS.get(port) } {
        return Some(owner.cgroup);
    }
    port.local = nobody;
    // SAFETY: as above.
    unsafe { CHAOS_OWNERS.get(port) }.map(|owner| owner.cgroup)
}

/// Books what a socket of a target cgroup sends, and forgets what another's socket now has.
#[inline(always)]
pub(crate) fn learn(tables: &Tables, header: &Header, job: &Job) {
    if job.direction() != Direction::Egress || !has_flow(&job.packet) {
        return;
    }
    let key = flow_key(&job.packet, job.netns, Direction::Egress);
    // Whoever answers a TCP packet is known by the whole conversation; UDP and echo may be
    // answered by anybody.
    let booked = if key.proto == PROTO_TCP { key } else { FlowKey { peer: [0; 4], peer_port: 0, ..key } };
    // SAFETY: see `find`.
    let known = unsafe { CHAOS_OWNERS.get(booked) }.map(|owner| owner.cgroup);
    match tables.socket_cgroup(header) {
        Some((cgroup, _)) if known != Some(cgroup) => {
            // SAFETY: the kernel passes a valid context.
            let cookie = unsafe { bpf_get_socket_cookie(tables.skb.0.cast()) };
            book(&booked, Owner { cgroup, cookie });
        }
        // The kernel's own sockets answer for others with a reset or an ICMP message.
        None if known.is_some() && is_somebodys(tables, job) => {
            let _ = CHAOS_OWNERS.remove(booked);
        }
        _ => {}
    }
}

/// A socket of some process sent it.
#[inline(always)]
fn is_somebodys(tables: &Tables, job: &Job) -> bool {
    matches!(job.packet.class, Class::TCP | Class::UDP)
        && job.packet.tcp_flags & tcp::RST == 0
        && source::has_cgroup(tables.skb)
}

#[inline(always)]
fn book(key: &FlowKey, owner: Owner) {
    gate::booked(key.netns, key.local_port);
    let _ = CHAOS_OWNERS.insert(key, owner, 0);
    if owner.cookie != 0 && key.peer_port == 0 {
        let _ = CHAOS_SOCKETS.insert(owner.cookie, key, 0);
    }
}

/// Notes a flow's first packet, for rules about new or established connections.
#[inline(always)]
pub(crate) fn track_flow(job: &Job) {
    let packet = &job.packet;
    if !has_flow(packet) {
        return;
    }
    let key = symmetric(&flow_key(packet, job.netns, job.direction()));
    let now_ns = source::now_ns();
    if packet.class == Class::TCP {
        if opens_connection(packet) {
            let _ = CHAOS_FLOWS.insert(key, Flow { first_seen_ns: now_ns, last_seen_ns: now_ns }, 0);
        }
        return;
    }
    // SAFETY: a value read while it is replaced mixes two times of one flow; both are recent.
    let known = unsafe { CHAOS_FLOWS.get(key) }.copied();
    let first_seen_ns = match known {
        Some(flow) if now_ns.saturating_sub(flow.last_seen_ns) < UDP_IDLE_NS => flow.first_seen_ns,
        _ => now_ns,
    };
    let _ = CHAOS_FLOWS.insert(key, Flow { first_seen_ns, last_seen_ns: now_ns }, 0);
}

/// A socket of the cgroup has bound: it owns the port.
#[inline(always)]
pub(crate) fn bound(ctx: &SockContext, local: Addr) {
    let Some(cgroup) = source::hooked() else { return };
    let sock = ctx.sock;
    // SAFETY: the kernel passes a valid context; the verifier checks the access.
    let port = unsafe { (*sock).src_port };
    // SAFETY: as above.
    let proto = unsafe { (*sock).protocol };
    // SAFETY: the kernel passes a valid context; available for cgroup/sock since Linux 5.7.
    let netns = unsafe { bpf_get_netns_cookie(ctx.as_ptr()) };
    // SAFETY: the kernel passes a valid context; available for cgroup/sock since Linux 5.7.
    let cookie = unsafe { bpf_get_socket_cookie(ctx.as_ptr()) };
    let local = if local == mapped(0) { [0; 4] } else { local };
    let key = FlowKey { netns, local, local_port: port as u16, proto, ..FlowKey::default() };
    // Of nested targets the deepest is asked first and wins.
    // SAFETY: see `find`.
    let taken = unsafe { CHAOS_OWNERS.get(key) }.is_some_and(|owner| owner.cookie == cookie);
    if !taken {
        book(&key, Owner { cgroup, cookie });
    }
}

/// A socket of the cgroup is closed: its port belongs to nobody. Conversations stay, because
/// the peer's last packets are still on their way.
#[inline(always)]
pub(crate) fn released(ctx: &SockContext) {
    // SAFETY: the kernel passes a valid context.
    let cookie = unsafe { bpf_get_socket_cookie(ctx.as_ptr()) };
    // SAFETY: only this socket's own programs write this entry.
    let Some(key) = (unsafe { CHAOS_SOCKETS.get(cookie) }).copied() else { return };
    let _ = CHAOS_SOCKETS.remove(cookie);
    // SAFETY: see `find`.
    if unsafe { CHAOS_OWNERS.get(key) }.is_some_and(|owner| owner.cookie == cookie) {
        let _ = CHAOS_OWNERS.remove(key);
    }
}
