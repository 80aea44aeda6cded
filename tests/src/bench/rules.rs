//! Mixed rules in words that several programs understand: 40 % single addresses, 30 % ranges of addresses, 20 % ranges
//! of ports, 10 % cgroups.

use std::net::Ipv4Addr;

use anyhow::Result;
use serde_json::{Value, json};

use crate::lab::{
    cgroup::Cgroup,
    netns::{Netns, words},
    process::Process,
};

/// Which packets; IPv4, whatever the protocol.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Rule {
    /// To this range of addresses; of 32 bits, one address.
    Peer(Ipv4Addr, u8),
    /// To these ports, both ends included.
    Ports(u16, u16),
    /// From the cgroup with this number of [`Cgroups`].
    Cgroup(usize),
}

/// So many rules, all different, that match no packet to where benchmarks send: 10.0.0.0/9 is free of them, and the
/// ports below 20,000 are.
#[must_use]
pub fn unmatched(count: usize) -> Vec<Rule> {
    let one = |number: usize| {
        let network = Ipv4Addr::from_bits(0x0a80_0000 + (number as u32) * 256);
        match number % 10 {
            0..4 => Rule::Peer(network, 32),
            4..7 => Rule::Peer(network, 24 + (number % 8) as u8),
            7..9 => {
                let first = 20_000 + (number % 4096) as u16 * 10;
                Rule::Ports(first, first + 9)
            }
            _ => Rule::Cgroup(number / 10),
        }
    };
    (0..count).map(one).collect()
}

/// How many cgroups [`unmatched`] names.
#[must_use]
pub const fn cgroups_of(count: usize) -> usize {
    count / 10
}

/// Cgroups that live in a namespace, and send nothing.
#[derive(Debug)]
pub struct Cgroups {
    // A cgroup goes when nothing is in it.
    _inhabitants: Vec<Process>,
    cgroups: Vec<Cgroup>,
}

impl Cgroups {
    /// Makes so many.
    ///
    /// # Errors
    /// Without cgroup version 2 or the right to write to it.
    pub fn new(netns: &Netns, count: usize) -> Result<Self> {
        let cgroups = (0..count).map(|_| Cgroup::new()).collect::<Result<Vec<_>>>()?;
        // The namespace of a cgroup is known from the processes in it.
        let sleeper = |cgroup: &Cgroup| Process::start(netns.inside(cgroup.inside(words("sleep 86400"))));
        let inhabitants = cgroups.iter().map(sleeper).collect::<Result<Vec<_>>>()?;
        Ok(Self { _inhabitants: inhabitants, cgroups })
    }

    /// The path of one from the root of the hierarchy.
    #[must_use]
    pub fn name(&self, number: usize) -> &str {
        self.cgroups.get(number).map_or("/", Cgroup::name)
    }
}

impl Rule {
    /// The body of a fault of the agent: a partition; `shadow` counts what it would hit, and touches nothing.
    #[must_use]
    pub fn fault(self, netns: &Netns, cgroups: &Cgroups, shadow: bool) -> Value {
        let (target, matching) = match self {
            Self::Peer(network, length) => (None, json!({"peer": [format!("{network}/{length}")]})),
            Self::Ports(first, last) => (None, json!({"peer_port": [format!("{first}-{last}")]})),
            Self::Cgroup(number) => (Some(format!("cgroup:{}", cgroups.name(number))), json!({})),
        };
        let target = target.unwrap_or_else(|| format!("netns:{}", netns.name()));
        json!({"target": target, "faults": {"partition": true}, "match": matching, "shadow": shadow, "duration": "30m"})
    }
}

#[cfg(test)]
mod tests {
    use super::{Rule, cgroups_of, unmatched};

    #[test]
    fn the_mix_is_as_told_and_no_two_are_alike() {
        let rules = unmatched(1000);
        let count = |wanted: fn(&Rule) -> bool| rules.iter().filter(|rule| wanted(rule)).count();
        assert_eq!(count(|rule| matches!(rule, Rule::Peer(_, 32))), 400);
        assert_eq!(count(|rule| matches!(rule, Rule::Peer(_, 24..32))), 300);
        assert_eq!(count(|rule| matches!(rule, Rule::Ports(20_000.., _))), 200);
        assert_eq!(count(|rule| matches!(rule, Rule::Cgroup(0..100))), cgroups_of(1000));
        let rules = unmatched(4096);
        for (place, rule) in rules.iter().enumerate() {
            assert!(!rules[..place].contains(rule), "{rule:?}");
        }
    }
}
