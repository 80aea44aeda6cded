//! What this build of `chaos` and this machine can do.

use std::time::Duration;

use anyhow::Result;
use chaos_tests::{chaos, lab::process, skip::find_tool};

use crate::row::Row;

/// The help texts of the command under test.
pub(crate) struct Ability {
    inject: String,
    partition: String,
}

impl Ability {
    pub(crate) fn of_this_build() -> Result<Self> {
        let help = |subcommand: &str| -> Result<String> {
            let output = process::output(chaos::command(&format!("{subcommand} --help"))?, LIMIT)?;
            Ok(String::from_utf8_lossy(&output.stdout).into_owned())
        };
        Ok(Self { inject: help("inject")?, partition: help("partition")? })
    }

    /// Why the row cannot be measured here, if so.
    pub(crate) fn missing(&self, row: &Row) -> Option<String> {
        if let Some(tool) = row.tools.iter().find(|tool| find_tool(tool).is_none()) {
            return Some(format!("this machine has no {tool}"));
        }
        let help = if row.is_partition() { &self.partition } else { &self.inject };
        let flags = row.asked.split_whitespace().filter(|word| word.starts_with("--"));
        let flag =
            flags.map(|flag| flag.split('=').next().unwrap_or(flag)).find(|flag| !knows(help, flag))?;
        Some(format!("this build has no {flag}"))
    }
}

const LIMIT: Duration = Duration::from_secs(10);

/// Whether a help text has a flag, not only a longer one that begins alike.
fn knows(help: &str, flag: &str) -> bool {
    let ends = |rest: &str| !rest.starts_with(|next: char| next.is_ascii_alphanumeric() || next == '-');
    help.match_indices(flag).any(|(place, _)| ends(&help[place + flag.len()..]))
}

#[cfg(test)]
mod tests {
    use super::knows;

    #[test]
    fn a_flag_is_not_taken_for_a_longer_one() {
        let help = "--delay-mode <X>  --loss <RATE>";
        assert!(knows(help, "--loss"));
        assert!(!knows(help, "--delay"));
    }
}
