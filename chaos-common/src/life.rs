//! Whether a rule acts now, and on this packet: schedule, lease, limits, and the conditions without a table.

use crate::{
    abi::{MemoryKey, Rule, RuleState, rule_flags},
    env::{Env, mix},
    job::{Job, job_flags},
    lookup::{flow_hash, flow_key, has_flow, symmetric},
    packet::Class,
    world::World,
};

/// What keeps a rule from acting now.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Life {
    /// It acts.
    Active,
    /// The off part of a period.
    Resting,
    /// Not yet begun.
    Waiting,
    /// The agent has not renewed its lease.
    Lapsed,
    /// Its time is over.
    Expired,
    /// A limit is used up.
    Limited,
}

/// See [`Life`].
#[inline(always)]
pub(crate) fn life<E: Env>(env: &E, rule: &Rule, state: &RuleState, now_ns: u64) -> Life {
    if now_ns >= rule.expires_ns {
        return Life::Expired;
    }
    if now_ns >= state.lease_until_ns {
        return Life::Lapsed;
    }
    if now_ns < rule.starts_ns {
        return Life::Waiting;
    }
    let phase = now_ns.wrapping_sub(rule.starts_ns).checked_rem(rule.flap_period_ns);
    if phase.is_some_and(|phase| phase >= rule.flap_on_ns) {
        return Life::Resting;
    }
    if is_used_up(env, rule, state) {
        return Life::Limited;
    }
    Life::Active
}

#[inline(always)]
fn is_used_up<E: Env>(env: &E, rule: &Rule, state: &RuleState) -> bool {
    (rule.max_packets != 0 && env.read(&state.packets) >= rule.max_packets)
        || (rule.max_bytes != 0 && env.read(&state.bytes) >= rule.max_bytes)
}

/// What [`crate::abi::FlowMemory::admitted`] says.
mod admission {
    /// The rule has not met the flow yet.
    pub(super) const UNKNOWN: u64 = 0;
    /// Some CPU is about to decide; until then the packet passes.
    pub(super) const DECIDING: u64 = 1;
    /// One of the first flows.
    pub(super) const IN: u64 = 2;
    /// The others were first.
    pub(super) const OUT: u64 = 3;
}

/// The rule may act on the packet's flow: it has no limit, or it is one of the first that it met. What has no
/// flow is none of them. A flow that is forgotten (there is room for 65,536) counts anew when it comes back.
#[inline(always)]
pub(crate) fn admits<W: World>(world: &W, rule: &Rule, state: &RuleState, job: &Job) -> bool {
    if rule.max_flows == 0 {
        return true;
    }
    if !has_flow(&job.packet) {
        return false;
    }
    let Some(memory) = world.flow_memory(&memory_key(rule, job)) else { return false };
    let admitted = &memory.admitted;
    let known = world.compare_exchange(admitted, admission::UNKNOWN, admission::DECIDING);
    if known != admission::UNKNOWN {
        return known == admission::IN;
    }
    let is_in = world.fetch_add(&state.flows, 1) < rule.max_flows;
    world.write(admitted, if is_in { admission::IN } else { admission::OUT });
    is_in
}

/// Under which the rule remembers the packet's connection.
#[inline(always)]
pub(crate) fn memory_key(rule: &Rule, job: &Job) -> MemoryKey {
    MemoryKey {
        flow: symmetric(&flow_key(&job.packet, job.netns, job.direction())),
        rule: mix(rule.armed_ns) ^ rule.id,
    }
}

/// Conditions that have no table: few rules reach them.
#[inline(always)]
pub(crate) fn concerns<W: World>(world: &W, rule: &Rule, job: &Job) -> bool {
    let packet = &job.packet;
    if job.has(job_flags::FORWARDED) && rule.flags & rule_flags::FORWARDED == 0 {
        return false;
    }
    if rule.tcp_flags != 0
        && (packet.class != Class::TCP || u32::from(packet.tcp_flags) & rule.tcp_flags == 0)
    {
        return false;
    }
    if rule.flags & rule_flags::DATA_ONLY != 0 && !packet.has_data() {
        return false;
    }
    let by_flow = rule_flags::SHARE | rule_flags::NEW | rule_flags::ESTABLISHED;
    if rule.flags & by_flow == 0 {
        return true;
    }
    has_flow(packet) && concerns_flow(world, rule, job)
}

#[inline(always)]
fn concerns_flow<W: World>(world: &W, rule: &Rule, job: &Job) -> bool {
    let key = flow_key(&job.packet, job.netns, job.direction());
    if rule.flags & rule_flags::SHARE != 0
        && !rule.share.hits((flow_hash(rule.share_seed, &key) >> 32) as u32)
    {
        return false;
    }
    if rule.flags & (rule_flags::NEW | rule_flags::ESTABLISHED) == 0 {
        return true;
    }
    let first_seen_ns = world.flow(&symmetric(&key)).map_or(0, |flow| flow.first_seen_ns);
    let is_new = first_seen_ns >= rule.armed_ns && first_seen_ns != 0;
    if is_new { rule.flags & rule_flags::NEW != 0 } else { rule.flags & rule_flags::ESTABLISHED != 0 }
}
