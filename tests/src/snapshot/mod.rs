//! The machine before and after: what is there now that was not, and what is gone.
//!
//! A snapshot holds lines in sections (`links ct-1-0`, `bpf programs`, ...); the difference of
//! two is the list of lines that only one has. What the kernel changes by itself (counters,
//! timers, times) is left out, and so is what another living process of this machine holds.

mod bpf;
mod network;

use std::{
    collections::{BTreeMap, BTreeSet},
    fs, iter,
    path::{Path, PathBuf},
    thread,
    time::{Duration, Instant},
};

use anyhow::{Result, bail};

use crate::lab::{cgroup, netns::Netns, own_prefix};

/// How long the machine may take to come to rest before it is looked at.
const CALM_LIMIT: Duration = Duration::from_secs(10);
/// Between two looks at it.
const CALM: Duration = Duration::from_millis(100);

/// The state of the machine in lines.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Snapshot {
    sections: BTreeMap<String, BTreeSet<String>>,
}

impl Snapshot {
    /// Looks at the whole machine: BPF programs, maps and links, processes started by this test
    /// run, cgroups, and for our own namespace and `namespaces` links, qdiscs, filters,
    /// addresses, routes, firewall rules, offload settings and sysctls. What vanishes fastest is
    /// read first, so that the moment of the call counts.
    ///
    /// # Errors
    /// Without root.
    pub fn take(namespaces: &[&Netns]) -> Result<Self> {
        let mut snapshot = Self::default();
        let foreign = bpf::held_by_others();
        snapshot.add("bpf links", bpf::links(&foreign));
        for (name, inside) in network::places(namespaces) {
            snapshot.add(&format!("links {name}"), network::links(inside)?);
        }
        snapshot.add("bpf programs", bpf::programs(&foreign));
        snapshot.add("bpf maps", bpf::maps(&foreign));
        snapshot.add("processes", own_processes().into_iter().map(describe));
        snapshot.add("cgroups", cgroup_names()?);
        snapshot.add("named namespaces", named_namespaces());
        for (name, inside) in network::places(namespaces) {
            for (section, lines) in network::settings(inside)? {
                snapshot.add(&format!("{section} {name}"), lines);
            }
        }
        Ok(snapshot)
    }

    /// What a later one is compared with: taken as soon as nothing is on its way out any more. The kernel frees what a
    /// process had loaded some time after that process is gone; its end would be taken for a loss. Waits 10 s at most.
    ///
    /// # Errors
    /// As [`Snapshot::take`].
    pub fn before(namespaces: &[&Netns]) -> Result<Self> {
        let deadline = Instant::now() + CALM_LIMIT;
        let mut last = Self::take(namespaces)?;
        loop {
            // Where nothing that we started is running, nobody holds what bears our name.
            let alone = own_processes().is_empty();
            if (alone && !last.has_loaded()) || Instant::now() >= deadline {
                return Ok(last);
            }
            thread::sleep(CALM);
            let now = Self::take(namespaces)?;
            if !alone && now == last {
                return Ok(now);
            }
            last = now;
        }
    }

    /// Whether a program or a map of the product is there.
    fn has_loaded(&self) -> bool {
        let sections = ["bpf programs", "bpf maps"].into_iter().filter_map(|name| self.sections.get(name));
        sections.flatten().any(|line| {
            line.split_once(' ').is_some_and(|(_, name)| name.to_ascii_lowercase().starts_with("chaos_"))
        })
    }

    fn add(&mut self, section: &str, lines: impl IntoIterator<Item = String>) {
        self.sections.entry(section.to_owned()).or_default().extend(lines);
    }

    /// What `self` has and `before` had not (`+`), and the other way round (`-`).
    #[must_use]
    pub fn diff(&self, before: &Self) -> Vec<String> {
        let empty = BTreeSet::new();
        let names: BTreeSet<_> = self.sections.keys().chain(before.sections.keys()).collect();
        let mut lines = Vec::new();
        for name in names {
            let now = self.sections.get(name).unwrap_or(&empty);
            let then = before.sections.get(name).unwrap_or(&empty);
            lines.extend(now.difference(then).map(|line| format!("+ {name}: {line}")));
            lines.extend(then.difference(now).map(|line| format!("- {name}: {line}")));
        }
        lines
    }

    /// Takes snapshots until one equals `self`, at most until `limit` is over.
    ///
    /// # Errors
    /// With the last difference, when none does.
    pub fn settle(&self, namespaces: &[&Netns], limit: Duration) -> Result<()> {
        let deadline = Instant::now() + limit;
        loop {
            let diff = Self::take(namespaces)?.diff(self);
            if diff.is_empty() {
                return Ok(());
            }
            if Instant::now() >= deadline {
                bail!("the machine is not as it was after {limit:?}:\n{}", diff.join("\n"));
            }
            thread::sleep(Duration::from_millis(20));
        }
    }
}

/// The variable by which every process started by this test run is known, also after it has
/// detached itself from us.
pub const RUN_VARIABLE: &str = "CHAOS_TESTS_RUN";

