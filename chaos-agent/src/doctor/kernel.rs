//! What the kernel can do for programs.

use std::{fs, path::Path};

use nix::errno::Errno;

use super::{
    Need, Outcome, Probe,
    bpf::{self, Instruction},
    mend,
    rights::{may_try, needs_privileges},
};

pub(super) const PROBES: &[Probe] = &[
    Probe { name: "kernel", need: Need::Basic, purpose: "everything", run: release },
    Probe { name: "bpf system call", need: Need::Basic, purpose: "everything", run: system_call },
    Probe { name: "bpf JIT", need: Need::Optional, purpose: "speed", run: jit },
    Probe { name: "bpf maps", need: Need::Basic, purpose: "rules, flows, events", run: maps },
    Probe { name: "bpf atomics", need: Need::Basic, purpose: "exact counters and limits", run: atomics },
    Probe { name: "bpf helpers", need: Need::Basic, purpose: "expiry, cgroups, redirects", run: helpers },
    Probe { name: "BTF", need: Need::Optional, purpose: "names in listings of programs", run: btf },
];

/// The oldest kernel with all the basics (atomics with a result, 5.12), and the oldest tested one.
const OLDEST: (u32, u32) = (5, 12);
const SUPPORTED: (u32, u32) = (6, 1);

/// Major and minor version of the running kernel.
pub(super) fn version() -> Option<(u32, u32)> {
    version_in(nix::sys::utsname::uname().ok()?.release().to_str()?)
}

fn version_in(release: &str) -> Option<(u32, u32)> {
    let mut numbers = release.split(|c: char| !c.is_ascii_digit());
    Some((numbers.next()?.parse().ok()?, numbers.next()?.parse().ok()?))
}

fn release() -> Outcome {
    let Ok(names) = nix::sys::utsname::uname() else { return Outcome::unknown("uname failed") };
    let release = names.release().to_string_lossy().into_owned();
    match version_in(&release) {
        None => Outcome::unknown(format!("the version of `{release}` cannot be read")),
        Some(found) if found < OLDEST => Outcome::missing(
            format!("{release} is older than 5.12"),
            mend::kernel_option("version 6.1 or newer"),
        ),
        Some(found) if found < SUPPORTED => Outcome::ok(format!("{release}, untested: 6.1 and newer are")),
        Some(_) => Outcome::ok(release),
    }
}

fn system_call() -> Outcome {
    if !may_try() {
        return needs_privileges();
    }
    match bpf::load_pass() {
        Ok(_) => Outcome::ok("a program loads"),
        Err(Errno::ENOSYS) => Outcome::missing("there is none", mend::kernel_option("CONFIG_BPF_SYSCALL")),
        Err(errno) => {
            let mend = "allow it: lockdown, a security module or a container's seccomp filter refuses; in \
                        docker: --security-opt seccomp=unconfined --cap-add BPF";
            Outcome::missing(format!("loading a program: {errno}"), mend)
        }
    }
}

fn jit() -> Outcome {
    match fs::read_to_string("/proc/sys/net/core/bpf_jit_enable").map(|text| text.trim().to_owned()) {
        Ok(value) if value == "0" => {
            Outcome::missing("off: programs are interpreted", "sudo sysctl -w net.core.bpf_jit_enable=1")
        }
        Ok(value) => Outcome::ok(format!("on ({value})")),
        // Shown in the machine's first network namespace only.
        Err(_) => Outcome::unknown("the setting is not visible from this network namespace"),
    }
}

fn maps() -> Outcome {
    // Key, value, entries and flags that each type demands: an LPM key is a length and an address and its map
    // is not preallocated (flag 1); a ring is a power of two of pages.
    const TYPES: [(&str, u32, [u32; 4]); 5] = [
        ("hash", 1, [4, 8, 1, 0]),
        ("array", 2, [4, 8, 1, 0]),
        ("LRU hash", 9, [4, 8, 1, 0]),
        ("LPM trie", 11, [8, 8, 1, 1]),
        ("ring buffer", 27, [0, 0, 65_536, 0]),
    ];
    if !may_try() {
        return needs_privileges();
    }
    for (name, kind, [key, value, entries, flags]) in TYPES {
        if let Err(errno) = bpf::create_map(kind, key, value, entries, flags) {
            return Outcome::missing(format!("{name}: {errno}"), mend::kernel_option("version 5.8 or newer"));
        }
    }
    Outcome::ok("hash, array, LRU, LPM trie, ring buffer")
}

fn atomics() -> Outcome {
    if !may_try() {
        return needs_privileges();
    }
    let program = [
        Instruction::set(1, 1),
        Instruction::clear_stack(),
        Instruction::fetch_add(),
        Instruction::set(0, -1),
        Instruction::exit(),
    ];
    match bpf::load_classifier(&program) {
        Ok(_) => Outcome::ok("with result"),
        Err(errno) => Outcome::missing(
            format!("add with result: {errno}"),
            mend::kernel_option("version 5.12 or newer"),
        ),
    }
}

fn helpers() -> Outcome {
    // Name, number, and a second argument; the first is the packet, or a device index for redirects.
    const HELPERS: [(&str, i32, Option<i32>, i32); 4] = [
        ("bpf_ktime_get_boot_ns", 125, None, 0),
        ("bpf_skb_ancestor_cgroup_id", 83, None, 1),
        ("bpf_redirect_neigh", 152, Some(1), 0),
        ("bpf_redirect_peer", 155, Some(1), 0),
    ];
    if !may_try() {
        return needs_privileges();
    }
    for (name, number, first, second) in HELPERS {
        let mut program: Vec<Instruction> =
            first.map(|value| Instruction::set(1, value)).into_iter().collect();
        program.push(Instruction::set(2, second));
        // redirect_neigh takes four: device, parameters, their size, flags.
        program.extend([Instruction::set(3, 0), Instruction::set(4, 0), Instruction::call(number)]);
        program.extend([Instruction::set(0, -1), Instruction::exit()]);
        if let Err(errno) = bpf::load_classifier(&program) {
            return Outcome::missing(
                format!("{name}: {errno}"),
                mend::kernel_option("version 5.10 or newer"),
            );
        }
    }
    Outcome::ok("boot clock, cgroup, neighbour and peer redirect")
}

fn btf() -> Outcome {
    if Path::new("/sys/kernel/btf/vmlinux").exists() {
        return Outcome::ok("/sys/kernel/btf/vmlinux");
    }
    Outcome::missing("no /sys/kernel/btf/vmlinux", mend::kernel_option("CONFIG_DEBUG_INFO_BTF"))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn releases_of_all_kinds_are_read() {
        assert_eq!(version_in("6.18.44-fc-v657"), Some((6, 18)));
        assert_eq!(version_in("5.14.0-427.el9.x86_64"), Some((5, 14)));
        assert_eq!(version_in("7.0-rc1"), Some((7, 0)));
        assert_eq!(version_in("unknown"), None);
    }
}
