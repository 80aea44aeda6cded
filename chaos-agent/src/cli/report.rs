//! What a held fault says: counters, progress, events and a summary, as text or as JSON lines.
//!
//! Each JSON line is an object with a `type`: `started` (armed), `tick` (counters, every second), `event`
//! (from the engine), `packet` (one that was hit), `note` (a hint in words), `summary` (the last one). Counters are those of
//! [`RuleStats`]; times end in `_ms`. An error is one line with the type `error` (see `cli::run`).

mod text;

use std::{io, time::Duration};

use serde::Serialize;
use serde_json::Value;

pub(crate) use self::text::rule_text;
use self::text::{fit, live_text, plain_text, started_text};
use super::{
    hold::Told,
    output::{self, Stream},
};
use crate::engine::{Event, RuleStats};

/// How often the counters are shown.
const LIVE_PERIOD: Duration = Duration::from_millis(100);
const PLAIN_PERIOD: Duration = Duration::from_secs(5);
const JSON_PERIOD: Duration = Duration::from_secs(1);

/// Where a held fault stands.
#[derive(Clone, Debug, Serialize)]
pub(crate) struct Progress {
    /// Since it was armed.
    #[serde(rename = "elapsed_ms", serialize_with = "as_millis")]
    pub(crate) elapsed: Duration,
    /// Until it ends by itself.
    #[serde(rename = "remaining_ms", serialize_with = "as_millis")]
    pub(crate) remaining: Duration,
    /// One for each rule.
    pub(crate) rules: Vec<RuleStats>,
}

/// Why a held fault ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "snake_case")]
pub(crate) enum End {
    /// Its time was over.
    TimeOver,
    /// Ctrl-C or a signal.
    Interrupted,
    /// It was for this host and nobody confirmed it.
    NotConfirmed,
    /// Nobody reads what we print.
    ReaderGone,
    /// The command ended (`exec`).
    CommandEnded,
    /// The engine could not go on.
    Failed,
}

/// The last word about a fault.
#[derive(Clone, Debug, Serialize)]
pub(crate) struct Summary {
    /// Why it ended.
    pub(crate) end: End,
    /// How long it was held.
    #[serde(rename = "elapsed_ms", serialize_with = "as_millis")]
    pub(crate) elapsed: Duration,
    /// Whether any packet was matched.
    pub(crate) matched: bool,
    /// Final counters, one for each rule.
    pub(crate) rules: Vec<RuleStats>,
}

impl Summary {
    /// The last word about these counters.
    pub(crate) fn new(end: End, elapsed: Duration, rules: Vec<RuleStats>) -> Self {
        Self { end, elapsed, matched: matched(&rules), rules }
    }
}

/// What is about to be held.
#[derive(Clone, Debug, Serialize)]
pub(crate) struct Started {
    /// Names of the rules.
    pub(crate) rules: Vec<String>,
    /// Whom they are for.
    pub(crate) target: String,
    /// How long they will be held; none = as long as the command runs.
    #[serde(rename = "duration_ms", serialize_with = "as_optional_millis")]
    pub(crate) duration: Option<Duration>,
    /// Counts only.
    pub(crate) shadow: bool,
}

