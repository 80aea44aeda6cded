//! Packets that faults affect, handed to whoever listens.

use std::{
    collections::HashMap,
    time::{Duration, Instant},
};

use chaos_common::{abi::Record, sample::Sampling};

use super::{book::Fault, events::Hub, keeper::Keeper};
use crate::telemetry::{Names, Packet};

/// A record whose rule is not known yet waits for so long: it may have been armed a moment ago.
const PATIENCE: Duration = Duration::from_secs(1);
/// Interfaces may have been renamed, or come.
const LOOK_AGAIN: Duration = Duration::from_secs(2);

/// What the keeper remembers about it.
#[derive(Debug, Default)]
pub(super) struct Telling {
    names: Names,
    looked: Option<Instant>,
    /// Records that were lost by engines that are gone.
    lost: u64,
}

impl Keeper {
    /// Begins to read records when somebody wants them, ends when nobody does any more.
    pub(super) fn tell(&mut self) {
        let wants = self.hub.wants_packets();
        let Some(engine) = &mut self.engine else { return };
        match (wants, engine.is_telling()) {
            (true, false) => {
                let sink = sink(self.hub.clone(), self.telling.names.clone());
                self.telling.looked = None;
                let config = self.config.now();
                let sampling = Sampling::new(config.events_first_per_second, config.events_one_in);
                if let Err(error) = engine.tell(sampling, Box::new(sink)) {
                    tracing::error!("{error}");
                    self.ledger.error(&error.to_string());
                }
            }
            (false, true) => engine.hush(),
            (true, true) | (false, false) => {}
        }
        if wants && self.telling.looked.is_none_or(|looked| looked.elapsed() >= LOOK_AGAIN) {
            self.name_packets();
        }
    }

    /// The set of faults has changed: says which rule is whose.
    pub(super) fn name_packets(&mut self) {
        let Some(engine) = &self.engine else { return };
        self.telling.looked = Some(Instant::now());
        let of = |fault: &Fault| fault.slots().iter().map(|slot| (*slot, fault.id)).collect::<Vec<_>>();
        let faults: HashMap<u32, u64> = self.book.active().flat_map(of).collect();
        for (slot, armed_ns) in engine.armings() {
            if let Some(fault) = faults.get(&slot) {
                self.telling.names.armed(slot, armed_ns, *fault);
            }
        }
        self.telling.names.interfaces(engine.interfaces());
    }

    /// The engine is about to go: what it lost stays known.
    pub(super) fn book_lost(&mut self) {
        let lost = self.engine.as_ref().and_then(|engine| engine.records_lost().ok());
        self.telling.lost += lost.unwrap_or(0);
    }

    /// Records that were lost since the agent was started.
    pub(super) fn records_lost(&self) -> u64 {
        let now = self.engine.as_ref().and_then(|engine| engine.records_lost().ok());
        self.telling.lost + now.unwrap_or(0)
    }
}

/// Hands records on in words.
fn sink(hub: Hub, names: Names) -> impl FnMut(Vec<Record>) + Send {
    let mut unknown: Vec<(Instant, Record)> = Vec::new();
    move |batch: Vec<Record>| {
        let now = Instant::now();
        let waiting = std::mem::take(&mut unknown).into_iter();
        for (since, record) in waiting.chain(batch.into_iter().map(|record| (now, record))) {
            if names.fault(&record).is_none() && since.elapsed() < PATIENCE {
                unknown.push((since, record));
                continue;
            }
            let packet = Packet::of(&record, &names);
            let data = serde_json::to_value(&packet).unwrap_or_default();
            hub.pass(packet.fault, packet.line(), data);
        }
    }
}
