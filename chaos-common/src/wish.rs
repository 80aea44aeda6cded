//! What a rule wants done to a packet, and what all that match want together.

use crate::{
    abi::{Count, Direction, Rule, RuleState, rule_flags},
    env::{Draws, Env},
    fault::Case,
    job::{Job, Size, job_flags},
    life::{Life, admits, concerns, life, memory_key},
    lookup::{flow_key, has_flow, symmetric},
    verdict::{Verdict, verdict_flags},
    world::World,
};

/// What [`begin`] says about a rule.
pub mod begins {
    /// It wants nothing.
    pub const NOTHING: u32 = 0;
    /// Its faults do not act, but the packet must stay behind those that it held; that is booked.
    pub const FOLLOWS: u32 = 1;
    /// Its faults have to be asked, then [`super::finish`] books what they want.
    pub const ACTS: u32 = 2;
}

/// Adds the wish of the n-th rule that matches to the verdict, with its counters. False = it wants nothing.
#[inline(always)]
pub fn judge_rule<W: World>(world: &W, job: &mut Job, index: u32) -> bool {
    match begin(world, job, index) {
        begins::NOTHING => return false,
        begins::FOLLOWS => return true,
        _ => {}
    }
    let mut wish = Verdict::PASS;
    while ask(world, job, &mut wish, index) {}
    finish(world, job, &mut wish, index)
}

/// The n-th rule that matches, its slot, and what it remembers.
#[inline(always)]
fn matched<'a, W: World>(world: &'a W, job: &Job, index: u32) -> Option<(&'a Rule, u32, &'a RuleState)> {
    let &slot = job.matches.slots.get(index as usize)?;
    Some((world.rule(slot)?, slot, world.state(slot)?))
}

/// Whether the n-th rule that matches acts now; see [`begins`].
#[inline(always)]
pub fn begin<W: World>(world: &W, job: &mut Job, index: u32) -> u32 {
    let Some((rule, slot, state)) = matched(world, job, index) else { return begins::NOTHING };
    let held = job.has(job_flags::HELD);
    if rule.id == 0 || (held && rule.flags & rule_flags::CUTS == 0) || !concerns(world, rule, job) {
        return begins::NOTHING;
    }
    if !held {
        count(world, slot, job, Count::Matched);
    }
    let ended = match life(world, rule, state, job.now_ns) {
        Life::Active if admits(world, rule, state, job) => None,
        Life::Waiting => return begins::NOTHING,
        Life::Resting => return follow_held(world, (rule, slot), job, verdict_flags::ORDERED),
        Life::Lapsed => Some(Count::Lease),
        Life::Expired => Some(Count::Expired),
        Life::Active | Life::Limited => Some(Count::Limited),
    };
    if let Some(reason) = ended {
        if !held {
            count(world, slot, job, reason);
        }
        if reason == Count::Limited {
            return follow_held(world, (rule, slot), job, verdict_flags::ORDERED);
        }
        let drains = job.now_ns.saturating_sub(rule.expires_ns) < DRAIN_NS && reason == Count::Expired;
        return if drains {
            follow_held(world, (rule, slot), job, verdict_flags::DRAIN)
        } else {
            begins::NOTHING
        };
    }
    // What waited in the delay line was judged by the others before.
    job.kinds = if held { rule.cut_kinds } else { rule.kinds };
    job.ordinal = ordinal(world, rule, state, job.direction());
    begins::ACTS
}

/// Asks the next fault of the rule what it wants; `wish` is [`Verdict::PASS`] before the first. False = all
/// have been asked now.
#[inline(always)]
pub fn ask<W: World>(world: &W, job: &mut Job, wish: &mut Verdict, index: u32) -> bool {
    let Some((rule, _, state)) = matched(world, job, index) else { return false };
    if job.kinds == 0 {
        return false;
    }
    let kind = job.kinds.trailing_zeros();
    job.kinds &= job.kinds.wrapping_sub(1);
    let [egress, ingress] = &state.states;
    let states = if job.direction() == Direction::Egress { egress } else { ingress };
    let mut flow = None;
    if rule.flags & rule_flags::MEMORY != 0 && has_flow(&job.packet) {
        flow = world.flow_memory(&memory_key(rule, job));
    }
    let draws =
        Draws { seed: rule.seed, stream: rule.id << 1 | job.direction() as u64, ordinal: job.ordinal };
    rule.faults.decide(kind, states, &Case { world, job, rule, draws, flow }, wish);
    job.kinds != 0
}

