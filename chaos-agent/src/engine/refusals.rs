//! Faults that answer connect(2): where they apply, and their hooks. What they cannot be asked for
//! says [`crate::validate`].

use std::{
    collections::{BTreeMap, BTreeSet},
    path::PathBuf,
};

use chaos_common::compile::{ConnectPlace, Tables};

use super::types::EngineError;
use crate::{
    cgroup::{CgroupError, CgroupRef, Hierarchy},
    datapath::{ConnectHooks, DatapathError, Object, can_refuse},
    spec::RuleSpec,
};

/// The hook of whoever calls, in whatever cgroup.
const ROOT: u64 = 0;

/// Hooks on the cgroups whose callers they answer; [`ROOT`] = all.
#[derive(Default)]
pub(super) struct Refusals {
    hooks: ConnectHooks,
}

impl Refusals {
    /// Puts hooks where the tables that are about to be armed need them and none is. A cgroup that
    /// went away meanwhile is no error: its watcher will say so.
    ///
    /// # Errors
    /// On a kernel that cannot choose the errno, and without cgroup v2.
    pub(super) fn cover(
        &mut self,
        object: &Object,
        hierarchy: Option<&Hierarchy>,
        cgroups: &BTreeMap<u64, CgroupRef>,
        tables: &Tables,
    ) -> Result<(), EngineError> {
        let new: Vec<u64> = wanted(tables).filter(|id| !self.hooks.contains(*id)).collect();
        if new.is_empty() {
            return Ok(());
        }
        if !can_refuse() {
            return Err(EngineError::Refused(
                "this kernel cannot choose the error of a refused connect() (bpf_set_retval, Linux 5.18): it would always be EPERM; --reject and --reset syn refuse connections on the wire and work here".to_owned(),
            ));
        }
        let hierarchy = hierarchy.ok_or_else(|| refused(&CgroupError::NotMounted))?;
        for id in new {
            let Some(directory) = directory(hierarchy, cgroups, id)? else { continue };
            match self.hooks.attach(object, id, &directory) {
                Ok(()) => {}
                Err(DatapathError::Io { .. } | DatapathError::Attach { .. }) if !directory.exists() => {}
                Err(error) => return Err(error.into()),
            }
        }
        Ok(())
    }

    /// Takes hooks off where the tables that are armed now need none.
    pub(super) fn release(&mut self, tables: &Tables) {
        let wanted: BTreeSet<u64> = wanted(tables).collect();
        self.hooks.retain(|id| wanted.contains(&id));
    }
}

fn wanted(tables: &Tables) -> impl Iterator<Item = u64> {
    tables.connects.iter().map(|entry| entry.cgroup)
}

fn refused(error: &CgroupError) -> EngineError {
    EngineError::Refused(format!("connect() is answered where the caller's cgroup is: {error}"))
}

/// Where the hook of a cgroup goes; none = it is gone.
fn directory(
    hierarchy: &Hierarchy,
    cgroups: &BTreeMap<u64, CgroupRef>,
    id: u64,
) -> Result<Option<PathBuf>, EngineError> {
    if id != ROOT {
        return Ok(cgroups.get(&id).and_then(|cgroup| hierarchy.directory(&cgroup.path).ok()));
    }
    // Inside a cgroup namespace the mount is not the root, and others' calls would go on.
    let root = hierarchy.resolve("/".as_ref()).map_err(|error| refused(&error))?;
    hierarchy.directory(&root.path).map(Some).map_err(|error| refused(&error))
}

/// Where a rule answers connect(2) in the namespace `netns`: the hooks of its cgroups, or, for a
/// whole namespace, of the root.
pub(super) fn places(spec: &RuleSpec, cgroups: &[u64], netns: u64, protect: bool) -> Vec<ConnectPlace> {
    if !spec.faults.acts_on_connect() {
        return Vec::new();
    }
    let place = |cgroup: u64| ConnectPlace { netns, cgroup, protect };
    if cgroups.is_empty() { vec![place(ROOT)] } else { cgroups.iter().copied().map(place).collect() }
}
