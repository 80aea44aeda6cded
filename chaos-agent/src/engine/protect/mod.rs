//! What no rule may touch on the host: found at arming and again every two seconds.

mod holders;
mod tunnels;

use std::{
    collections::{BTreeMap, BTreeSet, HashSet},
    fs,
    net::{IpAddr, ToSocketAddrs as _},
};

use chaos_common::{
    abi::FlowKey,
    compile::{addr_of, ip_of},
};

use self::{holders::Holders, tunnels::Outer};
use super::types::{EngineError, Protection};
use crate::{
    datapath::Maps,
    net::{
        Netlink,
        sockets::{self, Socket, State, Transport},
    },
    netns::Netns,
};

/// What is protected always, by the program itself.
pub(super) const ALWAYS: [&str; 5] = [
    "ARP, neighbour and router discovery, multicast listener reports",
    "DHCP (UDP 67, 68, 546, 547)",
    "IGMP",
    "the metadata service 169.254.169.254",
    "traffic that this namespace only forwards, unless --forwarded",
];

/// What is protected in one namespace, with why.
pub(super) type Protected = BTreeMap<String, FlowKey>;

/// Looks for it; `also` is what was configured, of which the addresses are the rules' business.
pub(super) fn find(netns: &Netns, cookie: u64, also: &Protection) -> Result<Protected, EngineError> {
    let holders = Holders::find();
    let sockets = netns.run(|| sockets::list(&mut Netlink::sock_diag()?))??;
    let mut list = List { cookie, found: Protected::new() };
    list.held("remote shell", &sockets, &holders.shells);
    let agents = sockets.iter().filter(|socket| holders.agents.contains(&u64::from(socket.inode)));
    for socket in agents.filter(|socket| socket.state == State::Listen) {
        list.port("an agent's port", socket.transport, socket.local.port());
    }
    for outer in netns.run(|| tunnels::outer(&operators(&sockets, &holders.shells)))?? {
        match outer {
            Outer::Peer { device, addr } => {
                list.peer(&format!("the other end of the tunnel {device}"), addr);
            }
            Outer::Port { device, port } => {
                list.port(&format!("the outer side of the tunnel {device}"), Transport::Udp, port);
            }
            Outer::Process { device } => {
                let held = holders::of_tunnel(&device);
                list.held(&format!("the outer side of the tunnel {device}"), &sockets, &held);
            }
        }
    }
    for server in root_servers() {
        list.peer("network file system server", server);
    }
    for port in &also.local_ports {
        for transport in [Transport::Tcp, Transport::Udp] {
            list.port("by the settings", transport, *port);
        }
    }
    Ok(list.found)
}

/// Who sits at the other ends of remote shells. Of one by UDP it is not known: it may be anybody.
fn operators(sockets: &[Socket], shells: &HashSet<u64>) -> tunnels::Operators {
    let held = || sockets.iter().filter(|socket| shells.contains(&u64::from(socket.inode)));
    let known: BTreeSet<IpAddr> = held()
        .filter(|socket| socket.has_peer() && !socket.peer.ip().is_loopback())
        .map(|socket| socket.peer.ip())
        .collect();
    let anybody = held().any(|socket| socket.transport == Transport::Udp && !socket.has_peer());
    tunnels::Operators { known, anybody }
}

/// What was found so far.
struct List {
    cookie: u64,
    found: Protected,
}

impl List {
    /// Conversations of these sockets; of one that talks to anybody its port.
    fn held(&mut self, why: &str, sockets: &[Socket], inodes: &HashSet<u64>) {
        for socket in sockets.iter().filter(|socket| inodes.contains(&u64::from(socket.inode))) {
            if socket.has_peer() {
                let key = FlowKey {
                    netns: self.cookie,
                    local: addr_of(socket.local.ip()),
                    peer: addr_of(socket.peer.ip()),
                    local_port: socket.local.port(),
                    peer_port: socket.peer.port(),
                    proto: u32::from(socket.transport.number()),
                };
                self.found.insert(format!("{why} {} <- {}", socket.local, socket.peer), key);
            } else if socket.transport == Transport::Udp {
                self.port(why, Transport::Udp, socket.local.port());
            }
        }
    }

    fn port(&mut self, why: &str, transport: Transport, port: u16) {
        let proto = u32::from(transport.number());
        let key = FlowKey { netns: self.cookie, local_port: port, proto, ..FlowKey::default() };
        self.found.insert(format!("{why}, {} port {port}", transport.name().to_uppercase()), key);
    }

    fn peer(&mut self, why: &str, addr: IpAddr) {
        let key = FlowKey { netns: self.cookie, peer: addr_of(addr), ..FlowKey::default() };
        self.found.insert(format!("{why}, {}", ip_of(&key.peer)), key);
    }
}

/// Makes the table hold `now` instead of `before`.
pub(super) fn update(maps: &mut Maps, before: &Protected, now: &Protected) -> Result<(), EngineError> {
    for (name, key) in now.iter().filter(|(name, _)| !before.contains_key(*name)) {
        maps.protected
            .insert(*key, 1, 0)
            .map_err(|error| EngineError::Refused(format!("`{name}` could not be protected: {error}")))?;
    }
    // The same may be protected for another reason now.
    let is_kept = |key: &FlowKey| now.values().any(|kept| kept == key);
    for (_, key) in before.iter().filter(|(_, key)| !is_kept(key)) {
        let _ = maps.protected.remove(key);
    }
    Ok(())
}

/// Servers of network file systems under `/`, `/usr`, `/home` and the like: without them the
/// machine itself stops.
fn root_servers() -> Vec<IpAddr> {
    const KINDS: [&str; 5] = ["nfs", "nfs4", "cifs", "ceph", "9p"];
    let Ok(mounts) = fs::read_to_string("/proc/self/mounts") else { return Vec::new() };
    let mut servers = Vec::new();
    for line in mounts.lines() {
        let fields: Vec<&str> = line.split(' ').collect();
        let [source, _, kind, options, ..] = fields.as_slice() else { continue };
        if !KINDS.contains(kind) {
            continue;
        }
        let named = options.split(',').find_map(|option| option.strip_prefix("addr="));
        let host = named.or_else(|| source.trim_start_matches("//").split([':', '/']).next());
        let Some(host) = host else { continue };
        if let Ok(addr) = host.parse() {
            servers.push(addr);
        } else if let Ok(addrs) = (host, 0).to_socket_addrs() {
            servers.extend(addrs.map(|addr| addr.ip()));
        }
    }
    servers
}
