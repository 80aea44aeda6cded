//! The half of a benchmark that runs as the user and builds; a program of the tests (`tests/src/bin/*_bench`)
//! measures as root.

use std::{
    fs,
    path::{Path, PathBuf},
    process::Stdio,
};

use anyhow::{Context as _, Result, ensure};

use crate::{cargo, privilege::Privilege};

/// Arguments of every benchmark.
#[derive(Debug, clap::Args)]
pub(crate) struct Options {
    /// Write the figures as JSON
    #[arg(long, value_name = "PATH")]
    json: Option<PathBuf>,
    /// Fewer samples
    #[arg(long)]
    quick: bool,
    /// Use this `chaos` instead of building one
    #[arg(long, value_name = "FILE")]
    chaos: Option<PathBuf>,
}

/// Builds `name` and `chaos`, and lets the one measure the other.
pub(super) fn run(name: &str, options: &Options) -> Result<()> {
    let root = crate::root();
    let program = build(&root, &["--package", "chaos-tests", "--bins"], name)?;
    let chaos = match &options.chaos {
        Some(path) => std::path::absolute(path)?,
        None => build(&root, &["--package", "chaos-agent", "--bin", "chaos"], "chaos")?,
    };
    let privilege = Privilege::find("measuring the agent").map_err(anyhow::Error::msg)?;
    let path = std::env::var("PATH").unwrap_or_default();
    let mut command = privilege.command("env");
    command.args([format!("PATH={path}:/usr/sbin:/sbin"), format!("CHAOS_BIN={}", chaos.display())]);
    command.arg(program.to_str().context("a path that is not UTF-8")?);
    command.args(options.quick.then_some("--quick"));
    let child = command.stdout(Stdio::piped()).spawn().context("the measuring program")?;
    let output = child.wait_with_output()?;
    ensure!(output.status.success(), "the measuring program ended with {}", output.status);
    if let Some(path) = &options.json {
        fs::write(path, &output.stdout).with_context(|| format!("writing {}", path.display()))?;
    }
    Ok(())
}

/// As it is released.
fn build(root: &Path, which: &[&str], name: &str) -> Result<PathBuf> {
    let mut command = cargo::command(root, None, "build");
    let built = cargo::executables(command.args(["--locked", "--release"]).args(which))?;
    let program = built.into_iter().find(|built| built.kind == "bin" && built.name == name);
    program.map(|built| built.path).with_context(|| format!("cargo built no `{name}`"))
}
