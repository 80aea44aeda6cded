//! The targets of all rules, each looked at and followed once, however many rules name it.

use std::{
    collections::{HashMap, HashSet},
    sync::Arc,
};

use super::types::{EngineError, Event, EventKind};
use crate::{
    spec::RuleSpec,
    targets::{Resolved, Target, Watcher},
};

/// What is followed.
#[derive(Default)]
pub(super) struct Targets {
    /// In the order in which they were named first.
    followed: Vec<Followed>,
    /// Where each is in this list, by role: thousands of rules look for theirs with each change.
    places: HashMap<Role, HashMap<Target, usize>>,
    /// What was seen to have moved while it was looked at for a change.
    news: Vec<Event>,
}

/// What a rule is about now: its target and its peer.
pub(super) type Now = (Arc<Resolved>, Option<Arc<Resolved>>);

struct Followed {
    target: Target,
    role: Role,
    watcher: Watcher,
    /// What the watcher saw last, for every rule that names it.
    now: Arc<Resolved>,
    /// It was looked at for the change that is being made.
    is_fresh: bool,
}

/// What a rule wants to know of it.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
enum Role {
    /// Where it is: the target of a rule without a peer. To list addresses and sockets for thousands takes long.
    Place,
    /// And how its peer sees it.
    Target,
    /// And when that changes.
    Peer,
}

impl Role {
    const fn of_target(spec: &RuleSpec) -> Self {
        if spec.peer.is_some() { Self::Target } else { Self::Place }
    }
}

impl Targets {
    /// A change begins: whatever it names is looked at anew.
    pub(super) fn begin(&mut self) {
        for followed in &mut self.followed {
            followed.is_fresh = false;
        }
    }

    /// What a rule is about, looked at now.
    ///
    /// # Errors
    /// Its target or its peer is not there.
    pub(super) fn find(&mut self, spec: &RuleSpec) -> Result<Now, EngineError> {
        let target = self.look(&spec.target, Role::of_target(spec))?;
        let peer = spec.peer.as_ref().map(|peer| self.look(peer, Role::Peer)).transpose()?;
        Ok((target, peer))
    }

    fn look(&mut self, target: &Target, role: Role) -> Result<Arc<Resolved>, EngineError> {
        let place = self.place(target, role);
        let known = place.and_then(|place| self.followed.get_mut(place));
        if let Some(known) = known.as_ref().filter(|known| known.is_fresh) {
            return Ok(Arc::clone(&known.now));
        }
        let watcher = match role {
            Role::Place => Watcher::of_place(target)?,
            Role::Target => Watcher::new(target)?,
            Role::Peer => Watcher::new(target)?.with_identities(),
        };
        let now = Arc::new(watcher.current().clone());
        let fresh = Followed { target: target.clone(), role, watcher, now: Arc::clone(&now), is_fresh: true };
        if let Some(known) = known {
            self.news.extend((!known.now.same_place(&now)).then(|| fresh.moved()));
            *known = fresh;
        } else {
            self.places.entry(role).or_default().insert(target.clone(), self.followed.len());
            self.followed.push(fresh);
        }
        Ok(now)
    }

    fn place(&self, target: &Target, role: Role) -> Option<usize> {
        self.places.get(&role)?.get(target).copied()
    }

    /// What a rule is about, as far as it was looked at.
    pub(super) fn now(&self, spec: &RuleSpec) -> Option<Now> {
        let of = |target: &Target, role: Role| {
            let found = self.place(target, role).and_then(|place| self.followed.get(place));
            found.map(|found| Arc::clone(&found.now))
        };
        let peer = spec.peer.as_ref().map(|peer| of(peer, Role::Peer));
        Some((of(&spec.target, Role::of_target(spec))?, peer.map_or(Some(None), |peer| peer.map(Some))?))
    }

    /// Looks after all of them; what changed, in words.
    pub(super) fn follow(&mut self) -> Vec<Event> {
        let mut events = std::mem::take(&mut self.news);
        events.extend(self.followed.iter_mut().filter_map(Followed::follow));
        events
    }

    /// Forgets what none of these rules names.
    pub(super) fn keep<'a>(&mut self, rules: impl Iterator<Item = &'a RuleSpec>) {
        let of = |spec: &'a RuleSpec| {
            let peer = spec.peer.iter().map(|peer| (Role::Peer, peer));
            std::iter::once((Role::of_target(spec), &spec.target)).chain(peer)
        };
        let named: HashSet<(Role, &Target)> = rules.flat_map(of).collect();
        self.followed.retain(|one| named.contains(&(one.role, &one.target)));
        self.places.clear();
        for (place, one) in self.followed.iter().enumerate() {
            self.places.entry(one.role).or_default().insert(one.target.clone(), place);
        }
    }
}

impl Followed {
    fn follow(&mut self) -> Option<Event> {
        match self.watcher.changed() {
            Ok(None) => None,
            Ok(Some(now)) => {
                self.now = Arc::new(now);
                Some(self.moved())
            }
            Err(error) => {
                tracing::debug!("{}: {error}", self.target);
                None
            }
        }
    }

    fn moved(&self) -> Event {
        let target = &self.target;
        if self.now.is_vanished() {
            return Event::new(
                EventKind::Vanished,
                format!("{target} is gone; it is bound again when it comes back"),
            );
        }
        Event::new(EventKind::Rebound, format!("{target} is bound again"))
    }
}
