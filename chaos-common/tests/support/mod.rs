//! What the files of this test program share: a generator with a seed, rules, one packet's way.

use chaos_common::{
    abi::{Direction, Rule, RuleState, device_flags, rule_flags},
    compile::{DeviceInput, Input, Place, RuleInput, addr_of, compile},
    fault::{FAULTS, Faults},
    host::{Host, HostSteps},
    job::{Job, Size, job_flags},
    judge::{Action, judge},
    packet::{Addr, Class, Packet, packet_flags},
};

/// The namespace of the tests.
pub(crate) const NETNS: u64 = 0x7000_0001;
/// Its plain device.
pub(crate) const DEVICE: (u64, u32) = (NETNS, 2);
/// Its loopback device.
pub(crate) const LOOPBACK: (u64, u32) = (NETNS, 1);
/// Boot clock when the rules were armed.
pub(crate) const NOW_NS: u64 = 1_000_000_000_000;
/// Every class but the link layer's own.
pub(crate) const ALL_IP: u8 = 0x3e;

/// A generator whose numbers depend on its seed alone (xorshift64*, Vigna 2016).
#[derive(Clone, Debug)]
pub(crate) struct Random(u64);

impl Random {
    pub(crate) const fn new(seed: u64) -> Self {
        Self(seed.wrapping_mul(0x9e37_79b9_7f4a_7c15) | 1)
    }

    pub(crate) const fn word(&mut self) -> u64 {
        self.0 ^= self.0 >> 12;
        self.0 ^= self.0 << 25;
        self.0 ^= self.0 >> 27;
        self.0.wrapping_mul(0x2545_f491_4f6c_dd1d)
    }

    /// A number below `end`.
    pub(crate) const fn below(&mut self, end: u64) -> u64 {
        (self.word() >> 16) % end
    }

    /// True once in `of` times.
    pub(crate) const fn one_in(&mut self, of: u64) -> bool {
        self.below(of) == 0
    }

    pub(crate) fn pick<'a, T>(&mut self, from: &'a [T]) -> &'a T {
        &from[self.below(from.len() as u64) as usize]
    }
}

/// The devices of the tests.
pub(crate) fn devices() -> Vec<DeviceInput> {
    [(LOOPBACK, device_flags::LOOPBACK), (DEVICE, 0)]
        .map(|((netns, ifindex), flags)| DeviceInput { netns, ifindex, flags, normaliser: 0, line: 0 })
        .to_vec()
}

/// Faults by the flags of the command line: `loss=10%`, or just a rate of loss.
pub(crate) fn faults(text: &str) -> Faults {
    let mut faults = Faults::default();
    let (name, value) = if text == "partition" { (text, "") } else { ("loss", text) };
    let info = FAULTS.iter().find(|info| info.name == name).unwrap();
    (info.parse)(value, &mut faults).unwrap();
    faults
}

/// A rule that is alive for a second from [`NOW_NS`] on; it applies to all IP packets of both
/// devices, both ways.
pub(crate) fn everywhere(slot: u32, fault: &str) -> RuleInput {
    let place = |device: DeviceInput| Place {
        netns: NETNS,
        ifindex: device.ifindex,
        egress: true,
        ingress: true,
        tagged: true,
    };
    RuleInput {
        name: format!("rule {slot}"),
        slot,
        rule: Rule {
            id: u64::from(slot) + 100,
            armed_ns: NOW_NS,
            starts_ns: NOW_NS,
            expires_ns: NOW_NS + 1_000_000_000,
            flags: rule_flags::ORDINAL,
            faults: faults(fault),
            ..Rule::default()
        },
        places: devices().into_iter().map(place).collect(),
        classes: ALL_IP,
        ..RuleInput::default()
    }
}

/// A host that runs these rules at [`NOW_NS`], each with a lease without end.
pub(crate) fn arm(rules: Vec<RuleInput>) -> Host {
    let state = || RuleState { lease_until_ns: u64::MAX, ..RuleState::default() };
    let states = rules.iter().map(|rule| (rule.slot, state())).collect();
    let tables = compile(&Input { rules, cgroups: Vec::new(), devices: devices() }).unwrap();
    let host = Host { tables, states, ..Host::default() };
    host.now_ns.set(NOW_NS);
    host
}

