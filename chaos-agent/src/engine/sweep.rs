//! Removes what an agent that was killed, and whose guard was killed too, has left.

use std::collections::{BTreeMap, BTreeSet};

use super::registry::{self, Other};
use crate::{
    cgroup::Hierarchy,
    net::{
        Netlink, NetlinkError, link,
        tc::{self, OwnFilter, Side},
    },
    netns::{Netns, NetnsId},
    targets::all_pids,
};

/// Names of our programs in filters.
const FILTERS: [&str; 2] = ["chaos_egress", "chaos_ingress"];

/// Removes leftovers of agents that are dead; what it removed, in words. Quick when there are none.
#[expect(clippy::must_use_candidate, reason = "most callers only want it done")]
pub fn sweep() -> Vec<String> {
    let dead: Vec<Other> = registry::others().into_iter().filter(|other| !other.alive).collect();
    let mut removed = cgroups();
    if dead.is_empty() {
        return removed;
    }
    removed.extend(everywhere());
    for other in &dead {
        registry::forget(other);
    }
    removed
}

/// Looks through every namespace for what no living agent owns.
pub(super) fn everywhere() -> Vec<String> {
    let living: Vec<Other> = registry::others().into_iter().filter(|other| other.alive).collect();
    let programs: BTreeSet<u32> = living.iter().flat_map(|other| other.entry.programs.clone()).collect();
    let devices: BTreeSet<String> = living.iter().map(|other| format!("chaos-n{}", other.tag)).collect();
    let mut removed = Vec::new();
    for (netns, name) in namespaces().into_values() {
        match netns.run(|| clean(&programs, &devices)) {
            Ok(Ok(list)) => removed.extend(list.into_iter().map(|what| format!("{what} in {name}"))),
            Ok(Err(error)) => tracing::warn!("{name}: {error}"),
            Err(error) => tracing::debug!("{name}: {error}"),
        }
    }
    removed
}

/// Transient cgroups of commands that have ended.
fn cgroups() -> Vec<String> {
    let Ok(hierarchy) = Hierarchy::discover() else { return Vec::new() };
    hierarchy.sweep_stale().into_iter().map(|path| format!("cgroup {}", path.display())).collect()
}

/// Every namespace that has a name or a process, each once.
fn namespaces() -> BTreeMap<NetnsId, (Netns, String)> {
    let mut found = BTreeMap::new();
    for name in Netns::names() {
        if let Ok(netns) = Netns::by_name(&name) {
            found.insert(netns.id(), (netns, format!("the namespace {name}")));
        }
    }
    for pid in all_pids() {
        let Some(id) = NetnsId::of_pid(pid) else { continue };
        if !found.contains_key(&id)
            && let Ok(netns) = Netns::by_pid(pid)
        {
            found.insert(id, (netns, format!("the namespace of process {pid}")));
        }
    }
    found
}

/// In the calling thread's namespace.
fn clean(programs: &BTreeSet<u32>, devices: &BTreeSet<String>) -> Result<Vec<String>, NetlinkError> {
    let mut netlink = Netlink::route()?;
    let mut removed = Vec::new();
    for device in link::list(&mut netlink)? {
        if device.name.starts_with("chaos-n") && device.is_ours() && !devices.contains(&device.name) {
            if link::delete(&mut netlink, device.index)? {
                removed.push(format!("device {}", device.name));
            }
            continue;
        }
        let mut ours = 0;
        for side in [Side::Egress, Side::Ingress] {
            for filter in tc::filters(&mut netlink, device.index, side).unwrap_or_default() {
                let named = filter.name.as_deref().is_some_and(|name| FILTERS.contains(&name));
                let Some(program_id) = filter.program_id.filter(|id| named && !programs.contains(id)) else {
                    continue;
                };
                let own = OwnFilter {
                    interface: device.index,
                    side,
                    priority: filter.priority,
                    handle: filter.handle,
                    program_id,
                };
                tc::remove_filter(&mut netlink, &own)?;
                ours += 1;
            }
        }
        if ours > 0 {
            removed.push(format!("{ours} filters on {}", device.name));
            tc::remove_empty_clsact(&mut netlink, device.index)?;
        }
    }
    Ok(removed)
}
