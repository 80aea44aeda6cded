//! A held fault in words: the line that begins it, the live line, the counters of its rules.

use std::{fmt::Write as _, time::Duration};

use chaos_common::abi::Count;

use super::{Progress, Started};
use crate::{
    cli::units,
    engine::{Counters, RuleStats},
};

/// What begins, on whom, for how long.
pub(super) fn started_text(started: &Started) -> String {
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

/// The time left and the counters.
pub(super) fn plain_text(progress: &Progress) -> String {
    let rules: Vec<String> = progress.rules.iter().map(rule_text).collect();
    format!("{} left; {}", whole_seconds(progress.remaining), rules.join("; "))
}

/// A bar, the time left and the counters, in less than `width` columns.
pub(super) fn live_text(progress: &Progress, width: usize) -> String {
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
pub(super) fn fit(text: &str, width: usize) -> String {
    text.chars().take(width.saturating_sub(1)).collect()
}
