//! The host's answers to the questions of a decision: from compiled tables and given values.
//! Tests compare it with the kernel's, packet by packet.

use std::{
    cell::{Cell, RefCell},
    collections::{HashMap, HashSet},
    sync::atomic::{AtomicU64, Ordering},
};

use crate::{
    abi::{
        CgroupSets, Clause, Connect, Count, Counters, Direction, DistTable, Flow, FlowKey, FlowMemory,
        FlowOrder, Header, MemoryKey, Rule, RuleState, Set, Side,
    },
    compile::{Prefix, Tables},
    connect::{self, Call, Rules},
    dist,
    dns::{self, patterns, query::Query},
    env::{Env, Word},
    job::Job,
    judge::{self, Steps},
    life::{self, Life},
    packet::Addr,
    protect, wish,
    world::World,
};

/// Tables, and everything else that a decision may ask for.
#[derive(Debug, Default)]
pub struct Host {
    /// The compiled rules.
    pub tables: Tables,
    /// States by slot.
    pub states: HashMap<u32, RuleState>,
    /// Boot clock.
    pub now_ns: Cell<u64>,
    /// The next random word; drawn from [`Host::seed`] when that is not 0.
    pub random: Cell<u32>,
    /// State of a generator of random words; 0 = every draw gives [`Host::random`].
    pub seed: Cell<u64>,
    /// Target cgroup of the packet's socket; 0 = none.
    pub socket_cgroup: Cell<u64>,
    /// Owner table.
    pub owners: HashMap<FlowKey, u64>,
    /// Flow table, by symmetric key.
    pub flows: HashMap<FlowKey, Flow>,
    /// Protected table.
    pub protected: HashSet<FlowKey>,
    /// Addresses of namespaces.
    pub own_addresses: HashSet<(u64, Addr)>,
    /// What rules remember about connections.
    pub memories: RefCell<HashMap<MemoryKey, &'static FlowMemory>>,
    /// When flows leave the delay line.
    pub orders: RefCell<HashMap<FlowKey, &'static FlowOrder>>,
    /// Distribution tables by number.
    pub dists: HashMap<u32, Box<DistTable>>,
    /// The bytes of the packet, for what is read of its payload.
    pub frame: RefCell<Vec<u8>>,
    /// The question last read.
    pub question: RefCell<Option<Query>>,
    /// Counters by slot and direction.
    pub counters: RefCell<HashMap<(u32, u32), Counters>>,
}

impl Host {
    /// Takes over the distributions that this process knows by now, as the agent writes them for the kernel.
    pub fn learn_dists(&mut self) {
        for (table, number) in dist::tables().iter().zip(1..) {
            self.dists.entry(number).or_insert_with(|| {
                let mut known = Box::new(DistTable::EMPTY);
                known.len = u32::try_from(table.len()).unwrap_or(0);
                for (place, entry) in known.entries.iter_mut().zip(table.iter()) {
                    *place = *entry;
                }
                known
            });
        }
    }
}

fn atomic(word: &Word) -> &AtomicU64 {
    // SAFETY: a `Word` is eight aligned bytes that are only ever changed atomically.
    unsafe { AtomicU64::from_ptr(word.as_ptr()) }
}

impl Env for Host {
    fn now_ns(&self) -> u64 {
        self.now_ns.get()
    }

    fn random_u32(&self) -> u32 {
        if self.seed.get() == 0 {
            return self.random.get();
        }
        self.seed.set(crate::env::mix(self.seed.get()));
        (self.seed.get() >> 32) as u32
    }

    fn read(&self, word: &Word) -> u64 {
        atomic(word).load(Ordering::SeqCst)
    }

    fn write(&self, word: &Word, value: u64) {
        atomic(word).store(value, Ordering::SeqCst);
    }

    fn fetch_add(&self, word: &Word, n: u64) -> u64 {
        atomic(word).fetch_add(n, Ordering::SeqCst)
    }

    fn compare_exchange(&self, word: &Word, old: u64, new: u64) -> u64 {
        atomic(word)
            .compare_exchange(old, new, Ordering::SeqCst, Ordering::SeqCst)
            .unwrap_or_else(|other| other)
    }
}

impl World for Host {
    fn header(&self) -> Option<&Header> {
        Some(&self.tables.header)
    }

    fn set(&self, number: u32) -> Option<&Set> {
        self.tables.sets.get(number as usize)
    }

    fn clause(&self, index: u32) -> Option<Clause> {
        self.tables.clauses.get(index as usize).copied()
    }

    fn address_set(&self, side: Side, addr: &Addr) -> Option<u32> {
        let nets = self.tables.nets.get(side as usize)?;
        let longest =
            nets.iter().filter(|(net, _)| net.holds(addr)).max_by_key(|(net, _): &(&Prefix, _)| net.len);
        longest.map(|(_, number)| *number)
    }

    fn port_set(&self, side: Side, port: u16) -> Option<u32> {
        self.tables.ports.get(side as usize)?.range(..=port).next_back().map(|(_, number)| *number)
    }

    fn socket_owner(&self, _: &Header) -> Option<CgroupSets> {
        self.tables.cgroups.get(&self.socket_cgroup.get()).copied()
    }

    fn table_owner(&self, key: &FlowKey) -> Option<CgroupSets> {
        let port = FlowKey { peer: [0; 4], peer_port: 0, ..*key };
        let any = FlowKey { local: [0; 4], ..port };
        let owner = [key, &port, &any].into_iter().find_map(|key| self.owners.get(key))?;
        self.tables.cgroups.get(owner).copied()
    }

