//! The one list of what can be asked: the router is made from it, so nothing is there that is not in it.

use axum::{
    handler::Handler,
    http::Method,
    routing::{MethodFilter, MethodRouter, on},
};

use serde_json::{Value, json};

use super::{App, capabilities, events, faults, flows, metrics, openapi, page, shape, status};
use crate::telemetry;

const TEXT: &str = "text/plain; charset=utf-8";

/// A word behind the `?`.
#[derive(Clone, Copy, Debug)]
pub(super) struct Param {
    /// Its name.
    pub(super) name: &'static str,
    /// What it is for, in a sentence.
    pub(super) help: &'static str,
    /// It has to be there.
    pub(super) required: bool,
    /// What it looks like.
    pub(super) shape: fn() -> Value,
}

/// What a good answer is.
#[derive(Clone, Copy, Debug)]
pub(super) enum Gives {
    /// JSON of this shape.
    Json(fn() -> Value),
    /// Text of this type.
    Text(&'static str),
}

/// What the body of a request is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Payload {
    /// There is none.
    Nothing,
    /// A fault.
    Fault,
    /// What changes of a fault: a JSON merge patch (RFC 7396).
    Patch,
    /// A whole set of them.
    Set,
    /// Why everything is stopped; may be left out.
    Reason,
}

impl Payload {
    /// What a body has to be said to be.
    pub(super) fn types(self) -> &'static [&'static str] {
        match self {
            Self::Nothing => &[],
            Self::Patch => &["application/merge-patch+json", "application/json"],
            Self::Fault | Self::Set | Self::Reason => &["application/json"],
        }
    }
}

/// One method of one path.
pub(super) struct Route {
    /// The method.
    pub(super) method: Method,
    /// The path, as axum and `OpenAPI` both write it.
    pub(super) path: &'static str,
    /// What it does, in a sentence.
    pub(super) help: &'static str,
    /// What the body is.
    pub(super) payload: Payload,
    /// What may stand behind the `?`.
    pub(super) params: &'static [Param],
    /// Headers that it reads.
    pub(super) headers: &'static [Param],
    /// What a good answer is.
    pub(super) gives: Gives,
    /// Statuses of good answers.
    pub(super) statuses: &'static [u16],
    pub(super) handler: MethodRouter<App>,
}

impl Route {
    fn new<H: Handler<T, App>, T: 'static>(
        method: Method,
        path: &'static str,
        handler: H,
        help: &'static str,
    ) -> Self {
        let filter = MethodFilter::try_from(method.clone()).unwrap_or(MethodFilter::GET);
        let handler = on(filter, handler);
        let gives = Gives::Text(TEXT);
        let (params, headers, statuses): (&[_], &[_], &[_]) = (&[], &[], &[200]);
        Self { method, path, help, payload: Payload::Nothing, params, headers, gives, statuses, handler }
    }

    fn takes(self, payload: Payload) -> Self {
        Self { payload, ..self }
    }

    fn params(self, params: &'static [Param]) -> Self {
        Self { params, ..self }
    }

    fn headers(self, headers: &'static [Param]) -> Self {
        Self { headers, ..self }
    }

    fn gives(self, shape: fn() -> Value) -> Self {
        Self { gives: Gives::Json(shape), ..self }
    }

    fn text(self, kind: &'static str) -> Self {
        Self { gives: Gives::Text(kind), ..self }
    }

    fn statuses(self, statuses: &'static [u16]) -> Self {
        Self { statuses, ..self }
    }
}

fn get<H: Handler<T, App>, T: 'static>(path: &'static str, handler: H, help: &'static str) -> Route {
    Route::new(Method::GET, path, handler, help)
}

fn post<H: Handler<T, App>, T: 'static>(path: &'static str, handler: H, help: &'static str) -> Route {
    Route::new(Method::POST, path, handler, help)
}

fn put<H: Handler<T, App>, T: 'static>(path: &'static str, handler: H, help: &'static str) -> Route {
    Route::new(Method::PUT, path, handler, help)
}

