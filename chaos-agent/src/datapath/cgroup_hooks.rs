//! The hooks on a target's cgroup: those that book the ports of its sockets, and those that answer its calls of
//! connect(2).

use std::{fs::File, path::Path};

use aya::{
    Ebpf,
    programs::{CgroupAttachMode, CgroupSock, CgroupSockAddr, Program, ProgramError, ProgramType},
    sys::{BpfHelper, is_helper_supported},
};

use super::{DatapathError, Object};

const OWNERS: [&str; 3] = ["chaos_bind4", "chaos_bind6", "chaos_release"];
const CONNECTS: [&str; 2] = ["chaos_connect4", "chaos_connect6"];

/// Hooks on one cgroup directory; dropping them detaches.
pub struct CgroupHooks {
    _ebpf: Ebpf,
}

impl CgroupHooks {
    /// Books the ports of the cgroup `id`, whose directory is `path`. Links end with the process
    /// (`BPF_LINK_CREATE` for cgroups, Linux 5.7).
    ///
    /// # Errors
    /// What the kernel says; the directory is gone.
    pub fn owners(object: &Object, id: u64, path: &Path) -> Result<Self, DatapathError> {
        Self::attach::<CgroupSock>(object, (id, path), &OWNERS, "sockets")
    }

    /// Answers calls in the directory `path`, for the rules about the cgroup `id`; 0 = the root, for rules about
    /// whoever calls.
    ///
    /// # Errors
    /// On a kernel that cannot choose the errno ([`can_refuse`]), and when the directory is gone.
    pub fn connects(object: &Object, id: u64, path: &Path) -> Result<Self, DatapathError> {
        Self::attach::<CgroupSockAddr>(object, (id, path), &CONNECTS, "connect()")
    }

    fn attach<H: Hook>(
        object: &Object,
        (id, path): (u64, &Path),
        names: &[&str],
        what: &'static str,
    ) -> Result<Self, DatapathError> {
        let mut ebpf = object.instance(0, id)?;
        let directory = File::open(path).map_err(|error| DatapathError::io("opening a cgroup", error))?;
        for name in names {
            let missing = || DatapathError::Object(format!("no program `{name}`"));
            let program = ebpf.program_mut(name).ok_or_else(missing)?;
            H::load(program).map_err(|error| DatapathError::load(name, &error))?;
            H::attach(program, &directory)
                .map_err(|error| DatapathError::attach(&path.display().to_string(), what, &error))?;
        }
        Ok(Self { _ebpf: ebpf })
    }
}

/// A kind of program on a cgroup. Links allow several whatever the mode; the other mode is refused with them.
trait Hook {
    fn load(program: &mut Program) -> Result<(), ProgramError>;
    fn attach(program: &mut Program, directory: &File) -> Result<(), ProgramError>;
}

impl Hook for CgroupSock {
    fn load(program: &mut Program) -> Result<(), ProgramError> {
        <&mut Self>::try_from(program)?.load()
    }

    fn attach(program: &mut Program, directory: &File) -> Result<(), ProgramError> {
        <&mut Self>::try_from(program)?.attach(directory, CgroupAttachMode::Single).map(drop)
    }
}

impl Hook for CgroupSockAddr {
    fn load(program: &mut Program) -> Result<(), ProgramError> {
        <&mut Self>::try_from(program)?.load()
    }

    fn attach(program: &mut Program, directory: &File) -> Result<(), ProgramError> {
        <&mut Self>::try_from(program)?.attach(directory, CgroupAttachMode::Single).map(drop)
    }
}

/// Whether the errno of a refused connect(2) can be chosen: `bpf_set_retval`, Linux 5.18. Before,
/// a hook can only say `EPERM`.
#[must_use]
pub(crate) fn can_refuse() -> bool {
    // Where it cannot be asked (no privileges), loading will say why.
    is_helper_supported(ProgramType::CgroupSockAddr, BpfHelper::BPF_FUNC_set_retval).unwrap_or(true)
}
