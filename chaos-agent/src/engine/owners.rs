//! Keeps the owner table for the target cgroups: hooks on their directories, and what was there
//! before the hooks.

use std::{
    collections::{BTreeMap, BTreeSet, HashMap, HashSet},
    net::{IpAddr, SocketAddr},
};

use chaos_common::{
    abi::{Flow, FlowKey, Owner, UDP_IDLE_NS},
    compile::{CgroupInput, addr_of},
    lookup::symmetric,
};

use super::{
    clock::boot_ns,
    types::{EngineError, Event, EventKind},
};
use crate::{
    cgroup::{CgroupRef, Hierarchy},
    datapath::{Maps, Object, OwnerHooks},
    net::{
        Netlink,
        sockets::{self, Socket, State, Transport},
    },
    netns::Netns,
    targets::subtree_ids,
};

/// Hooks on target cgroups.
#[derive(Default)]
pub(super) struct Owners {
    hooks: OwnerHooks,
    /// Namespaces, by cookie, where all that these cgroups had before their hooks is booked.
    seeded: BTreeSet<u64>,
}

/// The target cgroups with their ancestors, as the compiler takes them.
pub(super) fn inputs(hierarchy: &Hierarchy, cgroups: &BTreeMap<u64, CgroupRef>) -> Vec<CgroupInput> {
    cgroups
        .values()
        .map(|cgroup| {
            let above = cgroup.path.ancestors().skip(1);
            let ids = above.filter_map(|path| hierarchy.resolve(path).ok()).map(|parent| parent.id);
            CgroupInput { id: cgroup.id, level: cgroup.level, ancestors: ids.collect() }
        })
        .collect()
}

impl Owners {
    /// Puts hooks on new targets and takes them off old ones; the ids that are new.
    pub(super) fn follow(
        &mut self,
        object: &Object,
        hierarchy: &Hierarchy,
        cgroups: &BTreeMap<u64, CgroupRef>,
    ) -> Vec<Event> {
        self.hooks.retain(|id| cgroups.contains_key(&id));
        let mut events = Vec::new();
        for cgroup in cgroups.values() {
            if self.hooks.contains(cgroup.id) {
                continue;
            }
            self.seeded.clear();
            let Ok(directory) = hierarchy.directory(&cgroup.path) else { continue };
            match self.hooks.attach(object, cgroup.id, &directory) {
                Ok(()) => {}
                // It went away meanwhile; its watcher will say so.
                Err(_) if !directory.exists() => {}
                Err(error) => events.push(Event::new(
                    EventKind::Warning,
                    format!(
                        "{error}: ports that {} opens from now on are learnt only when it sends",
                        cgroup.path.display()
                    ),
                )),
            }
        }
        events
    }

    /// Takes every hook off.
    pub(super) fn clear(&mut self) {
        self.hooks.retain(|_| false);
        self.seeded.clear();
    }

    /// Books the sockets that target cgroups had before their hooks, in these namespaces. What was booked is not read
    /// again: hooks and leaving packets keep it up to date.
    pub(super) fn seed(
        &mut self,
        maps: &mut Maps,
        hierarchy: &Hierarchy,
        cgroups: &BTreeMap<u64, CgroupRef>,
        places: &[(&Netns, u64)],
    ) -> Result<(), EngineError> {
        let new: Vec<_> = places.iter().filter(|(_, cookie)| !self.seeded.contains(cookie)).collect();
        if !new.is_empty() {
            let owner_of = deepest(hierarchy, cgroups);
            for (netns, cookie) in new {
                book(maps, &owner_of, (netns, *cookie))?;
            }
        }
        self.seeded = places.iter().map(|(_, cookie)| *cookie).collect();
        Ok(())
    }
}

/// Books what target cgroups have now, in one namespace.
fn book(
    maps: &mut Maps,
    owner_of: &HashMap<u64, u64>,
    (netns, cookie): (&Netns, u64),
) -> Result<(), EngineError> {
    for socket in list(netns)? {
        let Some(cgroup) = socket.cgroup.and_then(|id| owner_of.get(&id)) else { continue };
        let owner = Owner { cgroup: *cgroup, cookie: socket.cookie };
        for key in keys(&socket, cookie) {
            // A full table (LRU) forgets the oldest; what sends is learnt again.
            let _ = maps.own(key, owner);
        }
    }
    Ok(())
}

/// Notes the UDP conversations that are there already, so that they are not taken for new ones. One that is known keeps
/// the time of its beginning, which other rules go by, unless it has been silent for so long that it would begin anew.
pub(super) fn seed_flows(maps: &mut Maps, (netns, cookie): (&Netns, u64)) -> Result<(), EngineError> {
    let now_ns = boot_ns();
    let flow = Flow { first_seen_ns: 0, last_seen_ns: now_ns };
    let known = list(netns)?.into_iter().filter(|s| s.transport == Transport::Udp && s.has_peer());
    for socket in known {
        let key = symmetric(&conversation(&socket, cookie));
        let is_fresh = |flow: Flow| now_ns.saturating_sub(flow.last_seen_ns) < UDP_IDLE_NS;
        if !maps.flows.get(&key, 0).is_ok_and(is_fresh) {
            let _ = maps.flows.insert(key, flow, 0);
        }
    }
    Ok(())
}

pub(super) fn list(netns: &Netns) -> Result<Vec<Socket>, EngineError> {
    Ok(netns.run(|| sockets::list(&mut Netlink::sock_diag()?))??)
}

/// For every cgroup below a target: the deepest target above it.
pub(super) fn deepest(hierarchy: &Hierarchy, cgroups: &BTreeMap<u64, CgroupRef>) -> HashMap<u64, u64> {
    let mut sorted: Vec<&CgroupRef> = cgroups.values().collect();
    sorted.sort_by_key(|cgroup| cgroup.level);
    let mut owner_of = HashMap::new();
    for cgroup in sorted {
        let below: HashSet<u64> = subtree_ids(hierarchy, std::slice::from_ref(cgroup));
        owner_of.extend(below.into_iter().map(|id| (id, cgroup.id)));
    }
    owner_of
}

/// What a socket is booked under: its conversation, or its port.
pub(super) fn keys(socket: &Socket, netns: u64) -> Vec<FlowKey> {
    let mut keys = Vec::new();
    if socket.has_peer() {
        keys.push(conversation(socket, netns));
    }
    if socket.transport == Transport::Udp || socket.state == State::Listen || !socket.has_peer() {
        let any = socket.local.ip().is_unspecified();
        let local = if any { [0; 4] } else { addr_of(socket.local.ip()) };
        keys.push(FlowKey {
            netns,
            local,
            local_port: socket.local.port(),
            proto: u32::from(socket.transport.number()),
            ..FlowKey::default()
        });
    }
    keys
}

pub(super) fn conversation(socket: &Socket, netns: u64) -> FlowKey {
    let ip = |addr: SocketAddr| -> IpAddr { addr.ip() };
    FlowKey {
        netns,
        local: addr_of(ip(socket.local)),
        peer: addr_of(ip(socket.peer)),
        local_port: socket.local.port(),
        peer_port: socket.peer.port(),
        proto: u32::from(socket.transport.number()),
    }
}
