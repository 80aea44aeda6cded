//! Handles to the shared tables, taken from the first instance.

use std::{mem::offset_of, os::fd::AsFd as _, sync::Arc};

use aya::{
    Ebpf, Pod,
    maps::{
        HashMap, LpmTrie, Map, MapData, MapError, PerCpuArray, PerCpuValues, ProgramArray, lpm_trie::Key,
    },
};
use chaos_common::{
    abi::{
        BANKS, CONNECTS_MAX, CgroupKey, CgroupSets, Clause, Connect, Counters, DIST_TABLES, Device,
        DeviceKey, Direction, DistTable, Flow, FlowKey, Gate, Header, Owner, PORTS, RULES_MAX, Rule,
        RuleState, Set, control, gate,
    },
    dist,
    dns::{
        glob::{PATTERNS, Pattern},
        patterns,
    },
    sample::Sampling,
};

use super::{
    DatapathError, DirectionCounters, KernelLog,
    instance::loaded,
    line_watch::{HELD, TableWatch},
    memory::Mapped,
    records::Records,
};

/// The program that judges.
pub(super) const CORE: &str = "chaos_core";

/// What a [`RuleState`] is in memory that is written field by field.
pub(super) type StateWords = [u64; size_of::<RuleState>() / 8];

/// Whether any owner was ever booked, by namespace and port.
pub(super) type Booked = [u8; gate::BOOKED];

/// The shared tables.
pub struct Maps {
    /// Rules that they hold.
    pub(super) capacity: u32,
    /// Sets of conditions that a bank of them holds.
    pub(super) sets_of_bank: usize,
    _core: ProgramArray<MapData>,
    pub(super) control: Arc<Mapped<u64>>,
    pub(super) headers: Mapped<Header>,
    pub(super) sets: Mapped<Set>,
    pub(super) clauses: Mapped<Clause>,
    pub(super) rules: Arc<Mapped<Rule>>,
    pub(super) connects: Mapped<Connect>,
    pub(super) ports: Mapped<u32>,
    pub(super) gates: Mapped<Gate>,
    pub(super) booked: Mapped<Booked>,
    states: Arc<Mapped<StateWords>>,
    dists: Mapped<DistTable>,
    dists_written: usize,
    patterns: Mapped<Pattern>,
    /// How many of them are written.
    patterns_written: usize,
    pub(super) devices: HashMap<MapData, DeviceKey, Device>,
    pub(super) nets4: LpmTrie<MapData, [u32; 2], u32>,
    pub(super) nets6: LpmTrie<MapData, [u32; 5], u32>,
    pub(super) cgroups: HashMap<MapData, CgroupKey, CgroupSets>,
    counters: PerCpuArray<MapData, Counters>,
    records: Option<Records>,
    lost: PerCpuArray<MapData, u64>,
    pub(super) owners: HashMap<MapData, FlowKey, Owner>,
    /// Flows seen since arming.
    pub flows: HashMap<MapData, FlowKey, Flow>,
    /// Protected conversations, peers and ports.
    pub protected: HashMap<MapData, FlowKey, u64>,
    /// Addresses of the namespaces.
    pub locals: HashMap<MapData, FlowKey, u64>,
    log: Option<KernelLog>,
    pub(super) written: super::banks::Written,
}

/// Takes maps out of an instance by name.
struct Taker<'a>(&'a mut Ebpf);

impl Taker<'_> {
    fn take<T>(&mut self, name: &str) -> Result<T, DatapathError>
    where
        T: TryFrom<Map, Error = MapError>,
    {
        let map = self.0.take_map(name).ok_or_else(|| DatapathError::Object(format!("no table `{name}`")))?;
        T::try_from(map).map_err(|error| DatapathError::table(name, &error))
    }

    /// A table whose size the agent chose, and how many entries it has.
    fn counted<T: Copy>(&mut self, name: &str) -> Result<(Mapped<T>, usize), DatapathError> {
        let Some(Map::Array(data)) = self.0.map(name) else {
            return Err(DatapathError::Object(format!("no array `{name}`")));
        };
        let info = data.info().map_err(|error| DatapathError::table("asking for a table's size", &error))?;
        let len = info.max_entries() as usize;
        Ok((self.mapped(name, len)?, len))
    }

    fn mapped<T: Copy>(&mut self, name: &str, len: usize) -> Result<Mapped<T>, DatapathError> {
        let map = self.0.take_map(name).ok_or_else(|| DatapathError::Object(format!("no table `{name}`")))?;
        let Map::Array(data) = map else {
            return Err(DatapathError::Object(format!("the table `{name}` is not an array")));
        };
        Mapped::new(data.fd().as_fd(), len)
            .map_err(|error| DatapathError::io("mapping a table into memory", error))
    }
}

