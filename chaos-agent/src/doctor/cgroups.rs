//! Control groups.

use std::path::Path;

use super::{
    Need, Outcome, Probe, bpf, mend,
    rights::{may_try, needs_privileges},
};
use crate::cgroup::{Hierarchy, Transient};

pub(super) const PROBES: &[Probe] = &[
    Probe { name: "cgroup v2", need: Need::Basic, purpose: "targets by cgroup, unit, command", run: mounted },
    Probe { name: "cgroup creation", need: Need::Basic, purpose: "chaos exec", run: creation },
    Probe { name: "connect hooks", need: Need::Optional, purpose: "refusing connections", run: connect_hook },
];

fn mounted() -> Outcome {
    match Hierarchy::discover().and_then(|hierarchy| {
        hierarchy.resolve(Path::new("/"))?;
        Ok(hierarchy.mount().display().to_string())
    }) {
        Ok(mount) => Outcome::ok(format!("at {mount}")),
        Err(error) => Outcome::missing(
            error.to_string(),
            "sudo mkdir -p /sys/fs/cgroup/unified && sudo mount -t cgroup2 cgroup2 /sys/fs/cgroup/unified",
        ),
    }
}

fn creation() -> Outcome {
    if !may_try() {
        return needs_privileges();
    }
    let created = Hierarchy::discover().and_then(|hierarchy| {
        let planned = Transient::planned(&hierarchy, Path::new("/"))?;
        // Removed when dropped.
        Transient::create(&hierarchy, planned).map(drop)
    });
    match created {
        Ok(()) => Outcome::ok("made and removed"),
        Err(error) => Outcome::missing(
            error.to_string(),
            "make the cgroup file system writable; in docker: --privileged --cgroupns host",
        ),
    }
}

/// Loads a program for `connect(2)` that chooses the error, as a refusal does.
pub(crate) fn connect_hook() -> Outcome {
    if !may_try() {
        return needs_privileges();
    }
    match bpf::load_connect_hook() {
        Ok(_) => Outcome::ok("a program that chooses the error loads"),
        Err(errno) => Outcome::missing(
            format!("a program at connect(): {errno}"),
            mend::kernel_option("version 5.18 or newer and CONFIG_CGROUP_BPF"),
        ),
    }
}
