//! Faults that this process holds by itself.

use std::{
    mem,
    sync::{Arc, Mutex, PoisonError},
};

use anyhow::Result;
use chaos_common::{abi::Record, sample::Sampling};

use super::{
    hold::{Armed, Told},
    ruleset::{RuleSet, total},
};
use crate::{
    config::Config,
    engine::{Conversations, Engine, EngineError, EngineOptions, Event, RuleStats},
    telemetry::{Names, Packet},
};

/// An engine of our own, whose rules count as one fault.
pub(crate) struct Own {
    name: String,
    engine: Engine,
    records: Arc<Mutex<Vec<Record>>>,
    names: Names,
}

impl Own {
    /// Arms the rules.
    ///
    /// # Errors
    /// As [`Engine::start`].
    pub(crate) fn start(set: &RuleSet, options: &EngineOptions) -> Result<Self, EngineError> {
        let engine = Engine::start(&set.rules, options)?;
        Ok(Self { name: set.name.clone(), engine, records: Arc::default(), names: Names::default() })
    }

    /// Tells of the packets that it affects from now on, as many as an agent of this configuration would.
    ///
    /// # Errors
    /// The thread that reads them cannot be started.
    pub(crate) fn tell(&mut self, config: &Config) -> Result<(), EngineError> {
        let sampling = Sampling::new(config.events_first_per_second, config.events_one_in);
        let records = Arc::clone(&self.records);
        let sink = move |mut batch| records.lock().unwrap_or_else(PoisonError::into_inner).append(&mut batch);
        self.engine.tell(sampling, Box::new(sink))
    }

    fn slots(&self) -> Vec<u32> {
        self.engine.armings().map(|(slot, _)| slot).collect()
    }
}

impl Armed for Own {
    fn tick(&mut self) -> Result<Vec<Event>> {
        Ok(self.engine.tick()?)
    }

    fn stats(&self) -> Result<Vec<RuleStats>> {
        Ok(vec![total(&self.name, &self.engine.stats()?)])
    }

    fn suspect(&mut self) -> Result<()> {
        let slots = self.slots();
        Ok(self.engine.suspect(&slots)?)
    }

    fn cause(&mut self) -> Result<Option<String>> {
        let slots = self.slots();
        let found = self.engine.findings(&slots, &mut Conversations::default())?;
        self.engine.end_looking(&slots)?;
        Ok(Some(found.sentence()))
    }

    fn told(&mut self) -> Vec<Told> {
        let records = mem::take(&mut *self.records.lock().unwrap_or_else(PoisonError::into_inner));
        if !records.is_empty() {
            self.names.interfaces(self.engine.interfaces());
        }
        let told = |record: &Record| {
            let packet = Packet::of(record, &self.names);
            Told { line: packet.line(), packet: serde_json::to_value(&packet).unwrap_or_default() }
        };
        records.iter().map(told).collect()
    }

    fn stop(mut self) -> Result<Vec<RuleStats>> {
        self.engine.hush();
        Ok(vec![total(&self.name, &self.engine.stop()?)])
    }
}
