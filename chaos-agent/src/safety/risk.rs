//! Which faults can take the machine itself away, so that somebody has to say that this is meant.
//!
//! Two kinds can. One is a fault on this host, under whatever name: `host`, the root cgroup, a namespace or a
//! process of that name that is the one of pid 1 or our own; a small share of loss is enough to make a machine
//! unreachable, so the kind and size of the fault do not matter. The other lets nothing through, on no port and to
//! no address, and its target is a cgroup that shares the host's namespace and holds us, or is a whole slice
//! (`cgroup:/system.slice`, `unit:user.slice`): that is the host but for its kernel. A namespace or a single service
//! may be cut off completely without a question: that is what partitions are for, and nobody is locked out by it.
//! A fault that only counts (shadow) can do nothing.

use std::path::{Path, PathBuf};

use chaos_common::{
    abi::{Direction, Rule},
    env::Draws,
    fault::{Case, Faults, States},
    host::Host,
    job::Job,
    packet::{Class, Packet, packet_flags, tcp},
    verdict::Verdict,
};

use crate::{
    netns::{Netns, NetnsId},
    spec::{Connections, MatchSpec, RuleSpec},
    targets::Target,
};

/// Why a fault has to be confirmed.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Risk {
    /// It is on this host itself.
    Host,
    /// It cuts off a part of this host that it needs to be reached.
    Cut,
}

impl Risk {
    /// As the beginning of a sentence.
    pub(crate) const fn what(self) -> &'static str {
        match self {
            Self::Host => "this host itself would be hit, which can lock you out",
            Self::Cut => "a whole slice of this host would be cut off on every port, which can lock you out",
        }
    }
}

/// Whether these rules can take the machine away.
pub(crate) fn risk(rules: &[RuleSpec]) -> Option<Risk> {
    let hits = || rules.iter().filter(|rule| !rule.shadow);
    let sides = |rule: &RuleSpec| {
        let mut sides = vec![rule.target.clone()];
        sides.extend(rule.peer.clone());
        sides
    };
    if hits().any(|rule| sides(rule).iter().any(is_this_host)) {
        return Some(Risk::Host);
    }
    let cuts = |rule: &RuleSpec| is_everything(&rule.matching) && is_cut(&rule.faults);
    hits().any(|rule| rule.peer.is_none() && cuts(rule) && is_of_the_host(&rule.target)).then_some(Risk::Cut)
}

/// Whether the target is the whole of the network that this machine or we ourselves are in.
pub(crate) fn is_this_host(target: &Target) -> bool {
    match target {
        Target::Host => true,
        Target::Cgroup(path) => path == Path::new("/"),
        Target::Unit(name) => name == "-.slice",
        Target::NetnsName(name) => Netns::path_of_name(name).is_ok_and(|path| is_ours(&path)),
        Target::Pid(pid) => is_ours(Path::new(&format!("/proc/{pid}/ns/net"))),
        Target::Net(_) | Target::HostPort { .. } => false,
    }
}

/// A namespace that cannot be looked at is not asked about: arming the fault will say why. None is opened: a set may
/// have thousands of rules.
fn is_ours(other: &Path) -> bool {
    let is = |path: &str| NetnsId::of_path(Path::new(path)).ok();
    NetnsId::of_path(other)
        .is_ok_and(|other| [is("/proc/thread-self/ns/net"), is("/proc/1/ns/net")].contains(&Some(other)))
}

/// A whole slice, or a cgroup that holds us.
fn is_of_the_host(target: &Target) -> bool {
    match target {
        Target::Cgroup(path) => {
            let is_top = path.components().count() == 2;
            let is_slice = path.extension().is_some_and(|kind| kind == "slice");
            (is_top && is_slice) || own_cgroup().is_some_and(|own| own.starts_with(path))
        }
        Target::Unit(name) => {
            Path::new(name).extension().is_some_and(|kind| kind == "slice")
                || own_cgroup().is_some_and(|own| own.iter().any(|part| part == name.as_str()))
        }
        Target::Host | Target::NetnsName(_) | Target::Pid(_) | Target::Net(_) | Target::HostPort { .. } => {
            false
        }
    }
}

/// Our place in the tree of version 2.
fn own_cgroup() -> Option<PathBuf> {
    let text = std::fs::read_to_string("/proc/self/cgroup").ok()?;
    text.lines().find_map(|line| line.strip_prefix("0::")).map(PathBuf::from)
}

