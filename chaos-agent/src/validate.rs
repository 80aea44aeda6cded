//! Rules that make no sense are refused before anything is touched, whoever made them.
//!
//! What depends on the machine is asked in [`crate::needs`].

use chaos_common::{
    fault::{FAULTS, FaultInfo, Need},
    packet::Class,
};

use crate::spec::{Connections, Direction, MatchSpec, PortRange, Proto, RuleSpec, TcpFlags};

/// Why a rule is refused.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("{what}")]
pub struct Refusal {
    /// What is wrong.
    pub what: String,
    /// What would work.
    pub mend: String,
}

/// The kinds of fault that are set in a rule, in the order in which they act.
pub fn set(rule: &RuleSpec) -> impl Iterator<Item = &'static FaultInfo> {
    FAULTS.iter().filter(|info| (info.describe)(&rule.faults).is_some())
}

/// Looks at one rule by itself.
///
/// # Errors
/// A fault's parameters contradict each other or another fault of the rule, or no packet that the
/// rule matches is of a protocol that the fault can act on; or a fault that answers connect(2) is
/// asked for what a call cannot know.
pub fn validate(rule: &RuleSpec) -> Result<(), Refusal> {
    for info in set(rule) {
        if let Some(check) = info.check {
            check(&rule.faults).map_err(|what| Refusal {
                what: format!("--{}: {what}", info.name),
                mend: format!("see `{}` in `chaos inject --help`", info.usage()),
            })?;
        }
        protos(info.name, info.protos, &rule.matching.protos)?;
        ports(info, &rule.matching)?;
    }
    connect(rule)
}

/// The fault can act on at least one of the protocols asked for.
fn protos(name: &str, able: &[Class], asked: &[Proto]) -> Result<(), Refusal> {
    let classes = |proto: &Proto| match proto {
        Proto::Tcp => [Class::TCP, Class::TCP],
        Proto::Udp => [Class::UDP, Class::UDP],
        Proto::Icmp => [Class::ICMP, Class::ICMP6],
    };
    if able.is_empty()
        || asked.is_empty()
        || asked.iter().flat_map(classes).any(|class| able.contains(&class))
    {
        return Ok(());
    }
    let words = |list: Vec<&str>| list.join(" and ");
    let able = [("tcp", Proto::Tcp), ("udp", Proto::Udp), ("icmp", Proto::Icmp)]
        .into_iter()
        .filter(|(_, proto)| classes(proto).iter().any(|class| able.contains(class)))
        .map(|(word, _)| word)
        .collect::<Vec<_>>();
    let asked = asked.iter().map(|proto| match proto {
        Proto::Tcp => "tcp",
        Proto::Udp => "udp",
        Proto::Icmp => "icmp",
    });
    Err(Refusal {
        what: format!(
            "--{name} acts on {} only, and --proto {} leaves nothing to act on",
            words(able.clone()),
            asked.collect::<Vec<_>>().join(",")
        ),
        mend: format!("leave out --proto, or write --proto {}", able.join(",")),
    })
}

/// The fault can act on at least one of the ports asked for.
fn ports(info: &FaultInfo, asked: &MatchSpec) -> Result<(), Refusal> {
    let leaves_none = |ranges: &[PortRange]| {
        let within = |port: &u16| ranges.iter().any(|range| (range.first..=range.last).contains(port));
        !ranges.is_empty() && !info.ports.iter().any(within)
    };
    let (flag, ranges) = match asked.direction {
        Some(Direction::Ingress) => ("local", &asked.local_ports),
        Some(Direction::Both) if !leaves_none(&asked.local_ports) => return Ok(()),
        Some(Direction::Both | Direction::Egress) | None => ("peer", &asked.peer_ports),
    };
    if info.ports.is_empty() || !leaves_none(ranges) {
        return Ok(());
    }
    let list = |ports: &[u16]| ports.iter().map(ToString::to_string).collect::<Vec<_>>().join(",");
    Err(Refusal {
        what: format!(
            "--{} acts on port {} only, and the {flag} port asked for leaves nothing to act on",
            info.name,
            list(info.ports)
        ),
        mend: format!("leave out the port, or write --{flag}-port {}", list(info.ports)),
    })
}

