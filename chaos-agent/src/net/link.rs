//! Network devices: list, find, change, delete.

use std::net::IpAddr;

use netlink_packet_core::{NlaBuffer, NlasIterator, parse_i32, parse_string, parse_u32};
use netlink_packet_route::{
    RouteNetlinkMessage,
    link::{
        AfSpecInet6, AfSpecUnspec, In6AddrGenMode, LinkAttribute, LinkExtentMask, LinkFlags, LinkHeader,
        LinkMessage,
    },
};
use nix::errno::Errno;

use super::{
    netlink::{Netlink, NetlinkError},
    tunnel,
};

/// Every device of ours has a name that begins so, and nothing else is ours.
pub const OWN_PREFIX: &str = "chaos-";

// include/uapi/linux/if_link.h and if_arp.h, Linux 6.18.
const IFLA_ADDRESS: u16 = 1;
const IFLA_IFNAME: u16 = 3;
const IFLA_MTU: u16 = 4;
const IFLA_LINK: u16 = 5;
const IFLA_MASTER: u16 = 10;
const IFLA_LINKINFO: u16 = 18;
const IFLA_LINK_NETNSID: u16 = 37;
const IFLA_INFO_KIND: u16 = 1;
const IFLA_INFO_DATA: u16 = 2;
const IFLA_INFO_SLAVE_KIND: u16 = 4;
const ARPHRD_LOOPBACK: u16 = 772;

/// Length of `struct ifinfomsg`.
const LINK_HEADER_BYTES: usize = 16;

/// A network device, as far as a fault injector needs to know it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Link {
    /// Interface index, unique within its namespace only.
    pub index: u32,
    /// Interface name.
    pub name: String,
    /// What created it (`veth`, `bridge`, `vlan`, `bond`, `wireguard`, …); none for hardware and `lo`.
    pub kind: Option<String>,
    /// `IFF_*` flags (netdevice(7)).
    pub flags: LinkFlags,
    /// `ARPHRD_*`: what a packet begins with on this device.
    pub link_layer_type: u16,
    /// Link layer address, empty where it has none.
    pub address: Vec<u8>,
    /// Index of the bridge, bond, team or VRF it belongs to.
    pub master: Option<u32>,
    /// Kind of that master.
    pub master_kind: Option<String>,
    /// `IFLA_LINK`: the device below (VLAN, macvlan, tunnel), or the other end of a veth pair.
    pub link: Option<u32>,
    /// Namespace id in which `link` counts; none = the same namespace.
    pub link_netnsid: Option<i32>,
    /// Where a tunnel ends, if that is one address.
    pub remote: Option<IpAddr>,
    /// Largest packet, in bytes, without the link layer header.
    pub mtu: u32,
}

impl Link {
    /// Administratively up.
    #[must_use]
    pub fn is_up(&self) -> bool {
        self.flags.contains(LinkFlags::Up)
    }

    /// Does no ARP and no neighbour discovery.
    #[must_use]
    pub fn is_noarp(&self) -> bool {
        self.flags.contains(LinkFlags::Noarp)
    }

    /// The namespace's loopback device.
    #[must_use]
    pub fn is_loopback(&self) -> bool {
        self.flags.contains(LinkFlags::Loopback)
    }

    /// Whether packets begin with an Ethernet header (`lo` has one too); else they begin with IP.
    #[must_use]
    pub fn has_ethernet_header(&self) -> bool {
        matches!(self.link_layer_type, libc::ARPHRD_ETHER | ARPHRD_LOOPBACK)
    }

    /// One of our private devices.
    #[must_use]
    pub fn is_ours(&self) -> bool {
        self.name.starts_with(OWN_PREFIX)
    }

    /// Is a port of a bridge, bond or team, so that addresses and routes lie on its master. Members of a
    /// VRF keep their own addresses and do not count.
    #[must_use]
    pub fn is_port(&self) -> bool {
        self.master.is_some() && self.master_kind.as_deref() != Some("vrf")
    }

