//! `/v1/flows`: what `chaos flows` shows.

use axum::{http::StatusCode, response::Json};
use serde_json::{Value, json};

use super::{
    asked::{self, Words},
    fields,
    problem::Problem,
    routes::Param,
    shape,
};
use crate::{
    cli::request,
    flows::{self, Flow},
    targets::Target,
};

/// What may be asked.
pub(super) const PARAMS: &[Param] = &[Param {
    name: "target",
    help: "Who, as in the body of a fault: netns:blue, unit:api.service",
    required: true,
    shape: fields::target,
}];

pub(super) async fn show(words: Words) -> Result<Json<Value>, Problem> {
    const MISSING: &str =
        "is missing: write ?target=netns:blue (or host, cgroup:/path, unit:name.service, pid:1234)";
    let text = asked::word(&words, "target").ok_or_else(|| Problem::parameter("target", MISSING))?.to_owned();
    let target: Target =
        text.parse().map_err(|error| Problem::parameter("target", format!("`{text}`: {error}")))?;
    let of = target.clone();
    // It enters namespaces and reads /proc: not on the thread of all.
    let found = tokio::task::spawn_blocking(move || request::flows(&of)).await;
    let failed = |_| Problem::new(StatusCode::INTERNAL_SERVER_ERROR, "listing the flows failed");
    let found: Vec<Flow> = found.map_err(failed)?.map_err(|error| Problem::of(&error))?;
    Ok(Json(json!({
        "target": target.to_string(),
        "conversations": flows::conversations(&found),
        "flows": found,
    })))
}

/// What the answer looks like.
pub(super) fn shape() -> Value {
    let proto = || shape::one_of(["tcp", "udp"], "TCP or UDP");
    let direction = || shape::one_of(["outbound", "inbound", "open"], "Which end began; open: nobody yet");
    let address = |help: &str| shape::text(help);
    let conversation = shape::object([
        ("peer", shape::or_null(address("The other end; null: anybody"))),
        ("port", shape::count("The port that tells it from others")),
        ("direction", direction()),
        ("proto", proto()),
        ("locals", shape::list(address("The target's address"))),
        ("states", json!({"type": "object", "additionalProperties": shape::count("How many flows")})),
        ("processes", shape::list(shape::text("Name and number of a process"))),
        ("suggested_match", shape::text("Flags of a rule that hits these flows")),
    ]);
    let flow = shape::object([
        ("proto", proto()),
        ("state", shape::text("As the kernel has it")),
        ("direction", direction()),
        ("local", address("The target's end")),
        ("peer", shape::or_null(address("The other end"))),
        ("pid", shape::or_null(shape::count("A process that holds it"))),
        ("command", shape::or_null(shape::text("That process's name"))),
        ("cgroup", shape::or_null(shape::text("Its creator's cgroup"))),
        ("namespace", shape::text("The namespace it is in")),
    ]);
    shape::object([
        ("target", shape::text("Who")),
        ("conversations", shape::list(conversation)),
        ("flows", shape::list(flow)),
    ])
}
