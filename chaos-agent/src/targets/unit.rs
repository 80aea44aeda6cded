//! `unit:name`: a systemd unit, with the socket units that trigger it.

use std::{
    collections::BTreeSet,
    fs,
    path::{Path, PathBuf},
};

use super::{
    Depth, Kind, Resolved, TargetError,
    cgroup::{Eye, resolve_cgroups},
    unit_files::{self, UNIT_DIRS},
};
use crate::cgroup::{CgroupRef, Hierarchy};

/// Suffixes of units that have processes or sockets, so a cgroup.
const SUFFIXES: [&str; 6] = [".service", ".scope", ".slice", ".socket", ".mount", ".swap"];

/// Where units are looked for.
#[derive(Clone, Debug)]
pub struct UnitFinder {
    hierarchy: Hierarchy,
    unit_dirs: Vec<PathBuf>,
    /// Ask the running systemd too; its answer includes what generators and drop-ins set.
    ask_systemd: bool,
}

impl UnitFinder {
    /// This machine's.
    pub fn system() -> Result<Self, TargetError> {
        Ok(Self {
            hierarchy: Hierarchy::discover()?,
            unit_dirs: UNIT_DIRS.iter().map(PathBuf::from).collect(),
            // What sd_booted(3) tests.
            ask_systemd: Path::new("/run/systemd/system").is_dir(),
        })
    }

    /// A tree of one's own, without asking systemd.
    #[must_use]
    pub fn at(hierarchy: Hierarchy, unit_dirs: Vec<PathBuf>) -> Self {
        Self { hierarchy, unit_dirs, ask_systemd: false }
    }

    /// The cgroups of a unit and of the socket units that trigger it; `.service` is added to a name without
    /// a suffix, and an alias stands for what it names.
    pub fn find(&self, name: &str) -> Result<Vec<CgroupRef>, TargetError> {
        let names = self.names(name);
        let found = self.locate(&names, &self.triggers(&names))?;
        found.all().map(|path| Ok(self.hierarchy.resolve(path)?)).collect()
    }

    /// [`super::resolve`], in this tree.
    pub fn resolve(&self, name: &str) -> Result<Resolved, TargetError> {
        Unit::new(self.clone(), name).find(Depth::Identities)
    }

    /// The full name and what it is an alias of.
    fn names(&self, name: &str) -> Vec<String> {
        let full = if SUFFIXES.iter().any(|suffix| name.ends_with(suffix)) {
            name.to_owned()
        } else {
            format!("{name}.service")
        };
        let alias = unit_files::alias_of(&self.unit_dirs, &full);
        [Some(full), alias].into_iter().flatten().collect()
    }

    /// Names of the socket units that trigger it.
    fn triggers(&self, names: &[String]) -> BTreeSet<String> {
        let mut sockets = BTreeSet::new();
        for name in names {
            sockets.extend(unit_files::sockets_of(&self.unit_dirs, name));
            if self.ask_systemd {
                sockets.extend(unit_files::ask_systemd_for_sockets_of(name));
            }
        }
        sockets
    }

    /// Directories of the unit (one) and its sockets (any number), in one walk through the tree.
    fn locate(&self, names: &[String], sockets: &BTreeSet<String>) -> Result<Found, TargetError> {
        let mut units = Vec::new();
        let mut triggers = Vec::new();
        let mount = self.hierarchy.mount();
        let mut todo = vec![mount.to_owned()];
        while let Some(directory) = todo.pop() {
            for entry in fs::read_dir(&directory).into_iter().flatten().flatten() {
                if !entry.file_type().is_ok_and(|kind| kind.is_dir()) {
                    continue;
                }
                let path = entry.path();
                let file_name = entry.file_name();
                // `cg_escape` of systemd puts `_` before a name that could be a file of the kernel's.
                let unit = file_name.to_str().map(|name| name.strip_prefix('_').unwrap_or(name));
                if unit.is_some_and(|unit| names.iter().any(|name| name == unit)) {
                    units.push(path.clone());
                } else if unit.is_some_and(|unit| sockets.contains(unit)) {
                    triggers.push(path.clone());
                }
                todo.push(path);
            }
        }
        let full_name = names.first().cloned().unwrap_or_default();
        let unit = self.choose(units, &full_name)?;
        // Sockets of another manager (a user's, a container's) are not this unit's.
        let manager = unit.as_ref().map(|path| manager_of(mount, path)).unwrap_or_default();
        triggers.retain(|path| manager_of(mount, path) == manager);
        if unit.is_none() && triggers.is_empty() {
            return Err(TargetError::NoUnit { name: full_name, mount: mount.to_owned() });
        }
        Ok(Found { unit, triggers })
    }

