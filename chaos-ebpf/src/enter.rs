//! What a device's own programs do: let marked packets pass, and hand the others to the program that
//! judges. That one is the same for every namespace; these are small, and each namespace has its own.

use aya_ebpf::{bindings::TC_ACT_SHOT, programs::TcContext};
use chaos_common::{
    abi::{Direction, dims},
    job::places,
    world::World as _,
};

use crate::{
    effect::{NEXT, goes_round, restore, route_again, send_on},
    frame::Skb,
    gate,
    globals::CHAOS_TAG,
    maps::{CHAOS_CORE, CHAOS_NETNS},
    steps::job,
    world::Tables,
};

/// A packet at a device.
#[inline(always)]
pub(crate) fn device(ctx: &TcContext, direction: Direction) -> i32 {
    let skb = Skb::new(ctx);
    let marker = skb.marker();
    if marker != 0 {
        // Ours means judged already, for one hop.
        if marker == CHAOS_TAG.load() {
            if let Some(action) = goes_round(skb, direction) {
                return action;
            }
            if direction == Direction::Ingress
                && let Some(action) = route_again(skb)
            {
                return action;
            }
            skb.set_marker(0);
            return NEXT;
        }
        // Another agent's comes from behind us in the chain: we judged the packet before that agent took it. But
        // it may have waited there, and what lets nothing through acts on it, too.
        if !Tables::armed(skb).is_some_and(|tables| cuts(&tables)) {
            return NEXT;
        }
    }
    if marker != 0 || !gate::lets_go(skb, direction) {
        hand_over(ctx, if direction == Direction::Egress { places::EGRESS } else { places::INGRESS });
    }
    NEXT
}

/// A packet that comes from a private device. What is not judged goes on: a copy that was judged already; all,
/// if nothing is armed any more; what waited, if no rule would hold it now.
#[inline(always)]
pub(crate) fn private(ctx: &TcContext, place: u32) -> i32 {
    let skb = Skb::new(ctx);
    if let Some(tables) = Tables::armed(skb)
        && skb.marker() != CHAOS_TAG.load()
        && (place == places::RETURN || cuts(&tables))
    {
        hand_over(ctx, place);
    }
    match restore(skb) {
        Some((_, entry)) => send_on(skb, entry),
        None => TC_ACT_SHOT,
    }
}

/// Some rule acts on what waited.
#[inline(always)]
fn cuts(tables: &Tables) -> bool {
    tables.header().is_some_and(|header| header.dims & dims::CUTS != 0)
}

/// Goes on in the program that judges; it returns only if there is none.
#[inline(always)]
fn hand_over(ctx: &TcContext, place: u32) {
    if let (Some(job), Some(netns)) = (job(), CHAOS_NETNS.get(0)) {
        job.netns = *netns;
        job.place = place;
        // SAFETY: the context is the one this program was given.
        unsafe { CHAOS_CORE.tail_call(ctx, 0) };
    }
}
