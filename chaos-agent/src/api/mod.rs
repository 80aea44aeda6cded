//! HTTP: what may be asked of the agent, and how it answers. Only this folder knows HTTP.
//!
//! `routes` is the one list of what there is; the router is made from it. `asked` checks what every request
//! has in common, `body` understands a fault, and the other files answer.

mod asked;
mod body;
mod capabilities;
mod events;
mod faults;
mod flows;
mod idempotency;
mod json;
mod metrics;
mod problem;
mod routes;
mod status;

use axum::{
    Extension, Router,
    extract::{DefaultBodyLimit, FromRef},
    http::{Method, StatusCode, Uri},
    middleware,
    response::{IntoResponse, Response},
};

use self::{idempotency::Answers, problem::Problem};
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

impl FromRef<App> for Hub {
    fn from_ref(app: &App) -> Self {
        app.hub.clone()
    }
}

/// Everything that can be asked.
pub(crate) fn router(app: App) -> Router {
    let mut router = Router::new();
    for route in routes::all() {
        router = router.route(route.path, asked::checked(&route));
    }
    router
        .fallback(unknown)
        .method_not_allowed_fallback(wrong_method)
        .layer(Extension(Answers::default()))
        .layer(DefaultBodyLimit::max(BODY_BYTES))
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
