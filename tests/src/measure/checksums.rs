//! Whether checksums are right: by the counters of the kernel that received, and by tcpdump as an outsider.

use std::{collections::BTreeMap, fs, process::Command, time::Duration};

use anyhow::{Context, Result, ensure};
use nix::sys::signal::Signal;
use tempfile::NamedTempFile;

use crate::lab::{
    netns::Netns,
    process::{self, Process, wait_until},
};

/// Counters of a namespace by name, such as `Tcp.InCsumErrors` or `Udp6InCsumErrors`.
pub type Counters = BTreeMap<String, u64>;

/// Reads `/proc/net/snmp`, `/proc/net/netstat` and `/proc/net/snmp6` of a namespace.
///
/// # Errors
/// When it cannot be entered.
pub fn counters(netns: &Netns) -> Result<Counters> {
    netns.enter(|| {
        let read = |name: &str| fs::read_to_string(format!("/proc/thread-self/net/{name}"));
        let mut counters = pairs(&read("snmp")?);
        counters.extend(pairs(&read("netstat")?));
        // Without IPv6 there is no such file.
        let six = read("snmp6").unwrap_or_default();
        counters.extend(six.lines().filter_map(|line| {
            let (name, value) = line.split_once(char::is_whitespace)?;
            Some((name.to_owned(), value.trim().parse().ok()?))
        }));
        Ok(counters)
    })?
}

/// Lines come in pairs: `Tcp: A B` with the names and `Tcp: 1 2` with the values.
fn pairs(text: &str) -> Counters {
    let mut counters = Counters::new();
    let lines: Vec<&str> = text.lines().collect();
    for pair in lines.chunks_exact(2) {
        let (mut names, mut values) = (pair[0].split_whitespace(), pair[1].split_whitespace());
        let group = names.next().unwrap_or_default().trim_end_matches(':');
        values.next();
        for (name, value) in names.zip(values) {
            // Tcp.MaxConn is -1.
            counters.insert(format!("{group}.{name}"), value.parse().unwrap_or(0));
        }
    }
    counters
}

/// The checksum errors among the counters, all protocols together.
#[must_use]
pub fn errors(counters: &Counters) -> u64 {
    let is_error = |name: &str| name.ends_with("CsumErrors");
    counters.iter().filter(|(name, _)| is_error(name)).map(|(_, value)| value).sum()
}

/// The checksum errors that namespaces counted since this was made.
#[derive(Debug)]
pub struct Since(Vec<u64>);

impl Since {
    /// Notes where the counters are.
    ///
    /// # Errors
    /// When a namespace cannot be entered.
    pub fn now(namespaces: &[&Netns]) -> Result<Self> {
        namespaces.iter().map(|netns| Ok(errors(&counters(netns)?))).collect::<Result<_>>().map(Self)
    }

    /// How many there were since, in the same namespaces, all together.
    ///
    /// # Errors
    /// When a namespace cannot be entered.
    pub fn errors(&self, namespaces: &[&Netns]) -> Result<u64> {
        let now = Self::now(namespaces)?;
        Ok(now.0.iter().zip(&self.0).map(|(now, before)| now - before).sum())
    }
}

/// Makes both devices of a pair fill in every checksum before a packet leaves, so that tcpdump can judge it.
///
/// # Errors
/// Without `ethtool`.
pub fn fill_in(ends: [(&Netns, &str); 2]) -> Result<()> {
    for (netns, device) in ends {
        netns.run(&format!("ethtool -K {device} tx off"))?;
    }
    Ok(())
}

/// A running tcpdump.
#[derive(Debug)]
pub struct Judge {
    tcpdump: Process,
    file: NamedTempFile,
}

/// What tcpdump said of the packets it saw.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Judgement {
    /// Packets.
    pub packets: u64,
    /// Checksums it looked at.
    pub looked_at: u64,
    /// The packets it found wrong, as it printed them.
    pub wrong: Vec<String>,
}

