//! The audit log of a command that works alone.

use std::time::{Duration, SystemTime};

use serde_json::{Value, json};

use super::{
    audit::{Audit, Deed, Entry},
    caller::Caller,
};
use crate::cli::output;

/// One command's two lines: its fault began, its fault ended. A command that is killed writes only the first; the
/// `until` of it is kept by the kernel all the same.
#[derive(Debug)]
pub(crate) struct CommandLog {
    audit: Audit,
    who: Caller,
    does: String,
}

impl CommandLog {
    /// The fault is held; none = as long as the command it was made for, at most an hour.
    pub(crate) fn begin(does: &str, duration: Option<Duration>) -> Self {
        let mut log = Self { audit: Audit::of_command(), who: Caller::command(), does: does.to_owned() };
        let request: Value = json!(std::env::args().skip(1).collect::<Vec<_>>());
        let until = SystemTime::now().checked_add(duration.unwrap_or(super::limits().max_duration));
        let until = until.map(|until| humantime::format_rfc3339_millis(until).to_string());
        log.write(Deed::Started, &request, until, None);
        log
    }

    /// It is over.
    pub(crate) fn end(mut self, why: &str) {
        self.write(Deed::Ended, &Value::Null, None, Some(why));
    }

    fn write(&mut self, what: Deed, request: &Value, until: Option<String>, why: Option<&str>) {
        let entry = Entry::new(what, &self.who);
        let told = self.audit.record(&Entry { does: &self.does, request, until, why, ..entry });
        if let Some(trouble) = told {
            output::warn(&format!("{trouble}; the fault is not in it"));
        }
    }
}