/// Books what the faults of the rule want. False = nothing.
#[inline(always)]
pub fn finish<W: World>(world: &W, job: &mut Job, wish: &mut Verdict, index: u32) -> bool {
    let Some((rule, slot, state)) = matched(world, job, index) else { return false };
    if job.has(job_flags::HELD) {
        // Nobody is told any more: the packet is no longer where it came from.
        let drop_by = wish.drop_by | wish.answer_by;
        wish.clear();
        wish.drop_by = drop_by;
    }
    if wish.is_pass() {
        return false;
    }
    if !take_budget(world, rule, state, &job.size) {
        count(world, slot, job, Count::Limited);
        return follow_held(world, (rule, slot), job, verdict_flags::ORDERED) != begins::NOTHING;
    }
    if rule.flags & rule_flags::SHADOW != 0 {
        count(world, slot, job, Count::Shadowed);
        world.record(slot, rule, job, wish, Count::Shadowed.bit());
        return false;
    }
    let verdicts = count_wish(world, slot, job, wish);
    world.record(slot, rule, job, wish, verdicts);
    wish.hold_slot = slot;
    wish.longest_ns = wish.hold_ns();
    wish.armed_ns = rule.armed_ns;
    job.verdict.merge(wish);
    true
}

/// How long after its end a rule's packets still go behind those that it held, nanoseconds.
const DRAIN_NS: u64 = 100_000_000;

/// In place of the kind of a fault: packets of the rule are still in the delay line, and this one must not
/// overtake them.
const FOLLOWS: u32 = u32::MAX;

#[inline(always)]
fn follow_held<W: World>(world: &W, (rule, slot): (&Rule, u32), job: &mut Job, flag: u32) -> u32 {
    let follows = rule.flags & (rule_flags::LINE | rule_flags::SHADOW) == rule_flags::LINE
        && !job.has(job_flags::HELD)
        && world.state(slot).is_some_and(|state| world.read(&state.held) != 0);
    if follows {
        let wish = Verdict {
            hold_by: FOLLOWS,
            hold_slot: slot,
            flags: flag,
            armed_ns: rule.armed_ns,
            ..Verdict::PASS
        };
        job.verdict.merge(&wish);
    }
    if follows { begins::FOLLOWS } else { begins::NOTHING }
}

/// Ends the judging: a packet that waits does not overtake those before it in its flow, unless it shall.
#[inline(always)]
pub fn settle<W: World>(world: &W, job: &mut Job) {
    let Verdict { drop_by, hold_by, flags, .. } = job.verdict;
    // An answer may be a reset, which stays behind the data that waits.
    if hold_by == 0 || drop_by != 0 {
        return;
    }
    if hold_by != FOLLOWS {
        // It waits for a rule that goes on: it does not hurry what that one holds.
        job.verdict.flags &= !verdict_flags::DRAIN;
    }
    // One clock for the wait and for the order: the difference of two readings is never twice the same, and
    // a packet with the same release as the one before it would leave before that.
    job.line_ns = world.line_ns();
    job.verdict.delay_ns = job.verdict.hold_ns();
    job.verdict.queue_ns = 0;
    if flags & verdict_flags::OVERTAKES != 0 || flags & verdict_flags::ORDERED == 0 {
        return;
    }
    let key = symmetric(&flow_key(&job.packet, job.netns, job.direction()));
    let Some(order) = world.flow_order(&key) else { return };
    let [egress, ingress] = &order.lanes;
    let lane = if job.direction() == Direction::Egress { egress } else { ingress };
    let counts = is_held_still(world, world.read(&lane.holder), job.now_ns);
    let wanted = job.line_ns.saturating_add(job.verdict.delay_ns);
    let mut release = wanted;
    for _ in 0..TRIES {
        let last = world.read(&lane.release_ns);
        release = if counts && last > wanted { last } else { wanted };
        if world.compare_exchange(&lane.release_ns, last, release) == last {
            break;
        }
    }
    let holder = holder(job.verdict.hold_slot, job.verdict.armed_ns);
    world.write(&lane.holder, holder);
    job.verdict.delay_ns = release.saturating_sub(job.line_ns);
}

