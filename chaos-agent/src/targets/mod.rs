//! From a selector to namespaces, cgroups and addresses.
//!
//! One file per kind of target; each knows how to find its target and how to notice cheaply that it moved.

mod address;
mod cgroup;
mod host;
mod identity;
mod named;
mod parse;
mod pid;
mod procs;
mod unit;
mod unit_files;
mod watch;

use std::{io, path::PathBuf};

use ipnet::IpNet;

pub use self::{
    address::addresses_of,
    identity::{Identity, visible_from},
    parse::{ACCEPTED, TargetParseError},
    unit::UnitFinder,
    watch::Watcher,
};
pub(crate) use self::{identity::subtree_ids, procs::all_pids};
pub use crate::cgroup::CgroupRef;
use crate::{cgroup::CgroupError, net::NetlinkError, netns::Netns, netns::NetnsError};

/// Who a fault is for.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
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

impl Target {
    /// Names somebody else's end, so that no program can be attached to it.
    #[must_use]
    pub fn is_peer_only(&self) -> bool {
        matches!(self, Self::Net(_) | Self::HostPort { .. })
    }
}

/// A namespace in which a target lives.
#[derive(Clone, Debug)]
pub struct NamespaceRef {
    /// The namespace, held open.
    pub netns: Netns,
    /// Why it is meant, for people: a name, a process, a fallback with its reason.
    pub origin: String,
}

/// What a target is at this moment.
#[derive(Clone, Debug, Default)]
pub struct Resolved {
    /// Where to attach. Empty for a target that has vanished, and for peers that are only addresses.
    pub namespaces: Vec<NamespaceRef>,
    /// Whose packets in these namespaces; empty = everybody's.
    pub cgroups: Vec<CgroupRef>,
    /// How others can see it.
    pub identities: Vec<Identity>,
}

impl Resolved {
    /// The target is not there (any more): nothing to attach to, nobody to match.
    #[must_use]
    pub fn is_vanished(&self) -> bool {
        self.namespaces.is_empty() && self.cgroups.is_empty() && self.identities.is_empty()
    }

    /// The same namespaces and cgroups, in whatever order.
    #[must_use]
    pub fn same_place(&self, other: &Self) -> bool {
        let place = |resolved: &Self| {
            let mut namespaces: Vec<_> = resolved.namespaces.iter().map(|found| found.netns.id()).collect();
            let mut cgroups: Vec<_> = resolved.cgroups.iter().map(|found| found.id).collect();
            namespaces.sort_unstable();
            cgroups.sort_unstable();
            (namespaces, cgroups)
        };
        place(self) == place(other)
    }
}

/// Why a target could not be resolved.
#[derive(Debug, thiserror::Error)]
pub enum TargetError {
    /// A namespace could not be opened or entered.
    #[error(transparent)]
    Netns(#[from] NetnsError),
    /// A cgroup could not be found.
    #[error(transparent)]
    Cgroup(#[from] CgroupError),
    /// Sockets or addresses could not be listed.
    #[error(transparent)]
    Netlink(#[from] NetlinkError),
    /// No such unit runs.
    #[error(
        "no unit {name} runs: there is no directory of that name below {}; start it (systemctl start {name}) \
         or see what runs: systemctl list-units",
        mount.display()
    )]
    NoUnit {
        /// The full name.
        name: String,
        /// Where the cgroup tree is.
        mount: PathBuf,
    },
    /// Several user managers run a unit of this name.
    #[error("{name} runs more than once: {}; name the one you mean, as cgroup:/PATH", list(paths))]
    AmbiguousUnit {
        /// The full name.
        name: String,
        /// Their cgroups.
        paths: Vec<PathBuf>,
    },
    /// A name that cannot be resolved, or to nothing.
    #[error(
        "`{host}` could not be resolved: {source}; use a name that `getent ahosts {host}` knows, or an address"
    )]
    Unresolvable {
        /// The name.
        host: String,
        /// What the resolver said.
        source: io::Error,
    },
    /// The process could not be watched.
    #[error("watching process {pid}: {source}")]
    Pid {
        /// Its number.
        pid: i32,
        /// The kernel's answer.
        source: io::Error,
    },
}

fn list(paths: &[PathBuf]) -> String {
    paths.iter().map(|path| path.display().to_string()).collect::<Vec<_>>().join(", ")
}

impl TargetError {
    /// The target is not there, as opposed to: it could not be looked at.
    #[must_use]
    pub fn is_gone(&self) -> bool {
        matches!(
            self,
            Self::NoUnit { .. }
                | Self::Netns(
                    NetnsError::NoSuchName { .. }
                        | NetnsError::NoSuchProcess(_)
                        | NetnsError::NotANamespace(_)
                )
                | Self::Cgroup(CgroupError::NotFound { .. })
        )
    }
}

/// Finds out what a target is now. For a name in [`Target::HostPort`] it asks in the caller's namespace; see
/// [`addresses_of`] for another one.
pub fn resolve(target: &Target) -> Result<Resolved, TargetError> {
    watch::kind_of(target)?.find(Depth::Identities)
}

/// How much to find out.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Depth {
    /// Namespaces and cgroups.
    Place,
    /// The identities too, which means to list sockets and addresses.
    Identities,
}

/// A kind of target: finds it, and notices that it may have moved.
trait Kind: Send {
    /// Looks thoroughly. An error with [`TargetError::is_gone`] means that there is nothing to find now.
    fn find(&mut self, depth: Depth) -> Result<Resolved, TargetError>;

    /// Whether [`Self::find`] is worth its cost. Called every 50 ms: some `stat`s at most.
    fn stale(&mut self) -> bool;
}
