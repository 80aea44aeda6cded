//! What of ours is on this machine: compared before and after the demo.
//!
//! Other runs of `chaos` may come and go meanwhile; what a living process of theirs holds is theirs.

use std::{
    collections::{BTreeMap, BTreeSet},
    fs,
    path::Path,
};

use aya::{maps::loaded_maps, programs::loaded_programs};
use object::{Object as _, ObjectSymbol as _, SymbolKind};

/// In the environment of every process the demo starts, with the process id of its root half.
pub(crate) const MARK: &str = "CHAOS_DEMO_LAB";

/// Length of a name in the kernel (`BPF_OBJ_NAME_LEN`, without the final zero).
const NAME_LEN: usize = 15;
/// Where each running `chaos` keeps a file that names its process.
const REGISTRY: &str = "/run/chaos";

/// Things that carry our names and are nobody else's, in words.
pub(crate) fn ours(root: &Path) -> BTreeSet<String> {
    let mut found = BTreeSet::new();
    let agents = names_in(REGISTRY).into_iter().map(|name| (registered(&name), name));
    let (others, stale): (Vec<_>, Vec<_>) = agents.partition(|(pid, _)| pid.is_some_and(is_foreign));
    found.extend(stale.into_iter().map(|(_, name)| format!("file {REGISTRY}/{name}")));
    let of_this_demo = format!("chaos-demo-{}-", std::process::id());
    let namespaces = names_in("/run/netns").into_iter().filter(|name| name.starts_with(&of_this_demo));
    found.extend(namespaces.map(|name| format!("network namespace {name}")));
    let mut carry_our_name = |kind: &str, dir: &str| {
        let names = names_in(dir).into_iter().filter(|name| name.starts_with("chaos"));
        found.extend(names.map(|name| format!("{kind} {name}")));
    };
    // These name no owner; with other runs about, nothing can be said.
    if others.is_empty() {
        carry_our_name("link", "/sys/class/net");
        carry_our_name("pinned BPF object", "/sys/fs/bpf");
        cgroups(Path::new("/sys/fs/cgroup"), 4, &mut found);
    }
    bpf_objects(root, &mut found);
    found
}

fn names_in(dir: &str) -> Vec<String> {
    let entries = fs::read_dir(dir).into_iter().flatten().flatten();
    entries.map(|entry| entry.file_name().to_string_lossy().into_owned()).collect()
}

/// The process a file of the registry belongs to.
fn registered(name: &str) -> Option<u64> {
    let text = fs::read_to_string(format!("{REGISTRY}/{name}")).ok()?;
    serde_json::from_str::<serde_json::Value>(&text).ok()?["pid"].as_u64()
}

/// Is this process alive and none of this demo's?
fn is_foreign(pid: u64) -> bool {
    let mark = format!("{MARK}={}", std::process::id());
    match fs::read(format!("/proc/{pid}/environ")) {
        Ok(environment) => environment.split(|byte| *byte == 0).all(|variable| variable != mark.as_bytes()),
        Err(_) => false,
    }
}

/// Directories with our name, at most `depth` levels down.
fn cgroups(dir: &Path, depth: u32, found: &mut BTreeSet<String>) {
    if depth == 0 {
        return;
    }
    for entry in fs::read_dir(dir).into_iter().flatten().flatten() {
        if entry.file_type().is_ok_and(|kind| kind.is_dir()) {
            if entry.file_name().to_string_lossy().starts_with("chaos") {
                found.insert(format!("cgroup {}", entry.path().display()));
            }
            cgroups(&entry.path(), depth - 1, found);
        }
    }
}

/// Programs and maps of the committed object that no other process holds open.
fn bpf_objects(root: &Path, found: &mut BTreeSet<String>) {
    let known = object_names(root);
    let programs = loaded_programs()
        .flatten()
        .map(|program| ("prog_id", program.id(), program.name_as_str().map(str::to_owned)));
    let maps = loaded_maps().flatten().map(|map| ("map_id", map.id(), map.name_as_str().map(str::to_owned)));
    let loaded: Vec<_> = programs.chain(maps).collect();
    let held = held_by_others();
    for (kind, id, name) in loaded {
        let name = name.unwrap_or_default();
        if known.contains(&name) && !held.get(kind).is_some_and(|ids| ids.contains(&id)) {
            found.insert(format!("BPF {} {name} ({id})", if kind == "map_id" { "map" } else { "program" }));
        }
    }
}

/// Ids of BPF programs (also through a link) and maps that descriptors of other processes stand for.
fn held_by_others() -> BTreeMap<&'static str, BTreeSet<u32>> {
    let mut held: BTreeMap<&'static str, BTreeSet<u32>> = BTreeMap::new();
    let processes = names_in("/proc").into_iter().filter_map(|name| name.parse::<u64>().ok());
    for pid in processes.filter(|pid| is_foreign(*pid)) {
        for descriptor in names_in(&format!("/proc/{pid}/fdinfo")) {
            let info = fs::read_to_string(format!("/proc/{pid}/fdinfo/{descriptor}")).unwrap_or_default();
            for kind in ["prog_id", "map_id"] {
                let line = info.lines().find_map(|line| line.strip_prefix(kind)?.strip_prefix(':'));
                if let Some(id) = line.and_then(|id| id.trim().parse().ok()) {
                    held.entry(kind).or_default().insert(id);
                }
            }
        }
    }
    held
}

/// Names of the programs and maps in the committed object, as long as the kernel keeps them.
fn object_names(root: &Path) -> BTreeSet<String> {
    let bytes = fs::read(root.join(crate::build_ebpf::OBJECT)).unwrap_or_default();
    let Ok(file) = object::File::parse(&*bytes) else { return BTreeSet::new() };
    let globals = file.symbols().filter(|symbol| {
        symbol.is_global()
            && matches!(symbol.kind(), SymbolKind::Text | SymbolKind::Data | SymbolKind::Unknown)
    });
    let names = globals.filter_map(|symbol| symbol.name().ok());
    let names = names.map(|name| name.chars().take(NAME_LEN).collect::<String>());
    names.filter(|name| !name.is_empty() && !name.starts_with("mem")).collect()
}
