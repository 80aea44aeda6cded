//! `cargo xtask docs`: the parts of the README that are generated from the code.

use std::{fmt::Write as _, fs, path::Path};

use anyhow::{Context as _, Result, bail};
use chaos_common::{
    fault::{DefaultDirection, FAULTS},
    profile::PROFILES,
};

use crate::between;

const FILE: &str = "README.md";

/// A part of the file between two lines of its own.
struct Part {
    begin: &'static str,
    end: &'static str,
    text: fn() -> String,
}

const PARTS: &[Part] = &[
    Part {
        begin: "<!-- faults: written by `cargo xtask docs` -->\n",
        end: "<!-- end of faults -->\n",
        text: faults,
    },
    Part {
        begin: "<!-- profiles: written by `cargo xtask docs` -->\n",
        end: "<!-- end of profiles -->\n",
        text: profiles,
    },
];

/// Arguments of `cargo xtask docs`.
#[derive(Debug, clap::Args)]
pub(crate) struct Options {
    /// Only say whether they are fresh
    #[arg(long)]
    check: bool,
}

/// Runs the command.
pub(crate) fn run(options: &Options) -> Result<()> {
    let root = crate::root();
    if options.check {
        return check(&root);
    }
    let path = root.join(FILE);
    let (_, fresh) = texts(&root)?;
    fs::write(&path, fresh).with_context(|| FILE.to_owned())
}

/// Fails if the committed text is not what would be written now.
pub(crate) fn check(root: &Path) -> Result<()> {
    let (committed, fresh) = texts(root)?;
    if committed != fresh {
        bail!("a table in {FILE} is stale: run `cargo xtask docs`");
    }
    Ok(())
}

/// The file as it is and as it should be.
fn texts(root: &Path) -> Result<(String, String)> {
    let committed = fs::read_to_string(root.join(FILE)).with_context(|| FILE.to_owned())?;
    let mut fresh = committed.clone();
    for Part { begin, end, text } in PARTS {
        fresh = between::put(FILE, &fresh, (begin, end), &text())?;
    }
    Ok((committed, fresh))
}

/// One row per kind of fault, in the order in which they act.
fn faults() -> String {
    let mut table = String::from("| fault | what happens | direction unless told |\n|---|---|---|\n");
    for fault in FAULTS {
        let flag = fault.usage();
        let direction = match fault.default_direction {
            DefaultDirection::Egress => "egress",
            DefaultDirection::Ingress => "ingress",
            DefaultDirection::Both => "both",
        };
        let _ = writeln!(table, "| `{flag}` | {} | {direction} |", fault.help.replace('|', "\\|"));
    }
    table
}

/// One row per profile.
fn profiles() -> String {
    let mut table = String::from(
        "| profile | down | up | round trip | jitter each way | loss each way | from |\n|---|---|---|---|---|---|---|\n",
    );
    for profile in PROFILES {
        let jitter = match profile.jitter_ms {
            0 => "-".to_owned(),
            jitter => format!("±{jitter} ms"),
        };
        let loss = if profile.loss.is_empty() { "-" } else { profile.loss };
        let _ = writeln!(
            table,
            "| `{}` | {} | {} | {} ms | {jitter} | {loss} | {} |",
            profile.name, profile.down_rate, profile.up_rate, profile.rtt_ms, profile.source
        );
    }
    table
}
