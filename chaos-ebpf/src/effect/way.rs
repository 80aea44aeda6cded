//! Where a packet goes: on, back, nowhere, into the normaliser, into the delay line.

use aya_ebpf::{
    bindings::{BPF_F_INGRESS, TC_ACT_SHOT, TC_ACT_UNSPEC},
    helpers::{
        bpf_clone_redirect, bpf_redirect, bpf_redirect_neigh, bpf_skb_change_head, bpf_skb_change_type,
    },
};
use chaos_common::{
    abi::{BLACKHOLE_IFINDEX, Direction, Intern, device_flags, intern_flags},
    dns::DOCKER,
    env::mix,
    job::{Job, job_flags},
    packet::{Bytes as _, unmapped},
};

use crate::{error::Error, frame::Skb, globals::CHAOS_TAG, maps::CHAOS_INTERN};

const ETHERTYPE_OFFSET: u32 = 12;
const ETH_IPV4: u16 = 0x0800_u16.to_be();
/// Offset of the source address in an IPv4 header.
const IPV4_SOURCE: u32 = 12;
/// `LOOPBACK_IFINDEX` in `include/net/flow.h`: the same in every namespace.
const LOOPBACK_IFINDEX: u32 = 1;
/// Types of packets, `include/uapi/linux/if_packet.h`: for us, for somebody else.
const PACKET_HOST: u32 = 0;
const PACKET_OTHERHOST: u32 = 3;
/// Bytes of an Ethernet header.
pub(crate) const MAC_HEADER_LEN: u32 = 14;
/// Places tried when two entries want the same number.
const INTERN_PROBES: u32 = 4;
/// Passes to the next program of the chain (`TCX_NEXT`), never `TC_ACT_OK`, which would end it.
pub(crate) const NEXT: i32 = TC_ACT_UNSPEC;

/// Notes where a packet is that was not in a private device yet.
#[inline(always)]
pub(crate) fn begin_way(skb: Skb, job: &mut Job) {
    let mut flags = 0;
    if job.direction() == Direction::Ingress {
        flags |= intern_flags::INGRESS;
    }
    if job.has(job_flags::FORWARDED) {
        flags |= intern_flags::FORWARDED;
    }
    if job.device.flags & device_flags::L3 != 0 {
        flags |= intern_flags::L3;
    }
    if job.device.flags & device_flags::LOOPBACK != 0 {
        flags |= intern_flags::LOOPBACK;
    }
    job.intern = 0;
    job.way_flags = flags;
    job.way_ifindex = skb.ifindex();
}

#[inline(always)]
pub(super) fn is(job: &Job, flag: u32) -> bool {
    job.way_flags & flag != 0
}

/// It comes from a private device, where it left its own.
#[inline(always)]
pub(super) fn is_away(job: &Job) -> bool {
    job.has(job_flags::AWAY)
}

/// Drops without telling the sender (see `BLACKHOLE_IFINDEX`).
#[inline(always)]
pub(crate) fn vanish(job: &Job) -> i32 {
    if is_away(job) || is(job, intern_flags::INGRESS) {
        return TC_ACT_SHOT;
    }
    // SAFETY: plain values; the helper only notes them.
    unsafe { bpf_redirect(BLACKHOLE_IFINDEX, 0) as i32 }
}

/// On, the way the packet was going.
#[inline(always)]
pub(crate) fn forth(skb: Skb, job: &Job) -> i32 {
    if is_away(job) { leave(skb, job.way_ifindex, job.way_flags) } else { NEXT }
}

/// Back to where the packet came from; its addresses were swapped.
#[inline(always)]
pub(crate) fn back(skb: Skb, job: &Job) -> i32 {
    // What leaves by loopback comes to either end.
    let flags = turned(job);
    if !is_away(job)
        && is(job, intern_flags::LOOPBACK)
        && !is(job, intern_flags::INGRESS)
        && ingress(flags) == 0
    {
        return NEXT;
    }
    leave(skb, job.way_ifindex, flags | intern_flags::ANSWER)
}

