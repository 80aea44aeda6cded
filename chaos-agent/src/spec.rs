//! A fault as the user asked for it: target, match, faults, schedule, limits; validated, not yet resolved.
//!
//! `cli` builds it, `engine` turns it into kernel rules once `targets` has resolved who is meant.

use std::{fmt, net::IpAddr, time::Duration};

use chaos_common::fault::Faults;
use ipnet::IpNet;

use crate::targets::Target;

/// Which way a packet goes, from the target's point of view.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Direction {
    /// Leaves the target.
    Egress,
    /// Comes to the target.
    Ingress,
    /// Either way, each with its own state.
    Both,
}

/// An inclusive port range; a single port has `first == last`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct PortRange {
    /// First port.
    pub first: u16,
    /// Last port, at least `first`.
    pub last: u16,
}

/// One end of a conversation: an address range, a port range, or both (then both must hold).
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Endpoint {
    /// Addresses; none means any.
    pub net: Option<IpNet>,
    /// Ports; none means any.
    pub ports: Option<PortRange>,
}

impl fmt::Display for Endpoint {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match &self.net {
            Some(net) => net.fmt(f)?,
            None => f.write_str("any address")?,
        }
        match self.ports {
            Some(range) if range.first == range.last => write!(f, " port {}", range.first),
            Some(range) => write!(f, " ports {}-{}", range.first, range.last),
            None => Ok(()),
        }
    }
}

impl Endpoint {
    /// The endpoint of exactly one address, on any port.
    #[must_use]
    pub fn host(addr: IpAddr) -> Self {
        Self { net: Some(IpNet::from(addr)), ports: None }
    }
}

/// Transport protocols a rule can name.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Proto {
    /// TCP.
    Tcp,
    /// UDP.
    Udp,
    /// ICMP and `ICMPv6`.
    Icmp,
}

/// Which connections a rule is for.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Default)]
pub enum Connections {
    /// Every packet.
    #[default]
    All,
    /// Flows whose first packet (TCP: SYN) was seen after arming.
    New,
    /// Every other flow.
    Established,
}

/// TCP flags of which at least one must be set.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Default)]
pub struct TcpFlags {
    /// SYN (also SYN-ACK).
    pub syn: bool,
    /// FIN.
    pub fin: bool,
    /// RST.
    pub rst: bool,
}

/// Which packets of the target. Lists are alternatives (any may hold); an empty list means any.
/// Different fields must all hold. Exclusions win.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct MatchSpec {
    /// Egress, ingress or both; none = the faults' own default (loss: egress, partition: both).
    pub direction: Option<Direction>,
    /// The other end.
    pub peers: Vec<Endpoint>,
    /// Other end's ports (any of them), whatever the address.
    pub peer_ports: Vec<PortRange>,
    /// The target's own addresses.
    pub locals: Vec<IpNet>,
    /// The target's own ports.
    pub local_ports: Vec<PortRange>,
    /// Protocols.
    pub protos: Vec<Proto>,
    /// Interfaces by name, in the target's namespace.
    pub interfaces: Vec<String>,
    /// Peers never hit.
    pub except: Vec<Endpoint>,
    /// TCP flags, any of them; all false = no condition.
    pub tcp_flags: TcpFlags,
    /// Only packets that carry payload.
    pub data_only: bool,
    /// Share of flows, 0..=1; none = all.
    pub share: Option<f64>,
    /// New or established connections only.
    pub connections: Connections,
    /// Also packets that are only forwarded through the target's namespace.
    pub forwarded: bool,
}

/// When a rule acts.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Default)]
pub struct Schedule {
    /// How long from arming (start delay included); none = as long as `exec`'s command, capped by the engine.
    pub duration: Option<Duration>,
    /// How long after arming it begins.
    pub start_delay: Duration,
    /// Flapping: acts for `.0`, rests for `.1`, again and again.
    pub flap: Option<(Duration, Duration)>,
}