impl Maps {
    /// Takes the tables out of an instance; others find them pinned.
    ///
    /// The program that judges is loaded from that instance, and stays loaded as long as the tables.
    pub fn take(ebpf: &mut Ebpf, with_log: bool) -> Result<Self, DatapathError> {
        let core = install_core(ebpf)?;
        let log = if with_log { KernelLog::open(ebpf) } else { None };
        let mut taker = Taker(ebpf);
        let control = Arc::new(taker.mapped("CHAOS_CONTROL", control::WORDS as usize)?);
        let banks = BANKS as usize;
        let (states, capacity) = taker.counted("CHAOS_STATES")?;
        let (sets, all_sets) = taker.counted("CHAOS_SETS")?;
        Ok(Self {
            capacity: u32::try_from(capacity).unwrap_or(0),
            sets_of_bank: all_sets / banks,
            _core: core,
            records: Some(Records { ring: taker.take("CHAOS_EVENTS")?, control: Arc::clone(&control) }),
            lost: taker.take("CHAOS_LOST")?,
            control,
            headers: taker.mapped("CHAOS_HEADERS", banks)?,
            sets,
            clauses: taker.mapped("CHAOS_CLAUSES", banks * RULES_MAX)?,
            rules: Arc::new(taker.mapped("CHAOS_RULES", banks * capacity)?),
            connects: taker.mapped("CHAOS_CONNECT", banks * CONNECTS_MAX)?,
            ports: taker.mapped("CHAOS_PORTS", banks * 2 * PORTS as usize)?,
            gates: taker.mapped("CHAOS_GATES", banks)?,
            booked: taker.mapped("CHAOS_BOOKED", 1)?,
            states: Arc::new(states),
            dists: taker.mapped("CHAOS_DISTS", DIST_TABLES as usize)?,
            dists_written: 0,
            patterns: taker.mapped("CHAOS_PATTERNS", PATTERNS)?,
            patterns_written: 0,
            devices: taker.take("CHAOS_DEVICES")?,
            nets4: taker.take("CHAOS_NETS4")?,
            nets6: taker.take("CHAOS_NETS6")?,
            cgroups: taker.take("CHAOS_CGROUPS")?,
            counters: taker.take("CHAOS_COUNTERS")?,
            owners: taker.take("CHAOS_OWNERS")?,
            flows: taker.take("CHAOS_FLOWS")?,
            protected: taker.take("CHAOS_PROTECT")?,
            locals: taker.take("CHAOS_LOCALS")?,
            log,
            written: super::banks::Written::default(),
        })
    }

    /// The same tables for the delay line's thread.
    #[must_use]
    pub fn watch(&self) -> TableWatch {
        TableWatch {
            capacity: self.capacity,
            control: Arc::clone(&self.control),
            rules: Arc::clone(&self.rules),
            states: Arc::clone(&self.states),
        }
    }

    /// Writes the distributions that are new since this was called last. A number never changes its table.
    pub fn write_dists(&mut self) {
        let all = dist::tables();
        for (index, entries) in all.iter().enumerate().skip(self.dists_written) {
            let mut table = Box::new(DistTable::EMPTY);
            table.len = u32::try_from(entries.len()).unwrap_or(0);
            for (place, entry) in table.entries.iter_mut().zip(entries.iter()) {
                *place = *entry;
            }
            self.dists.set(index + 1, *table);
        }
        self.dists_written = all.len();
    }

    /// Ends a rule now, in place: what it holds leaves, and new packets go behind that.
    pub fn expire(&self, slot: u32, now_ns: u64) {
        let bank = (self.control.get(control::GENERATION as usize).unwrap_or(0) % u64::from(BANKS)) as usize;
        let at = bank * self.capacity as usize + slot as usize;
        self.rules.set_word(at, offset_of!(Rule, expires_ns) / 8, now_ns);
    }

    /// Rules that the tables hold.
    #[must_use]
    pub const fn capacity(&self) -> u32 {
        self.capacity
    }

    /// Packets of a rule that wait in the delay line, as far as is known.
    #[must_use]
    pub fn held(&self, slot: u32) -> u64 {
        self.states.word(slot as usize, HELD).unwrap_or(0)
    }

    /// Somebody ended every fault from outside; nothing may be armed again.
    #[must_use]
    pub fn is_stopped(&self) -> bool {
        self.control.get(control::STOPPED as usize).unwrap_or(0) != 0
    }

    /// Packets that could not take the way through the normaliser and passed untouched.
    #[must_use]
    pub fn normaliser_failures(&self) -> u64 {
        self.control.get(control::INTERN_FAILED as usize).unwrap_or(0)
    }

