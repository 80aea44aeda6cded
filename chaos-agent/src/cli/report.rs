//! What a held fault says: counters, progress, events and a summary, as text or as JSON lines.
//!
//! Each JSON line is an object with a `type`: `started` (armed), `tick` (counters, every second), `event`
//! (from the engine), `note` (a hint in words), `summary` (the last one). Counters are those of
//! [`RuleStats`]; times end in `_ms`. An error is one line with the type `error` (see `cli::run`).

use std::{fmt::Write as _, io, time::Duration};

use chaos_common::abi::Count;
use serde::Serialize;

use super::{
    output::{self, Stream},
    units,
};
use crate::engine::{Counters, Event, RuleStats};

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

fn started_text(started: &Started) -> String {
    let mode = if started.shadow { ", shadow: nothing is touched" } else { "" };
    let time =
        started.duration.map_or_else(String::new, |time| format!(" for {}", units::show_duration(time)));
    format!("{} on {}{time}{mode}; Ctrl-C ends it", started.rules.join(", "), started.target)
}

/// `loss 10%: 12345 packets matched (1.2 MiB), 1234 dropped (10.0%)`, and what else is worth telling.
pub(crate) fn rule_text(rule: &RuleStats) -> String {
    let matched_bytes = sum(rule, |counters| counters.matched_bytes);
    let volume =
        if matched_bytes == 0 { String::new() } else { format!(" ({})", units::show_bytes(matched_bytes)) };
    counters_text(rule, &volume)
}

/// The same without the bytes, for the live line; a long name must not push the counters out.
fn short_rule_text(rule: &RuleStats) -> String {
    const LONGEST: usize = 32;
    if rule.name.chars().count() <= LONGEST {
        return counters_text(rule, "");
    }
    let name = rule.name.chars().take(LONGEST - 3).chain("...".chars()).collect();
    counters_text(&RuleStats { name, ..rule.clone() }, "")
}

fn counters_text(rule: &RuleStats, volume: &str) -> String {
    let packets = |count: Count| sum(rule, |counters| counters.of(count).packets);
    let (matched, dropped) = (packets(Count::Matched), packets(Count::Dropped));
    let mut text = format!("{}: {matched} packets matched{volume}", rule.name);
    let touched = Count::ALL.iter().any(|count| *count != Count::Matched && packets(*count) > 0);
    if dropped > 0 || !touched {
        let _ = write!(text, ", {dropped} dropped{}", percent(dropped, matched));
    }
    for count in Count::ALL {
        if let (Some(what), true) = (in_words(*count), packets(*count) > 0) {
            let share = if count.is_effect() { percent(packets(*count), matched) } else { String::new() };
            let _ = write!(text, ", {} {what}{share}", packets(*count));
        }
    }
    text
}

/// What happened to the packets counted so, after their number; none = it is said elsewhere.
const fn in_words(count: Count) -> Option<&'static str> {
    match count {
        Count::Matched | Count::Dropped | Count::Expired => None,
        Count::Shadowed => Some("would have been hit"),
        Count::Lease => Some("passed because the lease lapsed"),
        Count::Limited => Some("passed because the limit was reached"),
        Count::Unheld => Some("passed at once because the delay line did not run"),
        Count::Refused => Some("connections refused"),
        Count::Answered
        | Count::Delayed
        | Count::Duplicated
        | Count::Corrupted
        | Count::Marked
        | Count::Reordered => Some(count.label()),
    }
}

/// Both directions together.
fn sum(rule: &RuleStats, field: impl Fn(&Counters) -> u64) -> u64 {
    field(&rule.egress) + field(&rule.ingress)
}

fn percent(part: u64, whole: u64) -> String {
    if part == 0 || whole == 0 {
        return String::new();
    }
    #[expect(clippy::cast_precision_loss, reason = "one decimal is shown")]
    let percent = part as f64 * 100.0 / whole as f64;
    format!(" ({percent:.1}%)")
}

fn plain_text(progress: &Progress) -> String {
    let rules: Vec<String> = progress.rules.iter().map(rule_text).collect();
    format!("{} left; {}", whole_seconds(progress.remaining), rules.join("; "))
}

