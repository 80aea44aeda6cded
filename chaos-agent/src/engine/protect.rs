//! What no rule may touch on the host: found at arming and again every two seconds.

use std::{
    collections::{BTreeMap, HashSet},
    fs,
    net::{IpAddr, ToSocketAddrs as _},
};

use chaos_common::{
    abi::FlowKey,
    compile::{addr_of, ip_of},
};

use super::types::EngineError;
use crate::{
    datapath::Maps,
    net::{Netlink, sockets},
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

/// Remote shells by the name of the process that holds the connection.
const SHELLS: [&str; 4] = ["sshd", "sshd-session", "mosh-server", "dropbear"];

/// What is protected in one namespace, with why.
pub(super) type Protected = BTreeMap<String, FlowKey>;

/// Looks for it.
pub(super) fn find(netns: &Netns, cookie: u64) -> Result<Protected, EngineError> {
    let held = sockets_of_shells();
    let sockets = netns.run(|| sockets::list(&mut Netlink::sock_diag()?))??;
    let mut found = Protected::new();
    for socket in sockets.iter().filter(|socket| held.contains(&u64::from(socket.inode))) {
        let proto = u32::from(socket.transport.number());
        if socket.has_peer() {
            let key = FlowKey {
                netns: cookie,
                local: addr_of(socket.local.ip()),
                peer: addr_of(socket.peer.ip()),
                local_port: socket.local.port(),
                peer_port: socket.peer.port(),
                proto,
            };
            found.insert(format!("remote shell {} <- {}", socket.local, socket.peer), key);
        } else if socket.transport == sockets::Transport::Udp {
            let key = FlowKey { netns: cookie, local_port: socket.local.port(), proto, ..FlowKey::default() };
            found.insert(format!("remote shell UDP port {}", socket.local.port()), key);
        }
    }
    for server in root_servers() {
        let key = FlowKey { netns: cookie, peer: addr_of(server), ..FlowKey::default() };
        found.insert(format!("network file system server {}", ip_of(&key.peer)), key);
    }
    Ok(found)
}

/// Makes the table hold `now` instead of `before`.
pub(super) fn update(maps: &mut Maps, before: &Protected, now: &Protected) -> Result<(), EngineError> {
    for (name, key) in now.iter().filter(|(name, _)| !before.contains_key(*name)) {
        maps.protected
            .insert(*key, 1, 0)
            .map_err(|error| EngineError::Refused(format!("`{name}` could not be protected: {error}")))?;
    }
    for (_, key) in before.iter().filter(|(name, _)| !now.contains_key(*name)) {
        let _ = maps.protected.remove(key);
    }
    Ok(())
}

/// Inodes of the sockets that remote shells hold.
fn sockets_of_shells() -> HashSet<u64> {
    let mut inodes = HashSet::new();
    let Ok(processes) = procfs::process::all_processes() else { return inodes };
    for process in processes.flatten() {
        let Ok(stat) = process.stat() else { continue };
        if !SHELLS.contains(&stat.comm.as_str()) {
            continue;
        }
        for fd in process.fd().into_iter().flatten().flatten() {
            if let procfs::process::FDTarget::Socket(inode) = fd.target {
                inodes.insert(inode);
            }
        }
    }
    inodes
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
