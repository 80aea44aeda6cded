//! Holds a set of faults: arms it, keeps it alive, follows targets, takes it down.

mod active;
mod budget;
mod build;
mod clock;
mod devices;
mod followed;
mod linger;
mod owners;
mod place;
mod plan;
mod probe;
mod protect;
mod records;
mod refusals;
mod registry;
mod resets;
mod rules;
mod site;
mod stop;
mod sweep;
mod types;
mod waiting;

use std::{
    collections::{BTreeMap, BTreeSet},
    sync::Arc,
    thread::JoinHandle,
    time::{Duration, Instant},
};

use chaos_common::abi::Direction;

pub(crate) use self::types::Sorted;
use self::{
    active::Active, followed::Targets, owners::Owners, probe::Probe, protect::Protected, refusals::Refusals,
    registry::Registration, resets::Resets, site::Site,
};
pub use self::{
    probe::{ALARM_AFTER, Conversations, SUSPECT_AFTER, Unmatched},
    registry::is_anybody_registered,
    stop::stop_all,
    sweep::sweep,
    types::{
        Counters, EngineError, EngineOptions, Event, EventKind, Plan, PlannedAttachment, Protection,
        RuleStats, StopReport,
    },
};
pub use crate::datapath::AttachMode;
use crate::{
    cgroup::Hierarchy,
    datapath::{DatapathError, Loaded, Maps, Object, Spare},
    guard::Guard,
    lines::LineThread,
    netns::{Netns, NetnsId},
    spec::RuleSpec,
    telemetry::Reader,
};

/// How often protected connections are looked for, and filters looked after.
const LOOK_AGAIN: Duration = Duration::from_secs(2);
/// The longest time between two renewals of a lease.
const RENEW: Duration = Duration::from_secs(1);

/// A set of faults that is being held. Dropping it takes everything down.
pub struct Engine {
    // The order of fields is the order of going: programs off devices, then devices, then the rest.
    sites: BTreeMap<NetnsId, Site>,
    line: Option<Arc<LineThread>>,
    reader: Option<Reader>,
    owners: Owners,
    refusals: Refusals,
    resets: Resets,
    /// What happened while it was armed; the first tick tells.
    noted: Vec<Event>,
    maps: Maps,
    object: Arc<Object>,
    /// For the next namespace.
    ready: Option<Spare>,
    spare: Option<JoinHandle<Result<Spare, DatapathError>>>,
    parts: linger::Parts,
    targets: Targets,
    actives: Vec<Active>,
    probes: Vec<Probe>,
    options: EngineOptions,
    guard: Option<Guard>,
    hierarchy: Option<Hierarchy>,
    protected: BTreeMap<NetnsId, Protected>,
    renewed: Instant,
    looked: Instant,
    failures: u64,
    told: waiting::Told,
    registration: Registration,
}

/// What takes long and needs no rule, done ahead; see [`Loaded`]. Nobody is told of it: it holds no fault.
pub struct Prepared {
    // First the programs, then the marker in them.
    loaded: Loaded,
    registration: Registration,
}

impl Prepared {
    /// Makes tables and loads programs; some 200 ms of the verifier's time.
    ///
    /// # Errors
    /// What the kernel refuses.
    pub fn new(options: &EngineOptions) -> Result<Self, EngineError> {
        sweep();
        let registration = Registration::new()?;
        let loaded = Loaded::new(registration.tag(), options.log_level, options.sizes)?;
        Ok(Self { loaded, registration })
    }
}

impl Engine {
    /// What would be done; touches nothing.
    pub fn plan(rules: &[RuleSpec], options: &EngineOptions) -> Result<Plan, EngineError> {
        plan::plan(rules, options)
    }

    /// Resolves, compiles, attaches, arms. On an error nothing remains.
    pub fn start(rules: &[RuleSpec], options: &EngineOptions) -> Result<Self, EngineError> {
        let sizes = options.sizes.for_at_least(rules.len() + place::SUSPECTS);
        Self::start_with(None, rules, &EngineOptions { sizes, ..options.clone() })
    }

