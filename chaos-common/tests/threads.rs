//! Limits and ordinals when several CPUs judge at once: threads share what maps share.

use std::{
    cell::RefCell,
    sync::atomic::{AtomicU64, Ordering},
    thread,
};

use chaos_common::{
    abi::{
        CgroupSets, Clause, Count, Counters, Direction, Flow, FlowKey, FlowMemory, FlowOrder, Header,
        MemoryKey, Rule, RuleState, Set, Side,
    },
    env::{Env, Word},
    job::{Job, Size},
    packet::Addr,
    wish::judge_rule,
    world::World,
};

use crate::support::{NOW_NS, Random, everywhere, tcp};

const THREADS: u64 = 4;
const EACH: u64 = 50_000;

/// One CPU: its own counters and randomness, everybody's state.
struct Cpu<'a> {
    rule: Rule,
    state: &'a RuleState,
    counters: RefCell<Counters>,
    random: RefCell<Random>,
}

fn atomic(word: &Word) -> &AtomicU64 {
    // SAFETY: a `Word` is eight aligned bytes that all threads change atomically.
    unsafe { AtomicU64::from_ptr(word.as_ptr()) }
}

impl Env for Cpu<'_> {
    fn now_ns(&self) -> u64 {
        NOW_NS
    }

    fn random_u32(&self) -> u32 {
        (self.random.borrow_mut().word() >> 32) as u32
    }

    fn read(&self, word: &Word) -> u64 {
        atomic(word).load(Ordering::Relaxed)
    }

    fn write(&self, word: &Word, value: u64) {
        atomic(word).store(value, Ordering::Relaxed);
    }

    fn compare_exchange(&self, word: &Word, old: u64, new: u64) -> u64 {
        atomic(word)
            .compare_exchange(old, new, Ordering::Relaxed, Ordering::Relaxed)
            .unwrap_or_else(|other| other)
    }

    fn fetch_add(&self, word: &Word, n: u64) -> u64 {
        atomic(word).fetch_add(n, Ordering::Relaxed)
    }
}

/// Only what a match needs; the lookup has happened.
impl World for Cpu<'_> {
    fn header(&self) -> Option<&Header> {
        None
    }

    fn set(&self, _: u32) -> Option<&Set> {
        None
    }

    fn clause(&self, _: u32) -> Option<Clause> {
        None
    }

    fn address_set(&self, _: Side, _: &Addr) -> Option<u32> {
        None
    }

    fn port_set(&self, _: Side, _: u16) -> Option<u32> {
        None
    }

    fn socket_owner(&self, _: &Header) -> Option<CgroupSets> {
        None
    }

    fn table_owner(&self, _: &FlowKey) -> Option<CgroupSets> {
        None
    }

    fn rule(&self, _: u32) -> Option<&Rule> {
        Some(&self.rule)
    }

    fn state(&self, _: u32) -> Option<&RuleState> {
        Some(self.state)
    }

    fn count(&self, _: u32, _: Direction, what: Count, packets: u64, bytes: u64) {
        let mut counters = self.counters.borrow_mut();
        let tally = &mut counters.tallies[what as usize];
        tally.packets += packets;
        tally.bytes += bytes;
    }

    fn flow_memory(&self, _: &MemoryKey) -> Option<&FlowMemory> {
        None
    }

    fn flow_order(&self, _: &FlowKey) -> Option<&FlowOrder> {
        None
    }

    fn dist(&self, _: u32, _: u32) -> Option<i16> {
        None
    }

    fn flow(&self, _: &FlowKey) -> Option<Flow> {
        None
    }

    fn is_protected(&self, _: &FlowKey) -> bool {
        false
    }

    fn is_own_address(&self, _: u64, _: &Addr) -> bool {
        false
    }
}

/// Judges on all threads at once, with packets whose size `size` draws; the sum of all counters.
fn judged(rule: &Rule, size: impl Fn(&mut Random) -> Size + Sync) -> Counters {
    let state = RuleState { lease_until_ns: u64::MAX, ..RuleState::default() };
    let one = |seed: u64| {
        let random = Random::new(seed);
        let cpu =
            Cpu { rule: *rule, state: &state, counters: RefCell::default(), random: random.clone().into() };
        let mut sizes = random;
        for _ in 0..EACH {
            let mut job = Job { packet: tcp(), now_ns: NOW_NS, size: size(&mut sizes), ..Job::default() };
            job.matches.count = 1;
            judge_rule(&cpu, &mut job, 0);
        }
        cpu.counters.into_inner()
    };
    let all: Vec<Counters> = thread::scope(|scope| {
        let threads: Vec<_> = (1..=THREADS).map(|seed| scope.spawn(move || one(seed))).collect();
        threads.into_iter().map(|thread| thread.join().unwrap()).collect()
    });
    let mut sum = Counters::default();
    for counters in &all {
        for (sum, tally) in sum.tallies.iter_mut().zip(counters.tallies) {
            sum.packets += tally.packets;
            sum.bytes += tally.bytes;
        }
    }
    sum
}

fn rule(fault: &str, change: impl Fn(&mut Rule)) -> Rule {
    let mut rule = everywhere(1, fault).rule;
    change(&mut rule);
    rule.kinds = rule.faults.kinds();
    rule
}

fn plain(_: &mut Random) -> Size {
    Size { segments: 1, bytes: 100 }
}

fn packets(counters: &Counters, what: Count) -> u64 {
    counters.tallies[what as usize].packets
}

#[test]
fn max_packets_is_exact() {
    for fault in ["100%", "partition", "60%"] {
        let sum = judged(&rule(fault, |rule| rule.max_packets = 10_000), plain);
        assert_eq!(packets(&sum, Count::Matched), THREADS * EACH);
        assert_eq!(packets(&sum, Count::Dropped), 10_000, "{fault}");
    }
}

#[test]
fn max_bytes_is_exact_and_never_exceeded() {
    let sum = judged(&rule("100%", |rule| rule.max_bytes = 1_000_050), plain);
    assert_eq!(sum.tallies[Count::Dropped as usize].bytes, 1_000_000);
    assert_eq!(packets(&sum, Count::Dropped) + packets(&sum, Count::Limited), THREADS * EACH);
    let mixed =
        |random: &mut Random| Size { segments: 1 + random.below(45), bytes: 60 + random.below(64_000) };
    let sum = judged(&rule("100%", |rule| (rule.max_packets, rule.max_bytes) = (3_000, 5_000_000)), mixed);
    let dropped = sum.tallies[Count::Dropped as usize];
    assert!(dropped.packets <= 3_000 && dropped.bytes <= 5_000_000, "{dropped:?}");
    assert!(dropped.packets > 2_000, "{dropped:?}");
}

#[test]
fn every_nth_is_exact() {
    let sum = judged(&rule("every=7", |_| ()), plain);
    assert_eq!(packets(&sum, Count::Dropped), THREADS * EACH / 7);
}

/// The n-th packet has the same fate whichever CPU sees it.
#[test]
fn seeded_losses_do_not_depend_on_the_number_of_cpus() {
    let seeded = rule("20%", |rule| rule.seed = 9);
    let together = packets(&judged(&seeded, plain), Count::Dropped);
    assert_eq!(packets(&judged(&seeded, plain), Count::Dropped), together);
}