    /// The machine's own unit before those of users and containers, of which there may be only one.
    fn choose(&self, units: Vec<PathBuf>, name: &str) -> Result<Option<PathBuf>, TargetError> {
        let mount = self.hierarchy.mount();
        let (mut own, mut others): (Vec<_>, Vec<_>) =
            units.into_iter().partition(|path| manager_of(mount, path).as_os_str().is_empty());
        let best = if own.is_empty() { &mut others } else { &mut own };
        if best.len() > 1 {
            best.sort();
            let below = |path: &PathBuf| Path::new("/").join(path.strip_prefix(mount).unwrap_or(path));
            let paths = best.iter().map(below).collect();
            return Err(TargetError::AmbiguousUnit { name: name.to_owned(), paths });
        }
        Ok(best.pop())
    }
}

/// Directories of a unit; its sockets may be there before it is.
#[derive(Default)]
struct Found {
    unit: Option<PathBuf>,
    triggers: Vec<PathBuf>,
}

impl Found {
    fn all(&self) -> impl Iterator<Item = &PathBuf> {
        self.unit.iter().chain(&self.triggers)
    }
}

/// The part of a unit's path that ends with the last directory that is no slice: empty for units of the
/// machine's manager, `user.slice/user-1000.slice/user@1000.service` for those of a user's.
fn manager_of(mount: &Path, path: &Path) -> PathBuf {
    let below = path.strip_prefix(mount).unwrap_or(path);
    below
        .ancestors()
        .skip(1)
        .find(|ancestor| ancestor.extension().is_none_or(|extension| extension != "slice"))
        .unwrap_or_else(|| Path::new(""))
        .to_owned()
}

/// A unit that may restart, and then has new cgroups at the same paths.
pub(super) struct Unit {
    finder: UnitFinder,
    names: Vec<String>,
    triggers: BTreeSet<String>,
    /// It was away: its unit files may be other ones now.
    ask_again: bool,
    last: Found,
    eye: Eye,
}

impl Unit {
    pub(super) fn new(finder: UnitFinder, name: &str) -> Self {
        let names = finder.names(name);
        let triggers = finder.triggers(&names);
        Self { finder, names, triggers, ask_again: false, last: Found::default(), eye: Eye::default() }
    }

    /// A walk through the whole tree only when something is missing where it last was.
    fn locate(&mut self) -> Result<(), TargetError> {
        if self.last.unit.is_some() && self.last.all().all(|path| path.is_dir()) {
            return Ok(());
        }
        if std::mem::take(&mut self.ask_again) {
            self.triggers = self.finder.triggers(&self.names);
        }
        match self.finder.locate(&self.names, &self.triggers) {
            Ok(found) => self.last = found,
            Err(error) => {
                self.ask_again = true;
                return Err(error);
            }
        }
        Ok(())
    }
}

impl Kind for Unit {
    fn find(&mut self, depth: Depth) -> Result<Resolved, TargetError> {
        let located = self.locate();
        // While it is away, this looks where it last was, which is where it will be.
        self.eye.look_at(self.last.all().cloned().collect());
        located?;
        let hierarchy = &self.finder.hierarchy;
        let cgroups = self.last.all().map(|path| hierarchy.resolve(path)).collect::<Result<_, _>>()?;
        resolve_cgroups(hierarchy, cgroups, depth)
    }

    fn stale(&mut self) -> bool {
        self.eye.sees_change()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_manager_is_the_last_directory_that_is_no_slice() {
        let of = |path: &str| manager_of(Path::new("/c"), Path::new(path)).display().to_string();
        assert_eq!(of("/c/system.slice/api.service"), "");
        assert_eq!(of("/c/system.slice/system-foo.slice/foo@1.service"), "");
        assert_eq!(
            of("/c/user.slice/user-1.slice/user@1.service/app.slice/api.service"),
            "user.slice/user-1.slice/user@1.service"
        );
        assert_eq!(of("/c/docker/abc/system.slice/api.service"), "docker/abc");
    }
}
