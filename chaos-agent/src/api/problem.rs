//! Errors as `application/problem+json` (RFC 9457), with the place in the body that is wrong.

use axum::{
    body::to_bytes,
    http::{HeaderValue, StatusCode, header},
    response::{IntoResponse, Json, Response},
};
use serde::Serialize;

use crate::{
    cli::{Exit, Report},
    daemon::KeeperError,
};

const KIND: &str = "application/problem+json";
/// A library's sentence is not longer.
const LIBRARY_TEXT: usize = 4096;

/// What is wrong with one place of the request.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub(super) struct Wrong {
    /// JSON pointer into the body (RFC 6901); empty = the whole body.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(super) pointer: Option<String>,
    /// The word behind the `?`, or the header.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(super) parameter: Option<String>,
    /// What was given and what is accepted.
    pub(super) detail: String,
}

/// An answer that is an error.
#[derive(Clone, Debug, Serialize)]
pub(super) struct Problem {
    #[serde(skip)]
    code: StatusCode,
    title: &'static str,
    status: u16,
    detail: String,
    #[serde(skip_serializing_if = "Option::is_none")]
    mend: Option<String>,
    #[serde(skip_serializing_if = "Vec::is_empty")]
    errors: Vec<Wrong>,
}

impl Problem {
    pub(super) fn new(code: StatusCode, detail: impl Into<String>) -> Self {
        let title = code.canonical_reason().unwrap_or("Error");
        Self { code, title, status: code.as_u16(), detail: detail.into(), mend: None, errors: Vec::new() }
    }

    /// A field of the body is wrong.
    pub(super) fn field(pointer: impl Into<String>, detail: impl Into<String>) -> Self {
        let (pointer, detail) = (pointer.into(), detail.into());
        let place = if pointer.is_empty() { "the body" } else { &pointer };
        Self {
            errors: vec![Wrong { pointer: Some(pointer.clone()), parameter: None, detail: detail.clone() }],
            ..Self::new(StatusCode::UNPROCESSABLE_ENTITY, format!("{place}: {detail}"))
        }
    }

    /// A word behind the `?`, or a header, is wrong.
    pub(super) fn parameter(name: &str, detail: impl Into<String>) -> Self {
        let detail = detail.into();
        Self {
            errors: vec![Wrong { pointer: None, parameter: Some(name.to_owned()), detail: detail.clone() }],
            ..Self::new(StatusCode::BAD_REQUEST, format!("{name}: {detail}"))
        }
    }

    /// Another status than that of its kind.
    pub(super) fn set_status(&mut self, code: StatusCode) {
        (self.code, self.status) = (code, code.as_u16());
        self.title = code.canonical_reason().unwrap_or("Error");
    }

    /// Adds what helps.
    #[must_use]
    pub(super) fn mend(mut self, mend: impl Into<String>) -> Self {
        self.mend = Some(mend.into());
        self
    }

    /// What the command line would say about the same fault.
    pub(super) fn of(error: &anyhow::Error) -> Self {
        let Report { code, what, why, mend } = Report::new(error);
        let status = match code {
            code if code == Exit::Usage as u8 => StatusCode::UNPROCESSABLE_ENTITY,
            code if code == Exit::Refused as u8 => StatusCode::CONFLICT,
            _ => StatusCode::INTERNAL_SERVER_ERROR,
        };
        let detail = std::iter::once(what).chain(why).collect::<Vec<_>>().join(": ");
        Self { mend, ..Self::new(status, detail) }
    }

    /// Puts the place before every pointer: the body was part of a larger one.
    #[must_use]
    pub(super) fn within(mut self, place: &str) -> Self {
        for wrong in &mut self.errors {
            wrong.pointer = wrong.pointer.take().map(|pointer| format!("{place}{pointer}"));
        }
        self.detail = format!("{place}: {}", self.detail);
        self
    }
}

impl From<KeeperError> for Problem {
    fn from(error: KeeperError) -> Self {
        let status = match &error {
            KeeperError::Unknown(_) => StatusCode::NOT_FOUND,
            KeeperError::Over(_) => StatusCode::GONE,
            KeeperError::NotRoot | KeeperError::NoCommands => StatusCode::FORBIDDEN,
            KeeperError::Unwatchable(_) | KeeperError::TooMany(..) | KeeperError::Changed => {
                StatusCode::CONFLICT
            }
            KeeperError::Taken(name) => {
                let replace = format!("PUT /v1/faults/{name} replaces it");
                return Self::new(StatusCode::CONFLICT, error.to_string()).mend(replace);
            }
            KeeperError::Stopped(_) | KeeperError::Ending => StatusCode::SERVICE_UNAVAILABLE,
            KeeperError::Engine(_) => return Self::of(&unwrapped(error)),
        };
        Self::new(status, error.to_string())
    }
}

/// The engine's own error knows what kind it is.
fn unwrapped(error: KeeperError) -> anyhow::Error {
    if let KeeperError::Engine(error) = error { error.into() } else { error.into() }
}

/// What a library refused by itself, such as a body that is too long, as a problem.
pub(super) async fn of_library(response: Response) -> Response {
    let status = response.status();
    let kind = response.headers().get(header::CONTENT_TYPE);
    if !(status.is_client_error() || status.is_server_error()) || kind.is_some_and(|kind| kind == KIND) {
        return response;
    }
    let (head, body) = response.into_parts();
    let text = to_bytes(body, LIBRARY_TEXT).await.unwrap_or_default();
    let mut problem = Problem::new(status, String::from_utf8_lossy(&text)).into_response();
    if let Some(allow) = head.headers.get(header::ALLOW) {
        problem.headers_mut().insert(header::ALLOW, allow.clone());
    }
    problem
}

impl IntoResponse for Problem {
    fn into_response(self) -> Response {
        let mut response = (self.code, Json(self)).into_response();
        response.headers_mut().insert(header::CONTENT_TYPE, HeaderValue::from_static(KIND));
        response
    }
}
