//! The hooks on targets' cgroups: those that book the ports of their sockets, and those that answer their calls of
//! connect(2).

use std::{collections::BTreeMap, fs::File, path::Path};

#[expect(deprecated, reason = "what replaces it is not in Linux 6.1")]
use aya::maps::CgroupStorage;
use aya::{
    Ebpf,
    maps::CgroupStorageKey,
    programs::{
        CgroupAttachMode, CgroupSock, CgroupSockAddr, Program, ProgramError, ProgramType,
        cgroup_sock::CgroupSockLink, cgroup_sock_addr::CgroupSockAddrLink,
    },
    sys::{BpfHelper, is_helper_supported},
};
use chaos_common::abi::HOOKED_ALL;

use super::{DatapathError, Object};

/// Where a hook finds out which cgroup it is on.
const HOOKED: &str = "CHAOS_HOOKED";

/// A program, and how its place is called in `include/uapi/linux/bpf.h` (`enum bpf_attach_type`).
type Named = (&'static str, u32);

/// Those that book the ports of a cgroup's sockets.
pub type OwnerHooks = CgroupHooks<CgroupSock>;
/// Those that answer calls of connect(2), on a kernel that can choose the errno ([`can_refuse`]).
pub type ConnectHooks = CgroupHooks<CgroupSockAddr>;

/// Hooks of one kind on cgroup directories: loaded with the first, unloaded with the last. Links end with the process
/// (`BPF_LINK_CREATE` for cgroups, Linux 5.7).
pub struct CgroupHooks<H: Hook> {
    loaded: Option<Ebpf>,
    links: BTreeMap<u64, Vec<H::Link>>,
}

impl<H: Hook> Default for CgroupHooks<H> {
    fn default() -> Self {
        Self { loaded: None, links: BTreeMap::new() }
    }
}

impl<H: Hook> CgroupHooks<H> {
    /// Whether they are on this cgroup.
    #[must_use]
    pub fn contains(&self, id: u64) -> bool {
        self.links.contains_key(&id)
    }

    /// Puts them on the cgroup `id`, whose directory is `path`. `id` 0 = the root, for rules about whoever calls.
    ///
    /// # Errors
    /// What the kernel says; the directory is gone.
    pub fn attach(&mut self, object: &Object, id: u64, path: &Path) -> Result<(), DatapathError> {
        let directory = File::open(path).map_err(|error| DatapathError::io("opening a cgroup", error))?;
        let inode = inode(&directory)?;
        let ebpf = match &mut self.loaded {
            Some(ebpf) => ebpf,
            none => none.insert(load::<H>(object)?),
        };
        let mut links = Vec::new();
        for (name, kind) in H::PROGRAMS {
            let link = H::attach(program(ebpf, name)?, &directory)
                .map_err(|error| DatapathError::attach(&path.display().to_string(), H::WHAT, &error))?;
            links.push(link);
            tell(ebpf, CgroupStorageKey::new(inode, *kind), if id == 0 { HOOKED_ALL } else { id })?;
        }
        self.links.insert(id, links);
        Ok(())
    }

    /// Takes them off all others.
    pub fn retain(&mut self, is_wanted: impl Fn(u64) -> bool) {
        self.links.retain(|id, _| is_wanted(*id));
        if self.links.is_empty() {
            self.loaded = None;
        }
    }
}

fn program<'e>(ebpf: &'e mut Ebpf, name: &str) -> Result<&'e mut Program, DatapathError> {
    ebpf.program_mut(name).ok_or_else(|| DatapathError::Object(format!("no program `{name}`")))
}

fn load<H: Hook>(object: &Object) -> Result<Ebpf, DatapathError> {
    let mut ebpf = object.instance(0)?;
    for (name, _) in H::PROGRAMS {
        H::load(program(&mut ebpf, name)?).map_err(|error| DatapathError::load(name, &error))?;
    }
    Ok(ebpf)
}

/// Tells a hook its cgroup. Until then it does nothing: the kernel makes its entry, of zeros, when it is attached.
fn tell(ebpf: &mut Ebpf, key: CgroupStorageKey, id: u64) -> Result<(), DatapathError> {
    let map = ebpf.map_mut(HOOKED).ok_or_else(|| DatapathError::Object(format!("no table `{HOOKED}`")))?;
    #[expect(deprecated, reason = "what replaces it is not in Linux 6.1")]
    let storage = CgroupStorage::<_, u64>::try_from(map);
    storage
        .and_then(|mut storage| storage.insert(key, id, 0))
        .map_err(|error| DatapathError::table(HOOKED, &error))
}

/// What the kernel calls the cgroup of this directory.
fn inode(directory: &File) -> Result<u64, DatapathError> {
    use std::os::unix::fs::MetadataExt as _;
    let metadata = directory.metadata().map_err(|error| DatapathError::io("opening a cgroup", error))?;
    Ok(metadata.ino())
}

/// A kind of program on a cgroup. Links allow several whatever the mode; the other mode is refused with them.
pub trait Hook {
    /// Its attachment, which ends when this is dropped.
    type Link;
    /// The programs of the object that are of this kind.
    const PROGRAMS: &'static [Named];
    /// What they watch, for messages.
    const WHAT: &'static str;

    /// Gives a program to the verifier.
    ///
    /// # Errors
    /// What the kernel says.
    fn load(program: &mut Program) -> Result<(), ProgramError>;

    /// Attaches a program that is loaded.
    ///
    /// # Errors
    /// What the kernel says.
    fn attach(program: &mut Program, directory: &File) -> Result<Self::Link, ProgramError>;
}

impl Hook for CgroupSock {
    type Link = CgroupSockLink;
    const PROGRAMS: &'static [Named] = &[("chaos_bind4", 12), ("chaos_bind6", 13), ("chaos_release", 34)];
    const WHAT: &'static str = "sockets";

    fn load(program: &mut Program) -> Result<(), ProgramError> {
        <&mut Self>::try_from(program)?.load()
    }

    fn attach(program: &mut Program, directory: &File) -> Result<CgroupSockLink, ProgramError> {
        let program = <&mut Self>::try_from(program)?;
        let link = program.attach(directory, CgroupAttachMode::Single)?;
        program.take_link(link)
    }
}

impl Hook for CgroupSockAddr {
    type Link = CgroupSockAddrLink;
    const PROGRAMS: &'static [Named] = &[("chaos_connect4", 10), ("chaos_connect6", 11)];
    const WHAT: &'static str = "connect()";

    fn load(program: &mut Program) -> Result<(), ProgramError> {
        <&mut Self>::try_from(program)?.load()
    }

    fn attach(program: &mut Program, directory: &File) -> Result<CgroupSockAddrLink, ProgramError> {
        let program = <&mut Self>::try_from(program)?;
        let link = program.attach(directory, CgroupAttachMode::Single)?;
        program.take_link(link)
    }
}

/// Whether the errno of a refused connect(2) can be chosen: `bpf_set_retval`, Linux 5.18. Before,
/// a hook can only say `EPERM`.
#[must_use]
pub(crate) fn can_refuse() -> bool {
    // Where it cannot be asked (no privileges), loading will say why.
    is_helper_supported(ProgramType::CgroupSockAddr, BpfHelper::BPF_FUNC_set_retval).unwrap_or(true)
}