/// Whether the process carries our [`RUN_VARIABLE`], or is this process.
fn is_ours(process: &Path) -> bool {
    let own = std::process::id().to_string();
    if process.file_name().is_some_and(|pid| *pid == *own) {
        return true;
    }
    let mark = format!("{RUN_VARIABLE}={own}");
    let environment = fs::read(process.join("environ")).unwrap_or_default();
    environment.split(|byte| *byte == 0).any(|variable| variable == mark.as_bytes())
}

fn processes() -> impl Iterator<Item = PathBuf> {
    let entries = fs::read_dir("/proc").into_iter().flatten().flatten();
    entries.map(|entry| entry.path()).filter(|path| {
        let name = path.file_name().unwrap_or_default().to_string_lossy();
        name.bytes().all(|byte| byte.is_ascii_digit())
    })
}

/// Ids of the processes started by this run with [`RUN_VARIABLE`], whoever their parent is now.
#[must_use]
pub fn own_processes() -> Vec<i32> {
    let own = i32::try_from(std::process::id()).unwrap_or(0);
    let pid = |path: &Path| path.file_name()?.to_string_lossy().parse().ok();
    processes().filter(|path| is_ours(path)).filter_map(|path| pid(&path)).filter(|pid| *pid != own).collect()
}

/// A process as a line.
fn describe(pid: i32) -> String {
    let name = fs::read_to_string(format!("/proc/{pid}/comm")).unwrap_or_default();
    format!("{pid} {}", name.trim())
}

/// Every cgroup directory but those of other test runs.
fn cgroup_names() -> Result<Vec<String>> {
    let root = cgroup::mount()?;
    let mut waiting = vec![root.clone()];
    let directories = iter::from_fn(move || {
        let next = waiting.pop()?;
        let entries = fs::read_dir(&next).into_iter().flatten().flatten();
        waiting.extend(entries.map(|entry| entry.path()).filter(|path| path.is_dir()));
        Some(next)
    });
    let names = directories.map(|path| path.strip_prefix(&root).unwrap_or(&path).display().to_string());
    Ok(names.filter(|name| !is_anothers(name)).collect())
}

/// A cgroup of another test run, or of a `chaos exec` that lives and that we did not start.
fn is_anothers(name: &str) -> bool {
    let base = name.rsplit('/').next().unwrap_or(name);
    if name.starts_with("ct-") {
        return !name.starts_with(&own_prefix());
    }
    let pid = base.strip_prefix("chaos-exec-").and_then(|rest| rest.split('-').next());
    pid.is_some_and(|pid| Path::new("/proc").join(pid).exists() && !is_ours(&Path::new("/proc").join(pid)))
}

/// Named namespaces of this run, and those named like ours to the user.
fn named_namespaces() -> Vec<String> {
    let entries = fs::read_dir("/run/netns").into_iter().flatten().flatten();
    entries
        .map(|entry| entry.file_name().to_string_lossy().into_owned())
        .filter(|name| name.starts_with("chaos") || name.starts_with(&own_prefix()))
        .collect()
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::Snapshot;
    use crate::lab::{alone, shapes::Pair};

    /// One change of every sort is seen, and undoing it is too.
    #[test]
    fn changes_are_seen_and_their_undoing_too() {
        crate::require_root!();
        let _alone = alone().unwrap();
        let pair = Pair::new().unwrap();
        let namespaces = [&pair.a, &pair.b];
        let before = Snapshot::before(&namespaces).unwrap();
        before.settle(&namespaces, Duration::from_secs(2)).unwrap();
        let changes = [
            ("ip link add chaos-x type veth", "ip link del chaos-x", "links"),
            ("tc qdisc add dev va clsact", "tc qdisc del dev va clsact", "qdiscs"),
            ("ethtool -K va tso off", "ethtool -K va tso on", "offloads"),
            ("sysctl -qw net.ipv4.conf.va.rp_filter=2", "sysctl -qw net.ipv4.conf.va.rp_filter=0", "sysctls"),
            ("nft add table inet x", "nft delete table inet x", "firewall"),
            ("ip route add 10.9.0.0/16 via 10.77.0.2", "ip route del 10.9.0.0/16", "routes"),
        ];
        for (change, undo, section) in changes {
            pair.a.run(change).unwrap();
            let diff = Snapshot::take(&namespaces).unwrap().diff(&before);
            assert!(diff.iter().any(|line| line[2..].starts_with(section)), "{change}: {diff:?}");
            pair.a.run(undo).unwrap();
            before.settle(&namespaces, Duration::from_secs(5)).unwrap();
        }
    }

    #[test]
    fn leftovers_and_losses_are_both_named() {
        let (mut before, mut after) = (Snapshot::default(), Snapshot::default());
        before.add("links x", ["veth0".to_owned()]);
        after.add("bpf maps", ["7 CHAOS_RULES".to_owned()]);
        assert_eq!(after.diff(&before), ["+ bpf maps: 7 CHAOS_RULES", "- links x: veth0"]);
        assert!(after.has_loaded() && !before.has_loaded());
    }
}