    /// The device in the same namespace through which this one sends (VLAN, macvlan, tunnel). The other end
    /// of a pair also stands in `IFLA_LINK`, but is beside, not below.
    #[must_use]
    pub fn lower(&self) -> Option<u32> {
        let paired = matches!(self.kind.as_deref(), Some("veth" | "netkit" | "vxcan"));
        self.link.filter(|&below| !paired && self.link_netnsid.is_none() && below != self.index)
    }
}

/// All devices of the namespace.
pub fn list(netlink: &mut Netlink) -> Result<Vec<Link>, NetlinkError> {
    const WHAT: &str = "listing network devices";
    netlink.dump(WHAT, &RouteNetlinkMessage::GetLink(query()), |links: &mut Vec<Link>, _, payload| {
        links.push(parse(WHAT, payload)?);
        Ok(())
    })
}

/// The device of this name; none if there is none.
pub fn by_name(netlink: &mut Netlink, name: &str) -> Result<Option<Link>, NetlinkError> {
    let mut message = query();
    message.attributes.push(LinkAttribute::IfName(name.to_owned()));
    get(netlink, message)
}

/// The device with this index; none if there is none.
pub fn by_index(netlink: &mut Netlink, index: u32) -> Result<Option<Link>, NetlinkError> {
    let mut message = query();
    message.header.index = index;
    get(netlink, message)
}

/// Sets a device up.
pub fn set_up(netlink: &mut Netlink, index: u32) -> Result<(), NetlinkError> {
    let mut message = LinkMessage::default();
    message.header.index = index;
    message.header.flags = LinkFlags::Up;
    message.header.change_mask = LinkFlags::Up;
    netlink.change("setting a device up", RouteNetlinkMessage::SetLink(message), 0)
}

/// Makes a device silent (NOARP) and gives it a queue and an MTU, in packets and bytes. Before it is up.
pub fn prepare(netlink: &mut Netlink, index: u32, queue_len: u32, mtu: u32) -> Result<(), NetlinkError> {
    let mut message = LinkMessage::default();
    message.header.index = index;
    message.header.flags = LinkFlags::Noarp;
    message.header.change_mask = LinkFlags::Noarp;
    message.attributes = vec![LinkAttribute::Mtu(mtu), LinkAttribute::TxQueueLen(queue_len)];
    netlink.change("preparing a private device", RouteNetlinkMessage::SetLink(message), 0)
}

/// Keeps the kernel from giving a device an IPv6 address of its own. Call it before the device is up.
///
/// A kernel without IPv6 has nothing to switch off, and that is fine.
pub fn no_ipv6_address(netlink: &mut Netlink, index: u32) -> Result<(), NetlinkError> {
    let mut message = LinkMessage::default();
    message.header.index = index;
    let mode = AfSpecInet6::AddrGenMode(In6AddrGenMode::None);
    message.attributes.push(LinkAttribute::AfSpecUnspec(vec![AfSpecUnspec::Inet6(vec![mode])]));
    match netlink.change("switching off IPv6 addresses on a device", RouteNetlinkMessage::SetLink(message), 0)
    {
        Err(error) if error.errno() == Some(Errno::EAFNOSUPPORT) => Ok(()),
        other => other,
    }
}

/// Deletes a device (a veth pair goes with either end). True if it was there.
pub fn delete(netlink: &mut Netlink, index: u32) -> Result<bool, NetlinkError> {
    let mut message = LinkMessage::default();
    message.header.index = index;
    match netlink.change("deleting a device", RouteNetlinkMessage::DelLink(message), 0) {
        Err(error) if error.errno() == Some(Errno::ENODEV) => Ok(false),
        other => other.map(|()| true),
    }
}

/// [`delete`], by name. True if it was there.
pub fn delete_by_name(netlink: &mut Netlink, name: &str) -> Result<bool, NetlinkError> {
    match by_name(netlink, name)? {
        Some(link) => delete(netlink, link.index),
        None => Ok(false),
    }
}

/// A request for devices that leaves the statistics out, which are most of an answer.
fn query() -> LinkMessage {
    let mut message = LinkMessage::default();
    message.attributes.push(LinkAttribute::ExtMask(vec![LinkExtentMask::SkipStats]));
    message
}