/// A bar, the time left and the counters, in less than `width` columns.
fn live_text(progress: &Progress, width: usize) -> String {
    const BAR: u128 = 10;
    let whole = (progress.elapsed + progress.remaining).as_millis().max(1);
    let filled = usize::try_from(progress.elapsed.as_millis() * BAR / whole).unwrap_or(0);
    let bar = format!("[{:<10}]", "#".repeat(filled));
    let counters: Vec<String> = progress.rules.iter().map(short_rule_text).collect();
    let left = format!("{} left  {}", whole_seconds(progress.remaining), counters.join("; "));
    let with_bar = format!("{bar} {left}");
    // The counters are worth more than the bar.
    fit(if with_bar.chars().count() < width { &with_bar } else { &left }, width)
}

/// Counts down to "1s left", never to "0s left" while it is still there.
fn whole_seconds(time: Duration) -> String {
    units::show_duration(Duration::from_secs(time.as_millis().div_ceil(1000).try_into().unwrap_or(u64::MAX)))
}

/// Leaves the last column free: a terminal that wraps there would scroll with each rewrite.
fn fit(text: &str, width: usize) -> String {
    text.chars().take(width.saturating_sub(1)).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn stats(matched: u64, dropped: u64) -> RuleStats {
        let egress = Counters {
            matched_packets: matched,
            matched_bytes: matched * 1024,
            dropped_packets: dropped,
            dropped_bytes: dropped * 1024,
            ..Counters::default()
        };
        RuleStats { name: "loss 10%".to_owned(), egress, ..RuleStats::default() }
    }

    fn progress() -> Progress {
        Progress {
            elapsed: Duration::from_millis(15_010),
            remaining: Duration::from_millis(14_990),
            rules: vec![stats(1000, 98)],
        }
    }

    #[test]
    fn a_rule_in_one_line() {
        assert_eq!(
            rule_text(&stats(1000, 98)),
            "loss 10%: 1000 packets matched (1000.0 KiB), 98 dropped (9.8%)"
        );
        assert_eq!(rule_text(&stats(0, 0)), "loss 10%: 0 packets matched, 0 dropped");
        let mut shadow = stats(10, 0);
        shadow.ingress.shadowed_packets = 3;
        shadow.ingress.lease_packets = 2;
        let text = rule_text(&shadow);
        assert!(text.ends_with("3 would have been hit, 2 passed because the lease lapsed"), "{text}");
    }

    #[test]
    fn the_live_line_fits_any_terminal() {
        for width in [1, 10, 40, 80, 200] {
            assert!(live_text(&progress(), width).chars().count() < width.max(1), "{width}");
        }
        let wide = live_text(&progress(), 200);
        assert!(wide.starts_with("[#####     ] 15s left  loss 10%: 1000 packets"), "{wide}");
        let mut long = progress();
        long.rules[0].name = "partition {netns:one,netns:two} <-> {netns:three,netns:four}".to_owned();
        assert!(live_text(&long, 80).contains("...: 1000"), "{}", live_text(&long, 80));
        assert!(live_text(&long, 80).contains("1000 packets"), "{}", live_text(&long, 80));
        assert!(live_text(&progress(), 65).starts_with("15s left"), "counters win over the bar");
    }

    #[test]
    fn json_lines_have_a_type_and_units_in_their_names() {
        let line = serde_json::to_value(JsonLine::Tick(&progress())).unwrap();
        assert_eq!(line["type"], "tick");
        assert_eq!(line["elapsed_ms"], 15_010);
        assert_eq!(line["rules"][0]["egress"]["dropped_packets"], 98);
        let summary = Summary::new(End::TimeOver, Duration::from_secs(30), vec![stats(0, 0)]);
        let line = serde_json::to_value(JsonLine::Summary(&summary)).unwrap();
        assert_eq!((&line["type"], &line["end"]), (&"summary".into(), &"time_over".into()));
        assert_eq!(line["matched"], false);
    }
}
