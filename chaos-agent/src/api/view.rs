//! A fault as the answers show it: one list of fields, from which both the answer and its description come.

use std::{sync::LazyLock, time::Duration};

use serde::{Serialize, Serializer};
use serde_json::{Map, Value, json};

use super::shape;
use crate::{
    daemon::{self, Fault, State},
    engine::{Counters, RuleStats, Sorted},
};

/// One field of an answer.
struct Column {
    name: &'static str,
    shape: fn() -> Value,
    of: Of,
}

type Of = for<'a> fn(&'a Fault, &'a RuleStats) -> Shown<'a>;

const fn column(name: &'static str, shape: fn() -> Value, of: Of) -> Column {
    Column { name, shape, of }
}

/// The value of a field. What is there is not copied: an answer may have thousands of faults.
enum Shown<'a> {
    Made(Value),
    Known(&'a Value),
    Text(&'a str),
    Counters(&'a Counters),
}

impl<T: Into<Value>> From<T> for Shown<'_> {
    fn from(value: T) -> Self {
        Self::Made(value.into())
    }
}

impl Serialize for Shown<'_> {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        match self {
            Self::Made(value) => value.serialize(serializer),
            Self::Known(value) => value.serialize(serializer),
            Self::Text(text) => serializer.serialize_str(text),
            Self::Counters(counters) => Sorted(counters).serialize(serializer),
        }
    }
}

/// A new field is a line here.
#[rustfmt::skip]
const FAULT: &[Column] = &[
    column("id", || shape::count("Its number"), |fault, _| fault.id.into()),
    column("name", || shape::or_null(shape::text("Its name")), |fault, _| json!(fault.new.name).into()),
    column("state", || shape::one_of(["active", "ended"], "Whether the kernel has it"), |fault, _| json!(fault.state).into()),
    column("why", || shape::or_null(shape::text("Why it ended")), |fault, _| json!(fault.why).into()),
    column("what", || shape::text("The fault in plain words"), |fault, _| Shown::Text(&fault.new.set.name)),
    column("targets", || shape::text("Whom it is for"), |fault, _| Shown::Text(&fault.targets)),
    column("started", || time("When it began"), |fault, _| humantime::format_rfc3339_millis(fault.started).to_string().into()),
    column("duration_seconds", || shape::seconds("How long it was to last"), |fault, _| fault.new.duration.as_secs_f64().into()),
    column("remaining_seconds", || shape::or_null(shape::seconds("What is left of that")), |fault, _| json!(left(fault, Some(fault.ends_at))).into()),
    column("lease_remaining_seconds", || shape::or_null(shape::seconds("It ends then unless it is renewed")), |fault, _| json!(left(fault, fault.lease_until)).into()),
    column("matched", || shape::flag("Whether a packet was matched so far"), |_, stats| (!Fault::is_unmatched(stats)).into()),
    column("unmatched", unmatched_shape, |fault, _| fault.unmatched().map(|(cause, message)| json!({"cause": cause, "message": message})).into()),
    column("request", || json!({"type": "object", "description": "The body it came in"}), |fault, _| Shown::Known(&fault.new.body)),
    column("egress", || shape::named("Counters"), |_, stats| Shown::Counters(&stats.egress)),
    column("ingress", || shape::named("Counters"), |_, stats| Shown::Counters(&stats.ingress)),
];

/// Fields of the counters alone.
const STATS: [&str; 4] = ["id", "state", "egress", "ingress"];

type Only = Option<&'static [&'static str]>;

/// In the order of their names, in which [`Value`] has the fields of an object.
fn columns(only: Only) -> impl Iterator<Item = &'static Column> {
    static SORTED: LazyLock<Vec<&'static Column>> = LazyLock::new(|| {
        let mut columns: Vec<&Column> = FAULT.iter().collect();
        columns.sort_unstable_by_key(|column| column.name);
        columns
    });
    SORTED.iter().copied().filter(move |column| only.is_none_or(|only| only.contains(&column.name)))
}

/// A fault as an answer, or a part of it.
pub(super) struct View<'a> {
    of: &'a (Fault, RuleStats),
    only: Only,
}

impl Serialize for View<'_> {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        let (fault, stats) = self.of;
        serializer.collect_map(columns(self.only).map(|column| (column.name, (column.of)(fault, stats))))
    }
}

/// A list of faults as an answer.
#[derive(Serialize)]
pub(super) struct List<'a> {
    faults: Vec<View<'a>>,
}

fn shape_of(only: Only) -> Value {
    shape::object(columns(only).map(|column| (column.name, (column.shape)())))
}

/// A fault.
pub(super) const fn fault(fault: &(Fault, RuleStats)) -> View<'_> {
    View { of: fault, only: None }
}

/// Several.
pub(super) fn list(faults: &[(Fault, RuleStats)]) -> List<'_> {
    List { faults: faults.iter().map(fault).collect() }
}

/// What it looks like.
pub(super) fn fault_shape() -> Value {
    shape_of(None)
}

/// The counters of a fault.
pub(super) const fn stats(fault: &(Fault, RuleStats)) -> View<'_> {
    View { of: fault, only: Some(&STATS) }
}

/// What they look like.
pub(super) fn stats_shape() -> Value {
    shape_of(Some(&STATS))
}

/// Of one direction; the names come from the counters themselves.
pub(super) fn counters_shape() -> Value {
    let names = match serde_json::to_value(Counters::default()) {
        Ok(Value::Object(fields)) => fields,
        _ => Map::new(),
    };
    shape::object(names.keys().map(|name| (name.as_str(), shape::count(&name.replace('_', " ")))))
}

/// A moment.
pub(super) fn time(help: &str) -> Value {
    json!({"type": "string", "format": "date-time", "description": help})
}

fn left(fault: &Fault, until: Option<Duration>) -> Option<f64> {
    let is_active = fault.state == State::Active;
    until.filter(|_| is_active).map(|until| until.saturating_sub(daemon::now()).as_secs_f64())
}

/// The alarm of a fault that was armed for too long without matching anything.
fn unmatched_shape() -> Value {
    let cause = json!({"type": ["object", "null"], "description": "Which cause, and what was seen of it"});
    shape::or_null(shape::object([("cause", cause), ("message", shape::text("The same in words"))]))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn fields_come_in_the_order_of_a_value() {
        let names: Vec<&str> = columns(None).map(|column| column.name).collect();
        assert!(names.is_sorted() && names.len() == FAULT.len(), "{names:?}");
        assert_eq!(columns(Some(&STATS)).count(), STATS.len());
        let counters = Counters { matched_packets: 3, ..Counters::default() };
        let shown = serde_json::to_string(&Shown::Counters(&counters)).unwrap();
        assert_eq!(shown, json!(counters).to_string());
    }
}
