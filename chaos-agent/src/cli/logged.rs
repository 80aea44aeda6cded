//! Armed faults whose beginning and end are in the audit log: those that a command holds by itself.

use std::time::{Duration, Instant};

use anyhow::Result;

use super::hold::{Armed, Told};
use crate::{
    engine::{Event, RuleStats},
    safety::CommandLog,
};

/// Armed faults with their two lines in the log.
pub(crate) struct Logged<A> {
    armed: A,
    log: CommandLog,
    ends_at: Option<Instant>,
    why: Option<String>,
}

impl<A: Armed> Logged<A> {
    /// They are held from now on; no duration = as long as the command they were made for.
    pub(crate) fn begin(armed: A, does: &str, duration: Option<Duration>) -> Self {
        let ends_at = duration.and_then(|duration| Instant::now().checked_add(duration));
        Self { armed, log: CommandLog::begin(does, duration), ends_at, why: None }
    }
}

impl<A: Armed> Armed for Logged<A> {
    fn tick(&mut self) -> Result<Vec<Event>> {
        let ticked = self.armed.tick();
        if let Err(error) = &ticked {
            self.why = Some(error.to_string());
        }
        ticked
    }

    fn stats(&self) -> Result<Vec<RuleStats>> {
        self.armed.stats()
    }

    fn suspect(&mut self) -> Result<()> {
        self.armed.suspect()
    }

    fn cause(&mut self) -> Result<Option<String>> {
        self.armed.cause()
    }

    fn told(&mut self) -> Vec<Told> {
        self.armed.told()
    }

    fn stop(self) -> Result<Vec<RuleStats>> {
        let stopped = self.armed.stop();
        let is_over = self.ends_at.is_some_and(|ends_at| ends_at <= Instant::now());
        let own = if is_over { "its time is over" } else { "its command ended it" };
        self.log.end(self.why.as_deref().unwrap_or(own));
        stopped
    }
}
