//! How the agent itself is.

use std::time::Duration;

use axum::{extract::State, http::StatusCode, response::Json};
use serde_json::{Value, json};
use tokio::time::timeout;

use super::{problem::Problem, shape, view};
use crate::{daemon::Handle, safety::limits};

/// Setting a fault takes some 100 ms at most; a thread that is silent for longer is stuck.
const READY_WITHIN: Duration = Duration::from_secs(2);

pub(super) async fn healthz() -> &'static str {
    "ok\n"
}

pub(super) async fn readyz(State(handle): State<Handle>) -> Result<Json<Value>, Problem> {
    let stopped = timeout(READY_WITHIN, handle.ask(|keeper| Ok(keeper.stopped().map(str::to_owned)))).await;
    let late = |_| {
        let what = format!("the thread that holds the faults did not answer within {READY_WITHIN:?}");
        Problem::new(StatusCode::SERVICE_UNAVAILABLE, what)
    };
    Ok(Json(json!({"ready": true, "stopped": stopped.map_err(late)??})))
}

pub(super) async fn status(State(handle): State<Handle>) -> Result<Json<Value>, Problem> {
    let (active, stopped, unmatched, error, unwritten) = handle
        .ask(|keeper| {
            let stopped = keeper.stopped().map(str::to_owned);
            Ok((keeper.active(), stopped, keeper.unmatched(), keeper.last_error(), keeper.unwritten()))
        })
        .await?;
    let error = error.map(
        |(when, what)| json!({"time": humantime::format_rfc3339_millis(when).to_string(), "message": what}),
    );
    Ok(Json(json!({
        "version": env!("CARGO_PKG_VERSION"),
        "pid": std::process::id(),
        "faults": active,
        "max_duration_seconds": limits().max_duration.as_secs_f64(),
        "stopped": stopped,
        "unmatched": unmatched,
        "last_error": error,
        "unwritten": {"audit": unwritten.0, "journal": unwritten.1},
    })))
}

fn stopped() -> Value {
    shape::or_null(shape::text("Why faults are refused; null: they are not"))
}

pub(super) fn ready_shape() -> Value {
    shape::object([("ready", shape::flag("It is")), ("stopped", stopped())])
}

pub(super) fn stopped_shape() -> Value {
    shape::object([("stopped", stopped())])
}

pub(super) fn shape() -> Value {
    let error = shape::object([("time", view::time("When")), ("message", shape::text("What"))]);
    shape::object([
        ("version", shape::text("Of the agent")),
        ("pid", shape::count("Of the agent")),
        ("faults", shape::count("How many are held")),
        ("max_duration_seconds", shape::seconds("The longest that a fault may last")),
        ("stopped", stopped()),
        (
            "unmatched",
            shape::list(shape::count("Faults that matched nothing for longer than they should have")),
        ),
        ("last_error", shape::or_null(error)),
        (
            "unwritten",
            shape::object([
                ("audit", shape::count("Records the audit log could not take")),
                ("journal", shape::count("Records the journal could not take")),
            ]),
        ),
    ])
}
