//! Under which addresses and ports others see a target.

use std::{
    collections::{BTreeSet, HashSet},
    fs,
    net::IpAddr,
    os::unix::fs::MetadataExt,
    path::PathBuf,
};

use ipnet::IpNet;

use super::{Depth, NamespaceRef, Resolved, TargetError, procs};
use crate::{
    cgroup::{CgroupRef, Hierarchy},
    net::{
        Netlink, NetlinkError, addr,
        addr::Address,
        route,
        sockets::{self, Socket, State, Transport},
    },
    netns::{Netns, NetnsId},
    spec::{Endpoint, PortRange},
};

/// One way to see a target from outside.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Identity {
    /// Address, and port unless the whole address is the target's.
    pub endpoint: Endpoint,
    /// The namespace the address belongs to; none = only known by its address.
    pub home: Option<NetnsId>,
    /// A port that is likely to be another one soon.
    pub passing: bool,
}

/// The identities of `target` that a packet from `viewer` can reach: its own namespace sees all of them,
/// another one those to which it has a route that does not end in itself (every namespace has a 127.0.0.1).
pub fn visible_from(target: &Resolved, viewer: &Netns) -> Result<Vec<Endpoint>, TargetError> {
    let visible = viewer.run(|| -> Result<Vec<Endpoint>, NetlinkError> {
        let mut netlink = Netlink::route()?;
        let mut seen = Vec::new();
        for identity in &target.identities {
            let reachable = match identity.endpoint.net {
                _ if identity.home == Some(viewer.id()) => true,
                // Some address of a range may always be reached.
                Some(net) if net.prefix_len() < net.max_prefix_len() => true,
                Some(net) => route::lookup(&mut netlink, net.addr())?
                    .is_some_and(|route| !route.local || identity.home.is_none()),
                None => true,
            };
            if reachable {
                seen.push(identity.endpoint.clone());
            }
        }
        Ok(seen)
    })?;
    Ok(visible?)
}

/// Identities of a whole namespace: its addresses that are neither loopback nor link-local, unless it has
/// no other.
pub(super) fn of_namespace(netns: &Netns, depth: Depth) -> Result<Vec<Identity>, TargetError> {
    if depth == Depth::Place {
        return Ok(Vec::new());
    }
    let addresses = netns.run(|| addr::list(&mut Netlink::route()?))??;
    Ok(outer(&addresses)
        .into_iter()
        .map(|addr| Identity { endpoint: Endpoint::host(addr), home: Some(netns.id()), passing: false })
        .collect())
}

/// Identities of cgroups: the ports their sockets hold in each namespace, and all addresses of a namespace in
/// which nobody else lives.
pub(super) fn of_cgroups(
    hierarchy: &Hierarchy,
    cgroups: &[CgroupRef],
    namespaces: &[NamespaceRef],
    pids: &HashSet<i32>,
) -> Result<Vec<Identity>, TargetError> {
    let ids = subtree_ids(hierarchy, cgroups);
    let ephemeral = ephemeral_ports();
    let mut identities = Vec::new();
    for NamespaceRef { netns, .. } in namespaces {
        let (sockets, addresses) = netns.run(|| -> Result<_, NetlinkError> {
            Ok((sockets::list(&mut Netlink::sock_diag()?)?, addr::list(&mut Netlink::route()?)?))
        })??;
        if !pids.is_empty() && procs::owns_wholly(netns, pids) {
            identities.extend(outer(&addresses).into_iter().map(|addr| Identity {
                endpoint: Endpoint::host(addr),
                home: Some(netns.id()),
                passing: false,
            }));
        }
        let own = sockets.iter().filter(|socket| socket.cgroup.is_some_and(|id| ids.contains(&id)));
        let all: Vec<IpAddr> = addresses.iter().map(Address::addr).collect();
        for (addr, port, passing) in held_ports(own, &all, ephemeral) {
            let ports = Some(PortRange { first: port, last: port });
            identities.push(Identity {
                endpoint: Endpoint { net: Some(IpNet::from(addr)), ports },
                home: Some(netns.id()),
                passing,
            });
        }
    }
    Ok(identities)
}

/// Whether two lists name the same lasting identities.
pub(super) fn same(left: &[Identity], right: &[Identity]) -> bool {
    let lasting = |list: &[Identity]| {
        list.iter()
            .filter(|identity| !identity.passing)
            .map(|identity| {
                let Endpoint { net, ports } = &identity.endpoint;
                (*net, ports.map(|ports| (ports.first, ports.last)), identity.home)
            })
            .collect::<BTreeSet<_>>()
    };
    lasting(left) == lasting(right)
}

