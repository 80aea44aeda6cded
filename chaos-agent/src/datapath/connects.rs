//! The hooks that answer connect(2) of a cgroup's processes.

use std::{fs::File, path::Path};

use aya::{
    Ebpf,
    programs::{CgroupAttachMode, CgroupSockAddr, ProgramType},
    sys::{BpfHelper, is_helper_supported},
};

use super::{DatapathError, Object};

const HOOKS: [&str; 2] = ["chaos_connect4", "chaos_connect6"];

/// The hooks on one cgroup directory; dropping them detaches.
pub struct ConnectHooks {
    _ebpf: Ebpf,
}

impl ConnectHooks {
    /// Attaches to the directory `path`, for the rules about the cgroup `id`; 0 = the root, for rules
    /// about whoever calls. Links end with the process (`BPF_LINK_CREATE` for cgroups, Linux 5.7).
    ///
    /// # Errors
    /// On a kernel that cannot choose the errno ([`can_refuse`]), and when the directory is gone.
    pub fn attach(object: &Object, id: u64, path: &Path) -> Result<Self, DatapathError> {
        let mut ebpf = object.instance(0, id)?;
        let directory = File::open(path).map_err(|error| DatapathError::io("opening a cgroup", error))?;
        for name in HOOKS {
            let missing = || DatapathError::Object(format!("no program `{name}`"));
            let program: &mut CgroupSockAddr = ebpf
                .program_mut(name)
                .ok_or_else(missing)?
                .try_into()
                .map_err(|error| DatapathError::load(name, &error))?;
            program.load().map_err(|error| DatapathError::load(name, &error))?;
            // Links allow several programs whatever the mode; the other mode is refused with them.
            program
                .attach(&directory, CgroupAttachMode::Single)
                .map_err(|error| DatapathError::attach(&path.display().to_string(), "connect()", &error))?;
        }
        Ok(Self { _ebpf: ebpf })
    }
}

/// Whether the errno of a refused connect(2) can be chosen: `bpf_set_retval`, Linux 5.18. Before,
/// a hook can only say `EPERM`.
#[must_use]
pub(crate) fn can_refuse() -> bool {
    // Where it cannot be asked (no privileges), loading will say why.
    is_helper_supported(ProgramType::CgroupSockAddr, BpfHelper::BPF_FUNC_set_retval).unwrap_or(true)
}
