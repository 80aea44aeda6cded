//! Calls of connect(2): which rule answers, with which errno.
//!
//! A call is no packet: the device and the local end are not known yet, and the hook runs where it
//! can be preempted, so there is no job on this CPU to share. What is left to compare is little,
//! and so few rules ask for it, that a plain scan of at most [`CONNECTS_MAX`] entries does.

use crate::{
    abi::{CONNECTS_MAX, Connect, Count, Direction, FlowKey, Rule, RuleState, connect_flags},
    env::{Draws, Env},
    job::Size,
    life::{Life, life},
    packet::{Addr, Class, mapped, unmapped},
    protect,
    wish::{ordinal, take_budget},
};

/// One call.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Call {
    /// `SO_NETNS_COOKIE` of the caller's namespace.
    pub netns: u64,
    /// Inode of the cgroup whose hook was called; 0 = the root's.
    pub cgroup: u64,
    /// Where to; IPv4 mapped into IPv6.
    pub peer: Addr,
    /// Port, host order.
    pub port: u16,
    /// [`Class::TCP`] or [`Class::UDP`]; anything else is not answered.
    pub class: Class,
}

/// Multipath TCP, which an application asks for like TCP (`include/uapi/linux/in.h`).
const PROTO_MPTCP: u32 = 262;
const PROTO_TCP: u32 = 6;
const PROTO_UDP: u32 = 17;

/// What rules call the protocol of a socket.
#[inline(always)]
#[must_use]
pub const fn class_of(proto: u32) -> Class {
    match proto {
        PROTO_TCP | PROTO_MPTCP => Class::TCP,
        PROTO_UDP => Class::UDP,
        _ => Class::OTHER,
    }
}

/// Where a call really goes: the unspecified address means this machine itself (`ip_route_connect`
/// in `include/net/route.h`, `tcp_v6_connect` in `net/ipv6/tcp_ipv6.c`, Linux 6.18).
#[inline(always)]
#[must_use]
pub const fn destination(addr: Addr) -> Addr {
    let [a, b, c, d] = addr;
    let unspecified = a == 0 && b == 0 && d == 0;
    if unspecified && c == 0 {
        return [0, 0, 0, 1u32.to_be()];
    }
    if unspecified && c == 0xffff_u32.to_be() {
        return mapped(0x7f00_0001_u32.to_be());
    }
    addr
}

/// Whether the entry is about this call.
#[inline(always)]
#[must_use]
pub fn matches(entry: &Connect, call: &Call) -> bool {
    let family = if unmapped(&call.peer).is_some() { connect_flags::V4 } else { connect_flags::V6 };
    let class = match call.class {
        Class::TCP => connect_flags::TCP,
        Class::UDP => connect_flags::UDP,
        _ => 0,
    };
    entry.flags & family != 0
        && entry.flags & class != 0
        && entry.netns == call.netns
        && entry.cgroup == call.cgroup
        && entry.first_port <= call.port
        && call.port <= entry.last_port
        && differs(entry, &call.peer) == 0
}

/// Bits in which the address is not the entry's.
#[inline(always)]
const fn differs(entry: &Connect, addr: &Addr) -> u32 {
    let [a, b, c, d] = *addr;
    let [pa, pb, pc, pd] = entry.peer;
    let [ma, mb, mc, md] = entry.mask;
    (a ^ pa) & ma | (b ^ pb) & mb | (c ^ pc) & mc | (d ^ pd) & md
}

/// Where the scan is after one entry: the slot of the rule last decided about above, the errno of
/// one that wants the call to fail below. One number, because it comes out of a function that the
/// verifier proves alone.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Scan(pub u64);

impl Scan {
    /// No rule was decided about yet.
    pub const BEGIN: Self = Self::decided(u32::MAX);
    /// The table ends here.
    pub const END: Self = Self(u64::MAX);

    const fn decided(slot: u32) -> Self {
        Self((slot as u64) << 32)
    }

    const fn slot(self) -> u32 {
        (self.0 >> 32) as u32
    }

    const fn errno(self) -> u32 {
        self.0 as u32
    }
}