    fn rule(&self, slot: u32) -> Option<&Rule> {
        self.tables.rules.iter().find(|(at, _)| *at == slot).map(|(_, rule)| rule)
    }

    fn state(&self, slot: u32) -> Option<&RuleState> {
        self.states.get(&slot)
    }

    fn count(&self, slot: u32, direction: Direction, what: Count, packets: u64, bytes: u64) {
        let mut counters = self.counters.borrow_mut();
        let counters = counters.entry((slot, direction as u32)).or_default();
        if let Some(tally) = counters.tallies.get_mut(what as usize) {
            tally.packets = tally.packets.wrapping_add(packets);
            tally.bytes = tally.bytes.wrapping_add(bytes);
        }
    }

    fn delayed(&self, slot: u32, direction: Direction, delay_ns: u64, packets: u64) {
        let mut counters = self.counters.borrow_mut();
        counters.entry((slot, direction as u32)).or_default().delays.add(delay_ns, packets);
    }

    fn flow(&self, key: &FlowKey) -> Option<Flow> {
        self.flows.get(key).copied()
    }

    fn flow_memory(&self, key: &MemoryKey) -> Option<&FlowMemory> {
        let mut memories = self.memories.borrow_mut();
        // Kept for the life of the process, as the kernel keeps it for the life of its table.
        Some(memories.entry(*key).or_insert_with(|| Box::leak(Box::default())))
    }

    fn flow_order(&self, key: &FlowKey) -> Option<&FlowOrder> {
        let mut orders = self.orders.borrow_mut();
        Some(orders.entry(*key).or_insert_with(|| Box::leak(Box::default())))
    }

    fn dist(&self, table: u32, draw: u32) -> Option<i16> {
        let table = self.dists.get(&table)?;
        table.entries.get(draw.checked_rem(table.len)? as usize).copied()
    }

    fn read_question(&self, job: &Job) -> bool {
        let frame = self.frame.borrow();
        let bytes = dns::message(&frame.as_slice(), &job.packet).and_then(|(at, len)| {
            let (at, len) = (at as usize, len as usize);
            frame.get(at..at.checked_add(len)?)
        });
        let question = bytes.and_then(Query::read);
        let is_known = question.is_some();
        *self.question.borrow_mut() = question;
        is_known
    }

    fn matches_name(&self, pattern: u32) -> bool {
        let question = self.question.borrow();
        let Some(query) = question.as_ref() else { return false };
        patterns::get(pattern).is_some_and(|pattern| pattern.matches(query))
    }

    fn is_protected(&self, key: &FlowKey) -> bool {
        self.protected.contains(key)
    }

    fn is_own_address(&self, netns: u64, addr: &Addr) -> bool {
        self.own_addresses.contains(&(netns, *addr))
    }
}

impl Rules for Host {
    fn connect(&self, index: u32) -> Option<&Connect> {
        self.tables.connects.get(index as usize)
    }

    fn rule(&self, slot: u32) -> Option<&Rule> {
        World::rule(self, slot)
    }

    fn state(&self, slot: u32) -> Option<&RuleState> {
        World::state(self, slot)
    }

    fn count(&self, slot: u32, what: Count) {
        World::count(self, slot, Direction::Egress, what, 1, 0);
    }

    fn is_protected(&self, key: &FlowKey) -> bool {
        World::is_protected(self, key)
    }
}

impl Host {
    /// The slots of the rules that would act on a packet now: they match it, are about it, and are
    /// alive. None when it is protected. Counts nothing.
    #[must_use]
    pub fn acting(&self, job: &Job) -> Vec<u32> {
        let mut steps = HostSteps { host: self, job: *job };
        if !steps.prepare() || !steps.gather() {
            return Vec::new();
        }
        while steps.advance() {}
        if steps.is_protected() {
            return Vec::new();
        }
        let job = &steps.job;
        let acts = |slot: &u32| {
            let (rule, state) = (World::rule(self, *slot)?, World::state(self, *slot)?);
            let alive = life::life(self, rule, state, job.now_ns) == Life::Active;
            Some(alive && life::concerns(self, rule, job))
        };
        let matching = job.matches.slots.iter().take(job.matches.count as usize);
        matching.filter(|slot| acts(slot) == Some(true)).copied().collect()
    }

    /// The errno with which a call of connect(2) fails; 0 = it goes on.
    #[must_use]
    pub fn connect(&self, call: &Call) -> u32 {
        connect::judge(|index, scan| connect::look(self, call, index, scan))
    }
}

/// One packet's way on the host: each step is a plain call.
#[derive(Debug)]
pub struct HostSteps<'a> {
    /// The answers.
    pub host: &'a Host,
    /// The packet.
    pub job: Job,
}

impl Steps for HostSteps<'_> {
    fn prepare(&mut self) -> bool {
        judge::prepare(self.host, &mut self.job)
    }

    fn gather(&mut self) -> bool {
        judge::gather(self.host, &mut self.job)
    }

    fn advance(&mut self) -> bool {
        judge::advance(self.host, &mut self.job)
    }

    fn matches(&self) -> u32 {
        self.job.matches.count
    }

    fn is_protected(&self) -> bool {
        protect::is_protected(self.host, &self.job)
    }

    fn wants_wire(&self) -> bool {
        judge::wants_wire(self.host, &self.job)
    }

    fn judge_match(&mut self, index: u32) -> bool {
        wish::judge_rule(self.host, &mut self.job, index)
    }

    fn settle(&mut self) {
        wish::settle(self.host, &mut self.job);
    }
}
