//! The only writes to packets, and the only effects: every field of a verdict is handled here.

use aya_ebpf::{
    bindings::{BPF_F_INGRESS, TC_ACT_SHOT, TC_ACT_UNSPEC},
    helpers::{
        bpf_redirect, bpf_redirect_neigh, bpf_skb_change_head, bpf_skb_change_type, bpf_skb_store_bytes,
    },
};
use chaos_common::{
    abi::{BLACKHOLE_IFINDEX, Direction, Intern, device_flags, intern_flags},
    env::mix,
    job::{Job, job_flags},
    packet::Bytes as _,
    verdict::Verdict,
};

use crate::{error::Error, frame::Skb, globals::CHAOS_TAG, maps::CHAOS_INTERN};

const ETHERTYPE_OFFSET: u32 = 12;
/// Bytes of an Ethernet header.
pub(crate) const MAC_HEADER_LEN: u32 = 14;
/// Places tried when two entries want the same number.
const INTERN_PROBES: u32 = 4;

/// Passes to the next program of the chain (`TCX_NEXT`), never `TC_ACT_OK`, which would end it.
pub(crate) const NEXT: i32 = TC_ACT_UNSPEC;

/// Does to the packet what the verdict says.
#[inline(always)]
pub(crate) fn apply(verdict: Verdict, direction: Direction) -> i32 {
    let Verdict { drop_by } = verdict;
    match (drop_by, direction) {
        (0, _) => NEXT,
        (_, Direction::Egress) => vanish(),
        (_, Direction::Ingress) => TC_ACT_SHOT,
    }
}

/// Drops at egress without telling the sender (see `BLACKHOLE_IFINDEX`).
#[inline(always)]
fn vanish() -> i32 {
    // SAFETY: plain values; the helper only notes them.
    unsafe { bpf_redirect(BLACKHOLE_IFINDEX, 0) as i32 }
}

/// Sends the packet into the normaliser; nothing is changed before all that can fail has succeeded.
#[inline(always)]
pub(crate) fn normalise(skb: Skb, job: &Job) -> Result<i32, Error> {
    let l3 = job.device.flags & device_flags::L3 != 0;
    let mut flags = 0;
    if job.direction() == Direction::Ingress {
        flags |= intern_flags::INGRESS;
    }
    if job.has(job_flags::FORWARDED) {
        flags |= intern_flags::FORWARDED;
    }
    if l3 {
        flags |= intern_flags::L3;
    }
    let macs = if l3 { [0; 3] } else { skb.raw::<u32, 3>(0).ok_or(Error::Normaliser)? };
    let entry = Intern { macs, ifindex: skb.ifindex(), mark: skb.mark(), flags, netns: job.netns };
    let number = intern(&entry)?;
    if l3 {
        add_mac_header(skb)?;
    }
    store(skb, 0, &[number, 0, 0])?;
    // SAFETY: plain values; the helper only notes them.
    Ok(unsafe { bpf_redirect(job.device.normaliser, 0) as i32 })
}

/// A device without MAC header: the private pair needs one.
#[inline(always)]
fn add_mac_header(skb: Skb) -> Result<(), Error> {
    let first = skb.byte(0).ok_or(Error::Normaliser)?;
    let ethertype: u16 = if first >> 4 == 4 { 0x0800 } else { 0x86dd };
    // SAFETY: the kernel passes a valid context.
    if unsafe { bpf_skb_change_head(skb.0, MAC_HEADER_LEN, 0) } != 0 {
        return Err(Error::Normaliser);
    }
    store(skb, ETHERTYPE_OFFSET, &[ethertype.to_be()])
}

/// The number under which the entry is found again; one entry serves all its packets.
#[inline(never)]
fn intern(entry: &Intern) -> Result<u32, Error> {
    let [a, b, c] = entry.macs;
    let place = u64::from(entry.ifindex) << 32 | u64::from(entry.flags);
    let mut hash = mix(entry.netns ^ mix(place));
    hash = mix(hash ^ (u64::from(a) << 32 | u64::from(b)));
    hash = mix(hash ^ (u64::from(c) << 32 | u64::from(entry.mark)));
    let first = hash as u32;
    for probe in 0..INTERN_PROBES {
        let number = first.wrapping_add(probe);
        // SAFETY: an entry is never changed, only evicted; the copy is compared whole.
        match unsafe { CHAOS_INTERN.get(number) } {
            Some(known) if known == entry => return Ok(number),
            Some(_) => {}
            None => {
                return CHAOS_INTERN.insert(number, entry, 0).map(|()| number).map_err(|_| Error::Normaliser);
            }
        }
    }
    Err(Error::Normaliser)
}

/// Gives a frame that left the normaliser its addresses back; none = nobody knows it.
#[inline(always)]
pub(crate) fn restore(skb: Skb) -> Option<&'static Intern> {
    let [number] = skb.raw::<u32, 1>(0)?;
    // SAFETY: an entry is never changed, only evicted, and then not reused before the program ends.
    let entry = unsafe { CHAOS_INTERN.get(number) }?;
    skb.set_mark(entry.mark);
    store(skb, 0, &entry.macs).ok()?;
    Some(entry)
}

/// Sends a restored frame on from where it was taken, marked so that it is not judged again.
#[inline(always)]
pub(crate) fn send_on(skb: Skb, entry: &Intern, loopback: bool) -> i32 {
    skb.set_marker(CHAOS_TAG.load());
    // `loopback_xmit` and devices without MAC header do not set the packet's type.
    // SAFETY: the kernel passes a valid context.
    unsafe { bpf_skb_change_type(skb.0, 0) };
    if entry.flags & intern_flags::INGRESS != 0 {
        // SAFETY: plain values; the helper only notes them.
        return unsafe { bpf_redirect(entry.ifindex, u64::from(BPF_F_INGRESS)) as i32 };
    }
    if loopback {
        // The route was lost on the way, and without one a loopback address is a martian.
        // SAFETY: a null parameter block of length 0 asks for a lookup by the packet's own addresses.
        return unsafe { bpf_redirect_neigh(entry.ifindex, core::ptr::null_mut(), 0, 0) as i32 };
    }
    // SAFETY: plain values; the helper only notes them.
    unsafe { bpf_redirect(entry.ifindex, 0) as i32 }
}

#[inline(always)]
fn store<T: Copy, const N: usize>(skb: Skb, offset: u32, data: &[T; N]) -> Result<(), Error> {
    let len = size_of::<[T; N]>() as u32;
    // SAFETY: the helper reads exactly `len` bytes; the verifier checks the length.
    let result = unsafe { bpf_skb_store_bytes(skb.0, offset, data.as_ptr().cast(), len, 0) };
    if result == 0 { Ok(()) } else { Err(Error::Normaliser) }
}
