//! Into the delay line: when and how a packet goes on.

use aya_ebpf::helpers::{bpf_clone_redirect, bpf_redirect};
use chaos_common::{
    abi::{Count, Direction, Intern, control, intern_flags},
    env::Env as _,
    job::Job,
    packet::Class,
    verdict::verdict_flags,
    world::World as _,
};

use super::way::{add_mac_header, back, depart, intern, is, is_away, put, turned};
use crate::{
    error::Error,
    frame::Skb,
    maps::{CHAOS_CONTROL, CHAOS_STATES},
    source,
    world::Tables,
};

/// The line's thread gives a sign of life every 20 ms.
const HEARTBEAT_NS: u64 = 500_000_000;
/// A sender's own departure time further ahead than this is not one.
const AHEAD_NS: u64 = 1_000_000_000;
/// Bits of a frame's release time; the rule's slot and the drain bit are above.
const TIME_MASK: u64 = (1 << 48) - 1;
const DRAIN_BIT: u64 = 1 << 63;
const PACED_BIT: u64 = 1 << 60;
const INGRESS_BIT: u64 = 1 << 61;

/// Sends the packet into the delay line, and a copy if asked.
#[inline(always)]
pub(crate) fn hold(skb: Skb, job: &mut Job, copies: bool) -> Result<i32, Error> {
    let now = line_is_served(job)?;
    let mut start = now;
    if !is_away(job) && job.packet.class == Class::TCP && !is(job, intern_flags::INGRESS) {
        // What the sender paces leaves the line no earlier than it would have left (`tcp_update_skb_after_send`).
        let own = skb.tstamp();
        if own > now && own.wrapping_sub(now) < AHEAD_NS && !source::is_test() {
            start = own;
        }
    }
    if !is_away(job) {
        depart(skb, job).map_err(|_| Error::Line)?;
    }
    wait(skb, job, start, copies)
}

/// Sends an answer back, after the time for which its packet would have waited. Where nothing waits, at once.
#[inline(always)]
pub(crate) fn answer(skb: Skb, job: &mut Job) -> i32 {
    if job.verdict.hold_by == 0 {
        return back(skb, job);
    }
    hold_answer(skb, job).unwrap_or_else(|_| back(skb, job))
}

#[inline(always)]
fn hold_answer(skb: Skb, job: &mut Job) -> Result<i32, Error> {
    let now = line_is_served(job)?;
    let l3 = is(job, intern_flags::L3);
    let entry = Intern {
        macs: if l3 { [0; 3] } else { skb.raw::<u32, 3>(0).ok_or(Error::Line)? },
        ifindex: job.way_ifindex,
        mark: skb.mark(),
        flags: turned(job) | intern_flags::ANSWER,
        netns: job.netns,
    };
    job.intern = intern(&entry)?;
    if l3 && !is_away(job) {
        add_mac_header(skb)?;
    }
    wait(skb, job, now, false)
}

/// The clock, if there is a line and somebody who sends on what is in it.
#[inline(always)]
fn line_is_served(job: &Job) -> Result<u64, Error> {
    let now = job.line_ns;
    let alive = CHAOS_CONTROL.get(control::HEARTBEAT).copied().unwrap_or(0);
    let stale = now.saturating_sub(alive) > HEARTBEAT_NS && !source::is_test();
    if job.device.line == 0 || stale { Err(Error::Line) } else { Ok(now) }
}

/// Writes when and how the packet goes on, and lets it wait until then.
#[inline(always)]
fn wait(skb: Skb, job: &Job, start: u64, copies: bool) -> Result<i32, Error> {
    let mut word = start.saturating_add(job.verdict.delay_ns) & TIME_MASK;
    word |= u64::from(job.verdict.hold_slot & 0xfff) << 48;
    if job.verdict.flags & verdict_flags::DRAIN != 0 {
        word |= DRAIN_BIT;
    }
    if job.verdict.flags & verdict_flags::PACED != 0 {
        word |= PACED_BIT;
    }
    if matches!(job.direction(), Direction::Ingress) {
        word |= INGRESS_BIT;
    }
    put(skb, [job.intern, word as u32, (word >> 32) as u32])?;
    let tables = Tables { skb, bank: job.bank };
    if let Some(state) = CHAOS_STATES.get(job.verdict.hold_slot) {
        tables.fetch_add(&state.held, if copies { 2 } else { 1 });
    }
    if copies {
        // SAFETY: the kernel passes a valid context.
        unsafe { bpf_clone_redirect(skb.0, job.device.line, 0) };
    }
    // SAFETY: plain values; the helper only notes them.
    Ok(unsafe { bpf_redirect(job.device.line, 0) as i32 })
}

/// Counts a packet that should have waited and passes, because nobody would have sent it on.
#[inline(always)]
pub(crate) fn pass_unheld(job: &Job) {
    let tables = Tables { skb: Skb(core::ptr::null_mut()), bank: job.bank };
    let Job { size, verdict, .. } = job;
    tables.count(verdict.hold_slot, job.direction(), Count::Unheld, size.segments, size.bytes);
}
