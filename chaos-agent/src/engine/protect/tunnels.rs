//! The outer side of the tunnels through which operators come: what is inside is protected in vain if that is cut.

use std::{
    collections::{BTreeMap, BTreeSet, VecDeque},
    net::IpAddr,
};

use crate::net::{
    Netlink, NetlinkError,
    link::{self, Link},
    route, wireguard,
};

/// Who is at the other ends of remote shells.
pub(super) struct Operators {
    /// By their addresses, as this namespace sees them.
    pub(super) known: BTreeSet<IpAddr>,
    /// There may be others: every tunnel may be theirs.
    pub(super) anybody: bool,
}

/// What carries a tunnel.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(super) enum Outer {
    /// Packets between this machine and another.
    Peer {
        /// The tunnel's device.
        device: String,
        /// The other machine.
        addr: IpAddr,
    },
    /// A UDP port of the kernel, whoever is at the other end.
    Port {
        /// The tunnel's device.
        device: String,
        /// Of this machine.
        port: u16,
    },
    /// The sockets of the process that holds the device.
    Process {
        /// The tunnel's device.
        device: String,
    },
}

/// The outer sides of all tunnels on the way to the operators, in the namespace of the calling thread: also of those
/// within others.
pub(super) fn outer(operators: &Operators) -> Result<BTreeSet<Outer>, NetlinkError> {
    let mut found = BTreeSet::new();
    if operators.known.is_empty() && !operators.anybody {
        return Ok(found);
    }
    let mut netlink = Netlink::route()?;
    let links = link::list(&mut netlink)?;
    let mut devices: BTreeSet<u32> = BTreeSet::new();
    if operators.anybody {
        devices.extend(links.iter().filter(|link| link.is_up() && !link.is_port()).map(|link| link.index));
    }
    let mut asked = BTreeSet::new();
    let mut to_ask: VecDeque<IpAddr> = operators.known.iter().copied().collect();
    let mut looked = BTreeSet::new();
    loop {
        while let Some(addr) = to_ask.pop_front() {
            if asked.insert(addr) {
                devices.extend(route::lookup(&mut netlink, addr)?.map(|route| route.device));
            }
        }
        let new: Vec<u32> = devices.iter().copied().filter(|index| looked.insert(*index)).collect();
        for outer in new.iter().flat_map(|index| carried_by(*index, &links)) {
            if let Outer::Peer { addr, .. } = &outer {
                // It may be reached through another tunnel.
                to_ask.push_back(*addr);
            }
            found.insert(outer);
        }
        if to_ask.is_empty() {
            return Ok(found);
        }
    }
}

/// What carries the packets of a device, and of those that it is made of.
fn carried_by(index: u32, links: &[Link]) -> Vec<Outer> {
    let by_index: BTreeMap<u32, &Link> = links.iter().map(|link| (link.index, link)).collect();
    let mut made_of = BTreeSet::new();
    let mut open = vec![index];
    while let Some(index) = open.pop() {
        let Some(link) = by_index.get(&index).filter(|_| made_of.insert(index)) else { continue };
        open.extend(link.lower());
        open.extend(links.iter().filter(|port| port.master == Some(index)).map(|port| port.index));
    }
    made_of.iter().filter_map(|part| outer_of(by_index.get(part)?, *part == index)).collect()
}

/// `is_whole`: it is the device itself and not a part of it. A tap that is the port of a bridge is a virtual machine's.
fn outer_of(link: &Link, is_whole: bool) -> Option<Outer> {
    if link.is_ours() {
        return None;
    }
    let device = link.name.clone();
    if let Some(addr) = link.remote {
        return Some(Outer::Peer { device, addr });
    }
    match link.kind.as_deref() {
        Some("wireguard") => match wireguard::listen_port(&device) {
            Ok(port) => port.map(|port| Outer::Port { device, port }),
            Err(error) => {
                tracing::warn!("{error}: the outer side of the tunnel {device} is not protected");
                None
            }
        },
        Some("tun") if is_whole => Some(Outer::Process { device }),
        _ => None,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn link(index: u32, name: &str, kind: &str) -> Link {
        Link {
            index,
            name: name.to_owned(),
            kind: Some(kind.to_owned()),
            flags: netlink_packet_route::link::LinkFlags::Up,
            link_layer_type: libc::ARPHRD_ETHER,
            address: Vec::new(),
            master: None,
            master_kind: None,
            link: None,
            link_netnsid: None,
            remote: None,
            mtu: 1500,
        }
    }

    #[test]
    fn a_tunnel_is_found_under_a_vlan_and_behind_a_bridge() {
        let addr: IpAddr = "192.0.2.7".parse().unwrap();
        let tunnel = Link {
            remote: Some(addr),
            master: Some(3),
            master_kind: Some("bridge".to_owned()),
            ..link(2, "gretap1", "gretap")
        };
        let machine = Link { master: Some(3), ..link(4, "tap0", "tun") };
        let bridge = link(3, "br0", "bridge");
        let vlan = Link { link: Some(3), ..link(5, "br0.7", "vlan") };
        let other = Link { remote: Some(addr), ..link(6, "vxlan9", "vxlan") };
        let links = [tunnel, bridge, machine, vlan, other];
        let wanted = vec![Outer::Peer { device: "gretap1".to_owned(), addr }];
        assert_eq!(carried_by(5, &links), wanted);
        assert_eq!(carried_by(3, &links), wanted, "and not the virtual machine's tap");
        assert_eq!(carried_by(4, &links), vec![Outer::Process { device: "tap0".to_owned() }]);
        assert_eq!(carried_by(99, &links), Vec::new());
    }
}
