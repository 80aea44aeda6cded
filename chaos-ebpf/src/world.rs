//! Answers the questions of `chaos-common` from the maps.

use core::intrinsics::{AtomicOrdering, atomic_cxchg, atomic_xadd};

use aya_ebpf::{bindings::BPF_NOEXIST, maps::lpm_trie::Key};
use chaos_common::{
    abi::{
        BANKS, CgroupKey, CgroupSets, Clause, Count, DIST_ENTRIES, Direction, Flow, FlowKey, FlowMemory,
        FlowOrder, Header, MemoryKey, PORTS, RULES_MAX, Rule, RuleState, Set, Side, control,
    },
    env::{Env, Word},
    job::Job,
    packet::{Addr, unmapped},
    verdict::Verdict,
    world::World,
};

use crate::{
    events,
    frame::Skb,
    globals::{Blank as _, CHAOS_CAPACITY},
    maps::{
        CHAOS_CGROUPS, CHAOS_CLAUSES, CHAOS_CONTROL, CHAOS_COUNTERS, CHAOS_DISTS, CHAOS_FLOWS, CHAOS_HEADERS,
        CHAOS_LOCALS, CHAOS_MEMORY, CHAOS_NETS4, CHAOS_NETS6, CHAOS_ORDER, CHAOS_PORTS, CHAOS_PROTECT,
        CHAOS_RULES, CHAOS_SETS, CHAOS_STATES,
    },
    question, source,
};

/// Depths of target cgroups that one rule set may use.
pub(crate) const LEVELS_MAX: usize = 8;

/// One generation of the tables, as one packet sees it from beginning to end.
#[derive(Clone, Copy)]
pub(crate) struct Tables {
    pub(crate) skb: Skb,
    pub(crate) bank: u32,
}

/// The bank that a generation is in.
#[inline(always)]
pub(crate) const fn bank(generation: u64) -> u32 {
    generation as u32 & (BANKS - 1)
}

impl Tables {
    /// None = nothing is armed.
    #[inline(always)]
    pub(crate) fn armed(skb: Skb) -> Option<Self> {
        let generation = *CHAOS_CONTROL.get(control::GENERATION)?;
        (generation != 0).then_some(Self { skb, bank: bank(generation) })
    }

    /// The deepest target cgroup that holds the packet's socket.
    #[inline(always)]
    pub(crate) fn socket_cgroup(&self, header: &Header) -> Option<(u64, CgroupSets)> {
        let mut levels = header.cgroup_levels;
        for _ in 0..LEVELS_MAX {
            if levels == 0 {
                break;
            }
            let level = levels.ilog2();
            levels &= !(1u64 << (level & 63));
            let id = source::ancestor_cgroup(self.skb, level);
            if id != 0
                && let Some(sets) = self.cgroup(id)
            {
                return Some((id, sets));
            }
        }
        None
    }

    #[inline(always)]
    fn cgroup(&self, id: u64) -> Option<CgroupSets> {
        let key = CgroupKey { id, bank: self.bank, reserved: 0 };
        // SAFETY: entries of the bank that is read are neither changed nor removed.
        unsafe { CHAOS_CGROUPS.get(key) }.copied()
    }
}

impl Env for Tables {
    #[inline(always)]
    fn now_ns(&self) -> u64 {
        source::now_ns()
    }

    #[inline(always)]
    fn line_ns(&self) -> u64 {
        source::monotonic_ns()
    }

    #[inline(always)]
    fn random_u32(&self) -> u32 {
        source::random_u32()
    }

    #[inline(always)]
    fn read(&self, word: &Word) -> u64 {
        // SAFETY: the word lies in a map value, aligned; 64-bit loads are single on every 64-bit CPU.
        unsafe { core::ptr::read_volatile(word.as_ptr()) }
    }

    #[inline(always)]
    fn write(&self, word: &Word, value: u64) {
        // SAFETY: the word lies in a map value, aligned; 64-bit stores are single on every 64-bit CPU.
        unsafe { core::ptr::write_volatile(word.as_ptr(), value) }
    }

    #[inline(always)]
    fn compare_exchange(&self, word: &Word, old: u64, new: u64) -> u64 {
        // SAFETY: the word lies in a map value, aligned.
        let (before, _) = unsafe {
            atomic_cxchg::<u64, { AtomicOrdering::SeqCst }, { AtomicOrdering::SeqCst }>(
                word.as_ptr(),
                old,
                new,
            )
        };
        before
    }

    #[inline(always)]
    fn fetch_add(&self, word: &Word, n: u64) -> u64 {
        // SAFETY: the word lies in a map value, aligned. SeqCst because a relaxed add whose
        // result is used is miscompiled by LLVM 22 for bpf.
        unsafe { atomic_xadd::<u64, u64, { AtomicOrdering::SeqCst }>(word.as_ptr(), n) }
    }
}

impl World for Tables {
    #[inline(always)]
    fn header(&self) -> Option<&Header> {
        CHAOS_HEADERS.get(self.bank)
    }

    #[inline(always)]
    fn set(&self, number: u32) -> Option<&Set> {
        CHAOS_SETS.get(number)
    }

    #[inline(always)]
    fn clause(&self, index: u32) -> Option<Clause> {
        CHAOS_CLAUSES.get(self.bank.wrapping_mul(RULES_MAX as u32).wrapping_add(index)).copied()
    }

