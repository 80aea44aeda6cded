//! From rules to lookup tables, on the host. One set of clauses per dimension and value; the
//! program intersects them (`lookup`). Pure: the same input gives the same tables.

mod connects;
mod depth;
mod gate;
mod input;
mod order;
mod ranges;
pub mod reference;
mod sets;

use std::collections::{BTreeMap, BTreeSet};

pub use input::{
    CgroupInput, ClauseInput, ConnectPlace, DeviceInput, Input, Place, Ports, Prefix, RuleInput, addr_of,
    ip_of,
};
use order::{Flat, flatten};
use sets::{Bits, Sets};

use crate::abi::{CgroupSets, Clause, Connect, Device, Gate, Header, RULES_MAX, Rule, Set, Side, dims};

/// Why a set of rules cannot be armed.
#[derive(Debug, PartialEq, Eq, thiserror::Error)]
pub enum CompileError {
    /// More alternatives and exclusions than the tables hold.
    #[error("the rules have {0} alternatives and exclusions together; {RULES_MAX} are possible")]
    TooManyClauses(usize),
    /// One packet could match more rules than the program looks at.
    #[error("one packet could match {count} rules at once, {limit} are possible: {names}")]
    TooManyMatches {
        /// How many.
        count: usize,
        /// How many are possible.
        limit: usize,
        /// Which.
        names: String,
    },
    /// One packet could fulfil more alternatives than the program looks at.
    #[error(
        "one packet could fulfil {count} alternatives and exclusions at once, more than the program looks at; join or remove some of {names}"
    )]
    TooManyAlternatives {
        /// How many.
        count: usize,
        /// Of which rules.
        names: String,
    },
    /// The overlap of the rules could not be worked out in reasonable time.
    #[error("the rules overlap in too many ways to prove that no packet matches more than {0} of them")]
    TooEntangled(usize),
    /// More alternatives of rules that answer connect(2) than are looked at.
    #[error(
        "the rules that answer connect() have {count} combinations of address, port, namespace and cgroup; {limit} are possible: {names}"
    )]
    TooManyConnects {
        /// How many.
        count: usize,
        /// How many are possible.
        limit: usize,
        /// Of which rules.
        names: String,
    },
    /// Target cgroups at more depths than the program asks for.
    #[error("the target cgroups lie at {0} different depths of the hierarchy; 8 are possible")]
    TooManyLevels(usize),
}

/// The compiled tables. Set numbers count from 0; whoever loads them adds the bank's first number.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Tables {
    /// The fixed part.
    pub header: Header,
    /// Sets by number.
    pub sets: Vec<Set>,
    /// Clauses by index.
    pub clauses: Vec<Clause>,
    /// Rules by slot.
    pub rules: Vec<(u32, Rule)>,
    /// Devices by (namespace, index).
    pub devices: BTreeMap<(u64, u32), Device>,
    /// Set numbers by address range; empty where the dimension is not used. By [`Side`].
    pub nets: [BTreeMap<Prefix, u32>; 2],
    /// What answers connect(2), in the order in which it is looked at.
    pub connects: Vec<Connect>,
    /// Set numbers by port: first port of a run of equal ones. By [`Side`].
    pub ports: [BTreeMap<u16, u32>; 2],
    /// What target cgroups select, by id.
    pub cgroups: BTreeMap<u64, CgroupSets>,
    /// What lets most packets go on; none = nothing is compiled.
    pub gate: Option<Box<Gate>>,
}

/// Depths that the program asks for (`LEVELS_MAX` of `chaos-ebpf`).
const LEVELS_MAX: usize = 8;

impl Flat<'_> {
    const fn nets(&self, side: Side) -> &Vec<Prefix> {
        match side {
            Side::Local => &self.clause.locals,
            Side::Peer => &self.clause.peers,
        }
    }

    const fn ports(&self, side: Side) -> &Vec<Ports> {
        match side {
            Side::Local => &self.clause.local_ports,
            Side::Peer => &self.clause.peer_ports,
        }
    }
}

