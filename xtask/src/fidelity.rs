//! `cargo xtask fidelity`: what was asked of every kind of fault and what a real program saw.
//!
//! This half runs as the user: it builds, writes the document and the README. The measuring is done by a program
//! of the tests (`tests/src/bin/fidelity`), as root.

use std::{
    fmt::Write as _,
    fs,
    path::{Path, PathBuf},
    process::Stdio,
};

use anyhow::{Context as _, Result, bail, ensure};
use serde_json::Value;

use crate::{between, instrument, packages, privilege::Privilege};

const FILE: &str = "README.md";
const BEGIN: &str = "<!-- fidelity: written by `cargo xtask fidelity --readme` -->\n";
const END: &str = "<!-- end of fidelity -->\n";

/// Arguments of `cargo xtask fidelity`.
#[derive(Debug, clap::Args)]
#[expect(clippy::struct_excessive_bools, reason = "flags of a command line")]
pub(crate) struct Options {
    /// Write what was seen as JSON
    #[arg(long, value_name = "PATH")]
    json: Option<PathBuf>,
    /// Only rows whose name or flags contain this
    #[arg(long, value_name = "TEXT", default_value = "")]
    filter: String,
    /// Fewer samples and shorter times; the bounds follow
    #[arg(long)]
    quick: bool,
    /// A row that cannot be measured here fails, too
    #[arg(long)]
    strict: bool,
    /// List the rows and measure nothing
    #[arg(long)]
    list: bool,
    /// Write the table in the README
    #[arg(long, conflicts_with_all = ["filter", "quick", "list"])]
    readme: bool,
    /// Use this `chaos` instead of building one
    #[arg(long, value_name = "FILE")]
    chaos: Option<PathBuf>,
}

/// Runs the command.
pub(crate) fn run(options: &Options) -> Result<()> {
    let root = crate::root();
    let program = instrument::build(&root, "fidelity")?;
    if options.list {
        let mut command = std::process::Command::new(&program);
        return crate::process::run(command.args(["--list", "--filter", &options.filter]));
    }
    let chaos = instrument::subject(&root, options.chaos.as_deref())?;
    let privilege = Privilege::find("measuring faults").map_err(anyhow::Error::msg)?;
    provide_packages(privilege)?;
    let (document, good) = measure(options, privilege, &program, &chaos)?;
    let rows = document["rows"].as_array().context("the program printed no rows")?;
    if let Some(path) = &options.json {
        let text = serde_json::to_string_pretty(&document)? + "\n";
        fs::write(path, text).with_context(|| format!("writing {}", path.display()))?;
    }
    if options.readme {
        write_readme(&root, rows, document["kernel"].as_str().unwrap_or_default())?;
    }
    if !good {
        bail!("{} rows failed, {} were skipped", document["failed"], document["skipped"]);
    }
    Ok(())
}

/// What rows need of the machine; without it they are skipped.
fn provide_packages(privilege: Privilege) -> Result<()> {
    let missing = packages::missing(&["ethtool", "ip", "ping", "tcpdump"]);
    if missing.is_empty() {
        return Ok(());
    }
    if privilege == Privilege::Root && packages::is_debian() {
        return packages::install(&missing, privilege);
    }
    println!("rows that need these packages are skipped; install: {}", packages::install_command(&missing));
    Ok(())
}

/// Runs the program, which shows the table; returns its document, and whether it found all good.
fn measure(options: &Options, privilege: Privilege, program: &Path, chaos: &Path) -> Result<(Value, bool)> {
    let mut command = instrument::command(privilege, program, chaos)?;
    command.args(["--json", "-", "--filter", &options.filter]);
    command.args(options.quick.then_some("--quick")).args(options.strict.then_some("--strict"));
    let child = command.stdout(Stdio::piped()).spawn().context("the measuring program")?;
    let output = child.wait_with_output()?;
    ensure!(!output.stdout.is_empty(), "the measuring program ended with {}", output.status);
    let document = serde_json::from_slice(&output.stdout).context("what the measuring program printed")?;
    Ok((document, output.status.success()))
}

/// Puts the table between its lines.
fn write_readme(root: &Path, rows: &[Value], kernel: &str) -> Result<()> {
    let path = root.join(FILE);
    let text = fs::read_to_string(&path).context(FILE)?;
    let fresh = between::put(FILE, &text, (BEGIN, END), &table(rows, kernel))?;
    fs::write(&path, fresh).context(FILE)
}

/// Rows that were measured; the others are only counted.
fn table(rows: &[Value], kernel: &str) -> String {
    let (skipped, measured): (Vec<_>, Vec<_>) = rows.iter().partition(|row| row["pass"].is_null());
    let mut table = format!("{} rows, Linux {kernel}", measured.len());
    if !skipped.is_empty() {
        let _ = write!(table, "; {} could not be measured there", skipped.len());
    }
    let again = measured.iter().filter(|row| row["attempt"].as_u64() > Some(1)).count();
    if again > 0 {
        let _ = write!(table, "; {again} of them measured again, because the host took CPU time away");
    }
    table.push_str(".\n\n| what, where | asked | seen | within bounds |\n|---|---|---|---|\n");
    for row in measured {
        let cell = |key: &str| row[key].as_str().unwrap_or_default().replace('|', "\\|");
        let pass = if row["pass"] == true { "yes" } else { "**no**" };
        let _ = writeln!(table, "| {} | `{}` | {} | {pass} |", cell("name"), cell("asked"), cell("seen"));
    }
    table
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::table;

    #[test]
    fn skipped_rows_are_counted_and_failed_ones_stand_out() {
        let rows = [
            json!({"name": "a", "asked": "--loss 1%", "seen": "1|2", "bounds": "", "pass": true}),
            json!({"name": "b", "asked": "--x", "seen": "3", "bounds": "", "pass": false}),
            json!({"name": "c", "asked": "--y", "seen": "skipped", "bounds": "", "pass": null}),
        ];
        let table = table(&rows, "6.1");
        assert!(table.starts_with("2 rows, Linux 6.1; 1 could not be measured there.\n"), "{table}");
        assert!(table.contains("| a | `--loss 1%` | 1\\|2 | yes |\n| b | `--x` | 3 | **no** |\n"), "{table}");
    }
}