fn get(netlink: &mut Netlink, message: LinkMessage) -> Result<Option<Link>, NetlinkError> {
    const WHAT: &str = "looking a network device up";
    let mut found = None;
    let answer = netlink.request(WHAT, RouteNetlinkMessage::GetLink(message), 0, &mut |_, payload| {
        found = Some(parse(WHAT, payload)?);
        Ok(())
    });
    match answer {
        Err(error) if error.errno() == Some(Errno::ENODEV) => Ok(None),
        other => other.map(|()| found),
    }
}

/// Reads the attributes we use and no others: a device kind that the parser of a library does not know must
/// not hide the whole list.
fn parse(what: &'static str, payload: &[u8]) -> Result<Link, NetlinkError> {
    let fail = |error: netlink_packet_core::DecodeError| NetlinkError::decode(what, &error);
    let header = LinkHeader::parse(payload).map_err(fail)?;
    let mut link = Link {
        index: header.index,
        name: String::new(),
        kind: None,
        flags: header.flags,
        link_layer_type: header.link_layer_type.into(),
        address: Vec::new(),
        master: None,
        master_kind: None,
        link: None,
        link_netnsid: None,
        remote: None,
        mtu: 0,
    };
    for attribute in NlasIterator::new(payload.get(LINK_HEADER_BYTES..).unwrap_or_default()) {
        read_attribute(&mut link, &attribute.map_err(fail)?).map_err(fail)?;
    }
    Ok(link)
}

fn read_attribute(
    link: &mut Link,
    attribute: &NlaBuffer<&[u8]>,
) -> Result<(), netlink_packet_core::DecodeError> {
    let value = attribute.value();
    match attribute.kind() {
        IFLA_ADDRESS => link.address = value.to_vec(),
        IFLA_IFNAME => link.name = parse_string(value)?,
        IFLA_MTU => link.mtu = parse_u32(value)?,
        IFLA_MASTER => link.master = Some(parse_u32(value)?),
        IFLA_LINK => link.link = Some(parse_u32(value)?).filter(|&index| index != 0),
        IFLA_LINK_NETNSID => link.link_netnsid = Some(parse_i32(value)?).filter(|&id| id >= 0),
        IFLA_LINKINFO => {
            // The kernel tells the kind before what only this kind has (`rtnl_link_info_fill`, Linux 6.18).
            for info in NlasIterator::new(value) {
                let info = info?;
                match info.kind() {
                    IFLA_INFO_KIND => link.kind = Some(parse_string(info.value())?),
                    IFLA_INFO_DATA => link.remote = tunnel::remote(link.kind.as_deref(), info.value())?,
                    IFLA_INFO_SLAVE_KIND => link.master_kind = Some(parse_string(info.value())?),
                    _ => {}
                }
            }
        }
        _ => {}
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn veth(link: u32, link_netnsid: Option<i32>) -> Link {
        Link {
            index: 5,
            name: "eth0".to_owned(),
            kind: Some("veth".to_owned()),
            flags: LinkFlags::Up,
            link_layer_type: libc::ARPHRD_ETHER,
            address: vec![2, 0, 0, 0, 0, 1],
            master: None,
            master_kind: None,
            link: Some(link),
            link_netnsid,
            remote: None,
            mtu: 1500,
        }
    }

    #[test]
    fn the_other_end_of_a_pair_is_not_below() {
        assert_eq!(veth(6, None).lower(), None);
        let vlan = Link { kind: Some("vlan".to_owned()), ..veth(6, None) };
        assert_eq!(vlan.lower(), Some(6));
        assert_eq!(Link { link_netnsid: Some(0), ..vlan }.lower(), None);
    }

    #[test]
    fn a_member_of_a_vrf_is_no_port() {
        let port = Link { master: Some(9), master_kind: Some("bridge".to_owned()), ..veth(6, None) };
        assert!(port.is_port());
        assert!(!Link { master_kind: Some("vrf".to_owned()), ..port }.is_port());
    }

    #[test]
    fn devices_without_a_mac_header_are_told_apart() {
        let tun = Link { link_layer_type: 0xfffe, ..veth(6, None) };
        assert!(!tun.has_ethernet_header());
        assert!(veth(6, None).has_ethernet_header());
        assert!(Link { link_layer_type: ARPHRD_LOOPBACK, ..tun }.has_ethernet_header());
    }
}
