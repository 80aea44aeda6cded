//! What lies in every machine: busybox, the modules, and the programs of this machine that tests use.

use std::{path::Path, process::Command};

use anyhow::Result;

use super::{archive::Archive, kernel::Ready};
use crate::{packages, process};

/// Programs that tests run. Which are not installed here are missing there, and what needs them is skipped.
const PROGRAMS: &[&str] = &[
    "bash",
    "bridge",
    "curl",
    "dnsmasq",
    "ethtool",
    "ip",
    "iperf3",
    "iptables",
    "iptables-save",
    "nft",
    "nsenter",
    "openssl",
    "ping",
    "redis-cli",
    "redis-server",
    "setpriv",
    // That of busybox takes its own `ip` and `ping` for the better ones.
    "sh",
    "ss",
    "tc",
    "tcpdump",
    "unshare",
    "wg",
];
/// Which these load while they run.
const LIBRARIES: [&str; 2] = ["libnss_dns.so.2", "libnss_files.so.2"];
/// Shapes of distributions, for netem.
const DISTRIBUTIONS: &str = "/usr/lib/tc";

/// The archive of a machine with this kernel that runs `command`, a shell script.
pub(super) fn pack(kernel: &Ready, command: &str) -> Result<Archive> {
    let mut archive = Archive::new();
    archive.script("init", include_str!("init.sh"));
    archive.script("command", command);
    archive.program("usr/bin/busybox", &kernel.busybox)?;
    archive.tree(&format!("usr/lib/modules/{}", kernel.release), &kernel.modules)?;
    for (name, path) in PROGRAMS.iter().filter_map(|name| Some((name, packages::find(name)?))) {
        archive.program(&format!("usr/bin/{name}"), &path)?;
    }
    for name in LIBRARIES {
        let place = format!("/usr/lib/{}-linux-gnu/{name}", std::env::consts::ARCH);
        if Path::new(&place).is_file() {
            archive.program(&place, Path::new(&place))?;
        }
    }
    if Path::new(DISTRIBUTIONS).is_dir() {
        archive.tree(DISTRIBUTIONS, Path::new(DISTRIBUTIONS))?;
    }
    for applet in process::capture(Command::new(&kernel.busybox).arg("--list"))?.lines() {
        archive.link(&format!("usr/bin/{applet}"), "/usr/bin/busybox");
    }
    // Where the kernel looks for it.
    archive.link("usr/sbin/modprobe", "/usr/bin/busybox");
    settings(&mut archive);
    Ok(archive)
}

/// The few files of `/etc` that programs ask for.
fn settings(archive: &mut Archive) {
    let users = [("root", 0), ("daemon", 1), ("tcpdump", 101), ("nobody", 65534)];
    let user = |(name, id): (&str, u32)| format!("{name}:x:{id}:{id}::/root:/bin/sh\n");
    let group = |(name, id): (&str, u32)| format!("{name}:x:{id}:\n");
    archive.text("etc/passwd", users.map(user).concat());
    archive.text("etc/group", users.map(group).concat());
    archive.text("etc/hosts", "127.0.0.1 localhost machine\n::1 localhost\n");
    archive.text("etc/nsswitch.conf", "passwd: files\ngroup: files\nhosts: files dns\n");
    archive.text("etc/resolv.conf", "");
    archive.text("etc/protocols", "icmp 1 ICMP\ntcp 6 TCP\nudp 17 UDP\nipv6-icmp 58 IPv6-ICMP\n");
}
