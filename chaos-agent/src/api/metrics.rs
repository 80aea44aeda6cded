//! `/metrics`.

use axum::{
    extract::State,
    http::header,
    response::{IntoResponse as _, Response},
};

use super::problem::Problem;
use crate::{daemon::Handle, telemetry};

pub(super) async fn metrics(State(handle): State<Handle>) -> Result<Response, Problem> {
    let seen = handle.ask(|keeper| Ok(keeper.observe())).await?;
    Ok(([(header::CONTENT_TYPE, telemetry::CONTENT_TYPE)], telemetry::text(&seen)).into_response())
}
