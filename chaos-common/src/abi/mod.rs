//! The bytes that both sides see: map names, capacities, and every map value.
//!
//! Integers and byte arrays only, no implicit padding, zero = off. `tests/layout.rs` pins sizes
//! and offsets; a change there needs a new [`ABI_VERSION`].

mod count;
pub mod gate;
mod memory;
mod record;
mod rule;

pub use self::{
    count::{COUNTS, Count, Counters, DELAY_CLASSES, DELAY_ENDS_NS, Delays, Tally},
    gate::{Gate, GateDevice, GateRange, GateSide},
    memory::{DIST_ENTRIES, DIST_TABLES, DistTable, FlowMemory, FlowOrder, Lane, MemoryKey},
    record::Record,
    rule::{Rule, RuleState, rule_flags},
};
use crate::packet::Addr;

/// Compiled into the object and compared when it is loaded.
pub const ABI_VERSION: u32 = 6;

/// Rules (and clauses) that the layout can address.
pub const RULES_MAX: usize = 4096;
/// 64-bit words of a [`Set`].
pub const SET_WORDS: usize = RULES_MAX / 64;
/// Rules that may match one packet; the compiler refuses a set that can exceed it.
pub const MATCHES_MAX: usize = 16;
/// Clauses (of whatever rule) that may match one packet; the compiler refuses more.
pub const CLAUSES_PER_PACKET: usize = 32;
/// Copies of the lookup tables: one is read while the other is written.
/// Four, because readers leave a retired bank only after a grace period of some 10 to 20 ms, and
/// rules may be swapped more often than that. A power of two.
pub const BANKS: u32 = 4;
/// Ports, as the index of a table.
pub const PORTS: u32 = 65_536;
/// Entries of [`Connect`] that a bank holds; they are looked at one by one.
pub const CONNECTS_MAX: usize = 256;
/// A UDP flow idle for this long begins anew, nanoseconds.
pub const UDP_IDLE_NS: u64 = 30_000_000_000;
/// What a hook is told that is for whoever calls, in whatever cgroup; 0 = not told yet.
pub const HOOKED_ALL: u64 = u64::MAX;
/// An interface index that no interface has: redirecting there drops without telling the sender
/// (`NET_XMIT_DROP` from `TC_ACT_SHOT` at egress would; `net/core/filter.c`, Linux 6.1 to 6.18).
pub const BLACKHOLE_IFINDEX: u32 = 0x7fff_fff0;

/// Which way a packet crosses its device, from the namespace's point of view.
#[repr(u8)]
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Direction {
    /// Leaving; local = source.
    Egress = 0,
    /// Coming; local = destination.
    Ingress = 1,
}

/// A set of clauses. `summary` has a bit per non-zero word.
#[repr(C)]
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Set {
    /// Bit w is set when `words[w]` is not zero.
    pub summary: u64,
    /// Bit b of word w stands for clause 64 w + b.
    pub words: [u64; SET_WORDS],
}

/// One alternative of a rule's match, or one exclusion. The low bits of the index order them:
/// all clauses of a rule stand together, exclusions first.
#[repr(C)]
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Clause {
    /// The rule's slot.
    pub slot: u32,
    /// 1 = a packet that fulfils it is *not* for this rule.
    pub excludes: u32,
}

/// Dimension flags of [`Header::dims`]: only these are looked up.
pub mod dims {
    /// Some clause names local addresses.
    pub const LOCAL_ADDR: u32 = 1;
    /// Some clause names peer addresses.
    pub const PEER_ADDR: u32 = 2;
    /// Some clause names local ports.
    pub const LOCAL_PORT: u32 = 4;
    /// Some clause names peer ports.
    pub const PEER_PORT: u32 = 8;
    /// Some clause names the owner of the local end.
    pub const CGROUP: u32 = 16;
    /// Some clause names the owner of the peer's end.
    pub const PEER_CGROUP: u32 = 32;
    /// Egress must keep the owner table current (ingress rules by cgroup, or peer owners).
    pub const LEARN_OWNERS: u32 = 64;
    /// Flows must be tracked (new or established connections).
    pub const FLOWS: u32 = 128;
    /// Some rule also acts on packets that wait in the delay line ([`super::rule_flags::CUTS`]).
    pub const CUTS: u32 = 256;
}