/// One line of `--json`.
#[derive(Debug, Serialize)]
#[serde(tag = "type", rename_all = "snake_case")]
enum JsonLine<'a> {
    Started(&'a Started),
    Tick(&'a Progress),
    Event { event: &'a Event, message: String },
    Packet(&'a Value),
    Note { message: &'a str },
    Summary(&'a Summary),
}

fn as_millis<S: serde::Serializer>(value: &Duration, serializer: S) -> Result<S::Ok, S::Error> {
    serializer.serialize_u64(u64::try_from(value.as_millis()).unwrap_or(u64::MAX))
}

#[expect(clippy::ref_option, reason = "serde hands over a reference to the field")]
fn as_optional_millis<S: serde::Serializer>(
    value: &Option<Duration>,
    serializer: S,
) -> Result<S::Ok, S::Error> {
    match value {
        Some(value) => as_millis(value, serializer),
        None => serializer.serialize_none(),
    }
}

/// The form the reports take.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Form {
    /// A line on the terminal, rewritten in place.
    Live,
    /// A line on stderr every few seconds.
    Plain,
    /// JSON lines on the stream.
    Json,
}

/// Says what a held fault does.
#[derive(Debug)]
pub(crate) struct Reporter {
    form: Form,
    results: Stream,
    reader_gone: bool,
}

impl Reporter {
    /// `results` is where summaries and JSON go; `live` allows a live line where there is a terminal.
    pub(crate) fn new(json: bool, results: Stream, live: bool) -> Self {
        let form = match (json, live && output::live_possible()) {
            (true, _) => Form::Json,
            (false, true) => Form::Live,
            (false, false) => Form::Plain,
        };
        Self { form, results, reader_gone: false }
    }

    /// How often [`Self::progress`] wants to be called.
    pub(crate) fn period(&self) -> Duration {
        match self.form {
            Form::Live => LIVE_PERIOD,
            Form::Plain => PLAIN_PERIOD,
            Form::Json => JSON_PERIOD,
        }
    }

    /// When [`Self::progress`] wants to be called first: a line about nothing yet would only be noise.
    pub(crate) fn first_report(&self) -> Duration {
        match self.form {
            Form::Live => Duration::ZERO,
            Form::Plain | Form::Json => self.period(),
        }
    }

    /// Nobody reads the results any more.
    pub(crate) fn reader_gone(&self) -> bool {
        self.reader_gone
    }

    pub(crate) fn started(&mut self, started: &Started) {
        match self.form {
            Form::Json => self.json(&JsonLine::Started(started)),
            Form::Live | Form::Plain => output::note(&started_text(started)),
        }
    }

    pub(crate) fn progress(&mut self, progress: &Progress) {
        match self.form {
            Form::Json => self.json(&JsonLine::Tick(progress)),
            Form::Live => output::live(&live_text(progress, output::width())),
            Form::Plain => output::note(&plain_text(progress)),
        }
    }

    /// A question and how long there is to answer it; in place of the live line.
    pub(crate) fn question(&mut self, text: &str, first: bool) {
        match self.form {
            Form::Live => output::live(&fit(text, output::width())),
            Form::Plain | Form::Json if first => output::note(text),
            Form::Plain | Form::Json => {}
        }
    }

    pub(crate) fn event(&mut self, event: &Event) {
        let message = event.to_string();
        match self.form {
            Form::Json => self.json(&JsonLine::Event { event, message }),
            Form::Live | Form::Plain => output::note(&message),
        }
    }

    /// A packet that was hit.
    pub(crate) fn packet(&mut self, told: &Told) {
        match self.form {
            Form::Json => self.json(&JsonLine::Packet(&told.packet)),
            Form::Live | Form::Plain => {
                let written = output::line(self.results, &told.line);
                self.watch(&written);
            }
        }
    }

    /// A hint that is no event of the engine.
    pub(crate) fn note(&mut self, message: &str) {
        match self.form {
            Form::Json => self.json(&JsonLine::Note { message }),
            Form::Live | Form::Plain => output::warn(message),
        }
    }

    pub(crate) fn summary(&mut self, summary: &Summary) {
        output::clear_live();
        match self.form {
            Form::Json => self.json(&JsonLine::Summary(summary)),
            Form::Live | Form::Plain => {
                // Among the lines of a command it must be clear whose line this is.
                let who = if self.results == Stream::Err { "chaos: " } else { "" };
                for rule in &summary.rules {
                    let text = format!("{who}{}, in {:.1}s", rule_text(rule), summary.elapsed.as_secs_f64());
                    let written = output::line(self.results, &text);
                    self.watch(&written);
                }
            }
        }
    }

    fn json(&mut self, line: &JsonLine) {
        let written = output::json(self.results, line);
        self.watch(&written);
    }

    fn watch(&mut self, written: &io::Result<()>) {
        self.reader_gone |= written.is_err();
    }
}

/// Whether any rule matched any packet.
pub(crate) fn matched(rules: &[RuleStats]) -> bool {
    rules.iter().any(|rule| rule.egress.matched_packets + rule.ingress.matched_packets > 0)
}

#[cfg(test)]
mod tests;
