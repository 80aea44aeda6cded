//! `host`: this machine.

use super::{Depth, Kind, NamespaceRef, Resolved, TargetError, identity};
use crate::netns::{Netns, NetnsError};

/// The network namespace of pid 1, also when we live in another one.
pub(super) struct Host;

impl Kind for Host {
    fn find(&mut self, depth: Depth) -> Result<Resolved, TargetError> {
        let found = namespace_of_machine()?;
        let identities = identity::of_namespace(&found.netns, depth)?;
        Ok(Resolved { namespaces: vec![found], cgroups: Vec::new(), identities })
    }

    fn stale(&mut self) -> bool {
        false
    }
}

/// Pid 1's namespace; our own where pid 1 does not let us look (it needs `PTRACE_MODE_READ`, which a
/// container or a restricted root may lack).
fn namespace_of_machine() -> Result<NamespaceRef, TargetError> {
    match Netns::by_pid(1) {
        Ok(netns) => Ok(NamespaceRef { netns, origin: "the namespace of pid 1".to_owned() }),
        Err(NetnsError::Denied { .. } | NetnsError::NoSuchProcess(_)) => Ok(NamespaceRef {
            netns: Netns::current()?,
            origin: "our own namespace, because that of pid 1 may not be read".to_owned(),
        }),
        Err(error) => Err(error.into()),
    }
}