const SIDES: [Side; 2] = [Side::Local, Side::Peer];
static EVERY: ClauseInput =
    ClauseInput { locals: Vec::new(), peers: Vec::new(), local_ports: Vec::new(), peer_ports: Vec::new() };

/// The rule with what follows from the rest of it.
fn complete(rule: &Rule) -> Rule {
    Rule { kinds: rule.faults.kinds(), cut_kinds: rule.faults.cut_kinds(), ..*rule }
}

/// Compiles a set of rules.
///
/// # Errors
/// When it does not fit into the tables, or one packet could match too many rules.
pub fn compile(input: &Input) -> Result<Tables, CompileError> {
    let flat = flatten(input);
    if flat.len() > RULES_MAX {
        return Err(CompileError::TooManyClauses(flat.len()));
    }
    let mut builder = Builder { flat: &flat, sets: Sets::default(), tables: Tables::default() };
    builder.sets.number(&Bits::default());
    builder.tables.header.all_set = builder.number(|_| true);
    builder.tables.header.both_set = builder.number(|clause| is_both(clause.rule));
    builder.classes();
    builder.devices(&input.devices);
    for side in SIDES {
        builder.nets(side);
        builder.ports(side);
    }
    builder.cgroups(&input.cgroups)?;
    let Builder { sets, mut tables, .. } = builder;
    tables.gate = Some(gate::gate(&flat, input, tables.header.dims, tables.header.cgroup_levels));
    tables.sets = sets.finish();
    tables.clauses = vec![Clause::default(); flat.last().map_or(0, |last| last.index.saturating_add(1))];
    for clause in &flat {
        if let Some(place) = tables.clauses.get_mut(clause.index) {
            *place = Clause { slot: clause.rule.slot, excludes: u32::from(clause.excludes) };
        }
    }
    tables.rules = input.rules.iter().map(|rule| (rule.slot, complete(&rule.rule))).collect();
    tables.connects = connects::compile(input)?;
    depth::check(&tables, input)?;
    Ok(tables)
}

/// The rule judges what leaves and what comes.
fn is_both(rule: &RuleInput) -> bool {
    rule.places.iter().any(|place| place.egress) && rule.places.iter().any(|place| place.ingress)
}

fn numbered<K: Ord>(sets: &mut Sets, ranges: BTreeMap<K, Bits>) -> BTreeMap<K, u32> {
    ranges.into_iter().map(|(range, bits)| (range, sets.number(&bits))).collect()
}

struct Builder<'a> {
    flat: &'a [Flat<'a>],
    sets: Sets,
    tables: Tables,
}

