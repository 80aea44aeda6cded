//! A private veth pair: one end here, the other in a namespace of its own.

use std::os::fd::{AsFd, AsRawFd};

use netlink_packet_core::{NLM_F_CREATE, NLM_F_EXCL};
use netlink_packet_route::{
    RouteNetlinkMessage,
    link::{InfoData, InfoKind, InfoVeth, LinkAttribute, LinkFlags, LinkInfo, LinkMessage},
};

use super::{
    link,
    netlink::{Netlink, NetlinkError},
};
use crate::netns::{Netns, NetnsError};

/// How to make a pair.
#[derive(Clone, Copy, Debug)]
pub struct VethSpec<'a> {
    /// Name of the end in the calling thread's namespace; at most 15 bytes.
    pub near: &'a str,
    /// Name of the end in the other namespace; at most 15 bytes.
    pub far: &'a str,
    /// Packets that may wait in each end's queue.
    pub tx_queue_len: u32,
    /// Largest packet, in bytes, without the Ethernet header. 65535 lets every packet of a machine through.
    pub mtu: u32,
}

/// The interface indices of a pair, each valid in its own namespace.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct VethPair {
    /// In the calling thread's namespace.
    pub near: u32,
    /// In the other one.
    pub far: u32,
}

/// Why a pair could not be made.
#[derive(Debug, thiserror::Error)]
pub enum VethError {
    /// The kernel refused.
    #[error(transparent)]
    Netlink(#[from] NetlinkError),
    /// The far namespace could not be entered.
    #[error(transparent)]
    Netns(#[from] NetnsError),
    /// Made, but gone before it could be set up.
    #[error("the private device `{0}` vanished while it was made; try again")]
    Vanished(String),
}

/// Makes a pair in one request: near end in this thread's namespace, far end in `far_namespace`, both NOARP,
/// one queue each, at most one segment per packet (`gso_max_segs` 1), without IPv6 addresses, and up.
///
/// On an error nothing is left. The pair has no owner: it ends with [`link::delete`] or with either
/// namespace. Needs `CAP_NET_ADMIN` in both namespaces.
pub fn create(
    netlink: &mut Netlink,
    spec: &VethSpec<'_>,
    far_namespace: &Netns,
) -> Result<VethPair, VethError> {
    let mut far = end(spec.far, spec);
    far.attributes.push(LinkAttribute::NetNsFd(far_namespace.as_fd().as_raw_fd()));
    let mut near = end(spec.near, spec);
    near.attributes.push(LinkAttribute::LinkInfo(vec![
        LinkInfo::Kind(InfoKind::Veth),
        LinkInfo::Data(InfoData::Veth(InfoVeth::Peer(far))),
    ]));
    let message = RouteNetlinkMessage::NewLink(near);
    netlink.change("making a private veth pair", message, NLM_F_CREATE | NLM_F_EXCL)?;
    bring_up(netlink, spec, far_namespace).inspect_err(|_| {
        if let Err(error) = link::delete_by_name(netlink, spec.near) {
            tracing::warn!("the half-made device {} stays behind: {error}", spec.near);
        }
    })
}

/// One end's part of the request. NOARP at birth: the kernel would send neighbour discovery once it is up.
fn end(name: &str, spec: &VethSpec<'_>) -> LinkMessage {
    let mut message = LinkMessage::default();
    message.header.flags = LinkFlags::Noarp;
    message.header.change_mask = LinkFlags::Noarp;
    message.attributes = vec![
        LinkAttribute::IfName(name.to_owned()),
        LinkAttribute::Mtu(spec.mtu),
        LinkAttribute::TxQueueLen(spec.tx_queue_len),
        LinkAttribute::NumTxQueues(1),
        LinkAttribute::NumRxQueues(1),
        LinkAttribute::GsoMaxSegs(1),
    ];
    message
}

/// `IFLA_AF_SPEC` counts only when an existing device is changed (`rtnl_create_link` in
/// net/core/rtnetlink.c does not read it, 6.18), so the pair is made down and set up afterwards.
fn bring_up(
    netlink: &mut Netlink,
    spec: &VethSpec<'_>,
    far_namespace: &Netns,
) -> Result<VethPair, VethError> {
    let near = set_up_end(netlink, spec.near)?;
    let far = far_namespace.run(|| set_up_end(&mut Netlink::route()?, spec.far))??;
    Ok(VethPair { near, far })
}

fn set_up_end(netlink: &mut Netlink, name: &str) -> Result<u32, VethError> {
    let index = link::by_name(netlink, name)?.ok_or_else(|| VethError::Vanished(name.to_owned()))?.index;
    link::no_ipv6_address(netlink, index)?;
    link::set_up(netlink, index)?;
    Ok(index)
}