/// The same device, the other direction; on loopback there is but one.
#[inline(always)]
pub(super) fn turned(job: &Job) -> u32 {
    let flags = job.way_flags;
    if flags & intern_flags::LOOPBACK == 0 {
        return flags ^ intern_flags::INGRESS;
    }
    // A query to Docker's resolver went through the container's NAT, and on loopback a packet keeps what NAT
    // knows about it: turned round it would be translated as a query again. Taken in again it forgets that,
    // but also its route, which `route_again` finds.
    if job.packet.destination == DOCKER {
        flags | intern_flags::INGRESS
    } else {
        flags & !intern_flags::INGRESS
    }
}

/// Gives a packet that came back to loopback by [`back`] a route, without which its address is a martian.
/// None = it is none of those.
#[inline(always)]
pub(crate) fn route_again(skb: Skb) -> Option<i32> {
    let [kind] = skb.raw::<u16, 1>(ETHERTYPE_OFFSET)?;
    let [source] = skb.raw::<u32, 1>(MAC_HEADER_LEN.wrapping_add(IPV4_SOURCE))?;
    if skb.ifindex() != LOOPBACK_IFINDEX || kind != ETH_IPV4 || Some(source) != unmapped(&DOCKER) {
        return None;
    }
    // SAFETY: as in `leave`.
    Some(unsafe { bpf_redirect_neigh(LOOPBACK_IFINDEX, core::ptr::null_mut(), 0, 0) as i32 })
}

/// What was taken where it comes in by loopback goes out once more, because only there it gets a route. Its type
/// says so: the mark then means both hops. None = it is none of those.
#[inline(always)]
pub(crate) fn goes_round(skb: Skb, direction: Direction) -> Option<i32> {
    if skb.ifindex() != LOOPBACK_IFINDEX || skb.pkt_type() != PACKET_OTHERHOST {
        return None;
    }
    if direction == Direction::Ingress {
        skb.set_marker(0);
        // SAFETY: the kernel passes a valid context.
        unsafe { bpf_skb_change_type(skb.0, PACKET_HOST) };
    }
    Some(NEXT)
}

/// Sends a copy on, the way the packet is going; not 0 = it could not.
#[inline(always)]
pub(crate) fn copy_forth(skb: Skb, job: &Job) -> i32 {
    copy(skb, job, job.way_flags)
}

/// Sends a copy back; not 0 = it could not.
#[inline(always)]
pub(crate) fn copy_back(skb: Skb, job: &Job) -> i32 {
    copy(skb, job, turned(job))
}

/// Copies are marked, or they would be judged, and copied, again.
#[inline(always)]
fn copy(skb: Skb, job: &Job, flags: u32) -> i32 {
    let before = skb.marker();
    skb.set_marker(CHAOS_TAG.load());
    let result = if is_away(job) && flags & intern_flags::LOOPBACK != 0 {
        // Loopback needs a route, which only `bpf_redirect_neigh` finds, and that takes no copies: the
        // copy goes once more through the normaliser, whose end sees the marker and sends it on.
        let number = [job.intern, 0, 0];
        let Some(macs) = skb.raw::<u32, 3>(0) else { return 1 };
        if skb.put(0, &number).is_none() {
            return 1;
        }
        // SAFETY: the kernel passes a valid context.
        let result = unsafe { bpf_clone_redirect(skb.0, job.device.normaliser, 0) };
        if skb.put(0, &macs).is_none() {
            return 1;
        }
        result
    } else if goes_on_round(flags) && job.packet.destination != DOCKER {
        // SAFETY: the kernel passes a valid context.
        unsafe { bpf_skb_change_type(skb.0, PACKET_OTHERHOST) };
        // SAFETY: the kernel passes a valid context.
        let result = unsafe { bpf_clone_redirect(skb.0, job.way_ifindex, 0) };
        // SAFETY: the kernel passes a valid context.
        unsafe { bpf_skb_change_type(skb.0, PACKET_HOST) };
        result
    } else {
        // SAFETY: the kernel passes a valid context.
        unsafe { bpf_clone_redirect(skb.0, job.way_ifindex, ingress(flags)) }
    };
    skb.set_marker(before);
    result as i32
}

/// It was taken where it comes in by loopback: see [`goes_round`].
#[inline(always)]
const fn goes_on_round(flags: u32) -> bool {
    flags & (intern_flags::LOOPBACK | intern_flags::INGRESS | intern_flags::ANSWER)
        == intern_flags::LOOPBACK | intern_flags::INGRESS
}

