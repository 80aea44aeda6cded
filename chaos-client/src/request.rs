//! A fault to be asked for.

use std::time::Duration;

use serde::{Deserialize, Serialize};
use serde_json::{Map, Value, json};

/// A fault: whom, what, which packets, how long.
///
/// The names of faults and conditions are the flags of `chaos inject --help`, their values what those flags take; a
/// `-` in a flag's name is a `_` here. The agent checks them, and says which field is wrong and what is accepted.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(transparent)]
pub struct NewFault {
    body: Map<String, Value>,
}

impl NewFault {
    /// For a target, such as `netns:blue`, `unit:api.service`, `cgroup:/ci/job-12`, `pid:1234`.
    #[must_use]
    pub fn on(target: impl Into<String>) -> Self {
        Self { body: Map::new() }.set("target", target.into())
    }

    /// Between two sides, each a target or an address.
    #[must_use]
    pub fn partition(a: impl Into<String>, b: impl Into<String>) -> Self {
        Self { body: Map::new() }.set("partition", json!({"sides": [a.into(), b.into()]}))
    }

    /// From a body as the API takes it.
    #[must_use]
    pub const fn from_body(body: Map<String, Value>) -> Self {
        Self { body }
    }

    /// Adds a fault: `("loss", "10%")`, `("partition", true)`.
    #[must_use]
    pub fn fault(self, kind: &str, value: impl Into<Value>) -> Self {
        self.within("faults", kind, value.into())
    }

    /// Adds a condition: `("peer", "10.0.0.0/8")`, `("peer_port", 5432)`, `("proto", "tcp")`.
    #[must_use]
    pub fn matching(self, field: &str, value: impl Into<Value>) -> Self {
        self.within("match", field, value.into())
    }

    /// What it is called; a name is not given twice at the same time.
    #[must_use]
    pub fn name(self, name: impl Into<String>) -> Self {
        self.set("name", name.into())
    }

    /// How long it lasts at most. A fault must have an end: a held one lasts a minute unless told.
    #[must_use]
    pub fn duration(self, duration: Duration) -> Self {
        self.set("duration", time(duration))
    }

    /// It ends when nobody has renewed it for so long, from 1 s on. A held fault has one of 5 s unless told.
    #[must_use]
    pub fn lease(self, lease: Duration) -> Self {
        self.set("lease", time(lease))
    }

    /// Any other field: `("seed", 7)`, `("flap", "100ms/1s")`, `("confirm", "host")`.
    #[must_use]
    pub fn set(mut self, field: &str, value: impl Into<Value>) -> Self {
        self.body.insert(field.to_owned(), value.into());
        self
    }

    /// The body that is sent.
    #[must_use]
    pub const fn body(&self) -> &Map<String, Value> {
        &self.body
    }

    fn within(mut self, field: &str, key: &str, value: Value) -> Self {
        if let Value::Object(fields) = self.body.entry(field).or_insert_with(|| json!({})) {
            fields.insert(key.to_owned(), value);
        }
        self
    }
}

/// As the agent reads it: a number with its unit.
fn time(value: Duration) -> String {
    format!("{}ms", value.as_millis())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_body_is_what_the_api_takes() {
        let fault = NewFault::on("netns:blue")
            .fault("loss", "10%")
            .fault("delay", "50ms")
            .matching("peer_port", 5432)
            .duration(Duration::from_secs(30))
            .set("seed", 7);
        let wanted = json!({"target": "netns:blue", "faults": {"loss": "10%", "delay": "50ms"},
            "match": {"peer_port": 5432}, "duration": "30000ms", "seed": 7});
        assert_eq!(serde_json::to_value(&fault).unwrap(), wanted);
        let cut = NewFault::partition("netns:a", "10.0.0.5");
        assert_eq!(
            serde_json::to_value(&cut).unwrap(),
            json!({"partition": {"sides": ["netns:a", "10.0.0.5"]}})
        );
    }
}
