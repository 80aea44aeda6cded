//! Every map, and who writes it. All but the first are shared by the program instances of one agent.

#[expect(deprecated, reason = "what replaces it is not in Linux 6.1")]
use aya_ebpf::maps::CgroupStorage;
use aya_ebpf::{
    macros::map,
    maps::{Array, HashMap, LpmTrie, LruHashMap, PerCpuArray, ProgramArray, RingBuf},
};
use chaos_common::{
    abi::{
        BANKS, CONNECTS_MAX, CgroupKey, CgroupSets, Clause, Connect, Counters, DIST_TABLES, Device,
        DeviceKey, DistTable, Flow, FlowKey, FlowMemory, FlowOrder, Gate, Header, Intern, MemoryKey, Owner,
        Rule, RuleState, Set, gate::BOOKED,
    },
    dns::{
        Asked,
        glob::{PATTERNS, Pattern},
    },
    job::Job,
    passed::WORDS,
    verdict::Verdict,
};

const MMAPABLE: u32 = aya_ebpf::bindings::BPF_F_MMAPABLE;

// The sizes here are for 256 rules; the agent sets others before it loads (`datapath/sizes.rs`).

/// `SO_NETNS_COOKIE` of the namespace this instance serves; each instance has its own. A map and
/// not a constant, so that an instance can be loaded before its namespace is there.
#[map]
pub(crate) static CHAOS_NETNS: Array<u64> = Array::with_max_entries(1, 0);

/// The program that judges, shared by all instances: the verifier proves it once. Written by the agent.
#[map]
pub(crate) static CHAOS_CORE: ProgramArray = ProgramArray::with_max_entries(1, 0);

/// Control words. Written by the agent (generation, stop) and here (failures).
#[map]
pub(crate) static CHAOS_CONTROL: Array<u64> = Array::with_max_entries(8, MMAPABLE);

/// One header a bank. Written by the agent, in the bank that is not read.
#[map]
pub(crate) static CHAOS_HEADERS: Array<Header> = Array::with_max_entries(BANKS, MMAPABLE);

/// What lets most packets go on, one a bank. Written by the agent, in the bank that is not read.
#[map]
pub(crate) static CHAOS_GATES: Array<Gate> = Array::with_max_entries(BANKS, MMAPABLE);

/// Not 0 = an owner was booked there once, by namespace and local port. Written before [`CHAOS_OWNERS`] is.
#[map]
pub(crate) static CHAOS_BOOKED: Array<[u8; BOOKED]> = Array::with_max_entries(1, MMAPABLE);

/// Keys of packets that the gate let go, and would again ([`chaos_common::passed`]). Written here only.
#[map]
pub(crate) static CHAOS_PASSED: Array<[u64; WORDS]> = Array::with_max_entries(1, 0);

/// Sets of clauses, by absolute number. Written by the agent, in the bank that is not read.
#[map]
pub(crate) static CHAOS_SETS: Array<Set> = Array::with_max_entries(BANKS * 4096, MMAPABLE);

/// Clauses: bank * 4096 + index. Written by the agent, in the bank that is not read.
#[map]
pub(crate) static CHAOS_CLAUSES: Array<Clause> = Array::with_max_entries(BANKS * 4096, MMAPABLE);

/// Rules: bank * rules + slot. Written by the agent, in the bank that is not read.
#[map]
pub(crate) static CHAOS_RULES: Array<Rule> = Array::with_max_entries(BANKS * 256, MMAPABLE);

/// What answers connect(2): bank * 256 + place. Written by the agent, in the bank that is not read.
#[map]
pub(crate) static CHAOS_CONNECT: Array<Connect> =
    Array::with_max_entries(BANKS * CONNECTS_MAX as u32, MMAPABLE);

/// Set numbers by port: (bank * 2 + side) * 65536 + port. Written by the agent likewise.
#[map]
pub(crate) static CHAOS_PORTS: Array<u32> = Array::with_max_entries(BANKS * 2 * 65_536, MMAPABLE);

/// Devices by (namespace, index, bank). Written by the agent, in the bank that is not read.
#[map]
pub(crate) static CHAOS_DEVICES: HashMap<DeviceKey, Device> = HashMap::with_max_entries(2048, 0);

/// IPv4 prefixes: bank * 2 + side, then the address. Written by the agent likewise.
#[map]
pub(crate) static CHAOS_NETS4: LpmTrie<[u32; 2], u32> = LpmTrie::with_max_entries(16_384, 0);

