//! Which processes are in which namespace.

use std::{
    collections::{BTreeMap, HashSet},
    fs,
};

use super::NamespaceRef;
use crate::netns::{Netns, NetnsId};

/// Numbers of all processes we can see.
pub(crate) fn all_pids() -> Vec<i32> {
    let Ok(entries) = fs::read_dir("/proc") else { return Vec::new() };
    entries.flatten().filter_map(|entry| entry.file_name().to_str()?.parse().ok()).collect()
}

/// The distinct namespaces of these processes, each with its lowest pid as origin. Processes that end
/// meanwhile are left out.
pub(super) fn namespaces_of(pids: &[i32], origin: &str) -> Vec<NamespaceRef> {
    let mut first: BTreeMap<NetnsId, i32> = BTreeMap::new();
    for &pid in pids {
        if let Some(id) = NetnsId::of_pid(pid) {
            first.entry(id).and_modify(|lowest| *lowest = pid.min(*lowest)).or_insert(pid);
        }
    }
    first
        .into_values()
        .filter_map(|pid| {
            let netns = Netns::by_pid(pid).ok()?;
            Some(NamespaceRef { netns, origin: format!("{origin}, namespace of pid {pid}") })
        })
        .collect()
}

/// Whether every process in the namespace is one of these.
pub(super) fn owns_wholly(netns: &Netns, pids: &HashSet<i32>) -> bool {
    all_pids()
        .into_iter()
        .filter(|pid| !pids.contains(pid))
        .all(|pid| NetnsId::of_pid(pid) != Some(netns.id()))
}
