//! Packets that wait in the delay line: they leave before their rule goes, and what went wrong is told.

use std::{
    thread,
    time::{Duration, Instant},
};

use chaos_common::abi::{Count, Direction};

use super::{
    Engine,
    active::Active,
    clock::boot_ns,
    types::{EngineError, Event, EventKind},
};
use crate::lines::{LineStats, Scheduling};

/// The line's thread looks every 4 ms; frames that the kernel dropped are never counted down.
const PATIENCE: Duration = Duration::from_millis(20);

/// What has been told about the delay line.
#[derive(Debug, Default)]
pub(super) struct Told {
    scheduling: bool,
    dropped: u64,
    passed: u64,
}

impl Engine {
    /// Ends these rules and waits until what they held has left, so that nothing new overtakes it.
    pub(super) fn release<'a>(&self, going: impl Iterator<Item = &'a Active>) {
        let slots: Vec<u32> = going.filter(|active| active.needs_line()).map(|active| active.slot).collect();
        let now_ns = boot_ns();
        for slot in &slots {
            self.maps.expire(*slot, now_ns);
        }
        let began = Instant::now();
        let mut is_held = !slots.is_empty();
        while is_held && began.elapsed() < PATIENCE {
            // At least once: a packet that was judged just before is counted as held a moment later.
            thread::sleep(Duration::from_micros(500));
            is_held = slots.iter().any(|slot| self.maps.held(*slot) > 0);
        }
    }

    /// What the delay line did so far; none = no rule needed one.
    #[must_use]
    pub fn line_stats(&self) -> Option<LineStats> {
        self.line.as_ref().map(|line| line.stats())
    }

    /// Namespaces that have a delay line.
    #[must_use]
    pub fn lines(&self) -> usize {
        self.sites.values().filter(|site| site.line.is_some()).count()
    }

    /// Tells what became of packets that could not be held as asked.
    pub(super) fn look_after_line(&mut self) -> Result<Vec<Event>, EngineError> {
        let Some(line) = &self.line else { return Ok(Vec::new()) };
        let mut events = Vec::new();
        let mut warn = |message: String| events.push(Event::new(EventKind::Warning, message));
        if let (Scheduling::Ordinary { reason }, false) = (line.scheduling(), self.told.scheduling) {
            warn(format!("on a busy machine delays may be milliseconds too long: {reason}"));
        }
        self.told.scheduling = true;
        let LineStats { late, overflow, write_errors, unread, .. } = line.stats();
        let dropped = late + overflow + write_errors + unread;
        if dropped > self.told.dropped {
            warn(format!(
                "{} packets were dropped in the delay line ({late} more than 100 ms overdue, {overflow} for want of room, {unread} not taken by the device, {write_errors} not taken back, since the beginning)",
                dropped - self.told.dropped
            ));
            self.told.dropped = dropped;
        }
        let mut passed = 0;
        for active in &self.actives {
            for direction in [Direction::Egress, Direction::Ingress] {
                let counters = self.maps.counters(active.slot, direction)?;
                passed += counters.of(Count::Unheld).packets + counters.of(Count::Lease).packets;
            }
        }
        // A rule that was replaced counts from nothing again.
        self.told.passed = self.told.passed.min(passed);
        if passed > self.told.passed {
            warn(format!(
                "{} packets passed untouched, because the delay line or we ourselves were too slow to keep the fault up",
                passed - self.told.passed
            ));
            self.told.passed = passed;
        }
        Ok(events)
    }
}
