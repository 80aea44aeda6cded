//! One rule's faults on a bench: packets in, wishes out, without lookup, life and limits.

use chaos_common::{
    abi::{FlowMemory, Rule},
    env::Draws,
    fault::{Case, FAULTS, FaultKind, Faults, States},
    host::Host,
    job::{Job, Size},
    packet::Packet,
    verdict::Verdict,
};

use crate::support::{NOW_NS, tcp};

/// Faults by name and value, as on the command line.
pub(crate) fn parsed(faults: &[(&str, &str)]) -> Result<Faults, String> {
    let mut all = Faults::default();
    for (name, value) in faults {
        let info = FAULTS.iter().find(|info| info.name == *name).unwrap();
        (info.parse)(value, &mut all)?;
    }
    Ok(all)
}

/// What the faults are in plain words.
pub(crate) fn described(faults: &[(&str, &str)]) -> String {
    let all = parsed(faults).unwrap();
    FAULTS.iter().filter_map(|info| (info.describe)(&all)).collect::<Vec<_>>().join("; ")
}

/// A host with the distributions of this process, and words from a generator with a seed.
pub(crate) fn host(seed: u64) -> Host {
    let mut host = Host::default();
    host.seed.set(seed);
    host.learn_dists();
    host
}

/// A rule, what it remembers, and how many packets it has seen.
pub(crate) struct Bench {
    pub(crate) host: Host,
    pub(crate) rule: Rule,
    pub(crate) states: States,
    pub(crate) packet: Packet,
    pub(crate) ordinal: u64,
}

impl Bench {
    /// Draws come from a generator that begins with `seed`.
    pub(crate) fn new(faults: &[(&str, &str)], seed: u64) -> Self {
        let faults = parsed(faults).unwrap();
        faults.check().unwrap();
        let rule = Rule { id: 7, armed_ns: NOW_NS, faults, ..Rule::default() };
        Self { host: host(seed), rule, states: States::default(), packet: tcp(), ordinal: 0 }
    }

    /// What a packet of 100 bytes meets.
    pub(crate) fn step(&mut self) -> Verdict {
        self.send(0, 100, None)
    }

    /// What a packet of so many bytes meets so long after arming.
    pub(crate) fn send(&mut self, after_ns: u64, bytes: u64, flow: Option<&FlowMemory>) -> Verdict {
        self.ordinal += 1;
        let job = Job {
            packet: self.packet,
            now_ns: NOW_NS + after_ns,
            size: Size { segments: 1, bytes },
            ..Job::default()
        };
        decide(&self.host, &self.rule, &self.states, &job, self.ordinal - 1, flow)
    }
}

/// What the faults of a rule want done to one packet.
pub(crate) fn decide(
    host: &Host,
    rule: &Rule,
    states: &States,
    job: &Job,
    ordinal: u64,
    flow: Option<&FlowMemory>,
) -> Verdict {
    let draws = Draws { seed: rule.seed, stream: rule.id << 1, ordinal };
    let mut verdict = Verdict::PASS;
    let case = Case { world: host, job, rule, draws, flow };
    for kind in 0..FaultKind::ALL.len() as u32 {
        if rule.faults.kinds() & 1 << kind != 0 {
            rule.faults.decide(kind, states, &case, &mut verdict);
        }
    }
    verdict
}
