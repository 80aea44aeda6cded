//! IP addresses of a namespace.

use std::net::IpAddr;

use ipnet::IpNet;
use netlink_packet_route::{
    RouteNetlinkMessage,
    address::{AddressAttribute, AddressMessage, AddressScope},
};

use super::netlink::{Netlink, NetlinkError};

/// An address on a device.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct Address {
    /// Index of the device.
    pub index: u32,
    /// The address with the length of its prefix.
    pub net: IpNet,
    /// Valid everywhere (`RT_SCOPE_UNIVERSE`), unlike link-local and host addresses.
    pub global: bool,
}

impl Address {
    /// The address itself.
    #[must_use]
    pub fn addr(&self) -> IpAddr {
        self.net.addr()
    }
}

/// All IPv4 and IPv6 addresses of the namespace.
pub fn list(netlink: &mut Netlink) -> Result<Vec<Address>, NetlinkError> {
    let messages = netlink
        .dump_route("listing addresses", &RouteNetlinkMessage::GetAddress(AddressMessage::default()))?;
    Ok(messages
        .into_iter()
        .filter_map(|message| {
            if let RouteNetlinkMessage::NewAddress(message) = message { read(&message) } else { None }
        })
        .collect())
}

/// On a point-to-point device `IFA_ADDRESS` is the other side and `IFA_LOCAL` ours (`if_addr.h`); IPv6 often
/// has no `IFA_LOCAL`.
fn read(message: &AddressMessage) -> Option<Address> {
    let (mut local, mut address) = (None, None);
    for attribute in &message.attributes {
        if let AddressAttribute::Local(addr) = attribute {
            local = Some(*addr);
        } else if let AddressAttribute::Address(addr) = attribute {
            address = Some(*addr);
        }
    }
    let addr = local.or(address)?;
    Some(Address {
        index: message.header.index,
        net: IpNet::new(addr, message.header.prefix_len).ok()?,
        global: message.header.scope == AddressScope::Universe,
    })
}
