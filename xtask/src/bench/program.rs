//! The half of a benchmark that runs as the user and builds; a program of the tests (`tests/src/bin/*_bench`)
//! measures as root.

use std::{fs, path::PathBuf, process::Stdio};

use anyhow::{Context as _, Result, ensure};

use crate::{instrument, privilege::Privilege};

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
    let program = instrument::build(&root, name)?;
    let chaos = instrument::subject(&root, options.chaos.as_deref())?;
    let privilege = Privilege::find("measuring the agent").map_err(anyhow::Error::msg)?;
    let mut command = instrument::command(privilege, &program, &chaos)?;
    command.args(options.quick.then_some("--quick"));
    let child = command.stdout(Stdio::piped()).spawn().context("the measuring program")?;
    let output = child.wait_with_output()?;
    ensure!(output.status.success(), "the measuring program ended with {}", output.status);
    if let Some(path) = &options.json {
        fs::write(path, &output.stdout).with_context(|| format!("writing {}", path.display()))?;
    }
    Ok(())
}
