//! What goes wrong, as the user sees it: what, why, what mends it, and the exit code.

use std::{fmt::Write as _, process::ExitCode};

use serde::Serialize;

use crate::{
    engine::EngineError, exec::ExecError, netns::NetnsError, targets::TargetError, validate::Refusal,
};

/// How `chaos` ends. `exec` ends with its command's own code when that is not 0.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[repr(u8)]
pub(crate) enum Exit {
    /// Done.
    Done = 0,
    /// Anything that has no code of its own.
    Other = 1,
    /// A wrong word on the command line; the same number clap uses.
    Usage = 2,
    /// Understood, but it must not or cannot be done here: no privileges, protected, a kernel feature or
    /// the target itself is missing, not confirmed.
    Refused = 3,
    /// `exec` only: the command ran and succeeded, but no packet of it was hit.
    NoMatch = 4,
}

impl From<Exit> for ExitCode {
    fn from(exit: Exit) -> Self {
        Self::from(exit as u8)
    }
}

/// An error of the command line itself, complete enough to be shown.
#[derive(Debug, thiserror::Error)]
#[error("{what}")]
pub(crate) struct Failure {
    /// How to end.
    pub(crate) exit: Exit,
    /// What was wrong and where.
    pub(crate) what: String,
    /// What is accepted, or the command that mends it.
    pub(crate) mend: Option<String>,
}

impl Failure {
    /// A wrong command line.
    pub(crate) fn usage(what: impl Into<String>) -> Self {
        Self { exit: Exit::Usage, what: what.into(), mend: None }
    }

    /// Understood, but refused.
    pub(crate) fn refused(what: impl Into<String>) -> Self {
        Self { exit: Exit::Refused, what: what.into(), mend: None }
    }

    /// A rule that makes no sense is a wrong command line.
    pub(crate) fn senseless(refusal: Refusal) -> Self {
        Self::usage(refusal.what).mend(refusal.mend)
    }

    /// A rule that this machine cannot do.
    pub(crate) fn impossible(refusal: Refusal) -> Self {
        Self::refused(refusal.what).mend(refusal.mend)
    }

    /// Adds what is accepted, or the command that mends it.
    #[must_use]
    pub(crate) fn mend(mut self, mend: impl Into<String>) -> Self {
        self.mend = Some(mend.into());
        self
    }
}

/// An error taken apart for people (`Display`-like, see [`Report::text`]) and machines (JSON).
#[derive(Debug, PartialEq, Eq, Serialize)]
pub(crate) struct Report {
    /// Exit code.
    pub(crate) code: u8,
    /// The outermost sentence.
    pub(crate) what: String,
    /// Its causes, outermost first.
    pub(crate) why: Vec<String>,
    /// What mends it.
    pub(crate) mend: Option<String>,
}

impl Report {
    /// Takes an error and its causes apart.
    pub(crate) fn new(error: &anyhow::Error) -> Self {
        let mut sentences: Vec<String> = Vec::new();
        for cause in error.chain() {
            let sentence = cause.to_string();
            // Many errors print their source as well; a cause is told once.
            if !sentences.iter().any(|told| told.contains(&sentence)) {
                sentences.push(sentence);
            }
        }
        let mut sentences = sentences.into_iter();
        Self {
            code: exit_code(error),
            what: sentences.next().unwrap_or_default(),
            why: sentences.collect(),
            mend: error.downcast_ref::<Failure>().and_then(|failure| failure.mend.clone()),
        }
    }

    /// The block printed on stderr.
    pub(crate) fn text(&self) -> String {
        let mut text = format!("chaos: {}", self.what);
        for why in &self.why {
            let _ = write!(text, "\n  because: {why}");
        }
        if let Some(mend) = &self.mend {
            let _ = write!(text, "\n  try: {mend}");
        }
        text
    }
}

fn exit_code(error: &anyhow::Error) -> u8 {
    if let Some(failure) = error.downcast_ref::<Failure>() {
        return failure.exit as u8;
    }
    if let Some(failure) = error.downcast_ref::<ExecError>() {
        return u8::try_from(failure.exit_code()).unwrap_or(Exit::Other as u8);
    }
    if let Some(failure) = error.downcast_ref::<TargetError>() {
        let denied = matches!(failure, TargetError::Netns(NetnsError::Denied { .. }));
        return if denied || failure.is_gone() { Exit::Refused } else { Exit::Other } as u8;
    }
    error.downcast_ref::<EngineError>().map_or(Exit::Other as u8, EngineError::exit_code)
}

#[cfg(test)]
mod tests {
    use anyhow::Context as _;

    use super::{super::hold::some_engine_error, *};

    #[test]
    fn a_block_says_what_why_and_what_mends() {
        let error = anyhow::Error::new(Failure::refused("CAP_BPF is missing").mend("sudo chaos stop --all"))
            .context("cannot stop");
        let report = Report::new(&error);
        assert_eq!(report.code, 3);
        assert_eq!(
            report.text(),
            "chaos: cannot stop\n  because: CAP_BPF is missing\n  try: sudo chaos stop --all"
        );
    }

    #[test]
    fn a_cause_that_was_told_is_not_told_again() {
        let result: Result<(), _> = Err(std::io::Error::other("no space")).context("cannot write: no space");
        let report = Report::new(&result.expect_err("an error"));
        assert_eq!((report.code, report.why.len()), (1, 0));
    }

    #[test]
    fn the_engines_own_code_is_kept() {
        let code = some_engine_error().exit_code();
        let error = anyhow::Error::new(some_engine_error()).context("cannot start");
        assert_eq!(Report::new(&error).code, code);
    }
}
