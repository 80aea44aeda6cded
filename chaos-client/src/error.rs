//! What can go wrong.

use std::{fmt, io, time::Duration};

use serde::{Deserialize, Serialize};

use crate::Place;

/// Why there is no answer, or why it is no.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// Nobody listens there: no agent was started, or it is gone and only its socket is left.
    #[error("no agent listens at {place}: {error}")]
    Absent {
        /// Where.
        place: Place,
        /// `NotFound`: nothing is there; `ConnectionRefused`: only what it left.
        error: io::Error,
    },
    /// An agent is there, and this process may not ask it.
    #[error("this process may not ask the agent at {place}")]
    Denied {
        /// Where.
        place: Place,
    },
    /// An agent is there and does not answer.
    #[error("the agent at {place} did not answer within {limit:?}")]
    Silent {
        /// Where.
        place: Place,
        /// How long it was waited for.
        limit: Duration,
    },
    /// The agent says no.
    #[error(transparent)]
    Refused(Box<Problem>),
    /// What came is no answer, or it ended in the middle.
    #[error("what the agent at {place} answered cannot be understood: {what}")]
    Garbled {
        /// Where.
        place: Place,
        /// What is wrong with it.
        what: String,
    },
    /// Where to ask is set wrong.
    #[error("{0}")]
    Setting(String),
}

impl Error {
    /// What the agent refused, if it did.
    #[must_use]
    pub fn problem(&self) -> Option<&Problem> {
        if let Self::Refused(problem) = self { Some(problem) } else { None }
    }

    /// The fault that was asked about is not there or is over.
    #[must_use]
    pub fn is_gone(&self) -> bool {
        self.problem().is_some_and(|problem| matches!(problem.status, 404 | 410))
    }
}

/// An answer of the type `application/problem+json` (RFC 9457).
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Problem {
    /// HTTP status.
    pub status: u16,
    /// The status in words.
    #[serde(default)]
    pub title: String,
    /// What was wrong, where, and what is accepted.
    #[serde(default)]
    pub detail: String,
    /// What mends it.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub mend: Option<String>,
    /// The fields that are wrong.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub errors: Vec<Wrong>,
}

/// One field that is wrong.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Wrong {
    /// JSON pointer (RFC 6901) into the body that was sent; empty = the whole of it.
    #[serde(default)]
    pub pointer: String,
    /// What was given and what is accepted.
    #[serde(default)]
    pub detail: String,
}

impl fmt::Display for Problem {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        if self.detail.is_empty() {
            write!(f, "{} {}", self.status, self.title)
        } else {
            f.write_str(&self.detail)
        }
    }
}

impl std::error::Error for Problem {}
