//! The kernel's side: the embedded object, run on one packet at a time by `BPF_PROG_TEST_RUN`.

use std::{collections::BTreeMap, time::Duration};

use anyhow::{Context, Result, bail};
use aya::{
    Ebpf, Pod,
    maps::{Array, HashMap, MapData, PerCpuArray, PerCpuValues},
    programs::{SchedClassifier, TestRun, TestRunOptions},
};
use chaos_agent::datapath::{Maps, Object, Sizes};
use chaos_common::{
    abi::{Count, Direction, FlowKey, FlowMemory, FlowOrder, MemoryKey, TestInput},
    compile::{Tables, compile},
    job::Job,
    passed,
    verdict::Verdict,
};

use super::{
    Fate, Given, LOOPBACK, NETNS, NORMALISING, NOW_NS, PLAIN, PROTECTED, TUN, build::input, host::Counted,
};
use crate::{
    lab::netns::Netns,
    progrun::{Outcome, Row, Subject, first_rule},
};

/// Return values of a classifier, `include/uapi/linux/pkt_cls.h`.
const TC_ACT_UNSPEC: u32 = u32::MAX;
const TC_ACT_SHOT: u32 = 2;
const TC_ACT_REDIRECT: u32 = 7;

/// The least that a program of the object does: a few instructions.
const EMPTY: &str = "chaos_bounce";

/// [`TestInput`] as a map value.
#[repr(transparent)]
#[derive(Clone, Copy)]
struct Input(TestInput);

// SAFETY: integers only, without padding: eight, four, four and 64 bytes.
unsafe impl Pod for Input {}

/// When a flow leaves the delay line, and what is remembered about a connection, as words.
type Order = [u64; size_of::<FlowOrder>() / 8];
type Memory = [u64; size_of::<FlowMemory>() / 8];

/// [`MemoryKey`] as a map's key.
#[repr(transparent)]
#[derive(Clone, Copy)]
struct Remembered(MemoryKey);

// SAFETY: integers only, without padding (`chaos-common/tests/layout.rs`).
unsafe impl Pod for Remembered {}

/// The program's notes about the packet.
#[repr(transparent)]
#[derive(Clone, Copy)]
struct Notes(Job);

// SAFETY: integers only, without padding (`chaos-common/tests/layout.rs`).
unsafe impl Pod for Notes {}

/// What the gate let go.
#[repr(transparent)]
#[derive(Clone, Copy)]
struct Passed([u64; passed::WORDS]);

// SAFETY: integers only.
unsafe impl Pod for Passed {}

/// The context of a test run: the first fields of `struct __sk_buff` up to `ifindex`, the others
/// zero (`include/uapi/linux/bpf.h`; 192 bytes in Linux 6.18, a shorter one is filled with zeros).
const CONTEXT_BYTES: usize = 192;
const IFINDEX_OFFSET: usize = 40;

/// One instance of the object that takes clock, random word and cgroups from us.
pub struct KernelSide {
    netns: Netns,
    ebpf: Ebpf,
    maps: Maps,
    input: Array<MapData, Input>,
    notes: PerCpuArray<MapData, Notes>,
    orders: HashMap<MapData, FlowKey, Order>,
    memories: HashMap<MapData, Remembered, Memory>,
    passed: Array<MapData, Passed>,
    slots: Vec<u32>,
}

impl KernelSide {
    /// Loads the classifiers, and makes the devices of [`super::devices`] in a namespace.
    ///
    /// # Errors
    /// Without root, or when the kernel refuses a program.
    pub fn new() -> Result<Self> {
        Self::of(&Object::new(1, 0)?.for_tests())
    }

    /// The same with tables of any size, and with the kernel's own clock, words and cgroups.
    ///
    /// # Errors
    /// As [`Self::new`].
    pub fn as_released(sizes: Sizes) -> Result<Self> {
        Self::of(&Object::new(1, 0)?.with_sizes(sizes))
    }

