//! What a decision needs to look up. The kernel answers from maps, the host from the compiled
//! tables; the code that asks is the same.

use crate::{
    abi::{
        CgroupSets, Clause, Count, Direction, Flow, FlowKey, FlowMemory, FlowOrder, Header, MemoryKey, Rule,
        RuleState, Set, Side,
    },
    env::Env,
    job::Job,
    packet::Addr,
    verdict::Verdict,
};

/// Lookups. Every missing entry is `None` and means: pass.
pub trait World: Env {
    /// The fixed part of the bank that is being read.
    fn header(&self) -> Option<&Header>;

    /// A set of clauses by its number.
    fn set(&self, number: u32) -> Option<&Set>;

    /// A clause of this bank.
    fn clause(&self, index: u32) -> Option<Clause>;

    /// The set of clauses whose addresses on `side` hold `addr`; none = no clause names it.
    fn address_set(&self, side: Side, addr: &Addr) -> Option<u32>;

    /// The set of clauses whose ports on `side` hold `port`.
    fn port_set(&self, side: Side, port: u16) -> Option<u32>;

    /// What the deepest target cgroup that holds the packet's socket selects; none = none holds it.
    fn socket_owner(&self, header: &Header) -> Option<CgroupSets>;

    /// What the owner of this conversation's local end selects, from the owner table.
    fn table_owner(&self, key: &FlowKey) -> Option<CgroupSets>;

    /// A rule of this bank.
    fn rule(&self, slot: u32) -> Option<&Rule>;

    /// What the rule in this slot remembers.
    fn state(&self, slot: u32) -> Option<&RuleState>;

    /// Adds to a counter of the rule in this slot.
    fn count(&self, slot: u32, direction: Direction, what: Count, packets: u64, bytes: u64);

    /// Adds to the delays of the rule in this slot.
    fn delayed(&self, _slot: u32, _direction: Direction, _delay_ns: u64, _packets: u64) {}

    /// Tells of a packet that the rule in this slot affects, if it is one of those that are told of
    /// ([`crate::sample`]); `verdicts` are bits of [`Count`].
    fn record(&self, _slot: u32, _rule: &Rule, _job: &Job, _wish: &Verdict, _verdicts: u32) {}

    /// When the flow (by its [`crate::lookup::symmetric`] key) was first seen.
    fn flow(&self, key: &FlowKey) -> Option<Flow>;

    /// What a rule remembers about a connection; begun if it is new. None = there is no room.
    fn flow_memory(&self, key: &MemoryKey) -> Option<&FlowMemory>;

    /// When the last packet of a flow (by its symmetric key) leaves the delay line; begun if it is new.
    fn flow_order(&self, key: &FlowKey) -> Option<&FlowOrder>;

    /// The entry that `draw` chooses in a distribution table.
    fn dist(&self, table: u32, draw: u32) -> Option<i16>;

    /// Reads the question of the packet. False = it carries no DNS query that is understood.
    fn read_question(&self, _job: &Job) -> bool {
        false
    }

    /// The name last read is meant by the pattern of this number (`crate::dns::patterns`).
    fn matches_name(&self, _pattern: u32) -> bool {
        false
    }

    /// The conversation, or a part of it in the same form, is protected.
    fn is_protected(&self, key: &FlowKey) -> bool;

    /// The namespace has this address.
    fn is_own_address(&self, netns: u64, addr: &Addr) -> bool;
}
