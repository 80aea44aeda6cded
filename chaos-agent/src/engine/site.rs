//! One namespace with our programs: its devices, addresses and private devices.

use std::{
    collections::{BTreeMap, BTreeSet},
    sync::Arc,
};

use chaos_common::{
    abi::FlowKey,
    compile::{DeviceInput, addr_of},
};

use super::{
    devices::{Chosen, flags},
    types::{EngineError, Event, EventKind},
};
use crate::{
    datapath::{Instance, Maps},
    lines::{DelayLine, LineThread, Normaliser},
    net::{addr::Address, link::Link},
};

/// A namespace that some rule needs.
pub(super) struct Site {
    pub(super) instance: Instance,
    /// Why it is meant, for people.
    pub(super) origin: String,
    /// Operator's traffic is protected here.
    pub(super) protect: bool,
    normaliser: Option<Normaliser>,
    pub(super) line: Option<DelayLine>,
    locals: BTreeSet<FlowKeyOrd>,
    /// Devices of the last [`Site::chosen`], by index.
    chosen: BTreeMap<u32, Link>,
    /// Links as last listed.
    pub(super) links: Vec<Link>,
    stale: bool,
    displaced: BTreeSet<u32>,
}

/// Addresses in an order, to compare sets of them.
type FlowKeyOrd = [u32; 4];

impl Site {
    pub(super) fn new(instance: Instance, origin: String, protect: bool) -> Self {
        Self {
            instance,
            origin,
            protect,
            normaliser: None,
            line: None,
            locals: BTreeSet::new(),
            chosen: BTreeMap::new(),
            links: Vec::new(),
            stale: true,
            displaced: BTreeSet::new(),
        }
    }

    /// Links or addresses may have changed since the last [`Site::refresh`].
    pub(super) fn has_changed(&mut self) -> bool {
        self.stale |= self.instance.has_changed().unwrap_or(true);
        self.stale |= self.line.as_ref().is_some_and(DelayLine::is_broken);
        self.stale
    }

    /// If they may: lists links and addresses anew, and tells the program which addresses are this
    /// namespace's.
    pub(super) fn refresh(&mut self, maps: &mut Maps) -> Result<(), EngineError> {
        if !self.has_changed() {
            return Ok(());
        }
        self.stale = false;
        self.links = self.instance.links()?;
        self.instance.forget_gone(&self.links);
        let now: BTreeSet<FlowKeyOrd> = self.instance.addresses()?.iter().flat_map(own).collect();
        for addr in now.difference(&self.locals) {
            let key = self.local_key(*addr);
            maps.locals.insert(key, 1, 0).map_err(|error| {
                EngineError::Refused(format!(
                    "the namespace {} has more addresses than the table holds: {error}",
                    self.origin
                ))
            })?;
        }
        for addr in self.locals.difference(&now) {
            let _ = maps.locals.remove(&self.local_key(*addr));
        }
        self.locals = now;
        Ok(())
    }

    fn local_key(&self, addr: FlowKeyOrd) -> FlowKey {
        FlowKey { netns: self.instance.cookie(), local: addr, ..FlowKey::default() }
    }

    /// Makes the normaliser if a rule needs it and it is not there.
    pub(super) fn normalise(&mut self, needed: bool, tag: u32) -> Result<(), EngineError> {
        if needed && self.normaliser.is_none() {
            self.normaliser = Some(Normaliser::new(&mut self.instance, tag)?);
        }
        Ok(())
    }

    /// Removes the normaliser; only when no armed rule sends packets there.
    pub(super) fn drop_normaliser(&mut self) {
        self.normaliser = None;
    }

    /// Makes the delay line if a rule needs it and it is not there, or somebody has deleted it.
    pub(super) fn hold(&mut self, tag: u32, thread: &Arc<LineThread>) -> Result<(), EngineError> {
        if self.line.as_ref().is_some_and(DelayLine::is_broken) {
            self.line = None;
        }
        if self.line.is_none() {
            self.line = Some(DelayLine::new(&mut self.instance, tag, thread)?);
        }
        Ok(())
    }

    /// Removes the delay line; only when no armed rule sends packets there.
    pub(super) fn drop_line(&mut self) {
        self.line = None;
    }

