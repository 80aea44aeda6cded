//! What the agent answers. Fields that are not known here are kept in `more`, so that a newer agent is understood.

use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};
use serde_json::{Map, Value};

/// How a fault is.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum State {
    /// The kernel has it.
    Active,
    /// It is over.
    Ended,
    /// Something this version does not know.
    #[serde(other)]
    Unknown,
}

/// Counters of one direction by name, such as `matched_packets`, `dropped_packets`, `delayed_bytes`.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(transparent)]
pub struct Counters(pub BTreeMap<String, u64>);

impl Counters {
    /// The counter of this name; 0 if there is none.
    #[must_use]
    pub fn get(&self, name: &str) -> u64 {
        self.0.get(name).copied().unwrap_or(0)
    }
}

/// Exact counters of a fault.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Stats {
    /// What left the target.
    #[serde(default)]
    pub egress: Counters,
    /// What came to it.
    #[serde(default)]
    pub ingress: Counters,
}

impl Stats {
    /// The counter of this name, both directions together.
    #[must_use]
    pub fn both(&self, name: &str) -> u64 {
        self.egress.get(name).saturating_add(self.ingress.get(name))
    }
}

/// A fault as the agent shows it.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct FaultView {
    /// Its number; never used again while the agent runs.
    pub id: u64,
    /// What it was called.
    #[serde(default)]
    pub name: Option<String>,
    /// How it is.
    pub state: State,
    /// Why it ended.
    #[serde(default)]
    pub why: Option<String>,
    /// What it does, in words.
    #[serde(default)]
    pub what: String,
    /// Whom it is for.
    #[serde(default)]
    pub targets: String,
    /// When it began: RFC 3339.
    #[serde(default)]
    pub started: String,
    /// Until it ends by itself, in seconds; none once it has ended.
    #[serde(default)]
    pub remaining_seconds: Option<f64>,
    /// Until it ends unless it is renewed, in seconds; none if it has no lease.
    #[serde(default)]
    pub lease_remaining_seconds: Option<f64>,
    /// Whether any packet was matched.
    #[serde(default)]
    pub matched: bool,
    /// The body it was asked for with.
    #[serde(default)]
    pub request: Value,
    /// Its counters, the last ones once it has ended.
    #[serde(flatten)]
    pub stats: Stats,
    /// Everything else.
    #[serde(flatten)]
    pub more: Map<String, Value>,
}

/// The agent itself.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Status {
    /// Its version.
    #[serde(default)]
    pub version: String,
    /// Its process, in its own process namespace.
    #[serde(default)]
    pub pid: u32,
    /// Faults that are held.
    #[serde(default)]
    pub faults: u64,
    /// The longest that a fault may last, in seconds; none = it does not say.
    #[serde(default)]
    pub max_duration_seconds: Option<f64>,
    /// Why faults are stopped, if they are.
    #[serde(default)]
    pub stopped: Option<String>,
    /// Everything else.
    #[serde(flatten)]
    pub more: Map<String, Value>,
}

/// What ending every fault did.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Removed {
    /// How many there were.
    #[serde(default)]
    pub ended: u64,
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn an_answer_of_a_newer_agent_is_understood() {
        let answer = json!({"id": 7, "state": "paused", "egress": {"dropped_packets": 3},
            "ingress": {"dropped_packets": 1}, "flying": true});
        let view: FaultView = serde_json::from_value(answer).unwrap();
        assert_eq!((view.id, view.state, view.stats.both("dropped_packets")), (7, State::Unknown, 4));
        assert_eq!(view.more.get("flying"), Some(&Value::Bool(true)));
    }
}
