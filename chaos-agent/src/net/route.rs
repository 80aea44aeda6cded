//! Where a packet to an address would go.

use std::net::IpAddr;

use netlink_packet_core::{NetlinkDeserializable, NetlinkHeader};
use netlink_packet_route::{
    AddressFamily, RouteNetlinkMessage,
    route::{RouteAddress, RouteAttribute, RouteMessage, RouteType},
};
use nix::errno::Errno;

use super::netlink::{Netlink, NetlinkError};

/// The route the kernel would take.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Route {
    /// Index of the device it leaves by.
    pub device: u32,
    /// Next hop; none when the destination is on the link.
    pub gateway: Option<IpAddr>,
    /// Source address the kernel would choose.
    pub source: Option<IpAddr>,
    /// The destination is an address of this namespace itself.
    pub local: bool,
}

/// Asks the kernel how this namespace would reach `destination`; none = not at all (no route, or one that
/// says unreachable, prohibit, blackhole or throw).
pub fn lookup(netlink: &mut Netlink, destination: IpAddr) -> Result<Option<Route>, NetlinkError> {
    const WHAT: &str = "looking a route up";
    let mut message = RouteMessage::default();
    let (family, address, prefix) = match destination {
        IpAddr::V4(addr) => (AddressFamily::Inet, RouteAddress::Inet(addr), 32),
        IpAddr::V6(addr) => (AddressFamily::Inet6, RouteAddress::Inet6(addr), 128),
    };
    message.header.address_family = family;
    message.header.destination_prefix_length = prefix;
    message.attributes.push(RouteAttribute::Destination(address));
    let mut found = None;
    let answer = netlink.request(WHAT, RouteNetlinkMessage::GetRoute(message), 0, &mut |kind, payload| {
        found = read(WHAT, kind, payload)?;
        Ok(())
    });
    match answer {
        // What fib_lookup answers for the kinds of route that lead nowhere (`fib_props`, net/ipv4/fib_semantics.c).
        Err(error) if error.errno().is_some_and(leads_nowhere) => Ok(None),
        other => other.map(|()| found),
    }
}

fn leads_nowhere(errno: Errno) -> bool {
    matches!(
        errno,
        Errno::ENETUNREACH
            | Errno::EHOSTUNREACH
            | Errno::EACCES
            | Errno::EAGAIN
            | Errno::ESRCH
            | Errno::EINVAL
    )
}

fn read(what: &'static str, kind: u16, payload: &[u8]) -> Result<Option<Route>, NetlinkError> {
    let mut header = NetlinkHeader::default();
    header.message_type = kind;
    let message = RouteNetlinkMessage::deserialize(&header, payload)
        .map_err(|error| NetlinkError::decode(what, &error))?;
    let RouteNetlinkMessage::NewRoute(message) = message else { return Ok(None) };
    if !matches!(
        message.header.kind,
        RouteType::Unicast
            | RouteType::Local
            | RouteType::Broadcast
            | RouteType::Multicast
            | RouteType::Anycast
    ) {
        return Ok(None);
    }
    let mut route =
        Route { device: 0, gateway: None, source: None, local: message.header.kind == RouteType::Local };
    for attribute in &message.attributes {
        if let RouteAttribute::Oif(index) = attribute {
            route.device = *index;
        } else if let RouteAttribute::Gateway(address) = attribute {
            route.gateway = ip(address);
        } else if let RouteAttribute::PrefSource(address) = attribute {
            route.source = ip(address);
        }
    }
    Ok(Some(route).filter(|route| route.device != 0))
}

fn ip(address: &RouteAddress) -> Option<IpAddr> {
    if let RouteAddress::Inet(addr) = address {
        return Some((*addr).into());
    }
    if let RouteAddress::Inet6(addr) = address { Some((*addr).into()) } else { None }
}