/// No condition narrows it. Exclusions do not count: who is spared is seldom who types.
fn is_everything(matching: &MatchSpec) -> bool {
    let any_port = matching.peer_ports.is_empty() && matching.local_ports.is_empty();
    let any_end = matching.peers.is_empty() && matching.locals.is_empty();
    let any_kind = matching.protos.is_empty() && !matching.data_only && matching.share.is_none();
    let flags = matching.tcp_flags;
    let any_flags = !(flags.syn || flags.fin || flags.rst);
    any_port && any_end && any_kind && any_flags && matching.connections == Connections::All
}

/// Lets nothing through: a segment of a connection with the luckiest draw, and with the n-th place of any n, is
/// gone. The faults themselves are asked, so that no kind need be known here.
fn is_cut(faults: &Faults) -> bool {
    let host = Host::default();
    host.random.set(u32::MAX);
    // Neither place is the n-th of an n above 1.
    is_gone(&host, faults, &States::default(), 0) && is_gone(&host, faults, &States::default(), 1)
}

/// The share of a connection's segments that shall not arrive, 0 to 1: of some thousand draws.
pub(super) fn share_lost(faults: &Faults) -> f64 {
    const DRAWS: u32 = 5000;
    let host = Host::default();
    host.seed.set(1);
    let states = States::default();
    let lost = (0..DRAWS).filter(|ordinal| is_gone(&host, faults, &states, u64::from(*ordinal))).count();
    u32::try_from(lost).map_or(1.0, |lost| f64::from(lost) / f64::from(DRAWS))
}

fn is_gone(host: &Host, faults: &Faults, states: &States, ordinal: u64) -> bool {
    let packet = Packet {
        class: Class::TCP,
        proto: 6,
        tcp_flags: tcp::ACK,
        flags: packet_flags::IP | packet_flags::PORTS | packet_flags::DATA,
        source_port: 40_000,
        destination_port: 6379,
        payload_len: 46,
        ..Packet::default()
    };
    let job = Job { packet, direction: Direction::Egress as u32, ordinal, ..Job::default() };
    let rule = Rule { faults: *faults, ..Rule::default() };
    let draws = Draws { seed: 0, stream: 0, ordinal };
    let mut verdict = Verdict::PASS;
    let mut kinds = faults.kinds();
    while kinds != 0 {
        let case = Case { world: host, job: &job, rule: &rule, draws, flow: None };
        faults.decide(kinds.trailing_zeros(), states, &case, &mut verdict);
        kinds &= kinds - 1;
    }
    verdict.drop_by != 0 || verdict.answer_by != 0
}

#[cfg(test)]
mod tests {
    use chaos_common::fault::FAULTS;

    use super::*;

    #[test]
    fn this_host_is_known_under_every_name() {
        let own_pid = i32::try_from(std::process::id()).unwrap();
        assert!(is_this_host(&Target::Host) && is_this_host(&Target::Cgroup("/".into())));
        assert!(is_this_host(&Target::Pid(own_pid)) && is_this_host(&Target::Unit("-.slice".to_owned())));
        assert!(!is_this_host(&Target::Cgroup("/system.slice".into())));
        assert!(!is_this_host(&Target::NetnsName("no-such-namespace".to_owned())));
        assert!(!is_this_host(&Target::Unit("api.service".to_owned())));
    }

    fn faults(name: &str, value: &str) -> Faults {
        let mut faults = Faults::default();
        let info = FAULTS.iter().find(|info| info.name == name).unwrap();
        (info.parse)(value, &mut faults).unwrap();
        faults
    }

    fn cuts(name: &str, value: &str) -> bool {
        is_cut(&faults(name, value))
    }

    #[test]
    fn the_loss_that_was_asked_for_is_known() {
        let close = |value: &str, wanted: f64| (share_lost(&faults("loss", value)) - wanted).abs() < 0.03;
        assert!(
            close("10%", 0.1) && close("every=4", 0.25) && close("p=1%,r=25%", 0.04) && close("100%", 1.0)
        );
        assert!(share_lost(&faults("delay", "1s")) == 0.0);
    }

    #[test]
    fn what_lets_nothing_through_is_known_by_what_it_does() {
        for (name, value) in [
            ("loss", "100%"),
            ("loss", "every=1"),
            ("partition", ""),
            ("partition", "reset"),
            ("partition", "reject"),
            ("stall", ""),
            ("reject", ""),
            ("reset", "now"),
            ("reset", "100%"),
        ] {
            assert!(cuts(name, value), "{name} {value}");
        }
        for (name, value) in [
            ("loss", "99%"),
            ("loss", "every=2"),
            ("delay", "10s"),
            ("duplicate", "100%"),
            ("corrupt", "100%"),
            ("reset", "syn"),
            ("reset", "50%"),
            ("rate", "1kbit/s"),
        ] {
            assert!(!cuts(name, value), "{name} {value}");
        }
    }
}
