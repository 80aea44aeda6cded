//! What there is on the node that could be ours. Runs on the node, as root: a hidden command.

use std::{
    collections::{BTreeMap, BTreeSet},
    fs,
    os::unix::fs::MetadataExt as _,
    process::Command,
};

use crate::process;

/// Prints it, one thing a line.
pub(crate) fn run() {
    for line in things() {
        println!("{line}");
    }
}

fn things() -> BTreeSet<String> {
    let mut lines = BTreeSet::new();
    for program in aya::programs::loaded_programs().flatten() {
        if let Some(name) = program.name_as_str().filter(|name| name.starts_with("chaos")) {
            lines.insert(format!("program {} {name}", program.id()));
        }
    }
    for map in aya::maps::loaded_maps().flatten() {
        if let Some(name) = map.name_as_str().filter(|name| name.starts_with("CHAOS")) {
            lines.insert(format!("map {} {name}", map.id()));
        }
    }
    for (pid, inode) in namespaces() {
        let inside = |words: &[&str]| {
            let net = format!("--net=/proc/{pid}/ns/net");
            process::probe(Command::new("nsenter").arg(net).args(words)).unwrap_or_default()
        };
        for link in inside(&["ip", "-o", "link", "show"]).lines() {
            let name = link.split_whitespace().nth(1).unwrap_or_default();
            // The veths of pods come and go with pods.
            if name.starts_with("chaos-") {
                lines.insert(format!("link {inode} {name}"));
            }
        }
        for qdisc in inside(&["tc", "qdisc", "show"]).lines().filter(|line| line.contains("clsact")) {
            lines.insert(format!("qdisc {inode} {qdisc}"));
        }
    }
    for entry in fs::read_dir("/run/chaos").into_iter().flatten().flatten() {
        lines.insert(format!("file {}", entry.path().display()));
    }
    let groups = process::probe(Command::new("find").args(["/sys/fs/cgroup", "-name", "chaos-*"]));
    lines.extend(groups.unwrap_or_default().lines().map(|path| format!("cgroup {path}")));
    lines
}

/// One process of each network namespace.
fn namespaces() -> BTreeMap<u32, u64> {
    let mut seen = BTreeSet::new();
    let mut found = BTreeMap::new();
    for entry in fs::read_dir("/proc").into_iter().flatten().flatten() {
        let Some(pid) = entry.file_name().to_str().and_then(|name| name.parse().ok()) else { continue };
        let Ok(metadata) = fs::metadata(entry.path().join("ns/net")) else { continue };
        if seen.insert(metadata.ino()) {
            found.insert(pid, metadata.ino());
        }
    }
    found
}
