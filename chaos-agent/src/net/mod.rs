//! Netlink: links, addresses, routes, sockets.
