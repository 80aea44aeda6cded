//! Follows a target that restarts, vanishes, or gains a namespace.

use std::time::Duration;

use super::{Depth, Kind, Resolved, Target, TargetError, address, cgroup, host, identity, named, pid, unit};
use crate::cgroup::Hierarchy;

/// How often what cannot be noticed by a `stat` is looked for (processes, their namespaces).
pub(super) const SCAN_INTERVAL: Duration = Duration::from_millis(500);

/// Follows one target.
///
/// Holds no namespace longer than until it notices that the target let go of it.
pub struct Watcher {
    kind: Box<dyn Kind>,
    current: Resolved,
    /// What is found out when it has moved.
    depth: Depth,
    with_identities: bool,
}

impl Watcher {
    /// Finds the target and begins to follow it; [`Self::current`] is what it is now.
    pub fn new(target: &Target) -> Result<Self, TargetError> {
        Self::of(kind_of(target)?, Depth::Identities)
    }

    /// The same without finding out how others see it.
    pub fn of_place(target: &Target) -> Result<Self, TargetError> {
        Self::of(kind_of(target)?, Depth::Place)
    }

    /// Follows a unit in a tree of one's own.
    pub fn of_unit(finder: unit::UnitFinder, name: &str) -> Result<Self, TargetError> {
        Self::of(Box::new(unit::Unit::new(finder, name)), Depth::Identities)
    }

    fn of(mut kind: Box<dyn Kind>, depth: Depth) -> Result<Self, TargetError> {
        let current = kind.find(depth)?;
        Ok(Self { kind, current, depth, with_identities: false })
    }

    /// Also tells when only the addresses or ports change under which others see the target, as a peer
    /// needs. Ports that come and go (UDP, from the ephemeral range) do not count.
    #[must_use]
    pub fn with_identities(mut self) -> Self {
        self.with_identities = true;
        self
    }

    /// What the target was when last looked at.
    #[must_use]
    pub fn current(&self) -> &Resolved {
        &self.current
    }

    /// Looks whether the target is elsewhere now. None = the same; [`Resolved::is_vanished`] = it is gone,
    /// which is told once, and it is looked for from then on. Call it every 50 ms; a restart is then seen
    /// within 100 ms, a change of namespaces within 600 ms.
    ///
    /// An error means that it could not be looked at; what was known stays known.
    pub fn changed(&mut self) -> Result<Option<Resolved>, TargetError> {
        if !self.kind.stale() {
            return Ok(None);
        }
        let depth = if self.with_identities { Depth::Identities } else { Depth::Place };
        let mut now = self.look(depth)?;
        let seen_the_same =
            !self.with_identities || identity::same(&now.identities, &self.current.identities);
        if seen_the_same && now.same_place(&self.current) {
            return Ok(None);
        }
        if depth != self.depth && !now.is_vanished() {
            now = self.look(self.depth)?;
        }
        self.current = now.clone();
        Ok(Some(now))
    }

    fn look(&mut self, depth: Depth) -> Result<Resolved, TargetError> {
        match self.kind.find(depth) {
            Err(error) if error.is_gone() => Ok(Resolved::default()),
            other => other,
        }
    }
}

/// The kind that finds this target.
pub(super) fn kind_of(target: &Target) -> Result<Box<dyn Kind>, TargetError> {
    Ok(match target {
        Target::Host => Box::new(host::Host),
        Target::Cgroup(path) => Box::new(cgroup::Cgroup::new(Hierarchy::discover()?, path)),
        Target::Unit(name) => Box::new(unit::Unit::new(unit::UnitFinder::system()?, name)),
        Target::NetnsName(name) => Box::new(named::Named::new(name)),
        Target::Pid(pid) => Box::new(pid::Process::new(*pid)?),
        Target::Net(_) | Target::HostPort { .. } => Box::new(address::Address::new(target.clone())),
    })
}