    /// The same with what was prepared ahead, if anything was and is still good.
    ///
    /// # Errors
    /// As [`Self::start`].
    pub fn start_with(
        prepared: Option<Prepared>,
        rules: &[RuleSpec],
        options: &EngineOptions,
    ) -> Result<Self, EngineError> {
        place::check_number(rules.len(), options.sizes.rules())?;
        sweep();
        let guard = guard(options)?;
        let (mut actives, mut targets) = (Vec::new(), Targets::default());
        for (slot, spec) in (0u32..).zip(rules) {
            actives.push(Active::find(spec, slot, &mut targets)?);
        }
        let prepared = match prepared.filter(|prepared| !prepared.loaded.is_stopped()) {
            Some(prepared) => prepared,
            None => Prepared::new(options)?,
        };
        let Prepared { mut registration, loaded } = prepared;
        registration.hold()?;
        let (object, maps, ready) = loaded.open()?;
        let now = Instant::now();
        let mut engine = Self {
            sites: BTreeMap::new(),
            line: None,
            reader: None,
            told: waiting::Told::default(),
            owners: Owners::default(),
            refusals: Refusals::default(),
            resets: Resets::default(),
            noted: Vec::new(),
            maps,
            object,
            ready: Some(ready),
            spare: None,
            parts: linger::Parts::default(),
            targets,
            actives,
            probes: Vec::new(),
            options: options.clone(),
            guard,
            hierarchy: Hierarchy::discover().ok(),
            protected: BTreeMap::new(),
            renewed: now,
            looked: now,
            failures: 0,
            registration,
        };
        engine.arm()?;
        Ok(engine)
    }

    fn arm(&mut self) -> Result<(), EngineError> {
        self.prepare()?;
        let fresh: BTreeSet<u32> = self.actives.iter().map(|active| active.slot).collect();
        self.noted = self.swap(&fresh, None)?;
        // That its devices are covered is what arming means.
        self.noted.retain(|event| event.kind != EventKind::Devices);
        self.renewed = Instant::now();
        Ok(())
    }

    /// Looks after everything; call it every 50 ms at least.
    ///
    /// # Errors
    /// [`EngineError::Stopped`] when `chaos stop --all` ended the faults.
    pub fn tick(&mut self) -> Result<Vec<Event>, EngineError> {
        if self.maps.is_stopped() {
            return Err(EngineError::Stopped);
        }
        self.renew();
        self.maps.flush_log();
        let mut events = self.follow_targets();
        let mut moved = !events.is_empty();
        events.append(&mut self.noted);
        for site in self.sites.values_mut() {
            moved |= site.has_changed();
        }
        if moved {
            match self.prepare().and_then(|()| self.swap(&BTreeSet::new(), None)) {
                Ok(more) => events.extend(more),
                Err(error) => events.push(Event::new(
                    EventKind::Warning,
                    format!("{error}; the faults go on as they were, and it is tried again"),
                )),
            }
        }
        self.end_lingering();
        events.extend(self.end_idle());
        if self.looked.elapsed() >= LOOK_AGAIN {
            self.looked = Instant::now();
            events.extend(self.look_after()?);
        }
        Ok(events)
    }

    /// One per rule, in the order of the rules.
    pub fn stats(&self) -> Result<Vec<RuleStats>, EngineError> {
        let stats = |active: &Active| {
            Ok(RuleStats {
                name: active.spec.name.clone(),
                egress: self.maps.counters(active.slot, Direction::Egress)?.into(),
                ingress: self.maps.counters(active.slot, Direction::Ingress)?.into(),
            })
        };
        self.asked_for().map(stats).collect()
    }