/// A TCP segment with payload from 10.0.0.1:40000 to 10.0.0.2:6379.
pub(crate) fn tcp() -> Packet {
    Packet {
        source: addr("10.0.0.1"),
        destination: addr("10.0.0.2"),
        source_port: 40000,
        destination_port: 6379,
        class: Class::TCP,
        proto: 6,
        tcp_flags: 16,
        flags: packet_flags::IP | packet_flags::PORTS | packet_flags::DATA,
        network_offset: 14,
        header_len: 54,
        transport_offset: 34,
        payload_len: 46,
        tos: 0,
        reserved: 0,
    }
}

/// An address as it stands in a packet's facts.
pub(crate) fn addr(text: &str) -> Addr {
    addr_of(text.parse().unwrap())
}

/// A packet of 100 bytes where it is.
pub(crate) fn job(host: &Host, packet: &Packet, at: (u64, u32), direction: Direction) -> Job {
    Job {
        packet: *packet,
        device: host.tables.devices[&at],
        size: Size { segments: 1, bytes: 100 },
        netns: at.0,
        direction: direction as u32,
        flags: job_flags::FINAL,
        ..Job::default()
    }
}

/// Judges a packet; the number of the fault that drops it, 0 = it passes.
pub(crate) fn judge_at(host: &Host, packet: &Packet, at: (u64, u32), direction: Direction) -> u32 {
    run(host, &job(host, packet, at, direction))
}

/// Judges a packet of 100 bytes that leaves by [`DEVICE`].
pub(crate) fn judge_one(host: &Host, packet: &Packet) -> u32 {
    judge_at(host, packet, DEVICE, Direction::Egress)
}

/// Judges what the job describes.
pub(crate) fn run(host: &Host, job: &Job) -> u32 {
    let mut steps = HostSteps { host, job: *job };
    match judge(&mut steps) {
        Action::Pass => 0,
        Action::Apply => steps.job.verdict.drop_by,
        Action::Normalise => panic!("a final packet goes through the normaliser"),
    }
}

/// A world without tables, for what has a clock and dice only.
macro_rules! knows_nothing {
    ($ty:ty) => {
        impl chaos_common::world::World for $ty {
            fn header(&self) -> Option<&chaos_common::abi::Header> {
                None
            }

            fn set(&self, _: u32) -> Option<&chaos_common::abi::Set> {
                None
            }

            fn clause(&self, _: u32) -> Option<chaos_common::abi::Clause> {
                None
            }

            fn address_set(&self, _: chaos_common::abi::Side, _: &chaos_common::packet::Addr) -> Option<u32> {
                None
            }

            fn port_set(&self, _: chaos_common::abi::Side, _: u16) -> Option<u32> {
                None
            }

            fn socket_owner(&self, _: &chaos_common::abi::Header) -> Option<chaos_common::abi::CgroupSets> {
                None
            }

            fn table_owner(&self, _: &chaos_common::abi::FlowKey) -> Option<chaos_common::abi::CgroupSets> {
                None
            }

            fn rule(&self, _: u32) -> Option<&chaos_common::abi::Rule> {
                None
            }

            fn state(&self, _: u32) -> Option<&chaos_common::abi::RuleState> {
                None
            }

            fn count(
                &self,
                _: u32,
                _: chaos_common::abi::Direction,
                _: chaos_common::abi::Count,
                _: u64,
                _: u64,
            ) {
            }

            fn flow(&self, _: &chaos_common::abi::FlowKey) -> Option<chaos_common::abi::Flow> {
                None
            }

            fn flow_memory(
                &self,
                _: &chaos_common::abi::MemoryKey,
            ) -> Option<&chaos_common::abi::FlowMemory> {
                None
            }

            fn flow_order(&self, _: &chaos_common::abi::FlowKey) -> Option<&chaos_common::abi::FlowOrder> {
                None
            }

            fn dist(&self, _: u32, _: u32) -> Option<i16> {
                None
            }

            fn is_protected(&self, _: &chaos_common::abi::FlowKey) -> bool {
                false
            }

            fn is_own_address(&self, _: u64, _: &chaos_common::packet::Addr) -> bool {
                false
            }
        }
    };
}
pub(crate) use knows_nothing;
