//! Which process holds a socket, and what a cgroup id is called.

use std::{
    collections::HashMap,
    fs,
    os::unix::fs::MetadataExt,
    path::{Path, PathBuf},
};

use crate::{cgroup::Hierarchy, netns::NetnsId, targets::all_pids};

/// A process that has a socket open.
pub(super) struct Holder {
    pub(super) pid: i32,
    pub(super) command: String,
}

/// Socket inode to its holder, for all processes in a namespace that we may look into. The lowest pid is
/// kept: a server that forks shares its listener with its children.
pub(super) fn holders(netns: NetnsId) -> HashMap<u32, Holder> {
    let mut pids: Vec<i32> =
        all_pids().into_iter().filter(|pid| NetnsId::of_pid(*pid) == Some(netns)).collect();
    pids.sort_unstable();
    let mut holders = HashMap::new();
    for pid in pids {
        let inodes = socket_inodes(pid);
        if inodes.is_empty() {
            continue;
        }
        let command = fs::read_to_string(format!("/proc/{pid}/comm")).unwrap_or_default();
        for inode in inodes {
            let holder = || Holder { pid, command: command.trim_end().to_owned() };
            holders.entry(inode).or_insert_with(holder);
        }
    }
    holders
}

fn socket_inodes(pid: i32) -> Vec<u32> {
    let Ok(entries) = fs::read_dir(format!("/proc/{pid}/fd")) else { return Vec::new() };
    entries.flatten().filter_map(|entry| inode_of(&fs::read_link(entry.path()).ok()?)).collect()
}

/// `socket:[1234]`, as proc(5) shows a socket.
fn inode_of(link: &Path) -> Option<u32> {
    link.to_str()?.strip_prefix("socket:[")?.strip_suffix(']')?.parse().ok()
}

/// Path below the mount of every cgroup, by id.
pub(super) fn cgroup_paths(hierarchy: &Hierarchy) -> HashMap<u64, PathBuf> {
    let mount = hierarchy.mount();
    let mut paths = HashMap::new();
    let mut todo = vec![mount.to_owned()];
    while let Some(directory) = todo.pop() {
        if let Ok(metadata) = fs::metadata(&directory) {
            let below = directory.strip_prefix(mount).unwrap_or(&directory);
            paths.insert(metadata.ino(), Path::new("/").join(below));
        }
        let entries = fs::read_dir(&directory).into_iter().flatten().flatten();
        todo.extend(
            entries
                .filter(|entry| entry.file_type().is_ok_and(|kind| kind.is_dir()))
                .map(|entry| entry.path()),
        );
    }
    paths
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_sockets_have_a_socket_inode() {
        assert_eq!(inode_of(Path::new("socket:[4711]")), Some(4711));
        assert_eq!(inode_of(Path::new("pipe:[4711]")), None);
        assert_eq!(inode_of(Path::new("/dev/null")), None);
    }
}
