//! From the faults that are held to what is in the kernel: namespaces, devices, tables.

use std::{
    collections::{BTreeMap, BTreeSet, HashMap},
    sync::Arc,
    thread,
    time::Duration,
};

use chaos_common::{
    abi::dims,
    compile::{Input, Tables, compile},
};

use super::{
    Engine,
    active::{Active, Share, namespaces},
    is_protected, owners,
    site::Site,
    types::{EngineError, Event, EventKind},
};
use crate::{
    cgroup::CgroupRef,
    datapath::{Instance, InstanceSpec, Spare},
    lines::{LineOptions, LineThread},
    targets::Target,
};

impl Engine {
    /// Makes sure that every namespace that is needed has an instance, and refreshes what is known of them.
    pub(super) fn prepare(&mut self) -> Result<(), EngineError> {
        let shares = self.shares()?;
        for (id, namespace) in namespaces(&shares) {
            if !self.sites.contains_key(&id) {
                let spare = self.ready.take().or_else(|| self.spare.take()?.join().ok()?.ok());
                let spec = InstanceSpec {
                    object: &self.object,
                    mode: self.options.attach,
                    guard: self.guard.as_ref(),
                };
                let instance = Instance::load(spec, &namespace.netns, spare)?;
                let protect = is_protected(&namespace.netns);
                self.sites.insert(id, Site::new(instance, namespace.origin.clone(), protect));
            }
            if let Some(site) = self.sites.get_mut(&id) {
                site.origin = namespace.origin;
            }
        }
        for site in self.sites.values_mut() {
            site.refresh(&mut self.maps)?;
        }
        if self.sites.iter().any(|(id, site)| site.protect && !self.protected.contains_key(id)) {
            self.protect()?;
        }
        Ok(())
    }

    /// A namespace of a name comes back as another one, and shall be covered within 100 ms: the
    /// programs for it are loaded ahead, in the background, once the faults have settled: the
    /// verifier takes a CPU for some 100 ms.
    pub(super) fn keep_spare(&mut self) {
        let moves = |target: &Target| matches!(target, Target::NetnsName(_));
        let comes_back =
            self.actives.iter().any(|a| moves(&a.spec.target) || a.spec.peer.as_ref().is_some_and(moves));
        // An agent expects more namespaces.
        let wanted = comes_back || !self.options.linger.is_zero();
        if wanted && self.ready.is_none() && self.spare.is_none() {
            let object = Arc::clone(&self.object);
            let wire = self.actives.iter().any(Active::needs_wire);
            self.spare = Some(thread::spawn(move || Spare::load(&object, wire)));
        }
    }

    /// Where every fault applies now, by its place in the list.
    fn shares(&self) -> Result<Vec<(usize, Share)>, EngineError> {
        let mut all = Vec::new();
        for (index, active) in self.actives.iter().enumerate() {
            let shares = active.shares()?;
            let gone =
                active.target.is_vanished() || active.peer.as_ref().is_some_and(|peer| peer.is_vanished());
            if shares.is_empty() && !gone {
                return Err(active.unseen());
            }
            all.extend(shares.into_iter().map(|share| (index, share)));
        }
        Ok(all)
    }

    /// Compiles, attaches, flips, and lets go of what is not needed any more. The clocks of the
    /// rules in the slots `fresh` start at the flip, so that none is short of what it took until there.
    /// What is not needed any more stays for as long as `linger` says.
    pub(super) fn swap(
        &mut self,
        fresh: &BTreeSet<u32>,
        linger: Option<Duration>,
    ) -> Result<Vec<Event>, EngineError> {
        let shares = self.shares()?;
        for (index, share) in &shares {
            self.prepare_ways(*index, share)?;
        }
        self.maps.write_dists();
        let input = self.input(&shares)?;
        let mut tables = compile(&input)?;
        let cgroups = self.cgroups();
        self.refusals.cover(&self.object, self.hierarchy.as_ref(), &cgroups, &tables)?;
        let mut events = self.learn_owners(tables.header.dims, &cgroups)?;
        events.extend(self.actives.iter_mut().filter_map(|active| {
            let news = active.budget.news(&active.spec.target.to_string())?;
            Some(Event::new(EventKind::Warning, news))
        }));
        for site in self.sites.values_mut() {
            events.extend(site.attach()?);
        }
        let programs = self.sites.values().flat_map(|site| site.instance.filter_programs()).collect();
        self.registration.set_programs(programs)?;
        self.start_clocks(fresh, &mut tables)?;
        self.note_connections(&tables, fresh)?;
        self.maps.swap(&tables)?;
        self.refusals.release(&tables);
        self.parts.need(self.parts(&shares), linger);
        self.let_go();
        Ok(events)
    }

