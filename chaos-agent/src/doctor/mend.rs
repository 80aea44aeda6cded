//! The commands that mend what is missing, by distribution.

use std::fs;

/// Families of distributions that name their packages alike.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Family {
    Debian,
    Ubuntu,
    Fedora,
    Suse,
    Arch,
    Alpine,
    Other,
}

/// For what lies in a kernel module.
pub(crate) fn module(name: &str) -> String {
    let load = format!("sudo modprobe {name}");
    match more_modules(family()) {
        Some(install) => format!("{load}; if there is no such module: {install}"),
        None => format!("{load}; if there is no such module, install your distribution's full kernel"),
    }
}

/// For what is part of the kernel or not there at all.
pub(crate) fn kernel_option(option: &str) -> String {
    let install = match family() {
        Family::Debian => "sudo apt install linux-image-$(dpkg --print-architecture)",
        Family::Ubuntu => "sudo apt install linux-image-generic",
        Family::Fedora => "sudo dnf upgrade kernel",
        Family::Suse => "sudo zypper install kernel-default",
        Family::Arch => "sudo pacman -S linux",
        Family::Alpine => "sudo apk add linux-lts",
        Family::Other => "install your distribution's standard kernel",
    };
    format!("boot a kernel with {option}: {install}, then reboot")
}

/// For a capability.
pub(super) fn privileges() -> String {
    "run it with sudo; in a container: docker run --cap-add SYS_ADMIN --cap-add NET_ADMIN --cap-add BPF \
     --security-opt seccomp=unconfined --pid host --cgroupns host"
        .to_owned()
}

fn more_modules(family: Family) -> Option<&'static str> {
    match family {
        Family::Debian => Some("sudo apt install linux-image-$(dpkg --print-architecture), then reboot"),
        Family::Ubuntu => Some("sudo apt install linux-modules-extra-$(uname -r)"),
        Family::Fedora => Some("sudo dnf install kernel-modules-extra-$(uname -r)"),
        Family::Suse => Some("sudo zypper install kernel-default, then reboot"),
        Family::Arch => Some("sudo pacman -S linux, then reboot"),
        Family::Alpine => Some("sudo apk add linux-lts, then reboot"),
        Family::Other => None,
    }
}

fn family() -> Family {
    let text =
        ["/etc/os-release", "/usr/lib/os-release"].iter().find_map(|file| fs::read_to_string(file).ok());
    text.map_or(Family::Other, |text| family_in(&text))
}

/// From os-release(5): `ID`, then `ID_LIKE` from near to far.
fn family_in(os_release: &str) -> Family {
    let value = |key: &str| {
        let line = os_release.lines().find_map(|line| line.strip_prefix(key)?.strip_prefix('='));
        line.unwrap_or_default().trim_matches(['"', '\'']).to_owned()
    };
    let names = format!("{} {}", value("ID"), value("ID_LIKE"));
    names
        .split_whitespace()
        .map(|name| match name {
            "debian" => Family::Debian,
            "ubuntu" => Family::Ubuntu,
            "fedora" | "rhel" | "centos" => Family::Fedora,
            "suse" | "opensuse" => Family::Suse,
            "arch" => Family::Arch,
            "alpine" => Family::Alpine,
            _ => Family::Other,
        })
        .find(|family| *family != Family::Other)
        .unwrap_or(Family::Other)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_nearest_relative_counts() {
        assert_eq!(family_in("NAME=\"Debian\"\nID=debian\n"), Family::Debian);
        assert_eq!(family_in("ID=linuxmint\nID_LIKE=\"ubuntu debian\"\n"), Family::Ubuntu);
        assert_eq!(family_in("ID=\"rocky\"\nID_LIKE=\"rhel centos fedora\"\n"), Family::Fedora);
        assert_eq!(family_in("ID=opensuse-leap\nID_LIKE=\"suse opensuse\"\n"), Family::Suse);
        assert_eq!(family_in("ID=nixos\n"), Family::Other);
        assert_eq!(family_in(""), Family::Other);
    }
}