    fn of(object: &Object) -> Result<Self> {
        let netns = Netns::new()?;
        netns.run(&format!("ip link add plain index {PLAIN} type veth peer name p"))?;
        netns.run(&format!("ip link add normal index {NORMALISING} type veth peer name n"))?;
        netns.run(&format!("ip link add loop index {LOOPBACK} type veth peer name l"))?;
        netns.run(&format!("ip link add safe index {PROTECTED} type veth peer name s"))?;
        netns.run(&format!("ip link add bare index {TUN} type veth peer name b"))?;
        let mut ebpf = object.instance(NETNS)?;
        for name in ["chaos_egress", "chaos_ingress", EMPTY] {
            classifier(&mut ebpf, name)?.load().with_context(|| format!("loading {name}"))?;
        }
        let maps = Maps::take(&mut ebpf, false)?;
        let input = ebpf.take_map("CHAOS_TEST").context("no map CHAOS_TEST")?;
        let notes = PerCpuArray::try_from(ebpf.take_map("CHAOS_JOB").context("no map CHAOS_JOB")?)?;
        let orders = HashMap::try_from(ebpf.take_map("CHAOS_ORDER").context("no map CHAOS_ORDER")?)?;
        let memories = HashMap::try_from(ebpf.take_map("CHAOS_MEMORY").context("no map CHAOS_MEMORY")?)?;
        let passed = Array::try_from(ebpf.take_map("CHAOS_PASSED").context("no map CHAOS_PASSED")?)?;
        stay_on_one_cpu()?;
        let input = Array::try_from(input)?;
        Ok(Self { netns, ebpf, maps, input, notes, orders, memories, passed, slots: Vec::new() })
    }

    /// Puts tables in force; every state begins anew with this lease, owners and flows are forgotten.
    ///
    /// # Errors
    /// When they do not fit.
    pub fn arm(&mut self, tables: &Tables, lease_until_ns: u64) -> Result<()> {
        self.maps.disarm();
        self.maps.disown()?;
        let flows: Vec<_> = self.maps.flows.keys().flatten().collect();
        for key in flows {
            self.maps.flows.remove(&key)?;
        }
        let orders: Vec<_> = self.orders.keys().flatten().collect();
        for key in orders {
            self.orders.remove(&key)?;
        }
        let memories: Vec<_> = self.memories.keys().flatten().collect();
        for key in memories {
            self.memories.remove(&key)?;
        }
        self.slots = tables.rules.iter().map(|(slot, _)| *slot).collect();
        for slot in &self.slots {
            self.maps.reset_state(*slot, lease_until_ns)?;
        }
        self.maps.write_dists();
        self.maps.swap(tables)?;
        Ok(())
    }

    /// Packets that the gate let go and that no other has taken the place of, of all sets together.
    ///
    /// # Errors
    /// When the table cannot be read.
    pub fn remembered(&self) -> Result<usize> {
        let Passed(words) = self.passed.get(&0, 0)?;
        Ok(words.iter().filter(|word| **word != 0).count())
    }

    /// Judges one packet; what became of it, and its bytes afterwards.
    ///
    /// # Errors
    /// When the kernel refuses the run or the program returns what it never should.
    pub fn judge(&mut self, given: &Given, packet: &[u8]) -> Result<(Fate, Verdict, Vec<u8>)> {
        self.input.set(0, Input(given.input), 0)?;
        self.forget()?;
        let name = match given.direction {
            Direction::Egress => "chaos_egress",
            Direction::Ingress => "chaos_ingress",
        };
        let context = context(given.ifindex);
        let mut after = vec![0; packet.len() + 256];
        let program = classifier(&mut self.ebpf, name)?;
        let run = self.netns.enter(|| {
            program.test_run(TestRunOptions {
                data_in: Some(packet),
                data_out: Some(&mut after),
                ctx_in: Some(&context),
                ..TestRunOptions::default()
            })
        })?;
        let run = run.with_context(|| format!("running {name} on {} bytes", packet.len()))?;
        after.truncate(usize::try_from(run.data_size_out)?);
        let verdict = self.verdict()?;
        let wanted = Fate::of(&verdict);
        let fate = match (run.return_value, given.direction) {
            // A reset goes on to the receiver; on loopback an answer needs no detour to come back.
            (TC_ACT_UNSPEC, _) if wanted == Fate::Pass || wanted == Fate::Answer => wanted,
            // What cannot be answered vanishes.
            (TC_ACT_SHOT, Direction::Ingress) if wanted == Fate::Drop || wanted == Fate::Answer => wanted,
            // Sent off, but no rule wants anything yet: into the normaliser.
            (TC_ACT_REDIRECT, _) if wanted == Fate::Pass => Fate::Normalise,
            (TC_ACT_REDIRECT, Direction::Egress) if wanted == Fate::Drop => wanted,
            (TC_ACT_REDIRECT, _) if wanted == Fate::Answer || wanted == Fate::Hold => wanted,
            (other, direction) => bail!("{name} returned {other:#x} at {direction:?} for {verdict:?}"),
        };
        Ok((fate, verdict, after))
    }