/// The errno with which a call shall fail, of the first rule that wants it to (rules after it are
/// not asked); 0 = it goes on. `step` is [`look`]: on the host a call, in the kernel a function of
/// its own.
#[inline(always)]
pub fn judge(mut step: impl FnMut(u32, Scan) -> Scan) -> u32 {
    let mut scan = Scan::BEGIN;
    for index in 0..CONNECTS_MAX as u32 {
        scan = step(index, scan);
        if scan == Scan::END {
            return 0;
        }
        if scan.errno() != 0 {
            return scan.errno();
        }
    }
    0
}

/// What answering a call must look up.
pub trait Rules: Env {
    /// The entry of this index of this bank.
    fn connect(&self, index: u32) -> Option<&Connect>;

    /// A rule of this bank.
    fn rule(&self, slot: u32) -> Option<&Rule>;

    /// What the rule in this slot remembers.
    fn state(&self, slot: u32) -> Option<&RuleState>;

    /// Adds one call to a counter of the rule in this slot, atomically: a packet that is judged on
    /// this CPU meanwhile counts, too.
    fn count(&self, slot: u32, what: Count);

    /// Tells of a call that the rule in this slot made fail, if it is one of those that are told of.
    fn record(&self, _slot: u32, _rule: &Rule, _call: &Call, _verdicts: u32) {}

    /// A part of a conversation, as in the protected table, is protected.
    fn is_protected(&self, key: &FlowKey) -> bool;
}

/// A call counts as one packet without bytes.
const SIZE: Size = Size { segments: 1, bytes: 0 };

/// Looks at one entry. The first entry of a rule that is about the call decides about the rule.
#[inline(always)]
pub fn look<R: Rules>(rules: &R, call: &Call, index: u32, scan: Scan) -> Scan {
    let Some(entry) = rules.connect(index) else { return Scan::END };
    if entry.flags & connect_flags::USED == 0 {
        return Scan::END;
    }
    if entry.slot == scan.slot() || !matches(entry, call) {
        return scan;
    }
    let decided = Scan::decided(entry.slot);
    let spared = entry.flags & connect_flags::EXCLUDES != 0
        || (entry.flags & connect_flags::PROTECT != 0 && is_protected(rules, call));
    if spared { decided } else { Scan(decided.0 | u64::from(refuse(rules, call, entry.slot))) }
}

/// The errno that the rule in this slot wants a matching call to fail with, with its counters;
/// 0 = none.
#[inline(always)]
fn refuse<R: Rules>(rules: &R, call: &Call, slot: u32) -> u32 {
    let (Some(rule), Some(state)) = (rules.rule(slot), rules.state(slot)) else { return 0 };
    if rule.id == 0 {
        return 0;
    }
    rules.count(slot, Count::Matched);
    let ended = match life(rules, rule, state, rules.now_ns()) {
        Life::Active => None,
        Life::Resting | Life::Waiting => return 0,
        Life::Lapsed => Some(Count::Lease),
        Life::Expired => Some(Count::Expired),
        Life::Limited => Some(Count::Limited),
    };
    if let Some(reason) = ended {
        rules.count(slot, reason);
        return 0;
    }
    let ordinal = ordinal(rules, rule, state, Direction::Egress);
    let draws = Draws { seed: rule.seed, stream: rule.id << 1 | Direction::Egress as u64, ordinal };
    let errno = rule.faults.refuse(&draws, rules);
    if errno == 0 {
        return 0;
    }
    // Every call is a flow of its own: nothing is known yet of its other end.
    let is_in = rule.max_flows == 0 || rules.fetch_add(&state.flows, 1) < rule.max_flows;
    if !is_in || !take_budget(rules, rule, state, &SIZE) {
        rules.count(slot, Count::Limited);
        return 0;
    }
    if rule.flags & crate::abi::rule_flags::SHADOW != 0 {
        rules.count(slot, Count::Shadowed);
        rules.record(slot, rule, call, Count::Shadowed.bit());
        return 0;
    }
    rules.count(slot, Count::Refused);
    rules.record(slot, rule, call, Count::Refused.bit());
    errno
}

/// The call goes where no rule may touch it, in a namespace where the operator is protected: as
/// [`protect::is_protected`], as far as the call tells.
#[inline(always)]
fn is_protected<R: Rules>(rules: &R, call: &Call) -> bool {
    if call.peer == protect::METADATA || (call.class == Class::UDP && protect::is_dhcp_server(call.port)) {
        return true;
    }
    rules.is_protected(&FlowKey { netns: call.netns, peer: call.peer, ..FlowKey::default() })
}
