//! `cargo xtask docs`: the parts of the README that are generated from the code.

use std::{fmt::Write as _, fs, path::Path};

use anyhow::{Context as _, Result, bail};
use chaos_common::fault::{DefaultDirection, FAULTS};

const FILE: &str = "README.md";
const BEGIN: &str = "<!-- faults: written by `cargo xtask docs` -->\n";
const END: &str = "<!-- end of faults -->\n";

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
        bail!("the table of faults in {FILE} is stale: run `cargo xtask docs`");
    }
    Ok(())
}

/// The file as it is and as it should be.
fn texts(root: &Path) -> Result<(String, String)> {
    let committed = fs::read_to_string(root.join(FILE)).with_context(|| FILE.to_owned())?;
    let missing = || format!("{FILE} lacks the lines `{}` and `{}`", BEGIN.trim_end(), END.trim_end());
    let (head, rest) = committed.split_once(BEGIN).with_context(missing)?;
    let (_, tail) = rest.split_once(END).with_context(missing)?;
    let fresh = format!("{head}{BEGIN}{}{END}{tail}", faults());
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