/// One bank's fixed part: set numbers (indices of the set table) for what has no table of its own.
#[repr(C)]
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Header {
    /// See [`dims`].
    pub dims: u32,
    /// Every clause.
    pub all_set: u32,
    /// By [`crate::packet::Class`].
    pub class_sets: [u32; 8],
    /// Clauses without an address condition; by [`Side`].
    pub any_addr_sets: [u32; 2],
    /// Clauses without a port condition, for packets without ports; by [`Side`].
    pub no_port_sets: [u32; 2],
    /// Clauses without a condition on the owner.
    pub any_cgroup_set: u32,
    /// Clauses without a condition on the peer's owner.
    pub any_peer_cgroup_set: u32,
    /// Clauses of rules for both directions (see `lookup`, loopback).
    pub both_set: u32,
    /// Keeps the next field aligned.
    pub reserved: u32,
    /// Bit n: a target cgroup lies n levels below the root.
    pub cgroup_levels: u64,
}

/// One end of a packet as the rule sees it.
#[repr(u8)]
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Side {
    /// The target's end.
    Local = 0,
    /// The other end.
    Peer = 1,
}

/// A device of a namespace, in one bank.
#[repr(C)]
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash)]
pub struct DeviceKey {
    /// `SO_NETNS_COOKIE` of the namespace; unique for the life of the machine.
    pub netns: u64,
    /// Unique only within the namespace.
    pub ifindex: u32,
    /// Below [`BANKS`].
    pub bank: u32,
}

/// Flags of [`Device::flags`].
pub mod device_flags {
    /// The loopback device: what leaves it comes to it.
    pub const LOOPBACK: u32 = 1;
    /// Frames have no MAC header (`ARPHRD_NONE`: tun, wireguard).
    pub const L3: u32 = 2;
    /// Protected traffic of the operator is looked up (host and the agent's own namespace).
    pub const PROTECT: u32 = 4;
}

/// What the program must know about a device.
#[repr(C)]
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Device {
    /// Clauses that apply, by [`Direction`].
    pub sets: [u32; 2],
    /// The same for frames with a VLAN tag, which the VLAN's own device judges.
    pub tagged_sets: [u32; 2],
    /// See [`device_flags`].
    pub flags: u32,
    /// Near end of the namespace's normaliser; 0 = none.
    pub normaliser: u32,
    /// The namespace's delay line; 0 = none.
    pub line: u32,
    /// Keeps the size a multiple of eight bytes.
    pub reserved: u32,
}

/// A conversation, or with zeroed fields a whole port, a peer, ... Key of the owner table, the
/// flow table and the protected table.
#[repr(C)]
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash)]
pub struct FlowKey {
    /// `SO_NETNS_COOKIE`.
    pub netns: u64,
    /// Local address.
    pub local: Addr,
    /// Peer address.
    pub peer: Addr,
    /// Local port, host order.
    pub local_port: u16,
    /// Peer port, host order.
    pub peer_port: u16,
    /// IP protocol number.
    pub proto: u32,
}

/// Who has a conversation or a port.
#[repr(C)]
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Owner {
    /// Inode of the target cgroup.
    pub cgroup: u64,
    /// The socket that booked it; 0 = unknown.
    pub cookie: u64,
}

/// When a flow was first seen.
#[repr(C)]
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Flow {
    /// Boot clock; 0 = it was there before.
    pub first_seen_ns: u64,
    /// Boot clock of the last packet.
    pub last_seen_ns: u64,
}

/// A target cgroup in one bank.
#[repr(C)]
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash)]
pub struct CgroupKey {
    /// Inode of the directory.
    pub id: u64,
    /// Below [`BANKS`].
    pub bank: u32,
    /// Keeps the size a multiple of eight bytes.
    pub reserved: u32,
}

/// What a target cgroup selects.
#[repr(C)]
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct CgroupSets {
    /// Clauses for packets it owns.
    pub own: u32,
    /// Clauses for packets whose peer it owns.
    pub peer: u32,
}

/// One alternative or exclusion of a rule that answers connect(2). Entries of a rule stand
/// together, exclusions first; the first that is not [`connect_flags::USED`] ends the table.
#[repr(C)]
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Connect {
    /// `SO_NETNS_COOKIE` of the caller's namespace.
    pub netns: u64,
    /// Inode of the cgroup whose hook looks at it; 0 = the root's.
    pub cgroup: u64,
    /// The peer's address, where `mask` has bits.
    pub peer: Addr,
    /// Bits of the address that count.
    pub mask: Addr,
    /// The rule's slot.
    pub slot: u32,
    /// See [`connect_flags`].
    pub flags: u32,
    /// First port, host order.
    pub first_port: u16,
    /// Last port.
    pub last_port: u16,
    /// Keeps the size a multiple of eight bytes.
    pub reserved: u32,
}

