//! Which metrics there are. Names and units as Prometheus wants them; what is counted for a rule comes from the
//! list in `chaos_common::abi`.

use std::{
    collections::BTreeMap,
    time::{Duration, SystemTime},
};

use chaos_common::abi::{Count, DELAY_ENDS_NS, Direction};

use super::{
    exposition::{Family, Page, number},
    ledger::Series,
};
use crate::{
    engine::{Counters, RuleStats},
    lines::{LATENESS_NS, LineStats},
};

/// A fault that is held and has series of its own.
#[derive(Clone, Debug)]
pub(crate) struct Place {
    /// Its number.
    pub(crate) fault: u64,
    /// What the user calls it.
    pub(crate) name: String,
    /// Its faults in words.
    pub(crate) what: String,
    /// Its targets in words.
    pub(crate) target: String,
    /// When it was armed.
    pub(crate) started: SystemTime,
    /// How long it still lasts.
    pub(crate) remaining: Duration,
    /// How long its lease still runs; none = it has none.
    pub(crate) lease: Option<Duration>,
    /// It matched nothing for longer than it should have.
    pub(crate) is_unmatched: bool,
}

/// Everything that is shown, at one moment.
#[derive(Clone, Debug, Default)]
pub(crate) struct Observed {
    /// Held faults that have series of their own.
    pub(crate) places: Vec<Place>,
    /// Counters of these, of the last that ended, and of all others together.
    pub(crate) series: Vec<Series>,
    /// Faults that are held.
    pub(crate) active: usize,
    /// Of these, faults that matched nothing for longer than they should have.
    pub(crate) unmatched: usize,
    /// Rules in the kernel.
    pub(crate) rules: usize,
    /// Different targets of the faults that are held.
    pub(crate) targets: usize,
    /// Namespaces that have a delay line.
    pub(crate) lines: usize,
    /// What all delay lines counted.
    pub(crate) line: LineStats,
    /// Faults that were held since the agent was started.
    pub(crate) started: u64,
    /// Faults that ended, by reason.
    pub(crate) ended: Vec<(&'static str, u64)>,
    /// Things that could not be done.
    pub(crate) errors: u64,
    /// When the last of them happened.
    pub(crate) last_error: Option<SystemTime>,
    /// The safety lever is pulled.
    pub(crate) is_stopped: bool,
    /// Events by kind.
    pub(crate) events: BTreeMap<String, u64>,
    /// Records of packets that could not be handed over.
    pub(crate) records_lost: u64,
}

/// The page.
pub(crate) fn text(seen: &Observed) -> String {
    let mut page = Page::default();
    agent(&mut page, seen);
    places(&mut page, seen);
    counters(&mut page, seen);
    line(&mut page, seen);
    page.text()
}

fn agent(page: &mut Page, seen: &Observed) {
    let mut build = Family::gauges("chaos_build_info", "The agent's version; always 1.");
    let abi = chaos_common::abi::ABI_VERSION.to_string();
    build.gauge(&[("version", env!("CARGO_PKG_VERSION")), ("abi", &abi)], 1.0);
    page.add(build);
    page.gauge("chaos_faults", "Faults that are held.", count(seen.active));
    page.gauge(
        "chaos_faults_unmatched",
        "Faults that are armed and matched nothing for longer than they should have.",
        count(seen.unmatched),
    );
    page.counter("chaos_faults_started_total", "Faults that were armed.", seen.started);
    let mut ended = Family::counters("chaos_faults_ended_total", "Faults that ended, by reason.");
    for (reason, times) in &seen.ended {
        ended.counter(&[("reason", reason)], *times);
    }
    page.add(ended);
    page.gauge("chaos_rules", "Rules in the kernel.", count(seen.rules));
    page.gauge("chaos_targets", "Different targets of the faults that are held.", count(seen.targets));
    page.gauge(
        "chaos_stopped",
        "1 while the safety lever is pulled and new faults are refused.",
        f64::from(u8::from(seen.is_stopped)),
    );
    page.counter("chaos_errors_total", "Things that the agent could not do.", seen.errors);
    if let Some(when) = seen.last_error {
        page.gauge(
            "chaos_last_error_timestamp_seconds",
            "When something could not be done last; /v1/status says what.",
            since_epoch(when),
        );
    }
    let mut events = Family::counters("chaos_events_total", "Events that were published, by kind.");
    for (kind, times) in &seen.events {
        events.counter(&[("kind", kind)], *times);
    }
    page.add(events);
    page.counter(
        "chaos_events_lost_total",
        "Records of packets that found no room in the ring buffer. Counters lose nothing.",
        seen.records_lost,
    );
}

fn places(page: &mut Page, seen: &Observed) {
    let mut info = Family::gauges("chaos_fault_info", "What a held fault is; always 1.");
    let mut started = Family::gauges("chaos_fault_start_timestamp_seconds", "When a held fault was armed.");
    let mut remaining = Family::gauges("chaos_fault_remaining_seconds", "How long a held fault still lasts.");
    let mut lease = Family::gauges(
        "chaos_fault_lease_remaining_seconds",
        "How long the lease of a held fault still runs, if it has one.",
    );
    let mut unmatched = Family::gauges(
        "chaos_fault_unmatched",
        "1 = a held fault matched nothing for longer than it should have.",
    );
    for place in &seen.places {
        let fault = place.fault.to_string();
        let fault = ("fault", fault.as_str());
        info.gauge(&[fault, ("name", &place.name), ("target", &place.target), ("what", &place.what)], 1.0);
        started.gauge(&[fault], since_epoch(place.started));
        remaining.gauge(&[fault], place.remaining.as_secs_f64());
        if let Some(left) = place.lease {
            lease.gauge(&[fault], left.as_secs_f64());
        }
        unmatched.gauge(&[fault], f64::from(u8::from(place.is_unmatched)));
    }
    for family in [info, started, remaining, lease, unmatched] {
        page.add(family);
    }
}

fn counters(page: &mut Page, seen: &Observed) {
    let mut matched_packets = Family::counters(
        "chaos_fault_matched_packets_total",
        "Wire packets that a fault's rules matched, whatever happened to them then.",
    );
    let mut matched_bytes =
        Family::counters("chaos_fault_matched_bytes_total", "Bytes of their frames, from the MAC header on.");
    let mut packets = Family::counters(
        "chaos_fault_packets_total",
        "Wire packets by what a fault did to them, or why it did nothing. One packet may count for several.",
    );
    let mut delays = Family::histograms(
        "chaos_fault_delay_seconds",
        "How long a fault made wire packets wait, as its rules asked for; what the line adds is its lateness.",
    );
    let mut bytes = Family::counters("chaos_fault_bytes_total", "Bytes of their frames likewise.");
    for Series { fault, stats } in &seen.series {
        for (direction, counters) in ways(stats) {
            let labels = [("fault", fault.as_str()), ("direction", direction)];
            let waited = counters.delays;
            delays.histogram(&labels, &DELAY_ENDS_NS, &waited.classes, waited.sum_ns);
            for count in Count::ALL {
                let tally = counters.of(*count);
                if *count == Count::Matched {
                    matched_packets.counter(&labels, tally.packets);
                    matched_bytes.counter(&labels, tally.bytes);
                } else {
                    let [fault, direction] = labels;
                    let labels = [fault, direction, ("verdict", count.label())];
                    packets.counter(&labels, tally.packets);
                    bytes.counter(&labels, tally.bytes);
                }
            }
        }
    }
    for family in [matched_packets, matched_bytes, packets, bytes, delays] {
        page.add(family);
    }
}

/// Both directions by name.
fn ways(stats: &RuleStats) -> [(&'static str, &Counters); 2] {
    const { assert!(Direction::Egress as u32 == 0, "the order of the names") };
    [("egress", &stats.egress), ("ingress", &stats.ingress)]
}

fn line(page: &mut Page, seen: &Observed) {
    let line = &seen.line;
    page.gauge("chaos_lines", "Namespaces that have a delay line.", count(seen.lines));
    page.gauge("chaos_line_held_frames", "Frames that wait in delay lines now.", number(line.held_frames));
    page.gauge("chaos_line_held_bytes", "Bytes they take, bookkeeping included.", number(line.held_bytes));
    page.counter("chaos_line_read_frames_total", "Frames that delay lines took.", line.read);
    page.counter("chaos_line_written_frames_total", "Frames that they gave back.", line.written);
    let mut dropped =
        Family::counters("chaos_line_dropped_frames_total", "Frames that delay lines lost, by reason.");
    for (reason, frames) in [
        ("late", line.late),
        ("overflow", line.overflow),
        ("write_error", line.write_errors),
        ("unread", line.unread),
        ("stray", line.strays),
    ] {
        dropped.counter(&[("reason", reason)], frames);
    }
    page.add(dropped);
    let mut lateness = Family::histograms(
        "chaos_line_lateness_seconds",
        "How long after their time frames left a delay line: what was added to the delay that was asked for.",
    );
    lateness.histogram(&[], &LATENESS_NS, &line.lateness, line.lateness_sum_ns);
    page.add(lateness);
}

fn since_epoch(when: SystemTime) -> f64 {
    when.duration_since(SystemTime::UNIX_EPOCH).unwrap_or_default().as_secs_f64()
}

fn count(things: usize) -> f64 {
    number(things as u64)
}
