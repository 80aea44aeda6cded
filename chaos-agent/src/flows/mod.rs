//! Who talks to whom now, so that a rule can be written from it.

mod conversation;
mod owners;

use std::{
    collections::{HashMap, HashSet},
    net::SocketAddr,
    path::PathBuf,
};

use serde::{Deserialize, Serialize};

pub use self::conversation::{Conversation, conversations, table};
use crate::{
    cgroup::Hierarchy,
    net::{
        Netlink,
        sockets::{self, Socket, State, Transport},
    },
    targets::{NamespaceRef, Resolved, TargetError, subtree_ids},
};

/// Which end began.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Direction {
    /// The target connected to the peer.
    Outbound,
    /// The peer connected to the target.
    Inbound,
    /// Nobody yet: a listener, or a UDP socket that anybody can send to.
    Open,
}

/// A socket of the target.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Flow {
    /// TCP or UDP.
    pub proto: Transport,
    /// State; UDP knows `established` (connected) and `close`.
    pub state: State,
    /// Which end began.
    pub direction: Direction,
    /// The target's end.
    pub local: SocketAddr,
    /// The other end.
    pub peer: Option<SocketAddr>,
    /// A process that holds it (the lowest number, if several do). None = none that we can see: the
    /// connection is closing, or its holder is elsewhere.
    pub pid: Option<i32>,
    /// Name of that process (`/proc/PID/comm`).
    pub command: Option<String>,
    /// Its creator's cgroup, below the cgroup2 mount.
    pub cgroup: Option<PathBuf>,
    /// The namespace it is in.
    pub namespace: String,
}

/// The target's TCP and UDP sockets now, in all its namespaces; with cgroups, only those of the cgroups and
/// everything below. Connections without an owner (`TIME_WAIT`) belong to no cgroup.
pub fn list(target: &Resolved) -> Result<Vec<Flow>, TargetError> {
    // Without cgroup2 there are no paths to show, and no cgroup target either.
    let hierarchy = Hierarchy::discover().ok();
    let paths = hierarchy.as_ref().map(owners::cgroup_paths).unwrap_or_default();
    let wanted: Option<HashSet<u64>> = hierarchy
        .as_ref()
        .filter(|_| !target.cgroups.is_empty())
        .map(|hierarchy| subtree_ids(hierarchy, &target.cgroups));
    let mut flows = Vec::new();
    for namespace in &target.namespaces {
        let all = namespace.netns.run(|| sockets::list(&mut Netlink::sock_diag()?))??;
        flows.extend(flows_of(namespace, &all, wanted.as_ref(), &paths));
    }
    Ok(flows)
}

fn flows_of(
    namespace: &NamespaceRef,
    all: &[Socket],
    wanted: Option<&HashSet<u64>>,
    paths: &HashMap<u64, PathBuf>,
) -> Vec<Flow> {
    let holders = owners::holders(namespace.netns.id());
    let open = OpenPorts::of(all);
    all.iter()
        .filter(|socket| wanted.is_none_or(|ids| socket.cgroup.is_some_and(|id| ids.contains(&id))))
        .map(|socket| {
            let holder = holders.get(&socket.inode);
            Flow {
                proto: socket.transport,
                state: socket.state,
                direction: open.direction(socket),
                local: socket.local,
                peer: socket.has_peer().then_some(socket.peer),
                pid: holder.map(|holder| holder.pid),
                command: holder.map(|holder| holder.command.clone()),
                cgroup: socket.cgroup.and_then(|id| paths.get(&id).cloned()),
                namespace: namespace.origin.clone(),
            }
        })
        .collect()
}

/// Ports of a namespace to which others can come.
struct OpenPorts(HashSet<(Transport, u16)>);

impl OpenPorts {
    fn of(sockets: &[Socket]) -> Self {
        Self(
            sockets
                .iter()
                .filter(|socket| match socket.transport {
                    Transport::Tcp => socket.state == State::Listen,
                    Transport::Udp => !socket.has_peer(),
                })
                .map(|socket| (socket.transport, socket.local.port()))
                .collect(),
        )
    }

    /// A connection whose local port is also open came in by it: a socket that connects is given a port
    /// nobody listens on.
    fn direction(&self, socket: &Socket) -> Direction {
        if !socket.has_peer() {
            Direction::Open
        } else if self.0.contains(&(socket.transport, socket.local.port())) {
            Direction::Inbound
        } else {
            Direction::Outbound
        }
    }
}