    /// The counters of these slots; those of a rule that is gone stay until its slot is used again.
    pub fn stats_by_slot(
        &self,
        slots: impl Iterator<Item = u32>,
    ) -> Result<BTreeMap<u32, RuleStats>, EngineError> {
        let stats = |slot: u32| {
            let counters = |direction| self.maps.counters(slot, direction).map(Counters::from);
            let (egress, ingress) = (counters(Direction::Egress)?, counters(Direction::Ingress)?);
            Ok((slot, RuleStats { name: String::new(), egress, ingress }))
        };
        slots.map(stats).collect()
    }

    /// Disarms at once, then removes everything; the final counters.
    pub fn stop(mut self) -> Result<Vec<RuleStats>, EngineError> {
        self.release(self.actives.iter());
        self.maps.disarm();
        self.stats()
    }

    /// Renews every lease once a second, or three times within it.
    fn renew(&mut self) {
        let shortest = self.actives.iter().map(|active| active.spec.lease / 3).min().unwrap_or(RENEW);
        if self.renewed.elapsed() < shortest.min(RENEW) {
            return;
        }
        self.renewed = Instant::now();
        for active in &self.actives {
            self.maps.renew(active.slot, active.lease_until_ns());
        }
    }

    fn follow_targets(&mut self) -> Vec<Event> {
        let events = self.targets.follow();
        if !events.is_empty() {
            self.take_over_targets();
        }
        events
    }

    /// Every rule learns where it applies now.
    fn take_over_targets(&mut self) {
        for active in &mut self.actives {
            if let Some(now) = self.targets.now(&active.spec) {
                active.follow(now);
            }
        }
    }

    /// Fills the protected table for the namespaces where the operator may be.
    fn protect(&mut self) -> Result<(), EngineError> {
        for (id, site) in self.sites.iter().filter(|(_, site)| site.protect) {
            let also = &self.options.protection;
            let now = protect::find(site.instance.netns(), site.instance.cookie(), also)?;
            let before = self.protected.insert(*id, now.clone()).unwrap_or_default();
            protect::update(&mut self.maps, &before, &now)?;
        }
        Ok(())
    }

    fn look_after(&mut self) -> Result<Vec<Event>, EngineError> {
        self.protect()?;
        self.keep_spare();
        let mut events = Vec::new();
        for site in self.sites.values_mut() {
            for index in site.newly_displaced()? {
                let name =
                    site.links.iter().find(|link| link.index == index).map_or("?", |link| link.name.as_str());
                let message = format!(
                    "{}: on {name} our program is gone or no longer the first: `bpftool net show dev {name}` shows whose is",
                    site.origin
                );
                events.push(Event::new(EventKind::Displaced, message));
            }
        }
        let failures = self.maps.normaliser_failures();
        if failures > self.failures {
            let message = format!(
                "{} packets could not be cut into wire packets and passed untouched",
                failures - self.failures
            );
            events.push(Event::new(EventKind::Warning, message));
            self.failures = failures;
        }
        events.extend(self.look_after_line()?);
        Ok(events)
    }
}

impl Drop for Engine {
    fn drop(&mut self) {
        // First the rules, so that no packet takes a way that is about to be removed.
        self.maps.disarm();
        if let Some(spare) = self.spare.take() {
            // Its programs must not appear after we said that everything is gone.
            let _ = spare.join();
        }
    }
}

/// The host's and our own namespace are where the operator's connection may be.
fn is_protected(netns: &Netns) -> bool {
    let own = Netns::current().is_ok_and(|own| own == *netns);
    own || NetnsId::of_pid(1).is_some_and(|host| host == netns.id())
}

/// Filters outlive us: where tcx is not used something must remove them.
fn guard(options: &EngineOptions) -> Result<Option<Guard>, EngineError> {
    let filters = match options.attach {
        AttachMode::Clsact => true,
        AttachMode::Tcx => false,
        AttachMode::Auto => !crate::datapath::has_tcx(),
    };
    match (&options.guard, filters) {
        (Some(guard), _) => Ok(Some(guard.clone())),
        (None, false) => Ok(None),
        (None, true) => Guard::start()
            .map(Some)
            .map_err(|error| EngineError::Io { doing: "starting the guard process", error }),
    }
}
