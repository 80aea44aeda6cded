//! Errors as `application/problem+json` (RFC 9457), with the place in the body that is wrong.

use axum::{
    http::{HeaderValue, StatusCode, header},
    response::{IntoResponse, Json, Response},
};
use serde::Serialize;

use crate::{
    cli::{Exit, Report},
    daemon::KeeperError,
};

/// What is wrong with one place of the body.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub(super) struct Wrong {
    /// JSON pointer (RFC 6901); empty = the whole body.
    pub(super) pointer: String,
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
            errors: vec![Wrong { pointer: pointer.clone(), detail: detail.clone() }],
            ..Self::new(StatusCode::UNPROCESSABLE_ENTITY, format!("{place}: {detail}"))
        }
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
            wrong.pointer = format!("{place}{}", wrong.pointer);
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
            KeeperError::TooMany(..) => StatusCode::CONFLICT,
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

impl IntoResponse for Problem {
    fn into_response(self) -> Response {
        let mut response = (self.code, Json(self)).into_response();
        let kind = HeaderValue::from_static("application/problem+json");
        response.headers_mut().insert(header::CONTENT_TYPE, kind);
        response
    }
}
