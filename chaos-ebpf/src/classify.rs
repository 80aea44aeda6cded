//! The program that judges: a packet's way at a device, and when it comes back from a private one.

use core::mem::offset_of;

use aya_ebpf::{bindings::TC_ACT_SHOT, programs::TcContext};
use aya_log_ebpf::debug;
use chaos_common::{
    abi::{Device, DeviceKey, Direction, Intern, device_flags, dims, intern_flags},
    job::{Job, Size, job_flags, places},
    judge::{Action, judge},
    world::World as _,
};

use crate::{
    effect::{NEXT, apply, begin_way, normalise, note_failure, restore, send_on, size_of_returned},
    error::Error,
    frame::Skb,
    maps::CHAOS_DEVICES,
    steps::{Proved, job},
    world::Tables,
};

/// Judges a packet where it was taken.
#[inline(always)]
pub(crate) fn judged(ctx: &TcContext) -> i32 {
    match job().map(|job| job.place) {
        Some(places::EGRESS) => device(ctx, Direction::Egress),
        Some(places::INGRESS) => device(ctx, Direction::Ingress),
        Some(place) => private(ctx, place),
        None => NEXT,
    }
}

/// A packet at a device.
#[inline(always)]
fn device(ctx: &TcContext, direction: Direction) -> i32 {
    let skb = Skb::new(ctx);
    let Some(tables) = Tables::armed(skb) else { return NEXT };
    match try_device(&tables, direction) {
        Ok(action) => action,
        Err(Error::Unparsable) => {
            debug!(ctx, "passed: headers not understood, interface {}", skb.ifindex());
            NEXT
        }
        Err(Error::Normaliser) => {
            debug!(ctx, "passed: the normaliser did not take it, interface {}", skb.ifindex());
            note_failure();
            NEXT
        }
        Err(Error::UnknownDevice | Error::Tables | Error::Line | Error::Effect) => NEXT,
    }
}

#[inline(always)]
fn try_device(tables: &Tables, direction: Direction) -> Result<i32, Error> {
    let skb = tables.skb;
    let job = job().ok_or(Error::Tables)?;
    let mut steps = Proved(skb);
    begin(tables, job, skb.ifindex(), direction)?;
    if !steps.parse(job.device.flags & device_flags::L3 != 0) {
        return Err(Error::Unparsable);
    }
    // Another agent's: see `enter::device`. Its socket is that of the device where it waited.
    let is_others = skb.marker() != 0;
    let dims = if is_others { 0 } else { tables.header().ok_or(Error::Tables)?.dims };
    if dims & dims::LEARN_OWNERS != 0 {
        steps.learn();
    }
    if dims & dims::FLOWS != 0 {
        steps.track();
    }
    if job.device.normaliser == 0 {
        job.flags |= job_flags::FINAL;
    }
    // A loopback frame that is one wire packet is judged in place: there is nothing to cut.
    if skb.gso_segs() <= 1 && job.device.flags & device_flags::LOOPBACK != 0 {
        job.flags |= job_flags::WHOLE;
    }
    if is_forwarded(tables, job, direction) {
        job.flags |= job_flags::FORWARDED;
    }
    if is_others {
        job.flags |= job_flags::FINAL | job_flags::HELD;
    }
    begin_way(skb, job);
    job.size = Size::of(&job.packet, skb.len(), skb.gso_segs());
    match judge(&mut steps) {
        Action::Pass => Ok(NEXT),
        Action::Apply => Ok(apply(skb, job)),
        Action::Normalise => normalise(skb, job),
    }
}

/// Fills in where the packet is.
#[inline(always)]
fn begin(tables: &Tables, job: &mut Job, ifindex: u32, direction: Direction) -> Result<(), Error> {
    let key = DeviceKey { netns: job.netns, ifindex, bank: tables.bank };
    let device = CHAOS_DEVICES.get_ptr(key).ok_or(Error::UnknownDevice)?;
    copy_device(&mut job.device, device.cast());
    job.bank = tables.bank;
    job.direction = direction as u32;
    job.flags = 0;
    Ok(())
}

/// Word by word: of an assignment LLVM's bpf backend makes a loop over single bytes.
#[inline(always)]
fn copy_device(to: &mut Device, from: *const u64) {
    const { assert!((size_of::<Device>() | offset_of!(Job, device)).is_multiple_of(8), "whole words") };
    let to: *mut u64 = (&raw mut *to).cast();
    for word in 0..size_of::<Device>() / 8 {
        // SAFETY: inside the map's value, aligned as every value is; entries of the bank that is read are neither
        // changed nor removed.
        let value = unsafe { core::ptr::read_volatile(from.wrapping_add(word)) };
        // SAFETY: inside the device.
        unsafe { core::ptr::write_volatile(to.wrapping_add(word), value) };
    }
}

/// A packet that comes from a private device: one wire packet, judged as if it were still on its own; or one whose
/// time has come, on which what began to let nothing through while it waited acts, too.
#[inline(always)]
fn private(ctx: &TcContext, place: u32) -> i32 {
    let skb = Skb::new(ctx);
    let Some((number, entry)) = restore(skb) else { return TC_ACT_SHOT };
    let is_due = place == places::DUE;
    // An answer waited only to come a moment later.
    if is_due && entry.flags & intern_flags::ANSWER != 0 {
        return send_on(skb, entry);
    }
    let flags = if is_due { job_flags::FINAL | job_flags::HELD } else { job_flags::FINAL };
    match resume(skb, (number, entry), flags) {
        Some(_) if is_due => TC_ACT_SHOT,
        Some(job) => apply(skb, job),
        None => send_on(skb, entry),
    }
}

/// Judges a packet that was taken from its device; none = no rule wants anything.
#[inline(always)]
fn resume(skb: Skb, (number, entry): (u32, &Intern), flags: u32) -> Option<&'static mut Job> {
    let tables = Tables::armed(skb)?;
    let job = job()?;
    let direction =
        if entry.flags & intern_flags::INGRESS != 0 { Direction::Ingress } else { Direction::Egress };
    begin(&tables, job, entry.ifindex, direction).ok()?;
    let mut steps = Proved(skb);
    if !steps.parse(false) {
        return None;
    }
    job.flags = flags | job_flags::AWAY;
    if entry.flags & intern_flags::FORWARDED != 0 {
        job.flags |= job_flags::FORWARDED;
    }
    job.intern = number;
    job.way_ifindex = entry.ifindex;
    job.way_flags = entry.flags;
    job.size = size_of_returned(skb, job, entry.flags & intern_flags::L3 != 0);
    match judge(&mut steps) {
        Action::Apply => Some(job),
        Action::Pass | Action::Normalise => None,
    }
}

/// Only passes through: it came in by a device and no socket here has it, or goes to an address
/// that is not of this namespace.
#[inline(always)]
fn is_forwarded(tables: &Tables, job: &Job, direction: Direction) -> bool {
    const PACKET_HOST: u32 = 0;
    let skb = tables.skb;
    // Every address of 127.0.0.0/8 is this machine's, and more that no list holds.
    if !job.packet.is_ip() || job.device.flags & device_flags::LOOPBACK != 0 {
        return false;
    }
    match direction {
        Direction::Egress => skb.ingress_ifindex() != 0 && !skb.has_socket(),
        Direction::Ingress => {
            skb.pkt_type() == PACKET_HOST && !tables.is_own_address(job.netns, &job.packet.destination)
        }
    }
}
