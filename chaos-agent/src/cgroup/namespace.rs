//! In a container of its own cgroup namespace nobody sees where in the machine's tree a cgroup lies, which every rule
//! about cgroups needs. With the machine's processes in sight (`hostPID`) the machine's namespace can be joined.

use std::{fs::File, io, os::unix::fs::MetadataExt as _};

use nix::sched::{CloneFlags, setns};

/// Puts the calling thread, and those it starts from then on, into the cgroup namespace of process 1; true = it was in
/// another one. Call it while there is one thread.
///
/// # Errors
/// What the kernel says: it takes `CAP_SYS_ADMIN`, and `CAP_SYS_PTRACE` to look at process 1.
pub fn join_machines() -> io::Result<bool> {
    let machines = File::open("/proc/1/ns/cgroup")?;
    let (theirs, ours) = (machines.metadata()?, std::fs::metadata("/proc/self/ns/cgroup")?);
    if (theirs.dev(), theirs.ino()) == (ours.dev(), ours.ino()) {
        return Ok(false);
    }
    setns(&machines, CloneFlags::CLONE_NEWCGROUP)?;
    Ok(true)
}

#[cfg(test)]
mod tests {
    #[test]
    fn where_process_1_is_nothing_is_joined() {
        // Without root it may not be looked at; in a container of our own it is us or a parent.
        if let Ok(joined) = super::join_machines() {
            assert!(!joined || nix::unistd::geteuid().is_root());
        }
    }
}
