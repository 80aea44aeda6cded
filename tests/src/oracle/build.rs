//! Rules for packet tables, written as a sentence: `rule("100%").peer("10.0.0.0/8").egress()`.

use std::net::IpAddr;

use chaos_common::{
    abi::{Rule, rule_flags},
    compile::{ClauseInput, Input, Place, Prefix, RuleInput},
    env::Prob,
    fault::{FAULTS, Faults},
    packet::Class,
};

use super::{NETNS, NORMALISING, NOW_NS, PLAIN, cgroups, devices};

/// Every class of packet but the link layer's own (ARP, neighbour discovery).
const ALL_IP: u8 = 0x3e;

/// A rule of a table; it applies on both devices, both ways, to every IP packet, at any time.
#[derive(Clone, Debug)]
pub struct RuleBuilder(pub RuleInput);

/// A rule with loss of this rate (`100%`, `every=3`).
#[must_use]
pub fn loss(rate: &str) -> RuleBuilder {
    fault("loss", rate)
}

/// A rule with a fault of this name and value.
///
/// # Panics
/// When there is no such fault or it does not take the value.
#[must_use]
pub fn fault(name: &str, value: &str) -> RuleBuilder {
    faults(&[(name, value)])
}

/// A rule with several faults, each by its name and value; the first names the rule.
///
/// # Panics
/// When there is no such fault or it does not take the value.
#[must_use]
pub fn faults(list: &[(&str, &str)]) -> RuleBuilder {
    let mut faults = Faults::default();
    for (name, value) in list {
        let kind = FAULTS.iter().find(|kind| kind.name == *name);
        let kind = kind.unwrap_or_else(|| panic!("no fault is called {name}"));
        (kind.parse)(value, &mut faults).unwrap_or_else(|error| panic!("{name} {value}: {error}"));
    }
    let rule = Rule {
        id: 1,
        armed_ns: NOW_NS,
        starts_ns: NOW_NS,
        expires_ns: u64::MAX,
        flags: flags_of(&faults),
        faults,
        ..Rule::default()
    };
    RuleBuilder(RuleInput {
        name: list.first().map_or("", |(name, _)| name).to_string(),
        rule,
        classes: ALL_IP,
        ..RuleInput::default()
    })
}

/// What the faults need besides the packet; not `WIRE`: a table's packets are whole.
fn flags_of(faults: &Faults) -> u32 {
    let set = [
        (true, rule_flags::ORDINAL),
        (faults.needs_line(), rule_flags::LINE),
        (faults.needs_memory(), rule_flags::MEMORY),
        (faults.needs_checksum(), rule_flags::CHECKSUM),
    ];
    set.into_iter().filter(|(on, _)| *on).fold(0, |flags, (_, flag)| flags | flag)
}

fn prefix(text: &str) -> Prefix {
    let (addr, len) = text.split_once('/').unwrap_or((text, ""));
    let addr: IpAddr = addr.parse().unwrap_or_else(|_| panic!("`{text}` is not an address or a range"));
    let whole = if addr.is_ipv4() { 32 } else { 128 };
    Prefix::new(addr, if len.is_empty() { whole } else { len.parse().unwrap_or(whole) })
}

impl RuleBuilder {
    fn clause(&mut self) -> &mut ClauseInput {
        if self.0.clauses.is_empty() {
            self.0.clauses.push(ClauseInput::default());
        }
        let last = self.0.clauses.len() - 1;
        &mut self.0.clauses[last]
    }

    fn exclusion(&mut self) -> &mut ClauseInput {
        self.0.exclusions.push(ClauseInput::default());
        let last = self.0.exclusions.len() - 1;
        &mut self.0.exclusions[last]
    }

    /// One more range of the other end.
    #[must_use]
    pub fn peer(mut self, range: &str) -> Self {
        self.clause().peers.push(prefix(range));
        self
    }

    /// One more range of the target's own end.
    #[must_use]
    pub fn local(mut self, range: &str) -> Self {
        self.clause().locals.push(prefix(range));
        self
    }

    /// One more range of the other end's ports.
    #[must_use]
    pub fn peer_ports(mut self, first: u16, last: u16) -> Self {
        self.clause().peer_ports.push((first, last));
        self
    }

