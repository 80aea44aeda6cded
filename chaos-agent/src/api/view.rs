//! A fault as the answers show it: one list of fields, from which both the answer and its description come.

use std::time::Duration;

use serde_json::{Map, Value, json};

use super::shape;
use crate::{
    daemon::{self, Fault, State},
    engine::{Counters, RuleStats},
};

/// One field of an answer.
struct Column {
    name: &'static str,
    shape: fn() -> Value,
    of: fn(&Fault, &RuleStats) -> Value,
}

const fn column(name: &'static str, shape: fn() -> Value, of: fn(&Fault, &RuleStats) -> Value) -> Column {
    Column { name, shape, of }
}

/// A new field is a line here.
#[rustfmt::skip]
const FAULT: &[Column] = &[
    column("id", || shape::count("Its number"), |fault, _| fault.id.into()),
    column("name", || shape::or_null(shape::text("Its name")), |fault, _| json!(fault.new.name)),
    column("state", || shape::one_of(["active", "ended"], "Whether the kernel has it"), |fault, _| json!(fault.state)),
    column("why", || shape::or_null(shape::text("Why it ended")), |fault, _| json!(fault.why)),
    column("what", || shape::text("The fault in plain words"), |fault, _| json!(fault.new.set.name)),
    column("targets", || shape::text("Whom it is for"), |fault, _| fault.targets.clone().into()),
    column("started", || time("When it began"), |fault, _| humantime::format_rfc3339_millis(fault.started).to_string().into()),
    column("duration_seconds", || shape::seconds("How long it was to last"), |fault, _| fault.new.duration.as_secs_f64().into()),
    column("remaining_seconds", || shape::or_null(shape::seconds("What is left of that")), |fault, _| json!(left(fault, Some(fault.ends_at)))),
    column("lease_remaining_seconds", || shape::or_null(shape::seconds("It ends then unless it is renewed")), |fault, _| json!(left(fault, fault.lease_until))),
    column("matched", || shape::flag("Whether a packet was matched so far"), |_, stats| (!Fault::is_unmatched(stats)).into()),
    column("unmatched", unmatched_shape, |fault, _| fault.unmatched().map(|(cause, message)| json!({"cause": cause, "message": message})).into()),
    column("request", || json!({"type": "object", "description": "The body it came in"}), |fault, _| fault.new.body.clone()),
    column("egress", || shape::named("Counters"), |_, stats| json!(stats.egress)),
    column("ingress", || shape::named("Counters"), |_, stats| json!(stats.ingress)),
];

/// Fields of the counters alone.
const STATS: [&str; 4] = ["id", "state", "egress", "ingress"];

fn columns(only: Option<&'static [&'static str]>) -> impl Iterator<Item = &'static Column> {
    FAULT.iter().filter(move |column| only.is_none_or(|only| only.contains(&column.name)))
}

fn show((fault, stats): &(Fault, RuleStats), only: Option<&'static [&'static str]>) -> Value {
    let fields: Map<String, Value> =
        columns(only).map(|column| (column.name.to_owned(), (column.of)(fault, stats))).collect();
    Value::Object(fields)
}

fn shape_of(only: Option<&'static [&'static str]>) -> Value {
    shape::object(columns(only).map(|column| (column.name, (column.shape)())))
}

/// A fault.
pub(super) fn fault(fault: &(Fault, RuleStats)) -> Value {
    show(fault, None)
}

/// What it looks like.
pub(super) fn fault_shape() -> Value {
    shape_of(None)
}

/// The counters of a fault.
pub(super) fn stats(fault: &(Fault, RuleStats)) -> Value {
    show(fault, Some(&STATS))
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
