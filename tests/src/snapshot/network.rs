//! Links, qdiscs, filters, addresses, routes, firewall, offloads and sysctls of one namespace.

use std::{
    fs,
    io::Write,
    path::Path,
    process::{Command, Stdio},
};

use anyhow::{Context, Result};
use serde_json::Value;

use crate::{
    lab::{
        netns::{Netns, words},
        process,
    },
    skip::find_tool,
};

/// A namespace: none is the one we are in.
pub(super) type Place<'a> = Option<&'a Netns>;

/// Our own namespace and the given ones, with names for the section titles.
pub(super) fn places<'a>(namespaces: &[&'a Netns]) -> Vec<(&'a str, Place<'a>)> {
    let named = namespaces.iter().map(|netns| (netns.name(), Some(*netns)));
    std::iter::once(("here", None)).chain(named).collect()
}

fn command(place: Place<'_>, line: &str) -> Command {
    place.map_or_else(|| words(line), |netns| netns.command(line))
}

fn lines_of(place: Place<'_>, line: &str) -> Result<Vec<String>> {
    Ok(process::run(command(place, line))?.lines().map(str::to_owned).collect())
}

/// Every link with all that describes it, as one line each.
pub(super) fn links(place: Place<'_>) -> Result<Vec<String>> {
    let text = process::run(command(place, "ip -j -d link show"))?;
    let Value::Array(mut links) = serde_json::from_str(&text).context("what `ip -j link` printed")? else {
        return Ok(Vec::new());
    };
    links.iter_mut().for_each(drop_volatile);
    Ok(links.iter().map(Value::to_string).collect())
}

/// Removes what changes by itself: counters, the timers of bridges and their ports, and whether a device has a
/// carrier, which the kernel looks at up to a second after its peer came up.
fn drop_volatile(value: &mut Value) {
    match value {
        Value::Object(map) => {
            map.retain(|key, _| {
                !key.starts_with("stats")
                    && !key.ends_with("_timer")
                    && key != "fdb_n_learned"
                    && key != "operstate"
            });
            map.values_mut().for_each(drop_volatile);
        }
        Value::Array(list) => {
            list.retain(|value| value != "LOWER_UP" && value != "NO-CARRIER");
            list.iter_mut().for_each(drop_volatile);
        }
        Value::Null | Value::Bool(_) | Value::Number(_) | Value::String(_) => {}
    }
}

/// The settings of a namespace, section by section.
pub(super) fn settings(place: Place<'_>) -> Result<Vec<(&'static str, Vec<String>)>> {
    let mut sections = vec![
        ("qdiscs", lines_of(place, "tc qdisc show")?),
        ("filters", filters(place)?),
        ("addresses", addresses(place)?),
        ("routes", [lines_of(place, "ip route show")?, lines_of(place, "ip rule show")?].concat()),
        ("sysctls", sysctls(place)?),
    ];
    if find_tool("nft").is_some() {
        sections.push(("firewall", numbered(lines_of(place, "nft -s list ruleset")?)));
    }
    if find_tool("iptables-save").is_some() {
        let rules = lines_of(place, "iptables-save")?;
        let lasting = rules.into_iter().filter(|line| !line.starts_with(['#', ':'])).collect();
        sections.push(("iptables", lasting));
    }
    if find_tool("ethtool").is_some() {
        sections.push(("offloads", features(place)?));
    }
    Ok(sections)
}

/// Addresses without their lifetimes, which count down, and whether one is still being probed.
fn addresses(place: Place<'_>) -> Result<Vec<String>> {
    let strip = |line: String| line.split("valid_lft").next().unwrap_or_default().replace(" tentative", "");
    Ok(lines_of(place, "ip -o addr show")?.into_iter().map(strip).collect())
}

/// A set of lines forgets how often one occurs; the number keeps it.
fn numbered(lines: Vec<String>) -> Vec<String> {
    lines.into_iter().enumerate().map(|(number, line)| format!("{number}: {line}")).collect()
}

fn link_names(place: Place<'_>) -> Result<Vec<String>> {
    let name = |line: String| {
        let name = line.split(": ").nth(1)?;
        Some(name.split('@').next().unwrap_or(name).to_owned())
    };
    Ok(lines_of(place, "ip -o link show")?.into_iter().filter_map(name).collect())
}

/// tc filters of every link, both directions, in one call of `tc`.
fn filters(place: Place<'_>) -> Result<Vec<String>> {
    let show = |name: &String| {
        ["ingress", "egress"].map(|direction| format!("filter show dev {name} {direction}\n")).concat()
    };
    let batch: String = link_names(place)?.iter().map(show).collect();
    let mut tc = command(place, "tc -force -b -");
    tc.stdin(Stdio::piped()).stdout(Stdio::piped()).stderr(Stdio::null());
    let mut child = tc.spawn().context("starting tc")?;
    if let Some(mut stdin) = child.stdin.take() {
        stdin.write_all(batch.as_bytes())?;
    }
    let text = child.wait_with_output()?.stdout;
    Ok(String::from_utf8_lossy(&text).lines().map(str::to_owned).collect())
}

/// Offload features of every link, each line with the link's name.
fn features(place: Place<'_>) -> Result<Vec<String>> {
    let mut link = String::new();
    let mut lines = Vec::new();
    for line in lines_of(place, "ethtool -k *")? {
        if let Some(name) = line.strip_prefix("Features for ") {
            name.clone_into(&mut link);
        } else if !line.is_empty() {
            lines.push(format!("{link} {}", line.trim()));
        }
    }
    Ok(lines)
}

/// Everything readable under `/proc/sys/net`; the kernel shows each reader its own namespace.
fn sysctls(place: Place<'_>) -> Result<Vec<String>> {
    let walk = || {
        let mut lines = Vec::new();
        read_tree(Path::new("/proc/sys/net"), &mut lines);
        lines
    };
    match place {
        None => Ok(walk()),
        Some(netns) => netns.enter(walk),
    }
}

fn read_tree(directory: &Path, lines: &mut Vec<String>) {
    for entry in fs::read_dir(directory).into_iter().flatten().flatten() {
        let path = entry.path();
        if entry.file_type().is_ok_and(|kind| kind.is_dir()) {
            read_tree(&path, lines);
        } else if !path.ends_with("nf_conntrack_count")
            && let Ok(value) = fs::read_to_string(&path)
        {
            lines.push(format!("{} = {}", path.display(), value.trim()));
        }
    }
}
