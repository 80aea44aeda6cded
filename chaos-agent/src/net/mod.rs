//! Netlink: links, addresses, routes, sockets; and what netlink cannot do, by ioctl and sysfs.
//!
//! Everything here acts in the network namespace of the calling thread: call it inside
//! [`crate::netns::Netns::run`]. A [`netlink::Netlink`] or [`watch::LinkWatch`] stays in the namespace
//! where it was opened.

pub mod addr;
pub mod link;
pub mod netlink;
pub mod offload;
pub mod route;
pub mod sockets;
pub mod tap;
pub mod tc;
mod tunnel;
pub mod veth;
pub mod watch;
pub mod wireguard;

pub use netlink::{Netlink, NetlinkError};