    /// Makes the private devices that a rule needs in one namespace.
    fn prepare_ways(&mut self, index: usize, share: &Share) -> Result<(), EngineError> {
        let Some(active) = self.actives.get(index) else { return Ok(()) };
        let (wire, line) = (active.needs_wire(), active.needs_line());
        let tag = self.registration.tag();
        if line && self.line.is_none() {
            let watch = Arc::new(self.maps.watch());
            let thread = LineThread::start(watch, LineOptions::default())
                .map_err(|error| EngineError::Io { doing: "starting the delay line", error })?;
            self.line = Some(Arc::new(thread));
        }
        let Some(site) = self.sites.get_mut(&share.namespace.netns.id()) else { return Ok(()) };
        site.normalise(wire, tag)?;
        if let (true, Some(thread)) = (line, &self.line) {
            site.hold(tag, thread)?;
        }
        Ok(())
    }

    fn start_clocks(&mut self, fresh: &BTreeSet<u32>, tables: &mut Tables) -> Result<(), EngineError> {
        let mut started = HashMap::new();
        for active in self.actives.iter_mut().filter(|active| fresh.contains(&active.slot)) {
            active.arm();
            self.maps.reset_state(active.slot, active.lease_until_ns())?;
            started.insert(active.slot, active.rule());
        }
        for (slot, rule) in &mut tables.rules {
            let Some(now) = started.get(slot) else { continue };
            rule.armed_ns = now.armed_ns;
            rule.starts_ns = now.starts_ns;
            rule.expires_ns = now.expires_ns;
            rule.share_seed = now.share_seed;
        }
        Ok(())
    }

    fn input(&mut self, shares: &[(usize, Share)]) -> Result<Input, EngineError> {
        for site in self.sites.values_mut() {
            site.begin();
        }
        let mut input = Input::default();
        for (index, share) in shares {
            let (Some(active), Some(site)) =
                (self.actives.get_mut(*index), self.sites.get_mut(&share.namespace.netns.id()))
            else {
                continue;
            };
            let (rule, chosen) = active.input(share, site, &self.options.protection)?;
            let interfaces = &active.spec.matching.interfaces;
            if chosen.is_empty() && !interfaces.is_empty() {
                let present: Vec<&str> = site.links.iter().map(|link| link.name.as_str()).collect();
                return Err(EngineError::Refused(format!(
                    "no interface `{}` in {}; there are: {}",
                    interfaces.join("`, `"),
                    site.origin,
                    present.join(", ")
                )));
            }
            site.choose(&chosen);
            input.rules.push(rule);
        }
        input.devices = self.sites.values().flat_map(Site::inputs).collect();
        if let Some(hierarchy) = &self.hierarchy {
            input.cgroups = owners::inputs(hierarchy, &self.cgroups());
        }
        Ok(input)
    }

    pub(super) fn cgroups(&self) -> BTreeMap<u64, CgroupRef> {
        let all = self.actives.iter().flat_map(Active::cgroups);
        all.map(|cgroup| (cgroup.id, cgroup.clone())).collect()
    }

    /// Hooks first, then what was there before them, so that nothing falls between.
    fn learn_owners(
        &mut self,
        used: u32,
        cgroups: &BTreeMap<u64, CgroupRef>,
    ) -> Result<Vec<Event>, EngineError> {
        let mut events = Vec::new();
        if used & dims::LEARN_OWNERS == 0 {
            self.owners.clear();
        } else if let Some(hierarchy) = &self.hierarchy {
            events = self.owners.follow(&self.object, hierarchy, cgroups);
            let places: Vec<_> =
                self.sites.values().map(|site| (site.instance.netns(), site.instance.cookie())).collect();
            self.owners.seed(&mut self.maps, hierarchy, cgroups, &places)?;
        }
        if used & dims::FLOWS != 0 {
            for site in self.sites.values() {
                owners::seed_flows(&mut self.maps, (site.instance.netns(), site.instance.cookie()))?;
            }
        }
        Ok(events)
    }
}
