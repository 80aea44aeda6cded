//! What a query asks for. Reading and comparing are functions of their own, as in `steps`: the
//! verifier proves eight bytes once, whatever the length of names and patterns.

use aya_ebpf::{bindings::__sk_buff, helpers::bpf_skb_load_bytes};
use chaos_common::{
    dns::{
        Asked, glob, message,
        query::{self, MESSAGE_MAX},
    },
    job::Job,
};

use crate::{
    frame::Skb,
    maps::{CHAOS_ASKED, CHAOS_PATTERNS},
    steps::job,
};

/// This CPU's query; see [`job`].
#[inline(always)]
pub(crate) fn asked() -> Option<&'static mut Asked> {
    // SAFETY: the element is this CPU's own, and held only until the program or step ends.
    CHAOS_ASKED.get_ptr_mut(0).map(|asked| unsafe { &mut *asked })
}

/// Reads the question of the packet. False = it carries no query that is understood.
#[inline(always)]
pub(crate) fn read(skb: Skb) -> bool {
    chaos_question(skb.0, 0) != 0
}

/// The pattern of this number means the name last read.
#[inline(always)]
pub(crate) fn matches(pattern: u32) -> bool {
    chaos_matches(pattern) != 0
}

/// Reads the question of the packet into this CPU's query; 1 = it is known.
#[unsafe(no_mangle)]
#[inline(never)]
extern "C" fn chaos_question(skb: *mut __sk_buff, unused: u32) -> u32 {
    // An argument that is not used would not be passed, which the verifier refuses.
    let (skb, _) = core::hint::black_box((skb, unused));
    u32::from(question(Skb(skb)).is_some())
}

#[inline(always)]
fn question(skb: Skb) -> Option<()> {
    let loaded = load(skb, job()?, asked()?)?;
    if !asked()?.query.begin(loaded) {
        return None;
    }
    for _ in 0..query::STEPS {
        if chaos_question_step(0) == 0 {
            break;
        }
    }
    asked()?.query.is_known().then_some(())
}

/// Loads the beginning of the message; returns its bytes, from 1 to [`MESSAGE_MAX`].
#[inline(always)]
fn load(skb: Skb, job: &Job, asked: &mut Asked) -> Option<u32> {
    let (offset, len) = message(&skb, &job.packet)?;
    if len == 0 {
        return None;
    }
    let len = bounded(len.min(MESSAGE_MAX as u32));
    let message = asked.query.message.as_mut_ptr();
    // SAFETY: the helper writes exactly `len` bytes or fails; the verifier checks the length.
    let result = unsafe { bpf_skb_load_bytes(skb.0.cast(), offset, message.cast(), len) };
    (result == 0).then_some(len)
}

/// A length from 1 to [`MESSAGE_MAX`] as it is, but so that the verifier knows. A mask, because
/// Linux 6.1 loses what a comparison has found; the compiler is kept from leaving it out.
#[inline(always)]
pub(crate) fn bounded(len: u32) -> u32 {
    (core::hint::black_box(len).wrapping_sub(1) & (MESSAGE_MAX as u32 - 1)).wrapping_add(1)
}

/// Reads some bytes of the name; 0 = done.
#[unsafe(no_mangle)]
#[inline(never)]
extern "C" fn chaos_question_step(unused: u32) -> u32 {
    let _ = core::hint::black_box(unused);
    asked().map_or(0, |asked| u32::from(asked.query.advance()))
}

/// Compares the name last read with a pattern; 1 = it is meant.
#[unsafe(no_mangle)]
#[inline(never)]
extern "C" fn chaos_matches(pattern: u32) -> u32 {
    let pattern = core::hint::black_box(pattern);
    if let Some(asked) = asked() {
        asked.scan = glob::Scan::new();
    }
    for _ in 0..glob::ROUNDS {
        if chaos_glob(pattern) == 0 {
            break;
        }
    }
    asked().map_or(0, |asked| u32::from(asked.scan.matched()))
}

/// Some steps of the comparison; 0 = done.
#[unsafe(no_mangle)]
#[inline(never)]
extern "C" fn chaos_glob(pattern: u32) -> u32 {
    let pattern = core::hint::black_box(pattern);
    for _ in 0..glob::STEPS {
        if chaos_glob_step(pattern) == 0 {
            return 0;
        }
    }
    1
}

/// Compares some characters; 0 = done.
#[unsafe(no_mangle)]
#[inline(never)]
extern "C" fn chaos_glob_step(pattern: u32) -> u32 {
    let pattern = core::hint::black_box(pattern);
    let (Some(asked), Some(pattern)) = (asked(), CHAOS_PATTERNS.get(pattern)) else { return 0 };
    u32::from(asked.scan.advance(pattern, &asked.query))
}
