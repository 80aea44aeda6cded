//! What the gate lets go, no rule matches; and it lets go nearly all of what no rule matches.

use std::net::IpAddr;

use chaos_common::{
    abi::{Direction, Gate},
    compile::{CgroupInput, Input, addr_of, reference::Question},
    gate::{self, Ends, Facts, GateAddr, Known, lets_go},
    host::Host,
    lookup::flow_key,
    packet::{Addr, Class, Packet, unmapped},
};

use crate::{
    checks::found,
    lookup::{cgroups, devices, host_of, mixed},
    support::{NETNS, Random},
};

/// The owners that a host knows.
struct Here<'a> {
    host: &'a Host,
    cgroups: &'a [CgroupInput],
    netns: u64,
}

impl Ends for Here<'_> {
    fn is_booked(&self, port: u16) -> bool {
        self.host.owners.keys().any(|key| (key.netns, key.local_port) == (self.netns, port))
    }

    fn socket(&self, gate: &Gate) -> u64 {
        let id = self.host.socket_cgroup.get();
        let known = self.cgroups.iter().find(|cgroup| cgroup.id == id);
        let line = known.into_iter().flat_map(|cgroup| cgroup.ancestors.iter().chain([&cgroup.id]));
        line.fold(gate.any_cgroup, |groups, id| groups | gate::cgroup(gate, *id))
    }
}

fn gate_addr(addr: &Addr) -> GateAddr {
    match (unmapped(addr), addr.map(|word| u64::from(u32::from_be(word)))) {
        (Some(v4), _) => GateAddr::V4(u32::from_be(v4)),
        (None, [a, b, c, d]) => GateAddr::V6(a << 32 | b, c << 32 | d),
    }
}

/// Whether the gate lets the packet go; none = it is none that the gate is asked about.
pub(crate) fn goes(host: &Host, cgroups: &[CgroupInput], question: &Question<'_>) -> Option<bool> {
    let packet = question.packet;
    let is_asked = matches!(packet.class, Class::TCP | Class::UDP | Class::ICMP)
        && !packet.is_tagged()
        && !packet.is_later_fragment();
    if !is_asked {
        return None;
    }
    let facts = Facts {
        class: packet.class.0,
        addresses: [gate_addr(&packet.source), gate_addr(&packet.destination)],
        ports: packet.has_ports().then_some([packet.source_port, packet.destination_port]),
    };
    let gate = host.tables.gate.as_deref()?;
    let groups = match gate::device(gate, question.netns, question.ifindex) {
        Known::Here(device) => device.groups(question.direction),
        Known::Nothing => return Some(true),
        Known::Unclear => return Some(false),
    };
    let ends = Here { host, cgroups, netns: question.netns };
    let goes = lets_go(gate, groups, question.direction, &facts, &ends);
    if goes && question.direction == Direction::Egress {
        teaches_nothing(host, question, gate);
    }
    Some(goes)
}

/// What leaves without being looked at was not to be learnt from: its socket has no target, and nobody is booked.
fn teaches_nothing(host: &Host, question: &Question<'_>, gate: &Gate) {
    if gate.dims & chaos_common::abi::dims::LEARN_OWNERS != 0 {
        let key = flow_key(question.packet, question.netns, Direction::Egress);
        assert!(!host.tables.cgroups.contains_key(&host.socket_cgroup.get()), "{question:?}");
        assert!(!host.owners.contains_key(&key), "{question:?}");
    }
}

/// Of a thousand rules as in the performance goals, strangers' packets are let go at the gate.
#[test]
fn strangers_are_let_go() {
    let mut random = Random::new(7);
    for count in [1, 10, 100, 1000] {
        let rules: Vec<_> = (0..count).map(mixed).collect();
        let input = Input { rules, cgroups: cgroups(), devices: devices() };
        let mut host = host_of(&input).unwrap();
        let (mut let_go, mut could_go) = (0, 0);
        for _ in 0..2000 {
            let mut end = || IpAddr::from((10 << 24 | random.below(1 << 17) as u32).to_be_bytes());
            let packet =
                Packet { source: addr_of(end()), destination: addr_of(end()), ..crate::support::tcp() };
            let direction = *random.pick(&[Direction::Egress, Direction::Ingress]);
            let question = Question {
                packet: &packet,
                netns: NETNS,
                ifindex: 2,
                direction,
                source_owner: 0,
                destination_owner: 0,
            };
            let goes = goes(&host, &input.cgroups, &question).expect("the gate is asked");
            let expected = found(&mut host, &question, false);
            assert!(!goes || expected.is_empty(), "{question:?}");
            could_go += u32::from(expected.is_empty());
            let_go += u32::from(goes);
        }
        println!("{count} rules: {let_go} of {could_go} let go");
        assert!(could_go > 1000 && let_go >= could_go * 19 / 20, "{count} rules: {let_go} of {could_go}");
    }
}
