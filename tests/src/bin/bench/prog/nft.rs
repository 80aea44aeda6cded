//! Mixed rules as nftables takes them.

use std::{fmt::Write as _, fs, process::Command, time::Duration};

use anyhow::{Context as _, Result, ensure};
use chaos_tests::{
    bench::rules::{Cgroups, Rule},
    lab::{cgroup, netns::Netns, process, unique_name},
    skip::find_tool,
};

const CHAIN: &str = "chain out { type filter hook output priority filter; policy accept;\n";

/// Why there is no nftables here, if so.
pub(super) fn missing() -> Option<String> {
    find_tool("nft").is_none().then(|| "no nft here; the package `nftables` has it".to_owned())
}

/// One rule a line, each with its counter, as most write it. Ports are those of UDP only, where ours mean TCP, too:
/// both would cost it a lookup more.
pub(super) fn list(rules: &[Rule], cgroups: &Cgroups) -> String {
    let mut text = format!("table inet bench {{\n{CHAIN}");
    for rule in rules {
        let _ = match rule {
            Rule::Peer(network, length) => writeln!(text, "ip daddr {network}/{length} counter"),
            Rule::Ports(first, last) => writeln!(text, "udp dport {first}-{last} counter"),
            Rule::Cgroup(number) => {
                writeln!(text, "socket cgroupv2 level 1 {} counter", quoted(cgroups, *number))
            }
        };
    }
    text + "}\n}\n"
}

/// Its best form: a set for each kind, each element with its counter. Single addresses have a hash of their own.
pub(super) fn sets(rules: &[Rule], cgroups: &Cgroups) -> String {
    let [mut hosts, mut networks, mut ports, mut groups] = [const { Vec::new() }; 4];
    for rule in rules {
        match rule {
            Rule::Peer(address, 32) => hosts.push(address.to_string()),
            Rule::Peer(network, length) => networks.push(format!("{network}/{length}")),
            Rule::Ports(first, last) => ports.push(format!("{first}-{last}")),
            Rule::Cgroup(number) => groups.push(quoted(cgroups, *number)),
        }
    }
    let (mut text, mut lookups) = ("table inet bench {\n".to_owned(), String::new());
    for (name, kind, lookup, elements) in [
        ("hosts", "ipv4_addr; ", "ip daddr", hosts),
        ("networks", "ipv4_addr; flags interval;", "ip daddr", networks),
        ("ports", "inet_service; flags interval;", "udp dport", ports),
        ("groups", "cgroupsv2;", "socket cgroupv2 level 1", groups),
    ] {
        if !elements.is_empty() {
            let elements = elements.join(", ");
            let _ = writeln!(text, "set {name} {{ type {kind} counter; elements = {{ {elements} }}\n}}");
            let _ = writeln!(lookups, "{lookup} @{name}");
        }
    }
    text + CHAIN + &lookups + "}\n}\n"
}

fn quoted(cgroups: &Cgroups, number: usize) -> String {
    format!("\"{}\"", cgroups.name(number).trim_start_matches('/'))
}

/// Puts it in force inside `netns`.
pub(super) fn load(netns: &Netns, text: &str) -> Result<()> {
    let path = std::env::temp_dir().join(unique_name() + ".nft");
    fs::write(&path, text).with_context(|| path.display().to_string())?;
    let loaded = nft(netns, &["--file", &path.to_string_lossy()]);
    fs::remove_file(&path)?;
    loaded.map(drop)
}

/// Runs nft inside `netns` and returns what it printed. Thousands of cgroups and ranges take it seconds.
fn nft(netns: &Netns, arguments: &[&str]) -> Result<String> {
    // It looks for cgroups there, also where version 2 is mounted elsewhere, beside version 1.
    let script = "mount --bind \"$0\" /sys/fs/cgroup && exec nft \"$@\"";
    let mut command = Command::new("unshare");
    command.args(["--mount", "sh", "-c", script]).arg(cgroup::mount()?).args(arguments);
    let output = process::output(netns.inside(command), Duration::from_mins(2))?;
    ensure!(output.status.success(), "nft: {}", String::from_utf8_lossy(&output.stderr));
    Ok(String::from_utf8_lossy(&output.stdout).into_owned())
}

/// Whether this kernel and this nft know the cgroup of a socket.
pub(super) fn knows_cgroups(netns: &Netns) -> Result<bool> {
    let cgroups = Cgroups::new(netns, 1)?;
    let text = sets(&[Rule::Cgroup(0)], &cgroups);
    let known = load(netns, &text).is_ok();
    if known {
        netns.run("nft delete table inet bench")?;
    }
    Ok(known)
}

/// What all its counters count together, in packets.
pub(super) fn counted(netns: &Netns) -> Result<u64> {
    let text = nft(netns, &["list", "table", "inet", "bench"])?;
    text.split("counter packets ")
        .skip(1)
        .map(|rest| {
            let word = rest.split(' ').next().unwrap_or_default();
            word.parse::<u64>().with_context(|| format!("counter packets {word}"))
        })
        .sum()
}
