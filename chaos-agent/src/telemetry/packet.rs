//! A record of the kernel in words.

use std::{
    collections::{BTreeMap, HashMap, VecDeque},
    net::{IpAddr, Ipv6Addr},
    sync::{Arc, Mutex, PoisonError},
    time::{Duration, SystemTime},
};

use chaos_common::{
    abi::{Count, Direction, Record},
    fault::FAULTS,
    packet::Addr,
};
use nix::time::{ClockId, clock_gettime};
use serde::Serialize;

/// Armings that are remembered: a rule that is gone may still have records in the ring.
const ARMINGS: usize = 1024;

/// Which fault a slot belonged to when, and what interfaces are called. One writes, the reader's thread reads.
#[derive(Clone, Debug, Default)]
pub struct Names(Arc<Mutex<Known>>);

#[derive(Debug, Default)]
struct Known {
    faults: BTreeMap<(u32, u64), u64>,
    order: VecDeque<(u32, u64)>,
    interfaces: HashMap<(u64, u32), String>,
}

impl Names {
    /// The rule in `slot` that was armed at `armed_ns` is of this fault.
    pub fn armed(&self, slot: u32, armed_ns: u64, fault: u64) {
        let mut known = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        if known.faults.insert((slot, armed_ns), fault).is_none() {
            known.order.push_back((slot, armed_ns));
            if known.order.len() > ARMINGS
                && let Some(oldest) = known.order.pop_front()
            {
                known.faults.remove(&oldest);
            }
        }
    }

    /// The interfaces by namespace cookie and index.
    pub fn interfaces(&self, names: HashMap<(u64, u32), String>) {
        self.0.lock().unwrap_or_else(PoisonError::into_inner).interfaces = names;
    }

    /// The fault of a record; none = not known (yet).
    #[must_use]
    pub fn fault(&self, record: &Record) -> Option<u64> {
        let known = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        known.faults.get(&(record.slot, record.armed_ns)).copied()
    }

    fn interface(&self, record: &Record) -> Option<String> {
        let known = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        known.interfaces.get(&(record.netns, record.ifindex)).cloned()
    }
}

/// One packet that a fault affected, or one call of connect(2). What is not known is left out.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct Packet {
    /// When the kernel judged it, RFC 3339, microseconds.
    pub time: String,
    /// The fault's number.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub fault: Option<u64>,
    /// Which of its faults wanted it.
    pub faults: Vec<&'static str>,
    /// What happened, by the names of the counters.
    pub verdicts: Vec<&'static str>,
    /// What the fault adds to its way, microseconds.
    pub delay_us: u64,
    /// `egress` or `ingress`.
    pub direction: &'static str,
    /// `tcp`, `udp`, `icmp`, `icmpv6`, or the number of the protocol.
    pub protocol: String,
    /// Where it comes from.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub source: Option<IpAddr>,
    /// Port, or echo identifier.
    #[serde(skip_serializing_if = "is_zero")]
    pub source_port: u16,
    /// Where it goes.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub destination: Option<IpAddr>,
    /// Port, or echo identifier.
    #[serde(skip_serializing_if = "is_zero")]
    pub destination_port: u16,
    /// Wire packets in it.
    pub packets: u32,
    /// Bytes of their frames, from the MAC header on.
    pub bytes: u64,
    /// The interface.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub interface: Option<String>,
    /// Inode of the cgroup that owns the local end.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub cgroup: Option<u64>,
    /// The process that called connect(2).
    #[serde(skip_serializing_if = "Option::is_none")]
    pub pid: Option<u32>,
    /// Its name.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub command: Option<String>,
}

#[expect(clippy::trivially_copy_pass_by_ref, reason = "serde passes references")]
const fn is_zero(port: &u16) -> bool {
    *port == 0
}

impl Packet {
    /// The record in words.
    #[must_use]
    pub fn of(record: &Record, names: &Names) -> Self {
        let verdicts = Count::ALL.iter().filter(|count| record.verdicts & count.bit() != 0);
        let kinds = FAULTS.iter().enumerate();
        let kinds = kinds.filter(|(at, _)| record.kinds & 1u32.wrapping_shl(*at as u32 + 1) != 0);
        let is_known = |addr: &Addr| *addr != [0; 4];
        let command = record.command.split(|byte| *byte == 0).next().unwrap_or_default();
        Self {
            time: humantime::format_rfc3339_micros(wall(record.time_ns)).to_string(),
            fault: names.fault(record),
            faults: kinds.map(|(_, info)| info.name).collect(),
            verdicts: verdicts.map(|count| count.label()).collect(),
            delay_us: record.delay_ns / 1_000,
            direction: if record.direction == Direction::Egress as u32 { "egress" } else { "ingress" },
            protocol: protocol(record.proto),
            source: is_known(&record.source).then(|| address(&record.source)),
            source_port: record.source_port,
            destination: is_known(&record.destination).then(|| address(&record.destination)),
            destination_port: record.destination_port,
            packets: record.segments,
            bytes: record.bytes,
            interface: names.interface(record),
            cgroup: (record.cgroup != 0).then_some(record.cgroup),
            pid: (record.pid != 0).then_some(record.pid),
            command: (record.pid != 0).then(|| String::from_utf8_lossy(command).into_owned()),
        }
    }

    /// One line for people: `dropped udp 10.0.0.1:40000 > 10.0.0.2:7, 98 bytes, egress, eth0`.
    #[must_use]
    pub fn line(&self) -> String {
        let end = |addr: Option<IpAddr>, port: u16| match (addr, port) {
            (Some(addr), 0) => addr.to_string(),
            (Some(addr), port) => std::net::SocketAddr::new(addr, port).to_string(),
            (None, _) => "?".to_owned(),
        };
        let (from, to) = (end(self.source, self.source_port), end(self.destination, self.destination_port));
        let (verdicts, protocol) = (self.verdicts.join("+"), &self.protocol);
        let mut parts = vec![format!("{verdicts} {protocol} {from} > {to}")];
        if self.delay_us > 0 {
            parts.push(format!("by {:?}", Duration::from_micros(self.delay_us)));
        }
        parts.push(format!("{} bytes", self.bytes));
        parts.push(self.direction.to_owned());
        parts.extend([&self.interface, &self.command].into_iter().flatten().cloned());
        parts.join(", ")
    }
}

fn protocol(number: u32) -> String {
    match number {
        1 => "icmp".to_owned(),
        6 => "tcp".to_owned(),
        17 => "udp".to_owned(),
        58 => "icmpv6".to_owned(),
        other => other.to_string(),
    }
}

fn address(addr: &Addr) -> IpAddr {
    let [a, b, c, d] = *addr;
    let bytes: Vec<u8> = [a, b, c, d].iter().flat_map(|word| word.to_ne_bytes()).collect();
    let bytes: [u8; 16] = bytes.try_into().unwrap_or_default();
    Ipv6Addr::from(bytes).to_canonical()
}

/// The boot clock as time of day; a machine that slept meanwhile counts.
fn wall(boot_ns: u64) -> SystemTime {
    let now = clock_gettime(ClockId::CLOCK_BOOTTIME).map_or(Duration::ZERO, Duration::from);
    SystemTime::now() - now.saturating_sub(Duration::from_nanos(boot_ns))
}
