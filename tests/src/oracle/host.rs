//! The host's side: `chaos-common` with the memory that the kernel keeps in maps.

use std::collections::BTreeMap;

use anyhow::{Context, Result};
use chaos_common::{
    abi::{Count, Direction, Flow, FlowKey, RuleState, device_flags, dims},
    compile::{Tables, compile},
    env::Env as _,
    host::{Host, HostSteps},
    job::{Job, Size, job_flags},
    judge::{Action, judge, opens_connection},
    lookup::{flow_key, has_flow, symmetric},
    packet::{Class, Frame, Packet, parse, tcp},
    verdict::Verdict,
};

use super::{Fate, Given, NETNS, NOW_NS, build::input};
use crate::progrun::{Outcome, Row, Subject, first_rule};

/// A UDP flow idle for this long begins anew (as in `chaos-ebpf`).
const UDP_IDLE_NS: u64 = 30_000_000_000;

/// Packets and bytes of one rule, direction and reason; zeros are left out.
pub type Counted = BTreeMap<(u32, u32, u8), (u64, u64)>;

/// The host's decisions with their memory.
#[derive(Debug)]
pub struct HostSide {
    host: Host,
}

impl HostSide {
    /// Puts tables in force; every state begins anew with this lease.
    #[must_use]
    pub fn new(tables: Tables, lease_until_ns: u64) -> Self {
        let state = || RuleState { lease_until_ns, ..RuleState::default() };
        let states = tables.rules.iter().map(|(slot, _)| (*slot, state())).collect();
        let mut host = Host { tables, states, ..Host::default() };
        host.learn_dists();
        Self { host }
    }

    /// Judges one packet as the classifier of its device does.
    ///
    /// # Errors
    /// When the device is not in the tables.
    pub fn judge(&mut self, given: &Given, bytes: &[u8]) -> Result<(Fate, Verdict)> {
        self.host.now_ns.set(given.input.now_ns);
        self.host.random.set(given.input.random);
        self.host.frame.replace(bytes.to_vec());
        self.host.socket_cgroup.set(self.deepest_target(given));
        let device = *self.host.tables.devices.get(&(NETNS, given.ifindex)).context("an unknown device")?;
        let mut packet = Packet::default();
        let len = u32::try_from(bytes.len())?;
        let frame = Frame { l3: device.flags & device_flags::L3 != 0, tag_beside: false, len };
        if parse(&bytes, frame, &mut packet).is_none() {
            return Ok((Fate::Pass, Verdict::PASS));
        }
        let mut job = Job {
            packet,
            device,
            size: Size::of(&packet, len, 1),
            netns: NETNS,
            direction: given.direction as u32,
            ..Job::default()
        };
        if device.normaliser == 0 {
            job.flags |= job_flags::FINAL;
        }
        if device.flags & device_flags::LOOPBACK != 0 {
            job.flags |= job_flags::WHOLE;
        }
        self.remember(&job, given);
        let mut steps = HostSteps { host: &self.host, job };
        Ok(match judge(&mut steps) {
            Action::Normalise => (Fate::Normalise, Verdict::PASS),
            Action::Pass => (Fate::Pass, Verdict::PASS),
            Action::Apply => (Fate::of(&steps.job.verdict), steps.job.verdict),
        })
        .inspect(|(fate, verdict)| self.note_held(*fate, verdict))
    }

    /// What `chaos-ebpf` counts when it sends a packet into the delay line, where in a test run it stays.
    fn note_held(&self, fate: Fate, verdict: &Verdict) {
        if fate == Fate::Hold
            && let Some(state) = self.host.states.get(&verdict.hold_slot)
        {
            self.host.fetch_add(&state.held, 1 + u64::from(verdict.duplicate_by != 0));
        }
    }

    /// What was counted so far.
    #[must_use]
    pub fn counted(&self) -> Counted {
        let counters = self.host.counters.borrow();
        let tallies = counters.iter().flat_map(|((slot, direction), counters)| {
            Count::ALL.iter().copied().filter_map(move |what| {
                let tally = counters.tallies.get(what as usize)?;
                let key = (*slot, *direction, what as u8);
                (tally.packets > 0).then_some((key, (tally.packets, tally.bytes)))
            })
        });
        tallies.collect()
    }

    /// The deepest of the socket's cgroups that some rule names.
    fn deepest_target(&self, given: &Given) -> u64 {
        let levels = self.host.tables.header.cgroup_levels;
        let asked = (0..8).rev().filter(|level| levels >> level & 1 != 0);
        let mut ids = asked.map(|level: usize| given.input.cgroups[level]);
        ids.find(|id| *id != 0 && self.host.tables.cgroups.contains_key(id)).unwrap_or(0)
    }

    /// What `chaos-ebpf` books before it judges: owners of conversations, ages of flows.
    fn remember(&mut self, job: &Job, given: &Given) {
        let wanted = self.host.tables.header.dims;
        if !has_flow(&job.packet) {
            return;
        }
        if wanted & dims::LEARN_OWNERS != 0 && given.direction == Direction::Egress {
            self.learn(job, given);
        }
        if wanted & dims::FLOWS != 0 {
            self.track(job, given.input.now_ns);
        }
    }

    fn learn(&mut self, job: &Job, given: &Given) {
        let key = flow_key(&job.packet, NETNS, Direction::Egress);
        let whole = job.packet.class == Class::TCP;
        let booked = if whole { key } else { FlowKey { peer: [0; 4], peer_port: 0, ..key } };
        let somebodys = matches!(job.packet.class, Class::TCP | Class::UDP)
            && job.packet.tcp_flags & tcp::RST == 0
            && given.input.cgroups.iter().any(|id| *id != 0);
        match self.host.socket_cgroup.get() {
            0 if somebodys => drop(self.host.owners.remove(&booked)),
            0 => {}
            cgroup => drop(self.host.owners.insert(booked, cgroup)),
        }
    }

    fn track(&mut self, job: &Job, now_ns: u64) {
        let key = symmetric(&flow_key(&job.packet, NETNS, job.direction()));
        if job.packet.class == Class::TCP && !opens_connection(&job.packet) {
            return;
        }
        let known = self.host.flows.get(&key).filter(|flow| {
            job.packet.class != Class::TCP && now_ns.saturating_sub(flow.last_seen_ns) < UDP_IDLE_NS
        });
        let first_seen_ns = known.map_or(now_ns, |flow| flow.first_seen_ns);
        self.host.flows.insert(key, Flow { first_seen_ns, last_seen_ns: now_ns });
    }
}

/// Judges the rows of packet tables on the host.
#[derive(Clone, Copy, Debug, Default)]
pub struct HostSubject;

impl Subject for HostSubject {
    fn name(&self) -> &'static str {
        "host"
    }

    fn judge(&mut self, row: &Row) -> Result<Option<Outcome>> {
        let tables = compile(&input(&row.rules))?;
        let mut host = HostSide::new(tables, NOW_NS.saturating_add(row.lease_ns));
        for packet in &row.before {
            host.judge(&row.given_before(), &packet.bytes())?;
        }
        let (fate, verdict) = host.judge(&row.given, &row.packet.bytes())?;
        Ok(Some(Outcome { fate, verdict, bytes: None, counters: first_rule(&host.counted()) }))
    }
}
