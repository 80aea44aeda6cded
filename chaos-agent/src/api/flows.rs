//! `/v1/flows`: what `chaos flows` shows.

use axum::{http::StatusCode, response::Json};
use serde_json::{Value, json};

use super::{
    asked::{self, Words},
    problem::Problem,
    routes::Param,
};
use crate::{
    cli::request,
    flows::{self, Flow},
    targets::Target,
};

/// What may be asked.
pub(super) const PARAMS: &[Param] =
    &[Param { name: "target", help: "Who, as in the body of a fault: netns:blue, unit:api.service" }];

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
