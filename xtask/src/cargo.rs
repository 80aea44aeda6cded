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
    let built =
        executables(command.args(["--locked", "--package", "chaos-agent", "--bin", "chaos"]), Kind::Program)?;
    built.into_iter().next().map(|(_, path)| path).context("cargo built no `chaos`")
}

/// What a cargo command builds.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Kind {
    /// The programs of a package.
    Program,
    /// Libraries and folders of tests as test programs; ordinary programs are left out.
    Tests,
}

/// Runs a cargo command that builds; name and path of every program of that kind it built.
pub(crate) fn executables(command: &mut Command, kind: Kind) -> Result<Vec<(String, PathBuf)>> {
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
        let is_program =
            message["target"]["kind"].as_array().is_some_and(|kinds| kinds.iter().any(|kind| kind == "bin"));
        if (kind == Kind::Program) != is_program {
            return None;
        }
        Some((message["target"]["name"].as_str()?.to_owned(), PathBuf::from(path)))
    });
    Ok(programs.collect())
}