impl Judge {
    /// Starts to record what passes `device`; `filter` is tcpdump's.
    ///
    /// # Errors
    /// Without `tcpdump`.
    pub fn start(netns: &Netns, device: &str, filter: &str) -> Result<Self> {
        let file = NamedTempFile::new().context("a file for packets")?;
        let mut command = netns.command(&format!("tcpdump -i {device} -U --immediate-mode -s 0 -Z root -w"));
        command.arg(file.path()).args(filter.split_whitespace());
        command.stderr(std::process::Stdio::null());
        let tcpdump = Process::start(command)?;
        // The header of the file is written once the capture runs.
        let begun = || file.as_file().metadata().is_ok_and(|metadata| metadata.len() >= 24);
        wait_until("the start of tcpdump", Duration::from_secs(5), begun)?;
        Ok(Self { tcpdump, file })
    }

    /// Ends it and has every packet judged.
    ///
    /// # Errors
    /// When tcpdump fails, or saw no packet.
    pub fn finish(mut self) -> Result<Judgement> {
        std::thread::sleep(Duration::from_millis(50));
        self.tcpdump.signal(Signal::SIGINT)?;
        self.tcpdump.wait(Duration::from_secs(5))?;
        let mut read = Command::new("tcpdump");
        read.args(["-nn", "-vv", "-r"]).arg(self.file.path());
        let judgement = judge(&process::run(read)?);
        ensure!(judgement.packets > 0, "tcpdump saw no packet");
        Ok(judgement)
    }
}

/// Reads what `tcpdump -vv` prints: a packet begins in the first column, what belongs to it is indented.
fn judge(text: &str) -> Judgement {
    let mut judgement = Judgement::default();
    let mut packet = String::new();
    for line in text.lines().chain(["."]) {
        if !line.starts_with(char::is_whitespace) {
            let wrong = ["(incorrect", "[bad ", "bad cksum", "wrong icmp"];
            if wrong.iter().any(|word| packet.contains(word)) {
                judgement.wrong.push(packet.clone());
            }
            judgement.packets += u64::from(!packet.is_empty());
            judgement.looked_at += packet.matches("cksum").count() as u64;
            packet.clear();
        }
        packet.push_str(line.trim());
        packet.push(' ');
    }
    judgement
}

#[cfg(test)]
mod tests {
    use super::{Judge, Since, fill_in, judge, pairs};
    use crate::lab::shapes::{B4, B6, Pair};

    #[test]
    fn counters_are_read_in_pairs() {
        let counters = pairs("Tcp: MaxConn InCsumErrors\nTcp: -1 3\nUdp: InCsumErrors\nUdp: 4\n");
        assert_eq!((counters["Tcp.MaxConn"], counters["Tcp.InCsumErrors"]), (0, 3));
        assert_eq!(super::errors(&counters), 7);
    }

    #[test]
    fn wrong_checksums_are_told_from_right_ones() {
        let text = "10:00:00.1 IP (tos 0x0, proto TCP (6), length 52)\n    10.0.0.1.1 > 10.0.0.2.2: Flags [.], \
                    cksum 0x1234 (correct), ack 1\n10:00:00.2 IP (proto UDP (17), length 30)\n    \
                    10.0.0.1.1 > 10.0.0.2.2: [bad udp cksum 0x1 -> 0x2!] UDP, length 2\n10:00:00.3 IP (bad cksum 0 \
                    (->1)!)\n    10.0.0.1 > 10.0.0.2: ICMP echo request, id 1, seq 1, length 64 (wrong icmp cksum 1)\n";
        let judgement = judge(text);
        assert_eq!((judgement.packets, judgement.wrong.len()), (3, 2), "{judgement:?}");
    }

    #[test]
    fn tcpdump_and_the_kernel_find_plain_traffic_right() {
        crate::require_root!();
        crate::require_tools!("tcpdump", "ethtool", "ping");
        let pair = Pair::new().unwrap();
        fill_in([(&pair.a, "va"), (&pair.b, "vb")]).unwrap();
        let since = Since::now(&[&pair.a, &pair.b]).unwrap();
        let tcpdump = Judge::start(&pair.b, "vb", "ip or ip6").unwrap();
        for to in [B4.to_string(), B6.to_string()] {
            pair.a.run(&format!("ping -c 5 -i 0.01 -W 2 -q {to}")).unwrap();
        }
        let judgement = tcpdump.finish().unwrap();
        assert!(judgement.packets >= 20 && judgement.wrong.is_empty(), "{judgement:#?}");
        assert_eq!(since.errors(&[&pair.a, &pair.b]).unwrap(), 0);
    }
}