/// IPv6 prefixes, likewise.
#[map]
pub(crate) static CHAOS_NETS6: LpmTrie<[u32; 5], u32> = LpmTrie::with_max_entries(16_384, 0);

/// Target cgroups. Written by the agent, in the bank that is not read.
#[map]
pub(crate) static CHAOS_CGROUPS: HashMap<CgroupKey, CgroupSets> = HashMap::with_max_entries(2048, 0);

/// The target cgroup that a hook is on, by that cgroup and the kind of hook. Written by the agent once it is attached.
#[expect(deprecated, reason = "what replaces it is not in Linux 6.1")]
#[map]
pub(crate) static CHAOS_HOOKED: CgroupStorage<u64> = CgroupStorage::new();

/// What rules remember, by slot. The agent writes leases, the programs the rest, atomically.
#[map]
pub(crate) static CHAOS_STATES: Array<RuleState> = Array::with_max_entries(256, MMAPABLE);

/// Counters: slot * 2 + direction. Written here only, each CPU its own.
#[map]
pub(crate) static CHAOS_COUNTERS: PerCpuArray<Counters> = PerCpuArray::with_max_entries(512, 0);

/// Owners of conversations and ports. Seeded by the agent, kept current here.
#[map]
pub(crate) static CHAOS_OWNERS: LruHashMap<FlowKey, Owner> = LruHashMap::with_max_entries(65_536, 0);

/// The port key a socket was booked under, by socket cookie. Written here only.
#[map]
pub(crate) static CHAOS_SOCKETS: LruHashMap<u64, FlowKey> = LruHashMap::with_max_entries(65_536, 0);

/// Flows seen since arming. Seeded by the agent, written here.
#[map]
pub(crate) static CHAOS_FLOWS: LruHashMap<FlowKey, Flow> = LruHashMap::with_max_entries(65_536, 0);

/// Protected conversations, peers and ports. Written by the agent only.
#[map]
pub(crate) static CHAOS_PROTECT: HashMap<FlowKey, u64> = HashMap::with_max_entries(16_384, 0);

/// Own addresses, as the local address of a key. Written by the agent only.
#[map]
pub(crate) static CHAOS_LOCALS: HashMap<FlowKey, u64> = HashMap::with_max_entries(16_384, 0);

/// What frames in the normaliser need to come back. Written here only.
#[map]
pub(crate) static CHAOS_INTERN: LruHashMap<u32, Intern> = LruHashMap::with_max_entries(8192, 0);

/// What rules remember about connections. Written here only, atomically.
#[map]
pub(crate) static CHAOS_MEMORY: LruHashMap<MemoryKey, FlowMemory> = LruHashMap::with_max_entries(65_536, 0);

/// When flows leave the delay line. Written here only.
#[map]
pub(crate) static CHAOS_ORDER: LruHashMap<FlowKey, FlowOrder> = LruHashMap::with_max_entries(65_536, 0);

/// Distributions by number. Written by the agent before a rule names them.
#[map]
pub(crate) static CHAOS_DISTS: Array<DistTable> = Array::with_max_entries(DIST_TABLES, MMAPABLE);

/// What the rule that is asked wants, one a CPU. Written here only.
#[map]
pub(crate) static CHAOS_WISH: PerCpuArray<Verdict> = PerCpuArray::with_max_entries(1, 0);

/// Bytes of the packet being changed, one a CPU. Written here only.
#[map]
pub(crate) static CHAOS_SCRATCH: PerCpuArray<[u32; 256]> = PerCpuArray::with_max_entries(1, 0);

/// The packet being judged, one a CPU. Written here only.
#[map]
pub(crate) static CHAOS_JOB: PerCpuArray<Job> = PerCpuArray::with_max_entries(1, 0);

/// Records of packets that rules affected ([`chaos_common::abi::Record`]). Written here, read by the agent.
#[map]
pub(crate) static CHAOS_EVENTS: RingBuf = RingBuf::with_byte_size(1 << 20, 0);

/// Records that found no room in it, each CPU its own. Written here only.
#[map]
pub(crate) static CHAOS_LOST: PerCpuArray<u64> = PerCpuArray::with_max_entries(1, 0);

/// Names and globs of `dns`, by number. Written by the agent only, and only ever at its end.
#[map]
pub(crate) static CHAOS_PATTERNS: Array<Pattern> = Array::with_max_entries(PATTERNS as u32, MMAPABLE);

/// The query being read, one a CPU. Written here only.
#[map]
pub(crate) static CHAOS_ASKED: PerCpuArray<Asked> = PerCpuArray::with_max_entries(1, 0);
