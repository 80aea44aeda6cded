//! From a selector to namespaces, devices, cgroups and addresses.

use std::path::PathBuf;

use ipnet::IpNet;

/// Who a fault is for.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Target {
    /// This machine: the network namespace of pid 1.
    Host,
    /// A cgroup v2 directory and everything below it, relative to the cgroup2 mount.
    Cgroup(PathBuf),
    /// A systemd unit, with the sockets of the socket units that trigger it.
    Unit(String),
    /// A network namespace by its name under /run/netns.
    NetnsName(String),
    /// The network namespace of a process.
    Pid(i32),
    /// An address or a range of them; only as a peer.
    Net(IpNet),
    /// A host (name or address) and a port; only as a peer.
    HostPort {
        /// Name or address.
        host: String,
        /// TCP or UDP port.
        port: u16,
    },
}
