//! What the agent may do: five capabilities, each for a reason; the others go when it starts.

use caps::{CapSet, Capability, CapsHashSet, errors::CapsError};

/// A capability that the agent keeps.
#[derive(Clone, Copy, Debug)]
pub struct Kept {
    /// Which.
    pub capability: Capability,
    /// Its name.
    pub name: &'static str,
    /// Without it no fault works at all.
    pub is_basic: bool,
    /// What fails without it.
    pub reason: &'static str,
}

/// What the agent keeps, of what it was given. `CAP_BPF` and `CAP_PERFMON` are not among them: the kernel asks for
/// `CAP_SYS_ADMIN` in their place (`bpf_capable`, `perfmon_capable`: include/linux/capability.h), which it needs
/// anyway.
pub const KEPT: &[Kept] = &[
    Kept {
        capability: Capability::CAP_NET_ADMIN,
        name: "CAP_NET_ADMIN",
        is_basic: true,
        reason: "programs on devices, private devices, ending idle connections (SOCK_DESTROY), sockets of others",
    },
    Kept {
        capability: Capability::CAP_SYS_ADMIN,
        name: "CAP_SYS_ADMIN",
        is_basic: true,
        reason: "entering and making network namespaces, loading programs, finding tables of others by number, \
                 the private BPF file system",
    },
    Kept {
        capability: Capability::CAP_SYS_PTRACE,
        name: "CAP_SYS_PTRACE",
        is_basic: false,
        reason: "namespaces and sockets of processes of other users or with more capabilities: who is meant, \
                 and which connections are remote shells",
    },
    Kept {
        capability: Capability::CAP_DAC_READ_SEARCH,
        name: "CAP_DAC_READ_SEARCH",
        is_basic: false,
        reason: "the open files of other users' processes (/proc/PID/fd): which connections are remote shells",
    },
    Kept {
        capability: Capability::CAP_SYS_NICE,
        name: "CAP_SYS_NICE",
        is_basic: false,
        reason: "the delay line's thread is a real-time one: exact delays",
    },
];

/// What the guard keeps, of what its parent had: to enter a namespace, to remove a filter there, and to remove the
/// cgroup of a command that is below another user's. An agent does not have the last.
const GUARD: [Capability; 3] =
    [Capability::CAP_SYS_ADMIN, Capability::CAP_NET_ADMIN, Capability::CAP_DAC_OVERRIDE];

/// Lets go of every other capability, in every set, for this thread and what it starts; none can be got back, not
/// by running a program either. Call it before the first thread is started.
///
/// # Errors
/// What the kernel said.
pub fn keep_only_what_is_needed() -> Result<(), CapsError> {
    if !caps::has_cap(None, CapSet::Permitted, Capability::CAP_SETPCAP)? {
        tracing::debug!("the bounding set stays as it is: CAP_SETPCAP is not held");
    }
    keep_only(&KEPT.iter().map(|kept| kept.capability).collect())
}

/// The same for the process that removes what outlives us. Logs nothing: it is a copy of a process with threads, whose
/// locks nobody may ever open.
///
/// # Errors
/// What the kernel said.
pub(crate) fn keep_only_what_the_guard_needs() -> Result<(), CapsError> {
    keep_only(&GUARD.iter().copied().collect())
}

fn keep_only(needed: &CapsHashSet) -> Result<(), CapsError> {
    let held = caps::read(None, CapSet::Permitted)?;
    let kept: CapsHashSet = held.intersection(needed).copied().collect();
    // Without it nothing can be taken from that set; whoever started us has set it.
    if held.contains(&Capability::CAP_SETPCAP) {
        for capability in caps::read(None, CapSet::Bounding)?.difference(&kept) {
            caps::drop(None, CapSet::Bounding, *capability)?;
        }
    }
    caps::clear(None, CapSet::Ambient)?;
    caps::set(None, CapSet::Inheritable, &CapsHashSet::new())?;
    caps::set(None, CapSet::Effective, &kept)?;
    caps::set(None, CapSet::Permitted, &kept)?;
    nix::sys::prctl::set_no_new_privs()
        .map_err(|errno| CapsError::from(format!("no_new_privs: {errno}").as_str()))
}

/// A line for each that is kept: its name and its reason.
#[must_use]
pub fn lines() -> Vec<String> {
    let width = KEPT.iter().map(|kept| kept.name.len()).max().unwrap_or_default();
    KEPT.iter().map(|kept| format!("{:width$}  {}", kept.name, kept.reason)).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_readme_has_each_with_its_reason() {
        let readme = include_str!("../../README.md");
        for kept in KEPT {
            let row = format!("| `{}` | {} |", kept.capability, kept.reason);
            assert!(readme.contains(&row), "{row}");
            assert_eq!(kept.name, kept.capability.to_string());
        }
        assert_eq!(lines().len(), KEPT.len());
    }
}