/// Ids of the cgroups and of all below them.
pub(crate) fn subtree_ids(hierarchy: &Hierarchy, cgroups: &[CgroupRef]) -> HashSet<u64> {
    let roots = cgroups.iter().filter_map(|cgroup| hierarchy.directory(&cgroup.path).ok());
    let mut todo: Vec<PathBuf> = roots.collect();
    let mut ids: HashSet<u64> = cgroups.iter().map(|cgroup| cgroup.id).collect();
    while let Some(directory) = todo.pop() {
        for entry in fs::read_dir(directory).into_iter().flatten().flatten() {
            if entry.file_type().is_ok_and(|kind| kind.is_dir()) {
                ids.extend(entry.metadata().map(|metadata| metadata.ino()));
                todo.push(entry.path());
            }
        }
    }
    ids
}

/// Addresses others can use.
fn outer(addresses: &[Address]) -> Vec<IpAddr> {
    let link_local = |addr: IpAddr| match addr {
        IpAddr::V4(addr) => addr.is_link_local(),
        IpAddr::V6(addr) => addr.is_unicast_link_local(),
    };
    let all: Vec<IpAddr> = addresses.iter().map(Address::addr).collect();
    let wide: Vec<IpAddr> =
        all.iter().copied().filter(|addr| !addr.is_loopback() && !link_local(*addr)).collect();
    if wide.is_empty() { all } else { wide }
}

/// Address, port and whether it is passing, for each port on which somebody can talk to these sockets.
/// Connections are left out: those made by the target are seen by their peer's port, those accepted by the
/// listener's.
fn held_ports<'a>(
    sockets: impl Iterator<Item = &'a Socket>,
    addresses: &[IpAddr],
    ephemeral: (u16, u16),
) -> BTreeSet<(IpAddr, u16, bool)> {
    let mut held = BTreeSet::new();
    for socket in sockets {
        let open = match socket.transport {
            Transport::Tcp => matches!(socket.state, State::Listen | State::Bound),
            Transport::Udp => true,
        };
        let port = socket.local.port();
        if !open || port == 0 {
            continue;
        }
        let passing = socket.transport == Transport::Udp && (ephemeral.0..=ephemeral.1).contains(&port);
        let local = socket.local.ip();
        if local.is_unspecified() {
            let fits =
                |addr: &&IpAddr| addr.is_ipv4() == local.is_ipv4() || (socket.dual_stack && addr.is_ipv4());
            held.extend(addresses.iter().filter(fits).map(|addr| (*addr, port, passing)));
        } else {
            held.insert((local, port, passing));
        }
    }
    held
}

/// Ports the kernel gives to sockets that ask for none (ip(7)); its default where it cannot be read.
fn ephemeral_ports() -> (u16, u16) {
    fs::read_to_string("/proc/sys/net/ipv4/ip_local_port_range")
        .ok()
        .and_then(|text| {
            let mut ports = text.split_whitespace().map(str::parse);
            Some((ports.next()?.ok()?, ports.next()?.ok()?))
        })
        .unwrap_or((32_768, 60_999))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn address(text: &str) -> Address {
        Address { index: 1, net: text.parse().unwrap(), global: true }
    }

    fn socket(transport: Transport, state: State, local: &str, dual_stack: bool) -> Socket {
        let local: std::net::SocketAddr = local.parse().unwrap();
        let peer = std::net::SocketAddr::new(local.ip(), 0);
        Socket {
            transport,
            state,
            local,
            peer,
            dual_stack,
            device: 0,
            inode: 1,
            cookie: 1,
            uid: 0,
            cgroup: Some(1),
        }
    }

    #[test]
    fn loopback_counts_only_where_there_is_nothing_else() {
        let lo = [address("127.0.0.1/8"), address("::1/128")];
        assert_eq!(outer(&lo).len(), 2);
        let all = [address("127.0.0.1/8"), address("fe80::1/64"), address("10.0.0.1/24")];
        assert_eq!(outer(&all), ["10.0.0.1".parse::<IpAddr>().unwrap()]);
    }

    #[test]
    fn an_open_port_is_seen_on_every_address_it_listens_on() {
        let addresses: Vec<IpAddr> =
            ["127.0.0.1", "10.0.0.1", "::1"].iter().map(|addr| addr.parse().unwrap()).collect();
        let sockets = [
            socket(Transport::Tcp, State::Listen, "[::]:80", true),
            socket(Transport::Tcp, State::Listen, "0.0.0.0:22", false),
            socket(Transport::Tcp, State::Listen, "127.0.0.1:6379", false),
            socket(Transport::Tcp, State::Established, "10.0.0.1:50000", false),
            socket(Transport::Udp, State::Close, "10.0.0.1:53", false),
            socket(Transport::Udp, State::Established, "10.0.0.1:40000", false),
        ];
        let held: Vec<String> = held_ports(sockets.iter(), &addresses, (32_768, 60_999))
            .into_iter()
            .map(|(addr, port, passing)| format!("{addr} {port}{}", if passing { " passing" } else { "" }))
            .collect();
        assert_eq!(
            held,
            [
                "10.0.0.1 22",
                "10.0.0.1 53",
                "10.0.0.1 80",
                "10.0.0.1 40000 passing",
                "127.0.0.1 22",
                "127.0.0.1 80",
                "127.0.0.1 6379",
                "::1 80",
            ]
        );
    }
}