impl Builder<'_> {
    /// The number of the set of the clauses that `holds` is true for.
    fn number(&mut self, holds: impl Fn(&Flat<'_>) -> bool) -> u32 {
        let mut bits = Bits::default();
        for clause in self.flat.iter().filter(|clause| holds(clause)) {
            bits.insert(clause.index);
        }
        self.sets.number(&bits)
    }

    fn classes(&mut self) {
        let mut class_sets = [0; 8];
        for (class, number) in class_sets.iter_mut().enumerate() {
            *number = self.number(|clause| clause.rule.classes >> class & 1 != 0);
        }
        self.tables.header.class_sets = class_sets;
    }

    fn devices(&mut self, devices: &[DeviceInput]) {
        for device in devices {
            let here = |clause: &Flat<'_>, tagged: bool, ingress: bool| {
                clause.rule.places.iter().any(|place| {
                    place.netns == device.netns
                        && place.ifindex == device.ifindex
                        && (!tagged || place.tagged)
                        && if ingress { place.ingress } else { place.egress }
                })
            };
            let entry = Device {
                sets: [self.number(|c| here(c, false, false)), self.number(|c| here(c, false, true))],
                tagged_sets: [self.number(|c| here(c, true, false)), self.number(|c| here(c, true, true))],
                flags: device.flags,
                normaliser: device.normaliser,
                line: device.line,
                reserved: 0,
            };
            self.tables.devices.insert((device.netns, device.ifindex), entry);
        }
    }

    fn nets(&mut self, side: Side) {
        let ranges::Ranges { none, ranges } = ranges::nets(self.flat, side);
        let header = &mut self.tables.header;
        if !ranges.is_empty() {
            header.dims |= if side == Side::Local { dims::LOCAL_ADDR } else { dims::PEER_ADDR };
        }
        if let Some(place) = header.any_addr_sets.get_mut(side as usize) {
            *place = self.sets.number(&none);
        }
        if let Some(place) = self.tables.nets.get_mut(side as usize) {
            *place = numbered(&mut self.sets, ranges);
        }
    }

    fn ports(&mut self, side: Side) {
        let ranges::Ranges { none, ranges } = ranges::ports(self.flat, side);
        let header = &mut self.tables.header;
        if self.flat.iter().any(|clause| !clause.ports(side).is_empty()) {
            header.dims |= if side == Side::Local { dims::LOCAL_PORT } else { dims::PEER_PORT };
        }
        if let Some(place) = header.no_port_sets.get_mut(side as usize) {
            *place = self.sets.number(&none);
        }
        if let Some(place) = self.tables.ports.get_mut(side as usize) {
            *place = numbered(&mut self.sets, ranges);
        }
    }

    fn cgroups(&mut self, cgroups: &[CgroupInput]) -> Result<(), CompileError> {
        let levels: BTreeSet<u32> = cgroups.iter().map(|cgroup| cgroup.level).collect();
        if levels.len() > LEVELS_MAX {
            return Err(CompileError::TooManyLevels(levels.len()));
        }
        self.tables.header.any_cgroup_set = self.number(|clause| clause.rule.cgroups.is_empty());
        self.tables.header.any_peer_cgroup_set = self.number(|clause| clause.rule.peer_cgroups.is_empty());
        for cgroup in cgroups {
            let within = |ids: &[u64]| {
                ids.is_empty() || ids.iter().any(|id| *id == cgroup.id || cgroup.ancestors.contains(id))
            };
            let own = self.number(|clause| within(&clause.rule.cgroups));
            let peer = self.number(|clause| within(&clause.rule.peer_cgroups));
            self.tables.cgroups.insert(cgroup.id, CgroupSets { own, peer });
        }
        let header = &mut self.tables.header;
        for level in levels {
            header.cgroup_levels |= 1u64.checked_shl(level).unwrap_or(0);
        }
        let rules = || self.flat.iter().map(|clause| clause.rule);
        if rules().any(|rule| !rule.cgroups.is_empty()) {
            header.dims |= dims::CGROUP;
        }
        if rules().any(|rule| !rule.peer_cgroups.is_empty()) {
            header.dims |= dims::PEER_CGROUP;
        }
        // What comes has no socket yet, and what waited none any more.
        let needs_table = |rule: &RuleInput| {
            let cuts = rule.rule.flags & crate::abi::rule_flags::CUTS != 0;
            cuts || rule.places.iter().any(|place| place.ingress)
        };
        if rules()
            .any(|rule| !rule.peer_cgroups.is_empty() || (!rule.cgroups.is_empty() && needs_table(rule)))
        {
            header.dims |= dims::LEARN_OWNERS;
        }
        let by_age = crate::abi::rule_flags::NEW | crate::abi::rule_flags::ESTABLISHED;
        if rules().any(|rule| rule.rule.flags & by_age != 0) {
            header.dims |= dims::FLOWS;
        }
        if rules().any(|rule| rule.rule.flags & crate::abi::rule_flags::CUTS != 0) {
            header.dims |= dims::CUTS;
        }
        Ok(())
    }
}
