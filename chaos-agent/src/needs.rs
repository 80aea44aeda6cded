//! What the faults of a rule need of this machine, and whether it has it.
//!
//! Asked before a fault, at most once a second, so each probe is a system call or two that make nothing; `chaos doctor`
//! tries the same things out in earnest.

use std::{
    os::fd::AsRawFd as _,
    sync::{Mutex, PoisonError},
    time::{Duration, Instant},
};

use chaos_common::fault::{Faults, Need};
use netlink_packet_core::{NLM_F_CREATE, NLM_F_EXCL};
use netlink_packet_route::{
    RouteNetlinkMessage,
    link::{InfoKind, LinkAttribute, LinkInfo, LinkMessage},
};
use nix::errno::Errno;

use crate::{
    cgroup::Hierarchy,
    doctor::{Outcome, cgroups, mend},
    net::{Netlink, sockets},
    spec::RuleSpec,
    validate::{self, Refusal},
};

/// Refuses a rule whose faults need what this machine does not have. What cannot be found out is no
/// reason: arming the fault will tell. A rule in shadow touches nothing and needs nothing.
///
/// # Errors
/// The first fault and what it lacks, with the command that mends it.
pub fn check(rule: &RuleSpec) -> Result<(), Refusal> {
    if rule.shadow {
        return Ok(());
    }
    for info in validate::set(rule) {
        for need in info.needs.iter().filter(|need| with_these(&rule.faults, **need)) {
            if let Some((why, mend)) = missing(*need) {
                return Err(Refusal {
                    what: format!(
                        "--{} needs {}, which this machine does not have: {why}",
                        info.name,
                        purpose(*need)
                    ),
                    mend,
                });
            }
        }
    }
    Ok(())
}

/// What this machine had is not asked for again for so long: a set may have thousands of rules.
const KNOWN_FOR: Duration = Duration::from_secs(1);

/// Why this machine does not have it, and what mends that; none = it has, or nobody knows.
fn missing(need: Need) -> Option<(String, String)> {
    static KNOWN: Mutex<Vec<(Need, Instant)>> = Mutex::new(Vec::new());
    // Whoever panicked while it had it, each entry was written whole.
    let known = || KNOWN.lock().unwrap_or_else(PoisonError::into_inner);
    if known().iter().any(|(had, asked)| *had == need && asked.elapsed() < KNOWN_FOR) {
        return None;
    }
    match probe(need) {
        Outcome::Missing { why, mend } => return Some((why, mend)),
        Outcome::Ok { .. } => {
            let mut known = known();
            known.retain(|(had, _)| *had != need);
            known.push((need, Instant::now()));
        }
        Outcome::Unknown { .. } => {}
    }
    None
}

/// Whether faults with these parameters need it, which of a kind only some may.
fn with_these(faults: &Faults, need: Need) -> bool {
    match need {
        Need::Normaliser => faults.needs_wire(),
        Need::Line => faults.needs_line(),
        Need::SockDestroy => faults.ends_connections() || faults.closes_after_ns() != 0,
        Need::ConnectHook => true,
    }
}

/// What is needed, in words.
const fn purpose(need: Need) -> &'static str {
    match need {
        Need::Line => "TAP devices, where packets wait",
        Need::Normaliser => "veth devices, where packets are cut as they go on the wire",
        Need::ConnectHook => "programs at connect() of a cgroup that choose the error",
        Need::SockDestroy => "the kernel's SOCK_DESTROY, to end connections that are idle",
    }
}

/// Whether this machine has it. Makes nothing.
#[must_use]
pub fn probe(need: Need) -> Outcome {
    match need {
        Need::Line => tap(),
        Need::Normaliser => veth(),
        Need::ConnectHook => connect_hook(),
        Need::SockDestroy => destroy(),
    }
}

fn tap() -> Outcome {
    // include/uapi/linux/if_tun.h.
    // An int with musl, where the number wraps.
    const TUNGETFEATURES: libc::Ioctl = 0x8004_54cf_u32 as libc::Ioctl;
    let device = match std::fs::OpenOptions::new().read(true).write(true).open("/dev/net/tun") {
        Ok(device) => device,
        Err(error) => {
            return Outcome::missing(format!("/dev/net/tun: {error}"), mend::module("tun"));
        }
    };
    let mut features: libc::c_uint = 0;
    // SAFETY: this command writes an unsigned int, which `features` is.
    let asked = unsafe { libc::ioctl(device.as_raw_fd(), TUNGETFEATURES, &raw mut features) };
    let wanted = (libc::IFF_TAP | libc::IFF_VNET_HDR).cast_unsigned();
    match Errno::result(asked) {
        Ok(_) if features & wanted == wanted => Outcome::ok("TAP devices with large frames"),
        Ok(_) => Outcome::missing("TAP devices take no large frames", mend::module("tun")),
        Err(errno) => Outcome::unknown(format!("/dev/net/tun: {errno}")),
    }
}

/// Asks for a pair with an MTU that no veth can have: a kernel that has veth says EINVAL
/// (`veth_validate`, drivers/net/veth.c), one that has not EOPNOTSUPP (`rtnl_newlink`,
/// net/core/rtnetlink.c, Linux 6.18).
fn veth() -> Outcome {
    let mut message = LinkMessage::default();
    message.attributes = vec![
        LinkAttribute::IfName("chaos-probe".to_owned()),
        LinkAttribute::Mtu(1),
        LinkAttribute::LinkInfo(vec![LinkInfo::Kind(InfoKind::Veth)]),
    ];
    let asked = Netlink::route().and_then(|mut netlink| {
        netlink.change("asking for veth", RouteNetlinkMessage::NewLink(message), NLM_F_CREATE | NLM_F_EXCL)
    });
    match asked {
        Err(error) if error.errno() == Some(Errno::EOPNOTSUPP) => {
            Outcome::missing(error.to_string(), mend::module("veth"))
        }
        Err(error) if error.errno() == Some(Errno::EINVAL) => Outcome::ok("pairs can be made"),
        Err(error) => Outcome::unknown(error.to_string()),
        Ok(()) => Outcome::unknown("a pair with an MTU of 1 was accepted"),
    }
}

fn connect_hook() -> Outcome {
    if let Err(error) = Hierarchy::discover() {
        return Outcome::missing(error.to_string(), "mount cgroup v2: `chaos doctor` prints how");
    }
    cgroups::connect_hook()
}

fn destroy() -> Outcome {
    match Netlink::sock_diag().and_then(|mut netlink| sockets::can_destroy(&mut netlink)) {
        Ok(true) => Outcome::ok("sockets can be ended"),
        Ok(false) => Outcome::missing(
            "ending a socket: Operation not supported",
            mend::kernel_option("CONFIG_INET_DIAG_DESTROY"),
        ),
        Err(error) => Outcome::unknown(error.to_string()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_probe_without_privileges_never_says_missing_for_want_of_them() {
        // Whoever runs the tests: nothing is made, and the answer is one of the three.
        for need in [Need::Normaliser, Need::ConnectHook, Need::SockDestroy] {
            let outcome = probe(need);
            if nix::unistd::geteuid().is_root() {
                assert!(
                    outcome.is_ok() || matches!(outcome, Outcome::Missing { .. }),
                    "{need:?}: {outcome:?}"
                );
            } else {
                assert!(!matches!(outcome, Outcome::Missing { .. }), "{need:?}: {outcome:?}");
            }
        }
    }
}
