//! Programs of the tests that measure `chaos`, as root, both built as they are released: a slow sender or receiver
//! would be measured instead of what is between them.

use std::{
    path::{Path, PathBuf},
    process::Command,
};

use anyhow::{Context as _, Result};

use crate::{cargo, privilege::Privilege};

/// Builds this program of the tests, and beside it the helpers it starts; returns its path.
pub(crate) fn build(root: &Path, name: &str) -> Result<PathBuf> {
    built(root, &["--package", "chaos-tests", "--bin", name, "--bin", "traffic", "--bin", "connect"], name)
}

/// The `chaos` that is measured: this one, or else one that is built.
pub(crate) fn subject(root: &Path, given: Option<&Path>) -> Result<PathBuf> {
    match given {
        Some(path) => Ok(std::path::absolute(path)?),
        None => built(root, &["--package", "chaos-agent", "--bin", "chaos"], "chaos"),
    }
}

/// A command that runs the measuring program as root, and tells it where its subject is.
pub(crate) fn command(privilege: Privilege, program: &Path, chaos: &Path) -> Result<Command> {
    let path = std::env::var("PATH").unwrap_or_default();
    let mut command = privilege.command("env");
    command.args([format!("PATH={path}:/usr/sbin:/sbin"), format!("CHAOS_BIN={}", chaos.display())]);
    command.arg(program.to_str().context("a path that is not UTF-8")?);
    Ok(command)
}

fn built(root: &Path, which: &[&str], name: &str) -> Result<PathBuf> {
    let mut command = cargo::command(root, None, "build");
    let built = cargo::executables(command.args(["--locked", "--release"]).args(which))?;
    let program = built.into_iter().find(|built| built.kind == "bin" && built.name == name);
    program.map(|built| built.path).with_context(|| format!("cargo built no `{name}`"))
}
