//! The hooks that book the ports of a target cgroup's sockets.

use std::{fs::File, path::Path};

use aya::{
    Ebpf,
    programs::{CgroupAttachMode, CgroupSock},
};

use super::{DatapathError, Object};

const HOOKS: [&str; 3] = ["chaos_bind4", "chaos_bind6", "chaos_release"];

/// The hooks on one cgroup directory; dropping them detaches.
pub struct OwnerHooks {
    _ebpf: Ebpf,
}

impl OwnerHooks {
    /// Attaches to the cgroup `id`, whose directory is `path`. Links end with the process
    /// (`BPF_LINK_CREATE` for cgroups, Linux 5.7).
    pub fn attach(object: &Object, id: u64, path: &Path) -> Result<Self, DatapathError> {
        let mut ebpf = object.instance(0, id)?;
        let directory = File::open(path).map_err(|error| DatapathError::io("opening a cgroup", error))?;
        for name in HOOKS {
            let missing = || DatapathError::Object(format!("no program `{name}`"));
            let program: &mut CgroupSock = ebpf
                .program_mut(name)
                .ok_or_else(missing)?
                .try_into()
                .map_err(|error| DatapathError::load(name, &error))?;
            program.load().map_err(|error| DatapathError::load(name, &error))?;
            // Links allow several programs whatever the mode; the other mode is refused with them.
            program
                .attach(&directory, CgroupAttachMode::Single)
                .map_err(|error| DatapathError::attach(&path.display().to_string(), "sockets", &error))?;
        }
        Ok(Self { _ebpf: ebpf })
    }
}
