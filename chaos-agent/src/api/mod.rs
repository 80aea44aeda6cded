//! HTTP: what may be asked of the agent, and how it answers. Only this folder knows HTTP.

mod body;
mod faults;
mod metrics;
mod problem;

use axum::{
    Router,
    extract::{DefaultBodyLimit, FromRef, State},
    http::{Method, StatusCode, Uri},
    response::{IntoResponse, Json, Response},
    routing::{get, post},
};
use serde_json::{Value, json};

use self::problem::Problem;
use crate::{
    config::Live,
    daemon::{Handle, Hub},
};

/// A fault is a few hundred bytes, a whole set of them some more.
const BODY_BYTES: usize = 1 << 20;

/// What the answers are made of.
#[derive(Clone, Debug)]
pub(crate) struct App {
    /// Holds the faults.
    pub(crate) keeper: Handle,
    /// Tells what happens.
    #[expect(dead_code, reason = "read by the event stream, which comes next")]
    pub(crate) hub: Hub,
    /// What was configured.
    #[expect(dead_code, reason = "read by what limits requests, which comes next")]
    pub(crate) config: Live,
}

impl FromRef<App> for Handle {
    fn from_ref(app: &App) -> Self {
        app.keeper.clone()
    }
}

/// Everything that can be asked.
pub(crate) fn router(app: App) -> Router {
    Router::new()
        .route("/healthz", get(|| async { "ok\n" }))
        .route("/metrics", get(metrics::metrics))
        .route("/v1/status", get(status))
        .route("/v1/stop", post(faults::stop))
        .route("/v1/resume", post(faults::resume))
        .route(
            "/v1/faults",
            get(faults::list).post(faults::create).put(faults::replace_all).delete(faults::delete_all),
        )
        .route("/v1/faults:validate", post(faults::validate))
        .route("/v1/faults/{id}", get(faults::show).put(faults::put).delete(faults::delete))
        .route("/v1/faults/{id}/stats", get(faults::stats))
        .route("/v1/faults/{id}/renew", post(faults::renew))
        .fallback(unknown)
        .method_not_allowed_fallback(wrong_method)
        .layer(DefaultBodyLimit::max(BODY_BYTES))
        .with_state(app)
}

async fn status(State(handle): State<Handle>) -> Result<Json<Value>, Problem> {
    let (active, stopped, unmatched, error) = handle
        .ask(|keeper| {
            let stopped = keeper.stopped().map(str::to_owned);
            Ok((keeper.active(), stopped, keeper.unmatched(), keeper.last_error()))
        })
        .await?;
    let error = error.map(
        |(when, what)| json!({"time": humantime::format_rfc3339_millis(when).to_string(), "message": what}),
    );
    Ok(Json(json!({
        "version": env!("CARGO_PKG_VERSION"),
        "pid": std::process::id(),
        "faults": active,
        "stopped": stopped,
        "unmatched": unmatched,
        "last_error": error,
    })))
}

async fn unknown(uri: Uri) -> Response {
    Problem::new(StatusCode::NOT_FOUND, format!("there is nothing at {}", uri.path())).into_response()
}

async fn wrong_method(method: Method, uri: Uri) -> Response {
    let what = format!("{method} is not possible at {}", uri.path());
    Problem::new(StatusCode::METHOD_NOT_ALLOWED, what).into_response()
}
