//! Which devices of a namespace carry our programs: those where its addresses and routes are.

use chaos_common::{abi::device_flags, compile::Place};

use crate::{net::link::Link, spec::Direction};

/// A device that a rule needs.
#[derive(Clone, Debug)]
pub(super) struct Chosen {
    pub(super) link: Link,
    /// A rule named it.
    pub(super) named: bool,
}

/// The devices a rule applies to. Named ones whatever they are; otherwise what is up and is not a
/// slave, a port or ours: its packets cross the master too, and are judged there.
pub(super) fn choose(links: &[Link], names: &[String]) -> Vec<Chosen> {
    let wanted = |link: &&Link| {
        if names.is_empty() { link.is_up() && !link.is_port() } else { names.contains(&link.name) }
    };
    links
        .iter()
        .filter(|link| !link.is_ours())
        .filter(wanted)
        .map(|link| Chosen { link: link.clone(), named: !names.is_empty() })
        .collect()
}

/// Where on a chosen device a rule applies. Frames with a VLAN tag are judged at the VLAN's own
/// device, if there is one on top, unless the rule names this one.
pub(super) fn place(netns: u64, chosen: &Chosen, links: &[Link], direction: Direction) -> Place {
    let has_vlans = links
        .iter()
        .any(|link| link.kind.as_deref() == Some("vlan") && link.lower() == Some(chosen.link.index));
    Place {
        netns,
        ifindex: chosen.link.index,
        egress: direction != Direction::Ingress,
        ingress: direction != Direction::Egress,
        tagged: chosen.named || !has_vlans,
    }
}

/// What the program must know about the device itself.
pub(super) fn flags(link: &Link, protect: bool) -> u32 {
    let mut flags = 0;
    if link.is_loopback() {
        flags |= device_flags::LOOPBACK;
    }
    if !link.has_ethernet_header() && !link.is_loopback() {
        flags |= device_flags::L3;
    }
    if protect {
        flags |= device_flags::PROTECT;
    }
    flags
}