fn patch<H: Handler<T, App>, T: 'static>(path: &'static str, handler: H, help: &'static str) -> Route {
    Route::new(Method::PATCH, path, handler, help)
}

fn delete<H: Handler<T, App>, T: 'static>(path: &'static str, handler: H, help: &'static str) -> Route {
    Route::new(Method::DELETE, path, handler, help)
}

/// Every route; a new one is a line here.
#[rustfmt::skip]
pub(super) fn all() -> Vec<Route> {
    use Payload::{Fault, Patch, Reason, Set};
    vec![
        get("/healthz", status::healthz, "The agent answers"),
        get("/readyz", status::readyz, "Faults can be set: the thread that holds them answers in time").gives(status::ready_shape),
        get("/metrics", metrics::metrics, "Counters and states, as Prometheus reads them").text(telemetry::CONTENT_TYPE),
        get("/openapi.json", openapi::show, "This description").gives(|| json!({"type": "object"})),
        get("/docs", page::show, "This description as a page").text("text/html; charset=utf-8"),
        get("/v1/status", status::status, "What the agent is and how many faults it holds").gives(status::shape),
        get("/v1/capabilities", capabilities::show, "What this machine can do, and every kind of fault").gives(capabilities::shape),
        get("/v1/events", events::stream, "What happens, as server-sent events").params(events::PARAMS).headers(events::HEADERS).text("text/event-stream"),
        get("/v1/flows", flows::show, "Who a target talks to now").params(flows::PARAMS).gives(flows::shape),
        post("/v1/stop", faults::stop, "End every fault and refuse new ones, until resume").takes(Reason).gives(status::stopped_shape),
        post("/v1/resume", faults::resume, "Accept faults again").gives(status::stopped_shape),
        get("/v1/faults", faults::list, "Every fault that is known").gives(faults_shape),
        post("/v1/faults", faults::create, "Set a fault").takes(Fault).headers(openapi::IDEMPOTENCY).gives(fault_shape).statuses(&[201]),
        put("/v1/faults", faults::replace_all, "Set the whole set of faults at once").takes(Set).gives(faults_shape),
        delete("/v1/faults", faults::delete_all, "End every fault").gives(|| shape::object([("ended", shape::count("How many"))])),
        post("/v1/faults:validate", faults::validate, "Whether a fault would be accepted; touches nothing").takes(Fault).gives(faults::valid_shape),
        post("/v1/faults:explain", faults::explain, "What a fault would do, in words; touches nothing").takes(Fault).gives(faults::plan_shape),
        get("/v1/faults/{id}", faults::show, "One fault, by its number or name").gives(fault_shape),
        put("/v1/faults/{id}", faults::put, "Set the fault of this name or number, instead of the one there is").takes(Fault).gives(fault_shape).statuses(&[200, 201]),
        patch("/v1/faults/{id}", faults::patch, "Change some fields of a fault").takes(Patch).gives(fault_shape),
        delete("/v1/faults/{id}", faults::delete, "End a fault; the answer has its last counters").gives(fault_shape),
        get("/v1/faults/{id}/stats", faults::stats, "The counters of a fault").gives(|| shape::named("Stats")),
        post("/v1/faults/{id}/renew", faults::renew, "Let a fault's lease begin anew").gives(fault_shape),
    ]
}

fn fault_shape() -> Value {
    shape::named("Fault")
}

fn faults_shape() -> Value {
    shape::object([("faults", shape::list(fault_shape()))])
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_route_is_there_once_and_says_what_it_does() {
        let routes = all();
        let mut keys: Vec<String> =
            routes.iter().map(|route| format!("{} {}", route.method, route.path)).collect();
        keys.sort();
        let count = keys.len();
        keys.dedup();
        assert_eq!(keys.len(), count);
        assert!(routes.iter().all(|route| !route.help.is_empty()));
        assert!(routes.iter().flat_map(|route| route.params).all(|param| !param.help.is_empty()));
    }
}
