//! The only writes to packets, and the only effects: every field of a verdict is handled here.

mod damage;
mod dns;
mod hold;
mod reset;
mod unreachable;
mod way;
mod write;

use aya_ebpf::bindings::__sk_buff;
use chaos_common::{
    abi::control,
    job::{Job, Size},
    verdict::{Verdict, answers},
};

pub(crate) use self::way::{
    MAC_HEADER_LEN, NEXT, begin_way, goes_round, normalise, restore, route_again, send_on,
};
use crate::{error::Error, frame::Skb, maps::CHAOS_CONTROL, steps::job};

/// Does to the packet what its verdict says, and lets it go where it shall go.
#[inline(always)]
pub(crate) fn apply(skb: Skb, job: &mut Job) -> i32 {
    let Verdict {
        drop_by,
        answer_by,
        duplicate_by,
        corrupt_by,
        mark_by,
        hold_by,
        // How it waits: read by `hold::hold`.
        hold_slot: _,
        flags: _,
        queue_ns: _,
        delay_ns: _,
        longest_ns: _,
        armed_ns: _,
        answer,
        corruption: _,
    } = job.verdict;
    if drop_by != 0 {
        return way::vanish(job);
    }
    if answer_by != 0 {
        return answered(skb, job, answer.what);
    }
    if corrupt_by != 0 {
        chaos_corrupt(skb.0, 0);
    }
    if mark_by != 0 {
        damage::mark_congestion(skb);
    }
    let copies = duplicate_by != 0;
    if hold_by != 0 {
        return chaos_hold(skb.0, u32::from(copies)).cast_signed();
    }
    if copies {
        chaos_copy(skb.0, 0);
    }
    way::forth(skb, job)
}

/// Something comes back in place of the packet. What cannot be answered vanishes.
#[inline(always)]
fn answered(skb: Skb, job: &Job, what: u32) -> i32 {
    match what {
        answers::RESET => chaos_reset(skb.0, 0).cast_signed(),
        answers::UNREACHABLE | answers::TOO_BIG => chaos_unreachable(skb.0, 0).cast_signed(),
        answers::DNS => chaos_dns(skb.0, 0).cast_signed(),
        _ => way::vanish(job),
    }
}

/// Each effect is a function that the verifier proves alone, as the steps are.
macro_rules! effect {
    ($(#[$doc:meta])* $name:ident($skb:ident, $arg:ident) -> $job:ident: $body:expr) => {
        $(#[$doc])*
        #[unsafe(no_mangle)]
        #[inline(never)]
        extern "C" fn $name($skb: *mut __sk_buff, $arg: u32) -> u32 {
            let ($skb, $arg) = core::hint::black_box(($skb, $arg));
            let $skb = Skb($skb);
            let Some($job) = job() else { return NEXT.cast_unsigned() };
            let _ = $arg;
            let action: i32 = $body;
            action.cast_unsigned()
        }
    };
}

effect!(
    /// Both ends get a reset; what cannot be made vanishes.
    chaos_reset(skb, unused) -> job: reset::both_ends(skb, job).unwrap_or_else(|_| way::vanish(job))
);
effect!(
    /// The sender gets an ICMP error; what cannot be made vanishes.
    chaos_unreachable(skb, unused) -> job: unreachable::tell(skb, job).unwrap_or_else(|_| way::vanish(job))
);
effect!(
    /// The resolver gets an answer; what cannot be made vanishes.
    chaos_dns(skb, unused) -> job: dns::answer(skb, job).unwrap_or_else(|_| way::vanish(job))
);
effect!(
    /// Sends the packet into the delay line.
    chaos_hold(skb, copies) -> job: match hold::hold(skb, job, copies != 0) {
        Ok(action) => action,
        Err(Error::Line) => {
            hold::pass_unheld(job);
            way::forth(skb, job)
        }
        Err(_) => way::vanish(job),
    }
);
effect!(
    /// Sends a copy of the packet ahead.
    chaos_copy(skb, unused) -> job: way::copy_forth(skb, job)
);
effect!(
    /// Flips bits of the payload.
    chaos_corrupt(skb, unused) -> job: i32::from(damage::corrupt(skb, job).is_none())
);

/// How the packet counts: bytes as they are on its own device.
#[inline(always)]
pub(crate) fn size_of_returned(skb: Skb, job: &Job, added: bool) -> Size {
    let added = if added { MAC_HEADER_LEN } else { 0 };
    Size::of(&job.packet, skb.len().wrapping_sub(added), skb.gso_segs())
}

/// A warning light for the agent: a packet passed because it could not be prepared.
pub(crate) fn note_failure() {
    if let Some(word) = CHAOS_CONTROL.get_ptr_mut(control::INTERN_FAILED) {
        // SAFETY: the word lies in a map value. A lost increment is acceptable: it is a warning light.
        let word = unsafe { &mut *word };
        *word = word.wrapping_add(1);
    }
}
