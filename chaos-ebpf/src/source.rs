//! Where time, randomness and the socket's cgroup come from: the kernel, or, in an instance
//! loaded by a test, a map. The verifier removes the branch that is not taken.

use aya_ebpf::{
    helpers::{
        bpf_get_prandom_u32, bpf_ktime_get_boot_ns, bpf_ktime_get_ns, bpf_skb_ancestor_cgroup_id,
        bpf_skb_cgroup_id,
    },
    macros::map,
    maps::Array,
};
use chaos_common::abi::TestInput;

use crate::{frame::Skb, globals::CHAOS_TESTING, maps::CHAOS_HOOKED};

/// What the next test run shall see. Written by the test.
#[map]
static CHAOS_TEST: Array<TestInput> = Array::with_max_entries(1, 0);

#[inline(always)]
fn given() -> Option<&'static TestInput> {
    if CHAOS_TESTING.load() == 0 { None } else { CHAOS_TEST.get(0) }
}

/// Nanoseconds since boot, suspend included.
#[inline(always)]
pub(crate) fn now_ns() -> u64 {
    match given() {
        Some(input) => input.now_ns,
        // SAFETY: no arguments; available since Linux 5.8.
        None => unsafe { bpf_ktime_get_boot_ns() },
    }
}

/// The same clock without suspend, which the delay line's thread goes by.
#[inline(always)]
pub(crate) fn monotonic_ns() -> u64 {
    match given() {
        Some(input) => input.now_ns,
        // SAFETY: no arguments.
        None => unsafe { bpf_ktime_get_ns() },
    }
}

/// A test run: the context says nothing about senders, and nobody reads the delay line.
#[inline(always)]
pub(crate) fn is_test() -> bool {
    CHAOS_TESTING.load() != 0
}

/// 32 random bits.
#[inline(always)]
pub(crate) fn random_u32() -> u32 {
    match given() {
        Some(input) => input.random,
        // SAFETY: no arguments.
        None => unsafe { bpf_get_prandom_u32() },
    }
}

/// Id of the ancestor at `level` of the packet's socket's cgroup; 0 = none.
#[inline(always)]
pub(crate) fn ancestor_cgroup(skb: Skb, level: u32) -> u64 {
    match given() {
        Some(input) => input.cgroups.get(level as usize & 7).copied().unwrap_or(0),
        // SAFETY: the kernel passes a valid context.
        None => unsafe { bpf_skb_ancestor_cgroup_id(skb.0, level as i32) },
    }
}

/// Id of the packet's socket's cgroup; 0 = it has none.
#[inline(always)]
pub(crate) fn cgroup(skb: Skb) -> u64 {
    match given() {
        Some(input) => input.cgroups.first().copied().unwrap_or(0),
        // SAFETY: the kernel passes a valid context.
        None => unsafe { bpf_skb_cgroup_id(skb.0) },
    }
}

/// What [`ancestor_cgroup`] depends on: the same word, the same cgroups.
#[inline(always)]
pub(crate) fn socket_word(skb: Skb) -> u64 {
    match given() {
        Some(input) => input.cgroups.iter().fold(0, |word: u64, id| word.rotate_left(8) ^ id),
        None => cgroup(skb),
    }
}

/// The packet still has the socket that sent it.
#[inline(always)]
pub(crate) fn has_cgroup(skb: Skb) -> bool {
    match given() {
        Some(input) => input.cgroups.iter().any(|id| *id != 0),
        // SAFETY: the kernel passes a valid context.
        None => unsafe { bpf_skb_cgroup_id(skb.0) != 0 },
    }
}

/// The cgroup that the hook which is running is on; none = it was not told yet.
#[inline(always)]
pub(crate) fn hooked() -> Option<u64> {
    // SAFETY: aligned memory that stays until this hook has run (RCU). What the agent writes is put in its place whole
    // (`cgroup_storage_update_elem`, kernel/bpf/local_storage.c, Linux 6.1 to 6.18).
    let id = unsafe { CHAOS_HOOKED.get_ptr_mut().read_volatile() };
    if id == 0 { None } else { Some(id) }
}