    #[inline(never)]
    fn address_set(&self, side: Side, addr: &Addr) -> Option<u32> {
        let table = (self.bank << 1 | side as u32).to_be();
        if let Some(v4) = unmapped(addr) {
            return CHAOS_NETS4.get(Key::new(64, [table, v4])).copied();
        }
        let [a, b, c, d] = *addr;
        CHAOS_NETS6.get(Key::new(160, [table, a, b, c, d])).copied()
    }

    #[inline(always)]
    fn port_set(&self, side: Side, port: u16) -> Option<u32> {
        CHAOS_PORTS
            .get((self.bank << 1 | side as u32).wrapping_mul(PORTS).wrapping_add(u32::from(port)))
            .copied()
    }

    #[inline(always)]
    fn socket_owner(&self, header: &Header) -> Option<CgroupSets> {
        self.socket_cgroup(header).map(|(_, sets)| sets)
    }

    #[inline(always)]
    fn table_owner(&self, key: &FlowKey) -> Option<CgroupSets> {
        crate::owner::find(key).and_then(|id| self.cgroup(id))
    }

    #[inline(always)]
    fn rule(&self, slot: u32) -> Option<&Rule> {
        CHAOS_RULES.get(self.bank.wrapping_mul(CHAOS_CAPACITY.load()).wrapping_add(slot))
    }

    #[inline(always)]
    fn state(&self, slot: u32) -> Option<&RuleState> {
        CHAOS_STATES.get(slot)
    }

    #[inline(always)]
    fn count(&self, slot: u32, direction: Direction, what: Count, packets: u64, bytes: u64) {
        let Some(counters) = CHAOS_COUNTERS.get_ptr_mut(slot << 1 | direction as u32) else { return };
        // SAFETY: the element is this CPU's own, and tc programs do not interrupt each other on a CPU.
        let counters = unsafe { &mut *counters };
        if let Some(tally) = counters.tallies.get_mut(what as usize) {
            tally.packets = tally.packets.wrapping_add(packets);
            tally.bytes = tally.bytes.wrapping_add(bytes);
        }
    }

    #[inline(always)]
    fn delayed(&self, slot: u32, direction: Direction, delay_ns: u64, packets: u64) {
        let Some(counters) = CHAOS_COUNTERS.get_ptr_mut(slot << 1 | direction as u32) else { return };
        // SAFETY: as in `count`.
        let counters = unsafe { &mut *counters };
        counters.delays.add(delay_ns, packets);
    }

    #[inline(always)]
    fn record(&self, slot: u32, rule: &Rule, _: &Job, wish: &Verdict, verdicts: u32) {
        if events::wanted() {
            events::packet(self.skb, slot, verdicts, wish.kinds(), (wish.hold_ns(), rule.armed_ns));
        }
    }

    #[inline(always)]
    fn flow(&self, key: &FlowKey) -> Option<Flow> {
        // SAFETY: a value read while it is replaced mixes two times of one flow; both are recent.
        unsafe { CHAOS_FLOWS.get(key) }.copied()
    }

    #[inline(never)]
    fn flow_memory(&self, key: &MemoryKey) -> Option<&FlowMemory> {
        if let Some(known) = CHAOS_MEMORY.get_ptr(key) {
            // SAFETY: changed only through `Env`; an entry that is evicted meanwhile stays readable until
            // the program ends (RCU), and what is written to it is lost with it.
            return Some(unsafe { &*known });
        }
        // SAFETY: only read, by the helper, and never written by anybody.
        let blank = unsafe { &*FlowMemory::blank() };
        let _ = CHAOS_MEMORY.insert(key, blank, u64::from(BPF_NOEXIST));
        // SAFETY: as above.
        CHAOS_MEMORY.get_ptr(key).map(|known| unsafe { &*known })
    }

    #[inline(never)]
    fn flow_order(&self, key: &FlowKey) -> Option<&FlowOrder> {
        if let Some(known) = CHAOS_ORDER.get_ptr(key) {
            // SAFETY: as in `flow_memory`.
            return Some(unsafe { &*known });
        }
        // SAFETY: as in `flow_memory`.
        let blank = unsafe { &*FlowOrder::blank() };
        let _ = CHAOS_ORDER.insert(key, blank, u64::from(BPF_NOEXIST));
        // SAFETY: as in `flow_memory`.
        CHAOS_ORDER.get_ptr(key).map(|known| unsafe { &*known })
    }

    #[inline(always)]
    fn dist(&self, table: u32, draw: u32) -> Option<i16> {
        let table = CHAOS_DISTS.get(table)?;
        // Masked, not compared: Linux 6.1 loses a compared bound.
        let index = core::hint::black_box(draw.checked_rem(table.len)?) & (DIST_ENTRIES as u32 - 1);
        table.entries.get(index as usize).copied()
    }

    #[inline(always)]
    fn read_question(&self, _: &Job) -> bool {
        question::read(self.skb)
    }

    #[inline(always)]
    fn matches_name(&self, pattern: u32) -> bool {
        question::matches(pattern)
    }

    #[inline(always)]
    fn is_protected(&self, key: &FlowKey) -> bool {
        CHAOS_PROTECT.get_ptr(key).is_some()
    }

    #[inline(always)]
    fn is_own_address(&self, netns: u64, addr: &Addr) -> bool {
        CHAOS_LOCALS.get_ptr(FlowKey { netns, local: *addr, ..FlowKey::default() }).is_some()
    }
}
