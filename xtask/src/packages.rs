//! Programs of the machine that tests and demo use, and the packages they come in.

use std::{env, fs, path::PathBuf, process::Command};

use anyhow::Result;

use crate::{privilege::Privilege, process};

/// Program and the package of Debian and Ubuntu that holds it.
const PROGRAMS: &[(&str, &str)] = &[
    ("curl", "curl"),
    ("ethtool", "ethtool"),
    ("ip", "iproute2"),
    ("iperf3", "iperf3"),
    ("nft", "nftables"),
    ("ping", "iputils-ping"),
    ("redis-cli", "redis-tools"),
    ("redis-server", "redis-server"),
    ("sudo", "sudo"),
    ("tc", "iproute2"),
    ("tcpdump", "tcpdump"),
];

/// Where a program is; `sbin` is looked at too, it is not in every user's PATH.
pub(crate) fn find(program: &str) -> Option<PathBuf> {
    let path = env::var_os("PATH").unwrap_or_default();
    let dirs = env::split_paths(&path).chain(["/usr/sbin".into(), "/sbin".into()]);
    dirs.map(|dir| dir.join(program)).find(|file| file.is_file())
}

/// The packages of those programs that are not here (all that are known if none are named).
pub(crate) fn missing(programs: &[&str]) -> Vec<&'static str> {
    let wanted = |name: &str| programs.is_empty() || programs.contains(&name);
    let absent = PROGRAMS.iter().filter(|(program, _)| wanted(program) && find(program).is_none());
    let mut packages: Vec<&str> = absent.map(|(_, package)| *package).collect();
    packages.sort_unstable();
    packages.dedup();
    packages
}

/// The command that installs them, for people.
pub(crate) fn install_command(packages: &[&str]) -> String {
    format!("sudo apt-get install --yes --no-install-recommends {}", packages.join(" "))
}

/// Is this a system whose packages are named as in [`PROGRAMS`]?
pub(crate) fn is_debian() -> bool {
    let release = fs::read_to_string("/etc/os-release").unwrap_or_default();
    let id = |line: &&str| line.starts_with("ID=") || line.starts_with("ID_LIKE=");
    release.lines().filter(id).any(|line| line.contains("debian") || line.contains("ubuntu"))
}

/// Installs packages, saying so first. A service that comes with them and was not there before is stopped.
pub(crate) fn install(packages: &[&str], privilege: Privilege) -> Result<()> {
    eprintln!("installing packages of the system: {}", packages.join(" "));
    let apt = |args: &[&str]| {
        let mut command = privilege.command("env");
        command
            .args(["DEBIAN_FRONTEND=noninteractive", "apt-get", "-o", "DPkg::Lock::Timeout=120"])
            .args(args);
        command
    };
    // Without a list of packages an install fails; with an old one it usually works.
    let _ = process::run(&mut apt(&["update", "--quiet=2"]));
    process::run(apt(&["install", "--yes", "--quiet=2", "--no-install-recommends"]).args(packages))?;
    if packages.contains(&"redis-server")
        && process::probe(Command::new("systemctl").arg("--version")).is_some()
    {
        eprintln!("stopping and disabling the service redis-server that the package started");
        let mut command = privilege.command("systemctl");
        let _ = process::run(command.args(["disable", "--now", "--quiet", "redis-server"]));
    }
    Ok(())
}
