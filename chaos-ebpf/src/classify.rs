//! A packet's way at a device, and when it comes back from the normaliser.

use aya_ebpf::{bindings::TC_ACT_SHOT, programs::TcContext};
use aya_log_ebpf::debug;
use chaos_common::{
    abi::{DeviceKey, Direction, Intern, control, device_flags, dims, intern_flags},
    job::{Job, Size, job_flags},
    judge::{Action, judge},
    verdict::Verdict,
    world::World as _,
};

use crate::{
    effect::{MAC_HEADER_LEN, NEXT, apply, normalise, restore, send_on},
    error::Error,
    frame::Skb,
    globals::CHAOS_TAG,
    maps::{CHAOS_CONTROL, CHAOS_DEVICES, CHAOS_NETNS},
    steps::{Proved, job},
    world::Tables,
};

/// The classifier of a device.
#[inline(always)]
pub(crate) fn device(ctx: &TcContext, direction: Direction) -> i32 {
    let skb = Skb::new(ctx);
    let marker = skb.marker();
    if marker != 0 {
        // Ours means judged already, for one hop. Another agent's comes from behind us in the
        // chain: we judged the packet before that agent took it.
        if marker == CHAOS_TAG.load() {
            skb.set_marker(0);
        }
        return NEXT;
    }
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
        Err(Error::UnknownDevice | Error::Tables) => NEXT,
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
    let dims = tables.header().ok_or(Error::Tables)?.dims;
    if dims & dims::LEARN_OWNERS != 0 {
        steps.learn();
    }
    if dims & dims::FLOWS != 0 {
        steps.track();
    }
    let whole = skb.gso_segs() <= 1;
    // A loopback frame that is one wire packet is judged in place: there is nothing to cut.
    if job.device.normaliser == 0 || (whole && job.device.flags & device_flags::LOOPBACK != 0) {
        job.flags |= job_flags::FINAL;
    }
    if is_forwarded(tables, job, direction) {
        job.flags |= job_flags::FORWARDED;
    }
    job.size = Size::of(&job.packet, skb.len(), skb.gso_segs());
    match judge(&mut steps) {
        Action::Apply(verdict) => Ok(apply(verdict, direction)),
        Action::Normalise => normalise(skb, job),
    }
}

/// Fills in where the packet is.
#[inline(always)]
fn begin(tables: &Tables, job: &mut Job, ifindex: u32, direction: Direction) -> Result<(), Error> {
    let netns = *CHAOS_NETNS.get(0).ok_or(Error::Tables)?;
    let key = DeviceKey { netns, ifindex, bank: tables.bank };
    // SAFETY: entries of the bank that is read are neither changed nor removed.
    job.device = *unsafe { CHAOS_DEVICES.get(key) }.ok_or(Error::UnknownDevice)?;
    job.netns = netns;
    job.bank = tables.bank;
    job.direction = direction as u32;
    job.flags = 0;
    Ok(())
}

/// The program at the normaliser's near end: one wire packet, judged as if it were still on its device.
#[inline(always)]
pub(crate) fn returned(ctx: &TcContext) -> i32 {
    let skb = Skb::new(ctx);
    let Some(entry) = restore(skb) else { return TC_ACT_SHOT };
    let mut loopback = false;
    // Nothing armed any more: the packet was on its way when it ended, and goes on.
    if let Some(tables) = Tables::armed(skb)
        && let Some(job) = job()
        && begin(&tables, job, entry.ifindex, direction_of(entry)).is_ok()
    {
        loopback = job.device.flags & device_flags::LOOPBACK != 0;
        if is_dropped(skb, job, entry) {
            return TC_ACT_SHOT;
        }
    }
    send_on(skb, entry, loopback)
}

#[inline(always)]
fn direction_of(entry: &Intern) -> Direction {
    if entry.flags & intern_flags::INGRESS != 0 { Direction::Ingress } else { Direction::Egress }
}

#[inline(always)]
fn is_dropped(skb: Skb, job: &mut Job, entry: &Intern) -> bool {
    let mut steps = Proved(skb);
    if !steps.parse(false) {
        return false;
    }
    job.flags = job_flags::FINAL;
    if entry.flags & intern_flags::FORWARDED != 0 {
        job.flags |= job_flags::FORWARDED;
    }
    let added = if entry.flags & intern_flags::L3 != 0 { MAC_HEADER_LEN } else { 0 };
    job.size = Size::of(&job.packet, skb.len().wrapping_sub(added), skb.gso_segs());
    match judge(&mut steps) {
        Action::Apply(Verdict { drop_by }) => drop_by != 0,
        Action::Normalise => false,
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

fn note_failure() {
    if let Some(word) = CHAOS_CONTROL.get_ptr_mut(control::INTERN_FAILED) {
        // SAFETY: the word lies in a map value. A lost increment is acceptable: it is a warning light.
        let word = unsafe { &mut *word };
        *word = word.wrapping_add(1);
    }
}
