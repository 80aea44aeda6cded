//! HTTP: what may be asked of the agent, and how it answers. Only this folder knows HTTP.
//!
//! `routes` is the one list of what there is; the router is made from it. `asked` checks what every request
//! has in common, `body` understands a fault, and the other files answer.

mod asked;
mod body;
mod caller;
mod capabilities;
mod events;
mod faults;
mod fields;
mod flows;
mod gate;
mod idempotency;
mod json;
mod metrics;
mod openapi;
mod pace;
mod page;
mod patience;
mod problem;
mod routes;
mod serve;
mod shape;
mod status;
mod view;

use axum::{
    Extension, Router,
    extract::{DefaultBodyLimit, FromRef},
    http::{Method, StatusCode, Uri},
    middleware,
    response::{IntoResponse, Response},
};

#[cfg(feature = "fuzz")]
pub(crate) use self::body::check::check as check_body;
pub(crate) use self::body::{PARTITION, WHEN};
pub(crate) use self::caller::Caller;
pub(crate) use self::serve::{Listener, serve};
use self::{idempotency::Answers, problem::Problem};
use crate::{
    config::Live,
    daemon::{Handle, Hub},
};

/// What the answers are made of.
#[derive(Clone, Debug)]
pub(crate) struct App {
    /// Holds the faults.
    pub(crate) keeper: Handle,
    /// Tells what happens.
    pub(crate) hub: Hub,
    /// What was configured.
    pub(crate) config: Live,
}

impl FromRef<App> for Handle {
    fn from_ref(app: &App) -> Self {
        app.keeper.clone()
    }
}

impl FromRef<App> for Hub {
    fn from_ref(app: &App) -> Self {
        app.hub.clone()
    }
}

/// Everything that can be asked.
fn router(app: App) -> Router {
    let mut router = Router::new();
    for route in routes::all() {
        router = router.route(route.path, asked::checked(&route));
    }
    router
        .fallback(unknown)
        .method_not_allowed_fallback(wrong_method)
        .layer(Extension(Answers::default()))
        // The gate has read it, and knows how long it may be.
        .layer(DefaultBodyLimit::disable())
        .layer(middleware::map_response(problem::of_library))
        .with_state(app)
}

async fn unknown(uri: Uri) -> Response {
    Problem::new(StatusCode::NOT_FOUND, format!("there is nothing at {}", uri.path())).into_response()
}

async fn wrong_method(method: Method, uri: Uri) -> Response {
    let what = format!("{method} is not possible at {}", uri.path());
    Problem::new(StatusCode::METHOD_NOT_ALLOWED, what).into_response()
}

/// What a body asks for, for the tests of what makes bodies; the problem as it is sent.
#[cfg(test)]
pub(crate) fn understood(body: &serde_json::Value) -> Result<crate::daemon::NewFault, String> {
    body::understand(body).map_err(|problem| serde_json::to_string(&problem).unwrap_or_default())
}