/// A fault that answers connect(2) is asked before there is a packet, a route or a local end.
fn connect(rule: &RuleSpec) -> Result<(), Refusal> {
    if !rule.faults.acts_on_connect() {
        return Ok(());
    }
    let name = set(rule).find(|info| info.needs.contains(&Need::ConnectHook)).map_or("", |info| info.name);
    unknowable(rule).map_or(Ok(()), |(what, why)| {
        Err(Refusal {
            what: format!("--{name} answers connect() itself and cannot be asked for {what}: {why}"),
            mend: "leave that out, or refuse on the wire with --reject or --reset syn".to_owned(),
        })
    })
}

/// What no call fulfils, and why.
fn unknowable(rule: &RuleSpec) -> Option<(&'static str, &'static str)> {
    let MatchSpec {
        direction,
        peers: _,
        peer_ports: _,
        locals,
        local_ports,
        protos: _,
        interfaces,
        except: _,
        tcp_flags,
        data_only,
        share,
        connections,
        forwarded,
    } = &rule.matching;
    let alone = !rule.faults.acts_on_packets();
    let conditions = [
        (!locals.is_empty(), "an own address", "the kernel chooses it after connect() was allowed"),
        (!local_ports.is_empty(), "an own port", "the kernel chooses it after connect() was allowed"),
        (!interfaces.is_empty(), "an interface", "the route is looked up after connect() was allowed"),
        (*tcp_flags != TcpFlags::default(), "TCP flags", "there is no packet yet"),
        (*data_only, "packets with data only", "there is no packet yet"),
        (
            share.is_some(),
            "a share of the flows",
            "there is no flow yet (a share of the calls is part of the value: ETIMEDOUT,50%)",
        ),
        (*connections == Connections::Established, "established connections", "connect() makes new ones"),
        (
            *direction == Some(Direction::Ingress),
            "what comes to the target",
            "the target is who calls connect(); to refuse what others begin, name them as the target",
        ),
        (
            rule.peer.is_some(),
            "a peer on this machine",
            "a call names an address and a port: give those as the peer of an `inject`",
        ),
        (alone && *forwarded, "forwarded packets", "whoever sends them has called connect() elsewhere"),
        (
            alone && rule.limits.max_bytes.is_some(),
            "a limit in bytes",
            "a call has none (--max-packets counts calls)",
        ),
    ];
    conditions.into_iter().find(|(asked, ..)| *asked).map(|(_, what, why)| (what, why))
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use chaos_common::fault::Faults;

    use super::*;
    use crate::{
        spec::{Limits, Schedule},
        targets::Target,
    };

    fn refused(change: impl Fn(&mut RuleSpec)) -> Option<Refusal> {
        let mut faults = Faults::default();
        for info in FAULTS.iter().filter(|info| info.name == "refuse") {
            (info.parse)("ETIMEDOUT", &mut faults).expect("a value");
        }
        let mut rule = RuleSpec {
            name: "test".to_owned(),
            target: Target::Host,
            peer: None,
            matching: MatchSpec::default(),
            faults,
            schedule: Schedule::default(),
            limits: Limits::default(),
            shadow: false,
            seed: None,
            lease: Duration::from_secs(5),
        };
        change(&mut rule);
        validate(&rule).err()
    }

    #[test]
    fn what_a_call_knows_is_accepted() {
        assert_eq!(refused(|_| ()), None);
        assert_eq!(refused(|rule| rule.matching.peer_ports = vec![PortRange { first: 80, last: 90 }]), None);
        assert_eq!(refused(|rule| rule.matching.protos = vec![Proto::Udp, Proto::Icmp]), None);
        assert_eq!(refused(|rule| rule.matching.connections = Connections::New), None);
        assert_eq!(refused(|rule| rule.matching.direction = Some(Direction::Both)), None);
        assert_eq!(refused(|rule| rule.limits.max_packets = Some(1)), None);
    }

    #[test]
    fn what_a_call_cannot_know_is_refused_with_what_works() {
        type Change = fn(&mut RuleSpec);
        let cases: [(&str, Change); 9] = [
            ("own address", |rule| rule.matching.locals = vec!["10.0.0.0/8".parse().expect("a range")]),
            ("own port", |rule| rule.matching.local_ports = vec![PortRange { first: 80, last: 80 }]),
            ("interface", |rule| rule.matching.interfaces = vec!["eth0".to_owned()]),
            ("TCP flags", |rule| rule.matching.tcp_flags = TcpFlags { syn: true, ..TcpFlags::default() }),
            ("with data", |rule| rule.matching.data_only = true),
            ("share of the flows", |rule| rule.matching.share = Some(0.5)),
            ("established", |rule| rule.matching.connections = Connections::Established),
            ("comes to", |rule| rule.matching.direction = Some(Direction::Ingress)),
            ("bytes", |rule| rule.limits.max_bytes = Some(1)),
        ];
        for (word, change) in cases {
            let refusal = refused(change).expect(word);
            assert!(refusal.what.starts_with("--refuse") && refusal.what.contains(word), "{refusal:?}");
            assert!(refusal.mend.contains("--reject or --reset syn"), "{refusal:?}");
        }
        let refusal = refused(|rule| rule.matching.protos = vec![Proto::Icmp]).expect("no ICMP");
        assert!(refusal.what.contains("tcp and udp only"), "{refusal:?}");
    }

    #[test]
    fn a_fault_of_one_protocol_and_a_match_of_another_exclude_each_other() {
        let tcp = &[Class::TCP];
        assert_eq!(protos("reset", tcp, &[]), Ok(()));
        assert_eq!(protos("reset", tcp, &[Proto::Udp, Proto::Tcp]), Ok(()), "it acts on the TCP part");
        assert_eq!(protos("loss", &[], &[Proto::Udp]), Ok(()));
        assert_eq!(protos("x", &[Class::ICMP6], &[Proto::Icmp]), Ok(()));
        let refusal = protos("reset", tcp, &[Proto::Udp, Proto::Icmp]).expect_err("UDP cannot be reset");
        assert_eq!(refusal.what, "--reset acts on tcp only, and --proto udp,icmp leaves nothing to act on");
        assert_eq!(refusal.mend, "leave out --proto, or write --proto tcp");
        let refusal =
            protos("dns", &[Class::UDP, Class::TCP], &[Proto::Icmp]).expect_err("ICMP asks no names");
        assert!(refusal.what.contains("tcp and udp only") && refusal.mend.ends_with("--proto tcp,udp"));
    }

    #[test]
    fn a_fault_of_one_port_and_a_match_of_another_exclude_each_other() {
        let named = |name| FAULTS.iter().find(|info| info.name == name).expect("a kind");
        let range = |first, last| vec![PortRange { first, last }];
        let asked = |direction, peer_ports, local_ports| {
            let matching = MatchSpec { direction, peer_ports, local_ports, ..MatchSpec::default() };
            ports(named("dns"), &matching)
        };
        assert_eq!(asked(None, vec![], range(5000, 6000)), Ok(()));
        assert_eq!(asked(None, range(1, 100), vec![]), Ok(()));
        assert_eq!(asked(Some(Direction::Ingress), range(6379, 6379), range(53, 53)), Ok(()));
        assert_eq!(asked(Some(Direction::Both), range(6379, 6379), vec![]), Ok(()), "it may be the server");
        let redis = MatchSpec { peer_ports: range(6379, 6379), ..MatchSpec::default() };
        assert_eq!(ports(named("loss"), &redis), Ok(()));
        let refusal = ports(named("dns"), &redis).expect_err("redis answers no names");
        assert_eq!(
            refusal.what,
            "--dns acts on port 53 only, and the peer port asked for leaves nothing to act on"
        );
        assert_eq!(refusal.mend, "leave out the port, or write --peer-port 53");
        let refusal = asked(Some(Direction::Ingress), vec![], range(80, 80)).expect_err("not the resolver");
        assert!(refusal.mend.ends_with("--local-port 53"), "{refusal:?}");
    }
}
