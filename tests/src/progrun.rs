//! Packet tables through `BPF_PROG_TEST_RUN`: a row says what goes in and what must come out.
//!
//! `CHAOS_ROW=name` runs only the rows whose name contains it. A table that runs no row fails.

use std::{fmt::Debug, panic::Location};

use anyhow::{Result, bail, ensure};

use crate::packet::Packet;

/// Which program of the pair judges the packet.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Hook {
    /// The classifier at tc egress.
    Egress,
    /// The classifier at tc ingress.
    Ingress,
}

/// What the program did with a packet.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Fate {
    /// Handed on (`TC_ACT_UNSPEC`).
    Pass,
    /// Vanished: redirected to nowhere at egress, `TC_ACT_SHOT` at ingress.
    Drop,
    /// Sent to a device: into the normaliser.
    Redirect,
}

/// Counters that a row expects, those of one rule and direction; others must be 0.
pub type Expected<'a> = &'a [(&'a str, u64)];

/// One line of a table. `R` is what the datapath takes as a rule.
#[derive(Debug)]
pub struct Row<'a, R> {
    /// Names the row; `CHAOS_ROW` selects by it.
    pub name: &'a str,
    /// The rules in force.
    pub rules: Vec<R>,
    /// What goes in.
    pub packet: Packet,
    /// Where.
    pub hook: Hook,
    /// What must happen to it.
    pub fate: Fate,
    /// What must come out; none = unchanged.
    pub bytes: Option<Packet>,
    /// What the first rule must have counted.
    pub counters: Expected<'a>,
}

/// What a program under test gave back.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Outcome {
    /// What it decided.
    pub fate: Fate,
    /// The packet afterwards.
    pub bytes: Vec<u8>,
    /// Counters of the first rule in the packet's direction, those that are not 0.
    pub counters: Vec<(String, u64)>,
}

/// Programs under test: loaded once, with a fresh state for every row.
pub trait Subject {
    /// What it takes as a rule.
    type Rule: Debug;

    /// Puts exactly these rules in force, state and counters zeroed, and runs one packet.
    ///
    /// # Errors
    /// When the kernel refuses a map update or the run.
    fn judge(&mut self, rules: &[Self::Rule], hook: Hook, packet: &[u8]) -> Result<Outcome>;
}

/// Runs every selected row and reports all that fail.
///
/// # Errors
/// When a row fails, two rows have one name, or no row ran.
#[track_caller]
pub fn run_table<S: Subject>(subject: &mut S, rows: &[Row<'_, S::Rule>]) -> Result<()> {
    let place = Location::caller();
    let selected = std::env::var("CHAOS_ROW").unwrap_or_default();
    run_selected(subject, rows, &selected).map_err(|error| error.context(format!("table at {place}")))
}

fn run_selected<S: Subject>(subject: &mut S, rows: &[Row<'_, S::Rule>], selected: &str) -> Result<()> {
    let mut names: Vec<&str> = rows.iter().map(|row| row.name).collect();
    names.sort_unstable();
    ensure!(names.windows(2).all(|pair| pair[0] != pair[1]), "two rows have one name: {names:?}");
    let mut failures = Vec::new();
    let mut ran = 0;
    for row in rows.iter().filter(|row| row.name.contains(selected)) {
        ran += 1;
        if let Err(error) = check(subject, row) {
            failures
                .push(format!("row `{}`: {error:#}\n  rules {:?}\n  in {}", row.name, row.rules, row.packet));
        }
    }
    ensure!(ran > 0, "no row ran: the table has {}, CHAOS_ROW is `{selected}`", rows.len());
    if !failures.is_empty() {
        bail!("{} of {ran} rows fail (CHAOS_ROW=name runs one):\n{}", failures.len(), failures.join("\n"));
    }
    Ok(())
}

fn check<S: Subject>(subject: &mut S, row: &Row<'_, S::Rule>) -> Result<()> {
    let input = row.packet.bytes();
    let outcome = subject.judge(&row.rules, row.hook, &input)?;
    ensure!(outcome.fate == row.fate, "expected {:?}, got {:?}", row.fate, outcome.fate);
    let wanted = row.bytes.as_ref().map_or(input, Packet::bytes);
    if let Some(place) = first_difference(&wanted, &outcome.bytes) {
        bail!("bytes differ from offset {place} on: wanted {wanted:02x?}, got {:02x?}", outcome.bytes);
    }
    let mut counted: Vec<_> = outcome.counters.iter().map(|(name, value)| (name.as_str(), *value)).collect();
    let mut expected = row.counters.to_vec();
    counted.sort_unstable();
    expected.sort_unstable();
    ensure!(counted == expected, "counters: expected {expected:?}, got {counted:?}");
    Ok(())
}

fn first_difference(wanted: &[u8], got: &[u8]) -> Option<usize> {
    let common = wanted.iter().zip(got).position(|(wanted, got)| wanted != got);
    common.or_else(|| (wanted.len() != got.len()).then(|| wanted.len().min(got.len())))
}

#[cfg(test)]
mod tests {
    use anyhow::Result;

    use super::{Fate, Hook, Outcome, Row, Subject, run_selected};
    use crate::packet::Packet;

    /// Drops where a rule says so.
    struct Fake;

    impl Subject for Fake {
        type Rule = bool;

        fn judge(&mut self, rules: &[bool], _: Hook, packet: &[u8]) -> Result<Outcome> {
            let dropped = rules.contains(&true);
            let counters = if dropped { vec![("dropped_packets".to_owned(), 1)] } else { Vec::new() };
            let fate = if dropped { Fate::Drop } else { Fate::Pass };
            Ok(Outcome { fate, bytes: packet.to_vec(), counters })
        }
    }

    fn row(name: &str, rule: bool) -> Row<'_, bool> {
        Row {
            name,
            rules: vec![rule],
            packet: Packet::new().eth().ipv4("10.0.0.1", "10.0.0.2").udp(1, 2),
            hook: Hook::Egress,
            fate: Fate::Drop,
            bytes: None,
            counters: &[("dropped_packets", 1)],
        }
    }

    #[test]
    fn rows_pass_fail_and_are_selected() {
        run_selected(&mut Fake, &[row("drops", true)], "").unwrap();
        let error = run_selected(&mut Fake, &[row("drops", true), row("passes", false)], "").unwrap_err();
        assert!(error.to_string().contains("passes") && !error.to_string().contains("`drops`"), "{error}");
        run_selected(&mut Fake, &[row("drops", true), row("passes", false)], "drops").unwrap();
    }

    #[test]
    fn an_empty_table_fails() {
        assert!(run_selected(&mut Fake, &[], "").is_err());
        assert!(run_selected(&mut Fake, &[row("drops", true)], "other").is_err());
        assert!(run_selected(&mut Fake, &[row("same", true), row("same", true)], "").is_err());
    }
}