/// Flags of [`Connect::flags`].
pub mod connect_flags {
    /// The entry is one; without it the table ends.
    pub const USED: u32 = 1;
    /// A call that fulfils it is *not* for this rule.
    pub const EXCLUDES: u32 = 2;
    /// The operator's traffic is protected in this namespace.
    pub const PROTECT: u32 = 4;
    /// IPv4 destinations.
    pub const V4: u32 = 8;
    /// IPv6 destinations.
    pub const V6: u32 = 16;
    /// Calls for TCP.
    pub const TCP: u32 = 32;
    /// Calls for UDP.
    pub const UDP: u32 = 64;
}

/// What the normaliser's frames need to come back: kept out of the frame, found by a number in it.
#[repr(C)]
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Intern {
    /// The original MAC addresses.
    pub macs: [u32; 3],
    /// The device the packet was on.
    pub ifindex: u32,
    /// `skb->mark`, which does not survive the way through another namespace.
    pub mark: u32,
    /// See [`intern_flags`].
    pub flags: u32,
    /// `SO_NETNS_COOKIE`.
    pub netns: u64,
}

/// Flags of [`Intern::flags`].
pub mod intern_flags {
    /// The packet was coming, not leaving.
    pub const INGRESS: u32 = 1;
    /// The packet only passes through the namespace.
    pub const FORWARDED: u32 = 2;
    /// The device has no MAC header; one was added.
    pub const L3: u32 = 4;
    /// The loopback device.
    pub const LOOPBACK: u32 = 8;
    /// It is our answer to a packet, and no rule's business.
    pub const ANSWER: u32 = 16;
}

/// Words of the control table.
pub mod control {
    /// Generation: 0 = nothing is armed. Its lowest bits name the bank, its highest are [`REMEMBERS`] and [`OWNED`];
    /// those between are random, and change with each port of [`super::gate::BOOKED`] that is booked first, too.
    pub const GENERATION: u32 = 0;
    /// Bit of the generation: what the gate lets go is remembered ([`crate::passed`]).
    pub const REMEMBERS: u64 = 1 << 63;
    /// Bit of the generation: what goes depends on the cgroup of the socket.
    pub const OWNED: u64 = 1 << 62;
    /// The next generation of the same bank.
    pub const NEXT: u64 = super::BANKS as u64;
    /// Not 0 = stopped from outside; the agent must not arm again.
    pub const STOPPED: u32 = 1;
    /// Packets that could not be sent through the normaliser and passed untouched.
    pub const INTERN_FAILED: u32 = 2;
    /// `CLOCK_MONOTONIC` of the last sign of life of the delay line's thread.
    pub const HEARTBEAT: u32 = 3;
    /// Which packets are told of ([`crate::sample::Sampling`]); 0 = none, because nobody reads.
    pub const SAMPLING: u32 = 4;
    /// Not 0 = the reader of records waits to be woken.
    pub const WAITS: u32 = 5;
    /// Number of words.
    pub const WORDS: u32 = 8;
}

/// What a test run of the classifier sees instead of clock, randomness and socket.
#[repr(C)]
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct TestInput {
    /// Boot clock.
    pub now_ns: u64,
    /// The random word of every draw.
    pub random: u32,
    /// See [`Direction`].
    pub direction: u32,
    /// Ancestor cgroups of the socket by level, 0 = none.
    pub cgroups: [u64; 8],
}

#[cfg(feature = "user")]
mod pod {
    use super::{
        CgroupKey, CgroupSets, Clause, Connect, Counters, Device, DeviceKey, DistTable, Flow, FlowKey,
        Header, Intern, Owner, Record, Rule, Set, TestInput,
    };

    macro_rules! pod {
        ($($ty:ty),+ $(,)?) => {
            $(
                // SAFETY: `repr(C)` of integers without padding (`tests/layout.rs`): every byte
                // pattern is a value.
                unsafe impl aya::Pod for $ty {}
            )+
        };
    }

    pod!(
        CgroupKey, CgroupSets, Clause, Connect, Counters, Device, DeviceKey, DistTable, Flow, FlowKey,
        Header, Intern, Owner, Record, Rule, Set, TestInput
    );
}
