//! What this process may do.

use std::{
    fs,
    thread::{self, ScopedJoinHandle},
};

use super::{Need, Outcome, Probe, mend};
use crate::{lines::scheduling, rights::KEPT};

/// Numbers from include/uapi/linux/capability.h.
const CAP_NET_ADMIN: u32 = 12;
const CAP_SYS_ADMIN: u32 = 21;
const CAP_SYS_NICE: u32 = 23;
const CAP_SYS_RESOURCE: u32 = 24;
const CAP_BPF: u32 = 39;

/// One for each capability that the agent keeps: the same list, with the same reasons.
pub(super) fn kept() -> impl Iterator<Item = Probe> {
    const RUN: [fn() -> Outcome; KEPT.len()] = [held::<0>, held::<1>, held::<2>, held::<3>, held::<4>];
    KEPT.iter().zip(RUN).map(|(kept, run)| Probe {
        name: kept.name,
        need: if kept.is_basic { Need::Basic } else { Need::Optional },
        purpose: "what the agent keeps",
        run,
    })
}

/// Whether this process has the capability of this place in the list.
fn held<const PLACE: usize>() -> Outcome {
    let Some(kept) = KEPT.get(PLACE) else { return Outcome::unknown("there is no such capability") };
    if has(effective(), u32::from(kept.capability.index())) {
        return Outcome::ok(kept.reason);
    }
    let short = kept.name.trim_start_matches("CAP_");
    let why = format!("not held: {}", kept.reason);
    Outcome::missing(why, format!("run it with sudo; in a container: docker run --cap-add {short}"))
}

pub(super) const PROBES: &[Probe] = &[
    Probe {
        name: "privileges",
        need: Need::Basic,
        purpose: "everything that changes packets",
        run: privileges,
    },
    Probe { name: "real-time thread", need: Need::Optional, purpose: "exact delays", run: real_time },
    Probe {
        name: "CAP_SYS_RESOURCE",
        need: Need::Optional,
        purpose: "maps before Linux 5.11",
        run: resource,
    },
    Probe { name: "lockdown", need: Need::Optional, purpose: "debugging programs", run: lockdown },
    Probe {
        name: "security modules",
        need: Need::Optional,
        purpose: "reading a refusal",
        run: security_modules,
    },
];

/// Whether probes that change something (in a namespace of their own) can be tried.
pub(super) fn may_try() -> bool {
    lacking().is_empty()
}

/// The outcome of a probe that cannot be tried.
pub(super) fn needs_privileges() -> Outcome {
    Outcome::unknown("can be tried with privileges only: sudo chaos doctor")
}

fn privileges() -> Outcome {
    let lacking = lacking();
    if !lacking.is_empty() {
        return Outcome::missing(format!("lacks {}", lacking.join(", ")), mend::privileges());
    }
    if !in_first_user_namespace() {
        return Outcome::missing(
            "root only inside a user namespace, which may not load programs",
            "run it as root of the machine: a rootless container cannot",
        );
    }
    Outcome::ok("CAP_SYS_ADMIN, CAP_NET_ADMIN, CAP_BPF")
}

/// `CAP_SYS_ADMIN` includes `CAP_BPF` (`bpf_capable`, include/linux/capability.h).
fn lacking() -> Vec<&'static str> {
    let effective = effective();
    let mut lacking = Vec::new();
    if !has(effective, CAP_SYS_ADMIN) {
        lacking.push("CAP_SYS_ADMIN");
        if !has(effective, CAP_BPF) {
            lacking.push("CAP_BPF");
        }
    }
    if !has(effective, CAP_NET_ADMIN) {
        lacking.push("CAP_NET_ADMIN");
    }
    lacking
}

/// Tries it on a thread of its own.
fn real_time() -> Outcome {
    let tried = thread::scope(|scope| {
        thread::Builder::new()
            .name("chaos-probe".to_owned())
            .spawn_scoped(scope, scheduling::become_real_time)
            .map(ScopedJoinHandle::join)
    });
    match tried {
        Ok(Ok(Ok(scheduling))) => Outcome::ok(scheduling.to_string()),
        Ok(Ok(Err(errno))) => {
            let (why, mend) = scheduling::refusal(errno, has(effective(), CAP_SYS_NICE));
            Outcome::missing(format!("{why}, so delays are late on a busy machine"), mend)
        }
        Ok(Err(_)) => Outcome::unknown("the thread that tried it failed"),
        Err(error) => Outcome::unknown(format!("starting a thread: {error}")),
    }
}

fn resource() -> Outcome {
    if has(effective(), CAP_SYS_RESOURCE) {
        return Outcome::ok("locked memory can be raised");
    }
    if super::kernel::version().is_some_and(|version| version >= (5, 11)) {
        return Outcome::ok("not held, and not needed: this kernel accounts maps to the cgroup");
    }
    Outcome::missing("maps count as locked memory on this kernel", "ulimit -l unlimited, or add SYS_RESOURCE")
}

fn lockdown() -> Outcome {
    let Ok(text) = fs::read_to_string("/sys/kernel/security/lockdown") else {
        return Outcome::ok("not active");
    };
    let mode = text.split(['[', ']']).nth(1).unwrap_or("unknown").to_owned();
    if mode == "confidentiality" {
        return Outcome::missing(
            "confidentiality: programs may not read kernel memory; faults work all the same",
            "boot with lockdown=integrity",
        );
    }
    Outcome::ok(mode)
}

fn security_modules() -> Outcome {
    match fs::read_to_string("/sys/kernel/security/lsm") {
        Ok(list) if !list.trim().is_empty() => Outcome::ok(list.trim().replace(',', ", ")),
        _ => Outcome::ok("none visible"),
    }
}

/// The effective set of this process.
fn effective() -> u64 {
    fs::read_to_string("/proc/self/status").ok().and_then(|text| effective_in(&text)).unwrap_or(0)
}

fn effective_in(status: &str) -> Option<u64> {
    let line = status.lines().find_map(|line| line.strip_prefix("CapEff:"))?;
    u64::from_str_radix(line.trim(), 16).ok()
}

fn has(set: u64, capability: u32) -> bool {
    set >> capability & 1 != 0
}

/// Only there does `0 0 4294967295` map every id to itself (`user_namespaces(7)`).
fn in_first_user_namespace() -> bool {
    fs::read_to_string("/proc/self/uid_map")
        .is_ok_and(|map| map.split_whitespace().eq(["0", "0", "4294967295"]))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_effective_set_is_read() {
        let set = effective_in("CapPrm:\t0\nCapEff:\t000001fffeffffff\nCapBnd:\t0\n").unwrap();
        assert!(has(set, CAP_SYS_ADMIN) && has(set, CAP_BPF) && !has(set, CAP_SYS_RESOURCE));
        assert_eq!(effective_in("CapPrm:\t0\n"), None);
    }
}