    /// One more range of the target's own ports.
    #[must_use]
    pub fn local_ports(mut self, first: u16, last: u16) -> Self {
        self.clause().local_ports.push((first, last));
        self
    }

    /// The other end in this range is never hit.
    #[must_use]
    pub fn except_peer(mut self, range: &str) -> Self {
        self.exclusion().peers.push(prefix(range));
        self
    }

    /// This port of the other end is never hit.
    #[must_use]
    pub fn except_peer_port(mut self, port: u16) -> Self {
        self.exclusion().peer_ports.push((port, port));
        self
    }

    /// Only packets of this class.
    #[must_use]
    pub fn class(mut self, class: Class) -> Self {
        self.0.classes = 1 << class.0;
        self
    }

    /// Also what is no IP packet: a full partition of an interface.
    #[must_use]
    pub fn everything(mut self) -> Self {
        self.0.classes = u8::MAX;
        self
    }

    /// Only what the socket's cgroup (see [`super::cgroups`]) owns.
    #[must_use]
    pub fn cgroup(mut self, id: u64) -> Self {
        self.0.cgroups.push(id);
        self
    }

    /// Sets flags (see [`rule_flags`]).
    #[must_use]
    pub fn flags(mut self, flags: u32) -> Self {
        self.0.rule.flags |= flags;
        self
    }

    /// One of these TCP flags must be set.
    #[must_use]
    pub fn tcp_flags(mut self, flags: u8) -> Self {
        self.0.rule.tcp_flags = flags.into();
        self
    }

    /// Only this share of flows.
    #[must_use]
    pub fn share(mut self, share: Prob) -> Self {
        self.0.rule.share = share;
        self.flags(rule_flags::SHARE)
    }

    /// Draws from this seed.
    #[must_use]
    pub fn seed(mut self, seed: u64) -> Self {
        self.0.rule.seed = seed;
        self
    }

    /// Begins and ends this many nanoseconds after [`NOW_NS`].
    #[must_use]
    pub fn between(mut self, starts_ns: u64, expires_ns: u64) -> Self {
        self.0.rule.starts_ns = NOW_NS + starts_ns;
        self.0.rule.expires_ns = NOW_NS + expires_ns;
        self
    }

    /// Acts this long at the start of each period.
    #[must_use]
    pub fn flapping(mut self, on_ns: u64, period_ns: u64) -> Self {
        self.0.rule.flap_on_ns = on_ns;
        self.0.rule.flap_period_ns = period_ns;
        self
    }

    /// Hits at most so many packets.
    #[must_use]
    pub fn max_flows(mut self, count: u64) -> Self {
        self.0.rule.max_flows = count;
        self
    }

    /// See [`chaos_common::abi::Rule::max_packets`].
    #[must_use]
    pub fn max_packets(mut self, count: u64) -> Self {
        self.0.rule.max_packets = count;
        self
    }

    /// Hits at most so many bytes.
    #[must_use]
    pub fn max_bytes(mut self, count: u64) -> Self {
        self.0.rule.max_bytes = count;
        self
    }

    /// Applies on one device and in the given directions only.
    #[must_use]
    pub fn only_on(mut self, ifindex: u32, egress: bool, ingress: bool) -> Self {
        self.0.places = vec![Place { netns: NETNS, ifindex, egress, ingress, tagged: true }];
        self
    }

    /// The rule for a table's slot, on every device unless it names its own.
    #[must_use]
    pub fn finish(mut self, slot: u32) -> RuleInput {
        self.0.slot = slot;
        self.0.rule.id = u64::from(slot) + 1;
        if self.0.places.is_empty() {
            let everywhere =
                |ifindex| Place { netns: NETNS, ifindex, egress: true, ingress: true, tagged: true };
            self.0.places = [PLAIN, NORMALISING].map(everywhere).to_vec();
        }
        self.0
    }
}

/// The rules of a table row as the compiler takes them.
#[must_use]
pub fn input(rules: &[RuleBuilder]) -> Input {
    let rules = rules.iter().cloned().zip(0..).map(|(rule, slot)| rule.finish(slot)).collect();
    Input { rules, cgroups: cgroups(), devices: devices() }
}
