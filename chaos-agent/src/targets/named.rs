//! `netns:name`: a namespace with a name.

use super::{Depth, Kind, NamespaceRef, Resolved, TargetError, identity};
use crate::netns::{Netns, NetnsId};

/// A namespace under /run/netns, which can be deleted and made again under the same name.
pub(super) struct Named {
    name: String,
    /// What the name stood for when last found. Held open: the kernel gives the inode number of a namespace
    /// that ended to the next one, so only a held one can be told from its successor.
    held: Option<Netns>,
}

impl Named {
    pub(super) fn new(name: &str) -> Self {
        Self { name: name.to_owned(), held: None }
    }
}

impl Kind for Named {
    fn find(&mut self, depth: Depth) -> Result<Resolved, TargetError> {
        self.held = None;
        let netns = Netns::by_name(&self.name)?;
        self.held = Some(netns.clone());
        let identities = identity::of_namespace(&netns, depth)?;
        let origin = format!("netns {}", self.name);
        Ok(Resolved { namespaces: vec![NamespaceRef { netns, origin }], cgroups: Vec::new(), identities })
    }

    fn stale(&mut self) -> bool {
        let now = Netns::path_of_name(&self.name).ok().and_then(|path| NetnsId::of_path(&path).ok());
        now != self.held.as_ref().map(Netns::id)
    }
}
