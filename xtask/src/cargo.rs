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
    built.into_iter().next().map(|(_, path)| path).context("cargo built no `chaos`")
}

/// Runs a cargo command that builds; name and path of every program it built.
pub(crate) fn executables(command: &mut Command) -> Result<Vec<(String, PathBuf)>> {
    command.arg("--message-format=json-render-diagnostics");
    let output = command.stderr(Stdio::inherit()).output();
    let output = output.with_context(|| format!("cannot start `{}`", process::line(command)))?;
    if !output.status.success() {
        bail!("`{}` failed: {}", process::line(command), output.status);
    }
    let text = String::from_utf8_lossy(&output.stdout);
    let messages = text.lines().filter_map(|line| serde_json::from_str::<Value>(line).ok());
    let programs = messages.filter_map(|message| {
        let path = message["executable"].as_str()?;
        Some((message["target"]["name"].as_str()?.to_owned(), PathBuf::from(path)))
    });
    Ok(programs.collect())
}
