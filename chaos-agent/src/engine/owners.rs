//! Keeps the owner table for the target cgroups: hooks on their directories, and what was there
//! before the hooks.

use std::{
    collections::{BTreeMap, HashMap, HashSet},
    net::{IpAddr, SocketAddr},
};

use chaos_common::{
    abi::{Flow, FlowKey, Owner},
    compile::{CgroupInput, addr_of},
    lookup::symmetric,
};

use super::{
    clock::boot_ns,
    types::{EngineError, Event, EventKind},
};
use crate::{
    cgroup::{CgroupRef, Hierarchy},
    datapath::{CgroupHooks, Maps, Object},
    net::{
        Netlink,
        sockets::{self, Socket, State, Transport},
    },
    netns::Netns,
    targets::subtree_ids,
};

/// Hooks on target cgroups, by id.
#[derive(Default)]
pub(super) struct Owners {
    hooks: BTreeMap<u64, CgroupHooks>,
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
        self.hooks.retain(|id, _| cgroups.contains_key(id));
        let mut events = Vec::new();
        for cgroup in cgroups.values() {
            if self.hooks.contains_key(&cgroup.id) {
                continue;
            }
            let Ok(directory) = hierarchy.directory(&cgroup.path) else { continue };
            match CgroupHooks::owners(object, cgroup.id, &directory) {
                Ok(hooks) => {
                    self.hooks.insert(cgroup.id, hooks);
                }
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
        self.hooks.clear();
    }
}

/// Books the sockets that target cgroups have now, in one namespace.
pub(super) fn seed(
    maps: &mut Maps,
    hierarchy: &Hierarchy,
    cgroups: &BTreeMap<u64, CgroupRef>,
    (netns, cookie): (&Netns, u64),
) -> Result<(), EngineError> {
    let owner_of = deepest(hierarchy, cgroups);
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

/// Notes the UDP conversations that are there already, so that they are not taken for new ones.
pub(super) fn seed_flows(maps: &mut Maps, (netns, cookie): (&Netns, u64)) -> Result<(), EngineError> {
    let flow = Flow { first_seen_ns: 0, last_seen_ns: boot_ns() };
    let known = list(netns)?.into_iter().filter(|s| s.transport == Transport::Udp && s.has_peer());
    for socket in known {
        let _ = maps.flows.insert(symmetric(&conversation(&socket, cookie)), flow, 0);
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
