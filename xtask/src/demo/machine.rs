//! What of ours is on this machine: compared before and after the demo.

use std::{collections::BTreeSet, fs, path::Path};

use aya::{maps::loaded_maps, programs::loaded_programs};
use object::{Object as _, ObjectSymbol as _, SymbolKind};

/// Length of a name in the kernel (`BPF_OBJ_NAME_LEN`, without the final zero).
const NAME_LEN: usize = 15;

/// Things that carry our names, in words.
pub(crate) fn ours(root: &Path) -> BTreeSet<String> {
    let mut found = BTreeSet::new();
    let mut names = |kind: &str, dir: &str| {
        let entries = fs::read_dir(dir).into_iter().flatten().flatten();
        let names = entries.map(|entry| entry.file_name().to_string_lossy().into_owned());
        found.extend(names.filter(|name| name.starts_with("chaos")).map(|name| format!("{kind} {name}")));
    };
    names("network namespace", "/run/netns");
    names("link", "/sys/class/net");
    names("pinned BPF object", "/sys/fs/bpf");
    names("run-time file", "/run");
    cgroups(Path::new("/sys/fs/cgroup"), 4, &mut found);
    let known = object_names(root);
    let is_ours = |name: Option<&str>| name.is_some_and(|name| known.contains(name));
    let programs = loaded_programs().flatten().filter(|program| is_ours(program.name_as_str()));
    found.extend(
        programs.map(|program| {
            format!("BPF program {} ({})", program.name_as_str().unwrap_or("?"), program.id())
        }),
    );
    let maps = loaded_maps().flatten().filter(|map| is_ours(map.name_as_str()));
    found.extend(maps.map(|map| format!("BPF map {} ({})", map.name_as_str().unwrap_or("?"), map.id())));
    found
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

/// Names of the programs and maps in the committed object, as long as the kernel keeps them.
fn object_names(root: &Path) -> BTreeSet<String> {
    let bytes = fs::read(root.join(crate::build_ebpf::OBJECT)).unwrap_or_default();
    let Ok(file) = object::File::parse(&*bytes) else { return BTreeSet::new() };
    let globals = file.symbols().filter(|symbol| {
        symbol.is_global()
            && matches!(symbol.kind(), SymbolKind::Text | SymbolKind::Data | SymbolKind::Unknown)
    });
    let names = globals
        .filter_map(|symbol| symbol.name().ok().map(|name| name.chars().take(NAME_LEN).collect::<String>()));
    names.filter(|name| !name.is_empty() && !name.starts_with("mem")).collect()
}