    /// Begins a rule's memory anew. Only for a slot that no armed rule uses.
    pub fn reset_state(&mut self, slot: u32, lease_until_ns: u64) -> Result<(), DatapathError> {
        let mut words: StateWords = [0; _];
        if let Some(lease) = words.first_mut() {
            *lease = lease_until_ns;
        }
        self.states.set(slot as usize, words);
        let cpus =
            aya::util::nr_cpus().map_err(|(_, error)| DatapathError::io("counting the CPUs", error))?;
        for direction in [Direction::Egress, Direction::Ingress] {
            let zero = PerCpuValues::try_from(vec![Counters::default(); cpus])
                .map_err(|error| DatapathError::io("preparing counters", error))?;
            self.counters
                .set(slot << 1 | direction as u32, zero, 0)
                .map_err(|error| DatapathError::table("CHAOS_COUNTERS", &error))?;
        }
        Ok(())
    }

    /// Prolongs a rule's lease. The programs change the words beside it at the same time, so only
    /// this one is written.
    pub fn renew(&mut self, slot: u32, lease_until_ns: u64) {
        self.states.set_word(slot as usize, 0, lease_until_ns);
    }

    /// One rule's counters in one direction.
    pub fn counters(&self, slot: u32, direction: Direction) -> Result<DirectionCounters, DatapathError> {
        let index = slot << 1 | direction as u32;
        let values =
            self.counters.get(&index, 0).map_err(|error| DatapathError::table("CHAOS_COUNTERS", &error))?;
        Ok(DirectionCounters::sum(values.iter()))
    }

    /// The reading end of the ring buffer, to be given back; none = somebody has it.
    pub fn records(&mut self) -> Option<Records> {
        self.records.take()
    }

    /// Takes it back.
    pub fn put_back(&mut self, records: Records) {
        self.records = Some(records);
    }

    /// Which packets are told of from now on.
    pub fn sample(&self, sampling: Sampling) {
        self.control.set(control::SAMPLING as usize, sampling.0);
    }

    /// Records that found no room.
    pub fn lost(&self) -> Result<u64, DatapathError> {
        let values = self.lost.get(&0, 0).map_err(|error| DatapathError::table("CHAOS_LOST", &error))?;
        Ok(values.iter().sum())
    }

    /// Writes the names and globs that rules have named since; those there are stay as they are,
    /// because packets are compared with them at the same time.
    pub(super) fn write_patterns(&mut self) {
        for pattern in patterns::all().iter().skip(self.patterns_written) {
            self.patterns.set(self.patterns_written, *pattern);
            self.patterns_written += 1;
        }
    }

    /// Hands the kernel side's log records on.
    pub fn flush_log(&mut self) {
        if let Some(log) = &mut self.log {
            log.flush();
        }
    }
}

/// Loads the program that judges if it is not loaded, and puts it where the programs of all instances find it.
fn install_core(ebpf: &mut Ebpf) -> Result<ProgramArray<MapData>, DatapathError> {
    let mut place: ProgramArray<MapData> = Taker(ebpf).take("CHAOS_CORE")?;
    let program = loaded(ebpf, CORE)?;
    let fd = program.fd().map_err(|error| DatapathError::load(CORE, &error))?;
    place.set(0, fd, 0).map_err(|error| DatapathError::table("CHAOS_CORE", &error))?;
    Ok(place)
}

/// Sets an entry of a hash table.
pub(crate) fn put<K: Pod, V: Pod>(
    map: &mut HashMap<MapData, K, V>,
    name: &str,
    key: K,
    value: V,
) -> Result<(), DatapathError> {
    map.insert(key, value, 0).map_err(|error| DatapathError::table(name, &error))
}

/// Removes an entry of a hash table; that it is gone already is fine.
pub(crate) fn forget<K: Pod, V: Pod>(map: &mut HashMap<MapData, K, V>, key: &K) {
    if let Err(error) = map.remove(key)
        && !matches!(error, MapError::KeyNotFound)
    {
        tracing::debug!("removing an entry: {error}");
    }
}

/// A range's key: the bank and side first, so that they always count.
pub(super) fn net_key4(table: u32, len: u8, addr: u32) -> Key<[u32; 2]> {
    Key::new(32 + u32::from(len), [table.to_be(), addr])
}

/// The same for IPv6.
pub(super) fn net_key6(table: u32, len: u8, addr: [u32; 4]) -> Key<[u32; 5]> {
    let [a, b, c, d] = addr;
    Key::new(32 + u32::from(len), [table.to_be(), a, b, c, d])
}
