//! `cgroup:/path`: the processes of a cgroup and everything below it.

use std::{
    collections::HashSet,
    fs,
    os::unix::fs::MetadataExt,
    path::{Path, PathBuf},
    time::Instant,
};

use super::{Depth, Kind, NamespaceRef, Resolved, TargetError, identity, procs, watch::SCAN_INTERVAL};
use crate::{
    cgroup::{CgroupRef, Hierarchy},
    netns::Netns,
};

/// A cgroup by its path.
pub(super) struct Cgroup {
    hierarchy: Hierarchy,
    path: PathBuf,
    eye: Eye,
}

impl Cgroup {
    pub(super) fn new(hierarchy: Hierarchy, path: &Path) -> Self {
        Self { hierarchy, path: path.to_owned(), eye: Eye::default() }
    }
}

impl Kind for Cgroup {
    fn find(&mut self, depth: Depth) -> Result<Resolved, TargetError> {
        let directory = self.hierarchy.directory(&self.path)?;
        self.eye.look_at(vec![directory]);
        let found = self.hierarchy.resolve(&self.path)?;
        resolve_cgroups(&self.hierarchy, vec![found], depth)
    }

    fn stale(&mut self) -> bool {
        self.eye.sees_change()
    }
}

/// What a set of cgroups is: its namespaces, and how others see it.
pub(super) fn resolve_cgroups(
    hierarchy: &Hierarchy,
    cgroups: Vec<CgroupRef>,
    depth: Depth,
) -> Result<Resolved, TargetError> {
    let mut pids = Vec::new();
    let mut namespaces = Vec::new();
    for cgroup in &cgroups {
        let members = hierarchy.pids(&cgroup.path)?;
        let found = procs::namespaces_of(&members, &format!("cgroup {}", cgroup.path.display()));
        let new =
            |found: &NamespaceRef| !namespaces.iter().any(|known: &NamespaceRef| known.netns == found.netns);
        let new: Vec<_> = found.into_iter().filter(new).collect();
        namespaces.extend(new);
        pids.extend(members);
    }
    if namespaces.is_empty() {
        let why = if pids.is_empty() {
            "no process is in the cgroup yet"
        } else {
            "the namespaces of the cgroup's processes may not be read"
        };
        let origin = format!("our own namespace, because {why}");
        namespaces.push(NamespaceRef { netns: Netns::current()?, origin });
    }
    let pids: HashSet<i32> = pids.into_iter().collect();
    let identities = match depth {
        Depth::Place => Vec::new(),
        Depth::Identities => identity::of_cgroups(hierarchy, &cgroups, &namespaces, &pids)?,
    };
    Ok(Resolved { namespaces, cgroups, identities })
}

/// Watches directories: their inodes and whether they are populated on every look, all else twice a second.
#[derive(Default)]
pub(super) struct Eye {
    seen: Vec<(PathBuf, Option<Sight>)>,
    next_scan: Option<Instant>,
}

#[derive(Clone, Copy, PartialEq, Eq)]
struct Sight {
    inode: u64,
    populated: bool,
}

impl Eye {
    /// Remembers how these directories are now; call it before reading what is in them.
    pub(super) fn look_at(&mut self, directories: Vec<PathBuf>) {
        self.seen = directories
            .into_iter()
            .map(|path| {
                let sight = sight(&path);
                (path, sight)
            })
            .collect();
        self.next_scan = Some(Instant::now() + SCAN_INTERVAL);
    }

    /// A directory came, went, was made anew, filled or emptied; or the time for a thorough look has come.
    pub(super) fn sees_change(&self) -> bool {
        self.next_scan.is_none_or(|next| Instant::now() >= next)
            || self.seen.iter().any(|(path, then)| sight(path) != *then)
    }
}

fn sight(directory: &Path) -> Option<Sight> {
    let inode = fs::metadata(directory).ok()?.ino();
    // The root has no cgroup.events and is never empty.
    let events = fs::read_to_string(directory.join("cgroup.events"));
    Some(Sight { inode, populated: events.map_or(true, |events| events.contains("populated 1")) })
}