/// How far a rule goes. 0 in none of them: an absent limit is `None`.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Default)]
pub struct Limits {
    /// Ends after this many packets were hit.
    pub max_packets: Option<u64>,
    /// Ends before more than this many bytes were hit.
    pub max_bytes: Option<u64>,
    /// It comes to so many namespaces, so many cgroups and so many devices at most: more are refused when it is
    /// armed, and left out when they come later.
    pub max_targets: Option<u32>,
    /// Hits packets of this many flows only: the first that it meets.
    pub max_flows: Option<u64>,
}

/// One rule in the user's terms.
#[derive(Clone, Debug, PartialEq)]
pub struct RuleSpec {
    /// What the summary line and the events call it, such as `loss 10%`.
    pub name: String,
    /// Who.
    pub target: Target,
    /// The other side, when it is a target too (partition between two of this machine).
    pub peer: Option<Target>,
    /// Which packets.
    pub matching: MatchSpec,
    /// What happens.
    pub faults: Faults,
    /// When.
    pub schedule: Schedule,
    /// How far.
    pub limits: Limits,
    /// Count only, touch nothing.
    pub shadow: bool,
    /// Same seed, same verdicts; none = random.
    pub seed: Option<u64>,
    /// How long the kernel keeps the rule without hearing from us.
    pub lease: Duration,
}

impl RuleSpec {
    /// The same rule, whatever both say about how long they last.
    #[must_use]
    pub fn is_same_but_duration(&self, other: &Self) -> bool {
        // Every field is named, so that a new one cannot be forgotten. A set of thousands is compared for each
        // change of one: nothing is copied.
        let Self { name, target, peer, matching, faults, schedule, limits, shadow, seed, lease } = other;
        let schedule = Schedule { duration: self.schedule.duration, ..*schedule };
        self.schedule == schedule
            && (self.limits, self.shadow, self.seed, self.lease) == (*limits, *shadow, *seed, *lease)
            && self.matching == *matching
            && self.faults == *faults
            && self.target == *target
            && self.peer == *peer
            && self.name == *name
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn rule() -> RuleSpec {
        RuleSpec {
            name: "loss 10%".to_owned(),
            target: Target::NetnsName("blue".to_owned()),
            peer: None,
            matching: MatchSpec::default(),
            faults: Faults::default(),
            schedule: Schedule { duration: Some(Duration::from_mins(1)), ..Schedule::default() },
            limits: Limits::default(),
            shadow: false,
            seed: None,
            lease: Duration::from_secs(3),
        }
    }

    #[test]
    fn only_how_long_it_lasts_may_differ() {
        let (one, mut other) = (rule(), rule());
        other.schedule.duration = None;
        assert!(one != other && one.is_same_but_duration(&other) && other.is_same_but_duration(&one));
        let mut faults = Faults::default();
        for info in chaos_common::fault::FAULTS.iter().filter(|info| info.name == "loss") {
            (info.parse)("10%", &mut faults).unwrap();
        }
        let matching = MatchSpec { data_only: true, ..MatchSpec::default() };
        let schedule = Schedule { start_delay: Duration::from_secs(1), ..one.schedule };
        let limits = Limits { max_packets: Some(1), ..Limits::default() };
        for other in [
            RuleSpec { name: "loss".to_owned(), ..rule() },
            RuleSpec { target: Target::Host, ..rule() },
            RuleSpec { peer: Some(Target::Host), ..rule() },
            RuleSpec { matching, ..rule() },
            RuleSpec { faults, ..rule() },
            RuleSpec { schedule, ..rule() },
            RuleSpec { limits, ..rule() },
            RuleSpec { shadow: true, ..rule() },
            RuleSpec { seed: Some(1), ..rule() },
            RuleSpec { lease: Duration::from_secs(4), ..rule() },
        ] {
            assert!(one != other && !one.is_same_but_duration(&other), "{other:?}");
        }
    }
}
