//! Holds a set of faults: arms it, keeps it alive, follows targets, takes it down.
//!
//! Stub with the agreed surface; nothing reaches the kernel yet.

use std::fmt;

use serde::Serialize;

use crate::spec::RuleSpec;

/// How programs are attached.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum AttachMode {
    /// tcx where the kernel has it, else clsact.
    #[default]
    Auto,
    /// tcx only.
    Tcx,
    /// clsact only.
    Clsact,
}

/// How the engine goes about its work.
#[derive(Clone, Debug, Default)]
pub struct EngineOptions {
    /// How programs are attached.
    pub attach: AttachMode,
}

/// Why the engine could not do what was asked.
#[derive(Debug, thiserror::Error)]
pub enum EngineError {
    /// The engine is not there yet.
    #[error("the engine is not built into this binary yet")]
    Missing,
}

impl EngineError {
    /// 2 usage, 3 refused, 1 other.
    #[must_use]
    pub fn exit_code(&self) -> u8 {
        1
    }
}

/// Something that happened while faults were held.
#[derive(Clone, Debug, Serialize)]
pub struct Event {
    /// What happened, in words.
    pub message: String,
}

impl fmt::Display for Event {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.message)
    }
}

/// Exact counters of one rule and direction.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize)]
#[expect(missing_docs, reason = "stub")]
pub struct Counters {
    pub matched_packets: u64,
    pub matched_bytes: u64,
    pub dropped_packets: u64,
    pub dropped_bytes: u64,
    pub shadowed_packets: u64,
    pub shadowed_bytes: u64,
    pub lease_packets: u64,
    pub lease_bytes: u64,
    pub expired_packets: u64,
    pub expired_bytes: u64,
    pub limited_packets: u64,
    pub limited_bytes: u64,
}

/// Exact counters of one rule.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize)]
#[expect(missing_docs, reason = "stub")]
pub struct RuleStats {
    pub name: String,
    pub egress: Counters,
    pub ingress: Counters,
}

/// One program on one device.
#[derive(Clone, Debug, Serialize)]
#[expect(missing_docs, reason = "stub")]
pub struct PlannedAttachment {
    pub namespace: String,
    pub device: String,
    pub direction: String,
    pub how: String,
}

impl fmt::Display for PlannedAttachment {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} {} {} ({})", self.namespace, self.device, self.direction, self.how)
    }
}

/// What would be done; nothing was touched.
#[derive(Clone, Debug, Default, Serialize)]
#[expect(missing_docs, reason = "stub")]
pub struct Plan {
    pub attachments: Vec<PlannedAttachment>,
    pub explanations: Vec<String>,
    pub protected: Vec<String>,
}

/// What [`stop_all`] ended and removed.
#[derive(Clone, Debug, Default, Serialize)]
#[expect(missing_docs, reason = "stub")]
pub struct StopReport {
    pub ended: Vec<String>,
    pub removed: Vec<String>,
}

/// Ends every fault of this machine.
pub fn stop_all() -> Result<StopReport, EngineError> {
    Err(EngineError::Missing)
}

/// A set of faults that is being held.
#[derive(Debug)]
pub struct Engine;

#[expect(missing_docs, reason = "stub")]
impl Engine {
    pub fn plan(_rules: &[RuleSpec], _options: &EngineOptions) -> Result<Plan, EngineError> {
        Err(EngineError::Missing)
    }

    pub fn start(_rules: &[RuleSpec], _options: &EngineOptions) -> Result<Self, EngineError> {
        Err(EngineError::Missing)
    }

    pub fn tick(&mut self) -> Result<Vec<Event>, EngineError> {
        Err(EngineError::Missing)
    }

    pub fn stats(&self) -> Result<Vec<RuleStats>, EngineError> {
        Err(EngineError::Missing)
    }

    pub fn stop(self) -> Result<Vec<RuleStats>, EngineError> {
        Err(EngineError::Missing)
    }
}