    /// Notes which devices the rules of the set that is being built need.
    pub(super) fn choose(&mut self, chosen: &[Chosen]) {
        for device in chosen {
            self.chosen.insert(device.link.index, device.link.clone());
        }
    }

    /// What of ours is there, in words.
    pub(super) fn things(&self) -> Vec<String> {
        let name = |index: u32| {
            let link = self.links.iter().find(|link| link.index == index);
            link.map_or_else(|| index.to_string(), |link| link.name.clone())
        };
        let on: Vec<String> = self.instance.attached().map(name).collect();
        let mut things = vec![format!("programs on {} in {}", on.join(", "), self.origin)];
        let filters: Vec<String> = self.instance.filter_programs().map(|id| id.to_string()).collect();
        if !filters.is_empty() {
            things.push(format!("clsact filters of the programs {} in {}", filters.join(", "), self.origin));
        }
        if let Some(normaliser) = &self.normaliser {
            things.push(format!("a veth pair (device {}) in {}", normaliser.near(), self.origin));
        }
        if let Some(line) = &self.line {
            things.push(format!("a TAP device ({}) in {}", line.index(), self.origin));
        }
        things
    }

    /// Devices on which our programs are no longer first since this was asked last.
    pub(super) fn newly_displaced(&mut self) -> Result<Vec<u32>, EngineError> {
        let now: BTreeSet<u32> = self.instance.displaced()?.into_iter().collect();
        let new = now.difference(&self.displaced).copied().collect();
        self.displaced = now;
        Ok(new)
    }

    /// Forgets the devices of the set before.
    pub(super) fn begin(&mut self) {
        self.chosen.clear();
    }

    /// The devices as the compiler takes them.
    pub(super) fn inputs(&self) -> Vec<DeviceInput> {
        let normaliser = self.normaliser.as_ref().map_or(0, Normaliser::near);
        let line = self.line.as_ref().map_or(0, DelayLine::index);
        let input = |link: &Link| DeviceInput {
            netns: self.instance.cookie(),
            ifindex: link.index,
            flags: flags(link, self.protect),
            normaliser,
            line,
        };
        self.chosen.values().map(input).collect()
    }

    /// Attaches to the devices that need it. One that vanished meanwhile is no error.
    pub(super) fn attach(&mut self) -> Result<Vec<Event>, EngineError> {
        let mut events = Vec::new();
        let before: BTreeSet<u32> = self.instance.attached().collect();
        for link in self.chosen.values() {
            match self.instance.attach(link) {
                Ok(_) if !before.contains(&link.index) => {
                    events.push(Event::new(
                        EventKind::Devices,
                        format!("{}: {} is covered", self.origin, link.name),
                    ));
                }
                Ok(_) => {}
                Err(error) => {
                    let present = self.instance.links()?;
                    if present.iter().any(|now| now.index == link.index) {
                        return Err(error.into());
                    }
                }
            }
        }
        Ok(events)
    }

    /// Takes the programs off devices that no rule needs any more.
    pub(super) fn detach_unused(&mut self) {
        let unused: Vec<u32> =
            self.instance.attached().filter(|index| !self.chosen.contains_key(index)).collect();
        for index in unused {
            self.instance.detach(index);
        }
    }

    /// Removes what the shared tables say about this namespace.
    pub(super) fn forget(&self, maps: &mut Maps) {
        for addr in &self.locals {
            let _ = maps.locals.remove(&self.local_key(*addr));
        }
    }
}

/// The address itself and, for IPv4, its network's broadcast address.
fn own(address: &Address) -> Vec<FlowKeyOrd> {
    let mut own = vec![addr_of(address.addr())];
    if let ipnet::IpNet::V4(net) = address.net
        && net.prefix_len() < 31
    {
        own.push(addr_of(net.broadcast().into()));
    }
    // All of 127.0.0.0/8 is local; the program asks for single addresses, so the usual ones.
    if let ipnet::IpNet::V4(net) = address.net
        && net.addr().is_loopback()
    {
        own.extend(
            [[127, 0, 0, 11], [127, 0, 0, 53], [127, 0, 0, 54], [127, 0, 1, 1]].map(|a| addr_of(a.into())),
        );
    }
    own
}
