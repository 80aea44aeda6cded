//! Tells of packets that rules affected, as long as somebody reads.
//!
//! A record costs nobody a wake-up but a reader that waits for one: it drains the ring in its own time while
//! there is something in it.

use core::intrinsics::{AtomicOrdering, atomic_xadd};

use aya_ebpf::{
    bindings::{__sk_buff, BPF_RB_NO_WAKEUP},
    helpers::{bpf_get_current_comm, bpf_get_current_pid_tgid},
};
use chaos_common::{
    abi::{Direction, Record, Rule, control, dims},
    connect::Call,
    job::Job,
    lookup::flow_key,
    packet::Class,
    sample::{Sampling, takes},
    world::World as _,
};

use crate::{
    frame::Skb,
    maps::{CHAOS_CONTROL, CHAOS_EVENTS, CHAOS_LOST, CHAOS_STATES},
    owner, source,
    steps::job,
    world::Tables,
};

/// Bits of the argument of [`chaos_record`] that are the slot; the verdicts are above.
const SLOT_BITS: u32 = 12;

/// Somebody reads records.
#[inline(always)]
pub(crate) fn wanted() -> bool {
    CHAOS_CONTROL.get(control::SAMPLING).is_some_and(|sampling| *sampling != 0)
}

/// Tells of the packet of the job. What is not in the job yet comes as plain numbers: the compiler may keep what
/// the calling function changes to itself until that returns.
#[inline(always)]
pub(crate) fn packet(skb: Skb, slot: u32, verdicts: u32, kinds: u32, (delay_ns, armed_ns): (u64, u64)) {
    let what = u64::from(verdicts) << SLOT_BITS | u64::from(slot);
    chaos_record(skb.0, what, kinds, delay_ns, armed_ns);
}

/// A function of its own, which the verifier proves once.
#[unsafe(no_mangle)]
#[inline(never)]
extern "C" fn chaos_record(skb: *mut __sk_buff, what: u64, kinds: u32, delay_ns: u64, armed_ns: u64) -> u32 {
    let skb = Skb(core::hint::black_box(skb));
    let (slot, verdicts) = (what as u32 & ((1 << SLOT_BITS) - 1), (what >> SLOT_BITS) as u32);
    let Some(job) = job() else { return 0 };
    if !is_taken(slot, job.now_ns) {
        return 0;
    }
    let cgroup = owner_of(skb, job);
    let Some(mut place) = CHAOS_EVENTS.reserve::<Record>(0) else {
        lose();
        return 0;
    };
    place.write(Record {
        time_ns: job.now_ns,
        armed_ns,
        netns: job.netns,
        cgroup,
        delay_ns,
        bytes: job.size.bytes,
        source: job.packet.source,
        destination: job.packet.destination,
        slot,
        ifindex: job.way_ifindex,
        segments: job.size.segments as u32,
        verdicts,
        kinds,
        direction: job.direction,
        pid: 0,
        proto: u32::from(job.packet.proto),
        source_port: job.packet.source_port,
        destination_port: job.packet.destination_port,
        tcp_flags: u32::from(job.packet.tcp_flags),
        command: [0; 16],
    });
    place.submit(wakeup());
    0
}

/// Tells of a call of connect(2): here the kernel knows who called.
#[inline(always)]
pub(crate) fn call(rule: &Rule, slot: u32, call: &Call, verdicts: u32, now_ns: u64) {
    if !is_taken(slot, now_ns) {
        return;
    }
    let command = bpf_get_current_comm().unwrap_or([0; 16]);
    let Some(mut place) = CHAOS_EVENTS.reserve::<Record>(0) else { return lose() };
    place.write(Record {
        time_ns: now_ns,
        armed_ns: rule.armed_ns,
        netns: call.netns,
        cgroup: call.cgroup,
        delay_ns: 0,
        bytes: 0,
        source: [0; 4],
        destination: call.peer,
        slot,
        ifindex: 0,
        segments: 1,
        verdicts,
        kinds: rule.faults.connect_kinds(),
        direction: Direction::Egress as u32,
        pid: (bpf_get_current_pid_tgid() >> 32) as u32,
        proto: if call.class == Class::TCP { PROTO_TCP } else { PROTO_UDP },
        source_port: 0,
        destination_port: call.port,
        tcp_flags: 0,
        command,
    });
    place.submit(wakeup());
}

const PROTO_TCP: u32 = 6;
const PROTO_UDP: u32 = 17;

#[inline(always)]
fn is_taken(slot: u32, now_ns: u64) -> bool {
    let tables = Tables { skb: Skb(core::ptr::null_mut()), bank: 0 };
    let sampling = Sampling(CHAOS_CONTROL.get(control::SAMPLING).copied().unwrap_or(0));
    CHAOS_STATES.get(slot).is_some_and(|state| takes(&tables, &state.sample, sampling, now_ns))
}

/// Who has the local end, where that is known.
#[inline(always)]
fn owner_of(skb: Skb, job: &Job) -> u64 {
    if job.direction() == Direction::Egress {
        return source::cgroup(skb);
    }
    let tables = Tables { skb, bank: job.bank };
    let learns = tables.header().is_some_and(|header| header.dims & dims::LEARN_OWNERS != 0);
    if !learns {
        return 0;
    }
    owner::find(&flow_key(&job.packet, job.netns, Direction::Ingress)).unwrap_or(0)
}

#[inline(always)]
fn wakeup() -> u64 {
    let waits = CHAOS_CONTROL.get(control::WAITS).copied().unwrap_or(0);
    // 0: the kernel wakes the reader if this record is the first that it has not read.
    if waits != 0 { 0 } else { u64::from(BPF_RB_NO_WAKEUP) }
}

/// Atomically: the hooks of connect(2) may be interrupted by a packet's program on this CPU.
#[inline(always)]
fn lose() {
    if let Some(word) = CHAOS_LOST.get_ptr_mut(0) {
        // SAFETY: the word lies in a map value, aligned. SeqCst as in `world`.
        unsafe { atomic_xadd::<u64, u64, { AtomicOrdering::SeqCst }>(word, 1) };
    }
}
