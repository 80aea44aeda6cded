//! What this kernel and machine can do, what is missing, and the command that mends it.
//!
//! Everything is found out by trying it, in namespaces that end with the attempt; a kernel's version says
//! little about what its distribution switched off.

mod bpf;
pub(crate) mod cgroups;
mod kernel;
pub(crate) mod mend;
mod network;
mod programs;
mod rights;

use std::fmt::Write;

use serde::Serialize;

use crate::table;

/// Whether the product works without it.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "lowercase")]
pub enum Need {
    /// No fault works without it.
    Basic,
    /// Some faults, targets or comforts need it.
    Optional,
}

/// What a probe found.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
#[serde(tag = "status", rename_all = "lowercase")]
pub enum Outcome {
    /// It is there.
    Ok {
        /// Which one, how much; may be empty.
        detail: String,
    },
    /// It is not there.
    Missing {
        /// What was tried and what the kernel said.
        why: String,
        /// The command that mends it.
        mend: String,
    },
    /// It could not be tried.
    Unknown {
        /// What was in the way.
        why: String,
    },
}

impl Outcome {
    /// It is there.
    pub fn ok(detail: impl Into<String>) -> Self {
        Self::Ok { detail: detail.into() }
    }

    /// It is not there.
    pub fn missing(why: impl Into<String>, mend: impl Into<String>) -> Self {
        Self::Missing { why: why.into(), mend: mend.into() }
    }

    /// It could not be tried.
    pub fn unknown(why: impl Into<String>) -> Self {
        Self::Unknown { why: why.into() }
    }

    /// Whether it is there.
    #[must_use]
    pub fn is_ok(&self) -> bool {
        matches!(self, Self::Ok { .. })
    }
}

/// One thing to find out.
#[derive(Clone, Copy, Debug)]
pub struct Probe {
    /// What it is called.
    pub name: &'static str,
    /// Whether the product works without it.
    pub need: Need,
    /// What it is good for, in a few words.
    pub purpose: &'static str,
    /// Finds out. Leaves nothing behind.
    pub run: fn() -> Outcome,
}

/// A probe with its result.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct Row {
    /// [`Probe::name`].
    pub name: &'static str,
    /// [`Probe::need`].
    pub need: Need,
    /// [`Probe::purpose`].
    pub purpose: &'static str,
    /// What was found.
    #[serde(flatten)]
    pub outcome: Outcome,
}

/// All probes, in the order in which one thing builds on another.
#[must_use]
pub fn probes() -> Vec<Probe> {
    let others =
        [rights::PROBES, kernel::PROBES, network::PROBES, cgroups::PROBES, programs::PROBES].concat();
    rights::kept().chain(others).collect()
}

/// Runs probes in their order.
#[must_use]
pub fn run(probes: &[Probe]) -> Vec<Row> {
    probes
        .iter()
        .map(|probe| Row {
            name: probe.name,
            need: probe.need,
            purpose: probe.purpose,
            outcome: (probe.run)(),
        })
        .collect()
}

/// The basics work: every basic row is ok, and there is one.
#[must_use]
pub fn healthy(rows: &[Row]) -> bool {
    let mut basics = rows.iter().filter(|row| row.need == Need::Basic).peekable();
    basics.peek().is_some() && basics.all(|row| row.outcome.is_ok())
}

/// The rows as a table for people, what to do about those that are missing, and a last line that sums up.
#[must_use]
pub fn table(rows: &[Row]) -> String {
    let mut mends = String::new();
    let cells: Vec<[String; 4]> = rows
        .iter()
        .map(|row| {
            let (status, detail) = match &row.outcome {
                Outcome::Ok { detail } => ("ok", detail),
                Outcome::Missing { why, mend } => {
                    // Writing to a String cannot fail.
                    let _ = writeln!(mends, "  {}: {mend}", row.name);
                    (if row.need == Need::Basic { "MISSING" } else { "missing" }, why)
                }
                Outcome::Unknown { why } => ("unknown", why),
            };
            [row.name.to_owned(), status.to_owned(), row.purpose.to_owned(), detail.clone()]
        })
        .collect();
    let mut text = table::render(["CHECK", "STATUS", "GOOD FOR", "DETAIL"], &cells);
    if !mends.is_empty() {
        text.push_str("\nTo mend what is missing:\n");
        text.push_str(&mends);
    }
    text.push_str(if healthy(rows) {
        "\nThe basics work.\n"
    } else {
        "\nThe basics do not work yet: every line marked MISSING, and every basic one that is unknown, is needed.\n"
    });
    text
}

#[cfg(test)]
mod tests {
    use super::*;

    fn row(name: &'static str, need: Need, outcome: Outcome) -> Row {
        Row { name, need, purpose: "tests", outcome }
    }

    #[test]
    fn only_the_basics_decide() {
        let ok = row("a", Need::Basic, Outcome::ok("yes"));
        let absent = row("b", Need::Optional, Outcome::missing("no", "do it"));
        assert!(healthy(&[ok.clone(), absent.clone()]));
        assert!(!healthy(&[ok.clone(), row("c", Need::Basic, Outcome::unknown("cannot look"))]));
        assert!(!healthy(&[absent]), "nothing basic was looked at");
        assert!(!healthy(&[]));
    }

    #[test]
    fn what_is_missing_is_followed_by_what_mends_it() {
        let rows = [
            row("one", Need::Basic, Outcome::ok("yes")),
            row("two", Need::Optional, Outcome::missing("no such thing", "sudo modprobe two")),
        ];
        assert_eq!(
            table(&rows),
            "CHECK  STATUS   GOOD FOR  DETAIL\n\
             one    ok       tests     yes\n\
             two    missing  tests     no such thing\n\
             \nTo mend what is missing:\n  two: sudo modprobe two\n\
             \nThe basics work.\n"
        );
    }

    #[test]
    fn json_has_one_flat_object_a_row() {
        let json = serde_json::to_value(row("a", Need::Basic, Outcome::missing("no", "do it"))).unwrap();
        assert_eq!(
            json,
            serde_json::json!({"name": "a", "need": "basic", "purpose": "tests", "status": "missing",
                "why": "no", "mend": "do it"})
        );
    }

    #[test]
    fn every_probe_has_a_name_of_its_own() {
        let mut names: Vec<_> = probes().iter().map(|probe| probe.name).collect();
        names.sort_unstable();
        let count = names.len();
        names.dedup();
        assert_eq!(names.len(), count);
        assert!(count > 15);
    }
}
