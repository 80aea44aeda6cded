//! Records of packets: read only while somebody wants them.

use std::collections::HashMap;

use chaos_common::sample::Sampling;

use super::{Engine, types::EngineError};
use crate::telemetry::{Reader, Sink};

impl Engine {
    /// Tells `sink` of packets that rules affect from now on.
    ///
    /// # Errors
    /// The thread cannot be started.
    pub fn tell(&mut self, sampling: Sampling, sink: Sink) -> Result<(), EngineError> {
        self.hush();
        let Some(records) = self.maps.records() else { return Ok(()) };
        let started = Reader::start(records, sink);
        let failed = |error| EngineError::Io { doing: "starting the reader of packets", error };
        self.reader = Some(started.map_err(failed)?);
        self.maps.sample(sampling);
        Ok(())
    }

    /// Tells nobody any more; what was told by now has been handed over.
    pub fn hush(&mut self) {
        self.maps.sample(Sampling::OFF);
        if let Some(records) = self.reader.take().and_then(Reader::stop) {
            self.maps.put_back(records);
        }
    }

    /// Somebody is told.
    #[must_use]
    pub const fn is_telling(&self) -> bool {
        self.reader.is_some()
    }

    /// Records that found no room since the engine was started.
    pub fn records_lost(&self) -> Result<u64, EngineError> {
        Ok(self.maps.lost()?)
    }

    /// When the rules were armed, by slot: boot clock, nanoseconds.
    pub fn armings(&self) -> impl Iterator<Item = (u32, u64)> {
        self.actives.iter().map(|active| (active.slot, active.armed_ns))
    }

    /// Names of interfaces by namespace cookie and index.
    #[must_use]
    pub fn interfaces(&self) -> HashMap<(u64, u32), String> {
        let of = |site: &super::site::Site| -> Vec<((u64, u32), String)> {
            let cookie = site.instance.cookie();
            site.links.iter().map(|link| ((cookie, link.index), link.name.clone())).collect()
        };
        self.sites.values().flat_map(of).collect()
    }
}
