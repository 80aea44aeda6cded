//! Which processes hold the sockets that matter.

use std::collections::HashSet;

use procfs::process::{FDTarget, Process, all_processes};

/// Remote shells by the name of the process that holds the connection.
const SHELLS: [&str; 4] = ["sshd", "sshd-session", "mosh-server", "dropbear"];
/// What an agent is called, however it was started.
const AGENT: &str = "chaos";
/// What a process opens to be the other side of a tun or tap device.
const TUN: &str = "/dev/net/tun";

/// Inodes of sockets, by who holds them.
#[derive(Default)]
pub(super) struct Holders {
    /// Remote shells.
    pub(super) shells: HashSet<u64>,
    /// Agents: this process, and others of our name.
    pub(super) agents: HashSet<u64>,
}

impl Holders {
    /// Looks through all processes by their names.
    pub(super) fn find() -> Self {
        let mut holders = Self::default();
        let own = i32::try_from(std::process::id()).unwrap_or_default();
        for process in all_processes().into_iter().flatten().flatten() {
            let Ok(stat) = process.stat() else { continue };
            if SHELLS.contains(&stat.comm.as_str()) {
                holders.shells.extend(sockets(&process));
            } else if stat.comm == AGENT || process.pid == own {
                holders.agents.extend(sockets(&process));
            }
        }
        holders
    }
}

/// Inodes of the sockets of the process that is behind this tun or tap device.
pub(super) fn of_tunnel(device: &str) -> HashSet<u64> {
    let behind = all_processes().into_iter().flatten().flatten().filter(|process| is_behind(process, device));
    behind.flat_map(|process| sockets(&process)).collect()
}

fn is_behind(process: &Process, device: &str) -> bool {
    let is_tun = |target: &FDTarget| matches!(target, FDTarget::Path(path) if path.as_os_str() == TUN);
    let open = process.fd().into_iter().flatten().flatten().filter(|open| is_tun(&open.target));
    // The kernel says which device it is (`tun_chr_show_fdinfo`, drivers/net/tun.c, Linux 6.18).
    open.map(|open| format!("/proc/{}/fdinfo/{}", process.pid, open.fd))
        .filter_map(|path| std::fs::read_to_string(path).ok())
        .any(|info| names(&info, device))
}

/// Whether the words of the kernel about an open `/dev/net/tun` name the device.
fn names(info: &str, device: &str) -> bool {
    info.lines().filter_map(|line| line.strip_prefix("iff:")).any(|name| name.trim() == device)
}

fn sockets(process: &Process) -> Vec<u64> {
    let inode = |target| if let FDTarget::Socket(inode) = target { Some(inode) } else { None };
    process.fd().into_iter().flatten().flatten().filter_map(|open| inode(open.target)).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_device_behind_an_open_file_is_told_by_its_whole_name() {
        let info = "pos:\t0\nflags:\t0100002\nmnt_id:\t27\niff:\ttun10\n";
        assert!(names(info, "tun10"));
        assert!(!names(info, "tun1"));
        assert!(!names("pos:\t0\n", ""));
    }
}