    /// What one run takes on the average of `repeat`: of what judges at this direction, or of [`EMPTY`].
    ///
    /// # Errors
    /// When the kernel refuses the run.
    pub fn cost(&mut self, given: Option<&Given>, packet: &[u8], repeat: u32) -> Result<Duration> {
        let (name, ifindex) = match given {
            Some(Given { direction: Direction::Egress, ifindex, .. }) => ("chaos_egress", *ifindex),
            Some(Given { direction: Direction::Ingress, ifindex, .. }) => ("chaos_ingress", *ifindex),
            None => (EMPTY, PLAIN),
        };
        let context = context(ifindex);
        let program = classifier(&mut self.ebpf, name)?;
        let run = self.netns.enter(|| {
            program.test_run(TestRunOptions {
                data_in: Some(packet),
                ctx_in: Some(&context),
                repeat,
                ..TestRunOptions::default()
            })
        })?;
        Ok(run.with_context(|| format!("running {name} {repeat} times"))?.duration)
    }

    /// A packet that is not judged leaves no notes.
    fn forget(&mut self) -> Result<()> {
        let blank = vec![Notes(Job::default()); aya::util::nr_cpus().map_err(|(_, error)| error)?];
        Ok(self.notes.set(0, PerCpuValues::try_from(blank)?, 0)?)
    }

    /// What the last packet's rules wanted.
    fn verdict(&self) -> Result<Verdict> {
        let notes = self.notes.get(&0, 0)?;
        Ok(notes.iter().next().context("no CPU")?.0.verdict)
    }

    /// What was counted since [`Self::arm`].
    ///
    /// # Errors
    /// When a counter cannot be read.
    pub fn counted(&self) -> Result<Counted> {
        let mut counted = BTreeMap::new();
        for slot in &self.slots {
            for direction in [Direction::Egress, Direction::Ingress] {
                let counters = self.maps.counters(*slot, direction)?;
                for what in Count::ALL {
                    let tally = counters.of(*what);
                    if tally.packets > 0 {
                        counted.insert((*slot, direction as u32, *what as u8), (tally.packets, tally.bytes));
                    }
                }
            }
        }
        Ok(counted)
    }
}

/// Whether the kernel takes the packet for a test run: it insists on a whole IP header behind a
/// MAC header that promises one (`bpf_prog_test_run_skb`, `net/bpf/test_run.c`, Linux 6.18).
#[must_use]
pub fn can_run(packet: &[u8]) -> bool {
    match packet.get(12..14) {
        Some([0x08, 0x00]) => packet.len() >= 34,
        Some([0x86, 0xdd]) => packet.len() >= 54,
        Some(_) => packet.len() > 14,
        None => false,
    }
}

fn context(ifindex: u32) -> [u8; CONTEXT_BYTES] {
    let mut context = [0; CONTEXT_BYTES];
    context[IFINDEX_OFFSET..IFINDEX_OFFSET + 4].copy_from_slice(&ifindex.to_ne_bytes());
    context
}

/// A test run happens on the CPU of its caller: the first, so that its notes are found.
fn stay_on_one_cpu() -> Result<()> {
    let mut cpus = nix::sched::CpuSet::new();
    cpus.set(0)?;
    nix::sched::sched_setaffinity(nix::unistd::Pid::from_raw(0), &cpus).context("staying on the first CPU")
}

fn classifier<'a>(ebpf: &'a mut Ebpf, name: &str) -> Result<&'a mut SchedClassifier> {
    Ok(ebpf.program_mut(name).with_context(|| format!("no program {name}"))?.try_into()?)
}

impl Subject for KernelSide {
    fn name(&self) -> &'static str {
        "kernel"
    }

    fn judge(&mut self, row: &Row) -> Result<Option<Outcome>> {
        if !can_run(&row.packet.bytes()) {
            return Ok(None);
        }
        let tables = compile(&input(&row.rules))?;
        self.arm(&tables, NOW_NS.saturating_add(row.lease_ns))?;
        for packet in &row.before {
            Self::judge(self, &row.given_before(), &packet.bytes())?;
        }
        let (fate, verdict, bytes) = Self::judge(self, &row.given, &row.packet.bytes())?;
        Ok(Some(Outcome { fate, verdict, bytes: Some(bytes), counters: first_rule(&self.counted()?) }))
    }
}
