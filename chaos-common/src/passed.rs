//! What the gate let go goes again without being looked at, as long as nothing has changed that it depends on: one word
//! for each conversation, a hash of all of that. So a packet costs the same among one rule and among thousands.

use crate::abi::{Direction, control, dims};

/// Words of the table. With the header that the kernel puts before them they are just below 32 KiB, up to which tables
/// lie in large pages (`bpf_map_area_alloc`, kernel/bpf/syscall.c, Linux 6.18).
pub const WORDS: usize = 4032;

/// Conversations that are remembered. One word stays unused: of a place in bytes the verifier knows an upper bound, but
/// not that it is a multiple of eight.
pub const PLACES: usize = WORDS - 1;

/// The word that arms a bank ([`control::GENERATION`]): `random` bits that no other has had, and what a gate with these
/// dimensions ([`dims`]) allows.
#[must_use]
pub const fn generation(bank: u32, random: u64, dims: u32) -> u64 {
    let owned = if dims & (dims::CGROUP | dims::LEARN_OWNERS) == 0 { 0 } else { control::OWNED };
    // Where flows are tracked nothing is let go.
    let remembers = if dims & dims::FLOWS == 0 { control::REMEMBERS } else { 0 };
    // Never 0, and with room above for every port that may be booked.
    let stamp = (random & (control::OWNED >> 4).wrapping_sub(1) | 1).wrapping_mul(control::NEXT);
    stamp | bank as u64 & control::NEXT.wrapping_sub(1) | owned | remembers
}

/// What decides beside the packet's own headers.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Moment {
    /// See [`control::GENERATION`]. Read before the gate is asked, so that what is booked meanwhile counts.
    pub generation: u64,
    /// `SO_NETNS_COOKIE` of the namespace; they are counted up from 1.
    pub netns: u64,
    /// Index of the device in it.
    pub ifindex: u32,
    /// The packet's way there.
    pub direction: Direction,
    /// Id of the cgroup of the packet's socket, where that counts; a cgroup never gets other ancestors.
    pub owner: u64,
}

/// What stands for a packet at such a moment; never 0. `addresses` are its two, as they lie in the header; `rest` is
/// the protocol and both ports. Two that differ have the same key with a chance of 2^-63, which nobody who does not
/// know the generation can raise.
#[inline(always)]
#[must_use]
pub fn key<const N: usize>(moment: &Moment, addresses: [u64; N], rest: u64) -> u64 {
    // What packets of a device have in common comes first: it is computed while their headers are fetched.
    let device = moment.netns ^ (u64::from(moment.ifindex) << 1 | moment.direction as u64) << 40;
    let begun = step(step(moment.generation, device), moment.owner);
    step(addresses.into_iter().fold(begun, step), rest) | 1
}

/// The last word of [`key`]; 4 or 6, so that neither version has a key of the other.
#[inline(always)]
#[must_use]
pub const fn rest(version: u8, proto: u8, ports: u32) -> u64 {
    (version as u64) << 40 | (proto as u64) << 32 | ports as u64
}

/// Where a key is kept.
#[inline(always)]
#[must_use]
pub const fn place(key: u64) -> usize {
    // Below the number of places, as the product of two 32-bit numbers shows (to the verifier, too).
    ((key >> 32).wrapping_mul(PLACES as u64) >> 32) as usize
}

/// For one word each step is a bijection of what there was.
#[inline(always)]
const fn step(state: u64, word: u64) -> u64 {
    let mixed = (state ^ word).wrapping_mul(0x9e37_79b9_7f4a_7c15);
    mixed ^ mixed >> 32
}