#[inline(always)]
const fn ingress(flags: u32) -> u64 {
    if flags & intern_flags::INGRESS != 0 { BPF_F_INGRESS as u64 } else { 0 }
}

/// Sends a packet on from where it was taken, marked so that it is not judged again.
#[inline(always)]
fn leave(skb: Skb, ifindex: u32, flags: u32) -> i32 {
    let round = goes_on_round(flags);
    skb.set_marker(CHAOS_TAG.load());
    // `loopback_xmit` and devices without MAC header do not set the packet's type.
    // SAFETY: the kernel passes a valid context.
    unsafe { bpf_skb_change_type(skb.0, if round { PACKET_OTHERHOST } else { PACKET_HOST }) };
    if round || flags & (intern_flags::LOOPBACK | intern_flags::INGRESS) == intern_flags::LOOPBACK {
        // The route was lost on the way, and without one a loopback address is a martian.
        // SAFETY: a null parameter block of length 0 asks for a lookup by the packet's own addresses.
        return unsafe { bpf_redirect_neigh(ifindex, core::ptr::null_mut(), 0, 0) as i32 };
    }
    // SAFETY: plain values; the helper only notes them.
    unsafe { bpf_redirect(ifindex, ingress(flags)) as i32 }
}

/// Sends a restored frame on from where it was taken.
#[inline(always)]
pub(crate) fn send_on(skb: Skb, entry: &Intern) -> i32 {
    leave(skb, entry.ifindex, entry.flags)
}

/// Sends the packet into the normaliser; nothing is changed before all that can fail has succeeded.
#[inline(always)]
pub(crate) fn normalise(skb: Skb, job: &mut Job) -> Result<i32, Error> {
    depart(skb, job)?;
    put(skb, [job.intern, 0, 0])?;
    // SAFETY: plain values; the helper only notes them.
    Ok(unsafe { bpf_redirect(job.device.normaliser, 0) as i32 })
}

/// Gives the packet the number under which it is known in private devices, and a MAC header if it has none.
#[inline(always)]
pub(super) fn depart(skb: Skb, job: &mut Job) -> Result<(), Error> {
    let l3 = is(job, intern_flags::L3);
    let macs = if l3 { [0; 3] } else { skb.raw::<u32, 3>(0).ok_or(Error::Normaliser)? };
    let entry =
        Intern { macs, ifindex: job.way_ifindex, mark: skb.mark(), flags: job.way_flags, netns: job.netns };
    job.intern = intern(&entry)?;
    if l3 {
        add_mac_header(skb)?;
    }
    Ok(())
}

#[inline(always)]
pub(super) fn put(skb: Skb, words: [u32; 3]) -> Result<(), Error> {
    skb.put(0, &words).ok_or(Error::Normaliser)
}

/// A device without MAC header: the private pair needs one.
#[inline(always)]
pub(super) fn add_mac_header(skb: Skb) -> Result<(), Error> {
    let first = skb.byte(0).ok_or(Error::Normaliser)?;
    let ethertype: u16 = if first >> 4 == 4 { 0x0800 } else { 0x86dd };
    // SAFETY: the kernel passes a valid context.
    if unsafe { bpf_skb_change_head(skb.0, MAC_HEADER_LEN, 0) } != 0 {
        return Err(Error::Normaliser);
    }
    skb.put(ETHERTYPE_OFFSET, &[ethertype.to_be()]).ok_or(Error::Normaliser)
}

/// The number under which the entry is found again; one entry serves all its packets.
#[inline(never)]
pub(super) fn intern(entry: &Intern) -> Result<u32, Error> {
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

/// Gives a frame that left a private device its addresses back; none = nobody knows it.
#[inline(always)]
pub(crate) fn restore(skb: Skb) -> Option<(u32, &'static Intern)> {
    let [number] = skb.raw::<u32, 1>(0)?;
    // SAFETY: an entry is never changed, only evicted, and then not reused before the program ends.
    let entry = unsafe { CHAOS_INTERN.get(number) }?;
    skb.set_mark(entry.mark);
    skb.put(0, &entry.macs)?;
    Some((number, entry))
}