/// How often a packet tries again when another CPU sends one of the same flow at the same time; which of
/// them is first is then nobody's to say.
const TRIES: u32 = 4;

/// Bits of [`crate::abi::Lane::holder`] that are the slot.
const SLOT_MASK: u64 = 0xfff;

/// A rule's arming to 4 us, and its slot: which rule holds a packet, whoever has the slot later.
#[inline(always)]
const fn holder(slot: u32, armed_ns: u64) -> u64 {
    (armed_ns & !SLOT_MASK) | (slot as u64 & SLOT_MASK)
}

/// The rule that held the last packet of a lane still holds it: when it is over its packets leave at once,
/// and nothing has to stay behind them any more.
#[inline(always)]
fn is_held_still<W: World>(world: &W, last: u64, now_ns: u64) -> bool {
    let slot = (last & SLOT_MASK) as u32;
    world
        .rule(slot)
        .is_some_and(|rule| rule.id != 0 && holder(slot, rule.armed_ns) == last && now_ns < rule.expires_ns)
}

#[inline(always)]
fn count<W: World>(world: &W, slot: u32, job: &Job, what: Count) {
    world.count(slot, job.direction(), what, job.size.segments, job.size.bytes);
}

/// Counts what happens to a packet: what makes it vanish alone, or everything else. The bits of what was counted.
#[inline(always)]
fn count_wish<W: World>(world: &W, slot: u32, job: &Job, wish: &Verdict) -> u32 {
    let count = |what: Count| {
        count(world, slot, job, what);
        what.bit()
    };
    if wish.drop_by != 0 {
        return count(Count::Dropped);
    }
    if wish.answer_by != 0 {
        return count(Count::Answered);
    }
    let mut verdicts = 0;
    if wish.duplicate_by != 0 {
        verdicts |= count(Count::Duplicated);
    }
    if wish.corrupt_by != 0 {
        verdicts |= count(Count::Corrupted);
    }
    if wish.mark_by != 0 {
        verdicts |= count(Count::Marked);
    }
    if wish.flags & verdict_flags::OVERTAKES != 0 {
        verdicts |= count(Count::Reordered);
    } else if wish.hold_by != 0 {
        verdicts |= count(Count::Delayed);
        world.delayed(slot, job.direction(), wish.hold_ns(), job.size.segments);
    }
    verdicts
}

#[inline(always)]
pub(crate) fn ordinal<E: Env>(env: &E, rule: &Rule, state: &RuleState, direction: Direction) -> u64 {
    let [egress, ingress] = &state.ordinals;
    match (rule.flags & rule_flags::ORDINAL != 0, direction) {
        (false, _) => 0,
        (true, Direction::Egress) => env.fetch_add(egress, 1),
        (true, Direction::Ingress) => env.fetch_add(ingress, 1),
    }
}

/// Books a hit against the limits; false = nothing was left.
#[inline(always)]
pub(crate) fn take_budget<E: Env>(env: &E, rule: &Rule, state: &RuleState, size: &Size) -> bool {
    if rule.max_packets != 0 {
        let before = env.fetch_add(&state.packets, size.segments);
        if before.saturating_add(size.segments) > rule.max_packets {
            return false;
        }
    }
    if rule.max_bytes != 0 {
        let before = env.fetch_add(&state.bytes, size.bytes);
        return before.saturating_add(size.bytes) <= rule.max_bytes;
    }
    true
}
