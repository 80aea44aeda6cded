//! Programs built by cargo, and where it put them.

use std::{
    path::{Path, PathBuf},
    process::{Command, Stdio},
};

use anyhow::{Context as _, Result, bail};
use serde_json::Value;

use crate::process;

/// A cargo command in the root, with the toolchain of the repository. `object` is embedded instead of the
/// committed one, see `build_ebpf::Checked`.
pub(crate) fn command(root: &Path, object: Option<&Path>, subcommand: &str) -> Command {
    let mut command = Command::new("cargo");
    command.arg(subcommand).current_dir(root);
    if let Some(object) = object {
        command.env("CHAOS_EBPF_OBJECT", object);
    }
    command
}

/// Builds the command `chaos` (development profile) and returns its path.
pub(crate) fn build_chaos(root: &Path, object: Option<&Path>) -> Result<PathBuf> {
    let mut command = command(root, object, "build");
    let built = executables(command.args(["--locked", "--package", "chaos-agent", "--bin", "chaos"]))?;
    let program = built.into_iter().find(|built| built.kind == "bin");
    program.map(|built| built.path).context("cargo built no `chaos`")
}

/// A program cargo built.
#[derive(Debug)]
pub(crate) struct Built {
    /// Name of the target, such as `chaos`.
    pub(crate) name: String,
    /// What it was built from: `bin`, `lib` (its unit tests), `test`, `example`.
    pub(crate) kind: String,
    /// It runs the tests of what it was built from.
    pub(crate) is_test: bool,
    /// Where it is.
    pub(crate) path: PathBuf,
}

/// Runs a cargo command that builds, and returns what it built, by name.
pub(crate) fn executables(command: &mut Command) -> Result<Vec<Built>> {
    command.arg("--message-format=json-render-diagnostics");
    let output = command.stderr(Stdio::inherit()).output();
    let output = output.with_context(|| format!("cannot start `{}`", process::line(command)))?;
    if !output.status.success() {
        bail!("`{}` failed: {}", process::line(command), output.status);
    }
    let text = String::from_utf8_lossy(&output.stdout);
    let messages = text.lines().filter_map(|line| serde_json::from_str::<Value>(line).ok());
    let programs = messages.filter_map(|message| {
        let text = |value: &Value| value.as_str().map(str::to_owned);
        let target = &message["target"];
        Some(Built {
            path: text(&message["executable"])?.into(),
            name: text(&target["name"])?,
            kind: text(&target["kind"][0])?,
            is_test: message["profile"]["test"] == true,
        })
    });
    let mut programs: Vec<Built> = programs.collect();
    programs.sort_by(|a, b| a.name.cmp(&b.name));
    Ok(programs)
}
