//! Calls of connect(2): asks `chaos_common::connect` from the hooks of target cgroups.
//!
//! The hooks run in the caller's process and can be preempted (`bpf_prog_run_array_cg` in
//! `kernel/bpf/cgroup.c` disables migration only, Linux 6.18): nothing here is kept in per-CPU
//! memory but counters, and those are added to atomically.

use core::intrinsics::{AtomicOrdering, atomic_xadd};

use aya_ebpf::{EbpfContext as _, helpers::bpf_get_netns_cookie, programs::SockAddrContext};
use chaos_common::{
    abi::{BANKS, CONNECTS_MAX, Connect, Count, Direction, FlowKey, HOOKED_ALL, Rule, RuleState, control},
    connect::{Call, Rules, Scan, class_of, destination, judge, look},
    env::{Env, Word},
    packet::{Addr, Class},
    world::World,
};

use crate::{
    events,
    frame::Skb,
    maps::{CHAOS_CONNECT, CHAOS_CONTROL, CHAOS_COUNTERS},
    source,
    world::Tables,
};

/// What the hook answers: the call goes on.
const GO_ON: i32 = 1;
/// The call fails, with the errno that was set.
const FAIL: i32 = 0;

/// One generation of the tables, as one call sees it from beginning to end.
#[derive(Clone, Copy)]
struct Called(Tables);

impl Called {
    /// There is no packet; nothing that a call asks for looks at one.
    #[inline(always)]
    const fn with_bank(bank: u32) -> Self {
        Self(Tables { skb: Skb(core::ptr::null_mut()), bank: bank & (BANKS - 1) })
    }
}

impl Env for Called {
    #[inline(always)]
    fn now_ns(&self) -> u64 {
        self.0.now_ns()
    }

    #[inline(always)]
    fn random_u32(&self) -> u32 {
        self.0.random_u32()
    }

    #[inline(always)]
    fn read(&self, word: &Word) -> u64 {
        self.0.read(word)
    }

    #[inline(always)]
    fn write(&self, word: &Word, value: u64) {
        self.0.write(word, value);
    }

    #[inline(always)]
    fn compare_exchange(&self, word: &Word, old: u64, new: u64) -> u64 {
        self.0.compare_exchange(word, old, new)
    }

    #[inline(always)]
    fn fetch_add(&self, word: &Word, n: u64) -> u64 {
        self.0.fetch_add(word, n)
    }
}

impl Rules for Called {
    #[inline(always)]
    fn connect(&self, index: u32) -> Option<&Connect> {
        CHAOS_CONNECT.get(self.0.bank.wrapping_mul(CONNECTS_MAX as u32).wrapping_add(index))
    }

    #[inline(always)]
    fn rule(&self, slot: u32) -> Option<&Rule> {
        World::rule(&self.0, slot)
    }

    #[inline(always)]
    fn state(&self, slot: u32) -> Option<&RuleState> {
        World::state(&self.0, slot)
    }

    #[inline(always)]
    fn record(&self, slot: u32, rule: &Rule, call: &Call, verdicts: u32) {
        if events::wanted() {
            events::call(rule, slot, call, verdicts, self.0.now_ns());
        }
    }

    #[inline(always)]
    fn is_protected(&self, key: &FlowKey) -> bool {
        World::is_protected(&self.0, key)
    }

    #[inline(always)]
    fn count(&self, slot: u32, what: Count) {
        let Some(counters) = CHAOS_COUNTERS.get_ptr_mut(slot << 1 | Direction::Egress as u32) else { return };
        // SAFETY: the pointer is to a map value; no reference to it is made.
        let tallies = unsafe { &raw mut (*counters).tallies };
        // SAFETY: a `Count` is an index of the array.
        let tally = unsafe { tallies.cast::<chaos_common::abi::Tally>().add(what as usize) };
        // SAFETY: a field of the same value.
        let packets = unsafe { &raw mut (*tally).packets };
        // SAFETY: aligned, and atomic towards the programs that interrupt us here. SeqCst as above.
        unsafe { atomic_xadd::<u64, u64, { AtomicOrdering::SeqCst }>(packets, 1) };
    }
}

/// [`look`] as a function of its own, which the verifier proves once. Plain numbers only: the address
/// in two words, and bank, index, class and port in one.
#[unsafe(no_mangle)]
#[inline(never)]
extern "C" fn chaos_connect(netns: u64, high: u64, low: u64, rest: u64, scan: u64) -> u64 {
    let index = (rest >> 24) as u32 & (CONNECTS_MAX as u32 - 1);
    let Some(hooked) = source::hooked() else { return Scan::END.0 };
    let call = Call {
        netns,
        cgroup: if hooked == HOOKED_ALL { 0 } else { hooked },
        peer: [(high >> 32) as u32, high as u32, (low >> 32) as u32, low as u32],
        port: rest as u16,
        class: Class((rest >> 16) as u8),
    };
    look(&Called::with_bank((rest >> 48) as u32), &call, index, Scan(scan)).0
}

fn pair(high: u32, low: u32) -> u64 {
    u64::from(high) << 32 | u64::from(low)
}

/// A process of the cgroup calls connect(2).
#[inline(always)]
pub(crate) fn called(ctx: &SockAddrContext, peer: Addr) -> i32 {
    let Some(generation) = CHAOS_CONTROL.get(control::GENERATION).copied() else { return GO_ON };
    if generation == 0 {
        return GO_ON;
    }
    // SAFETY: the kernel passes a valid context; the verifier checks the access.
    let port = unsafe { (*ctx.sock_addr).user_port };
    // SAFETY: as above.
    let proto = unsafe { (*ctx.sock_addr).protocol };
    // SAFETY: the kernel passes a valid context; available for cgroup/sock_addr since Linux 5.7.
    let netns = unsafe { bpf_get_netns_cookie(ctx.as_ptr()) };
    let [a, b, c, d] = destination(peer);
    let bank = (generation & u64::from(BANKS - 1)) << 48;
    let what = bank | u64::from(class_of(proto).0) << 16 | u64::from(u16::from_be(port as u16));
    let errno = judge(|index, Scan(scan)| {
        Scan(chaos_connect(netns, pair(a, b), pair(c, d), what | u64::from(index) << 24, scan))
    });
    if errno == 0 {
        return GO_ON;
    }
    set_errno(errno);
    FAIL
}

/// What connect(2) tells the caller.
#[inline(always)]
fn set_errno(errno: u32) {
    // Linux 7 wants proof that the 64 bits of the register lie between -4095 and 0. Nothing to subtract from that the
    // compiler could see, since no range is known of what it would negate.
    let value = core::hint::black_box(0i64).wrapping_sub(i64::from(errno & 0xfff));
    // SAFETY: number 187 is bpf_set_retval (`include/uapi/linux/bpf.h`, Linux 5.18); it takes an `int`, whose register
    // has 64 bits here.
    let set_retval: unsafe extern "C" fn(i64) -> i64 = unsafe { core::mem::transmute(187usize) };
    // SAFETY: a plain number.
    unsafe { set_retval(value) };
}
