//! The half of a benchmark that runs as the user: it builds, and writes what was measured. A program of the tests
//! (`tests/src/bin/bench`) measures as root.

use std::{
    fs,
    path::{Path, PathBuf},
    process::{Command, Stdio},
};

use anyhow::{Context as _, Result, ensure};

use super::{document::Document, plot};
use crate::{
    between, instrument,
    privilege::Privilege,
    vm::{self, Kernel},
};

/// Where tables are kept ...
const FILE: &str = "BENCHMARKS.md";
/// ... but for the one that says why.
const WHY: (&str, &str) = ("compare", "README.md");
/// How long a benchmark may take in a virtual machine, seconds.
const VM_LIMIT: &str = "7200";
/// Where plots are kept, from there.
const PLOTS: &str = "docs/bench";

/// Arguments of every benchmark.
#[derive(Debug, clap::Args)]
pub(crate) struct Options {
    /// Write the figures as JSON
    #[arg(long, value_name = "PATH")]
    json: Option<PathBuf>,
    /// Draw the figures as SVG
    #[arg(long, value_name = "PATH")]
    plot: Option<PathBuf>,
    #[command(flatten)]
    how: How,
}

/// What the measuring program is told, and where it goes in this repository.
#[derive(Clone, Debug, clap::Args)]
pub(crate) struct How {
    /// Fewer and shorter samples: to see that all works, not for figures
    #[arg(long)]
    quick: bool,
    /// How often everything is measured
    #[arg(long, value_name = "N")]
    rounds: Option<u32>,
    /// Use this `chaos` instead of building one
    #[arg(long, value_name = "FILE")]
    chaos: Option<PathBuf>,
    /// Measure in a virtual machine with this kernel: every instruction is translated, so only what is beside each
    /// other there can be compared
    #[arg(long, value_enum)]
    kernel: Option<Kernel>,
    /// Write table and plot into BENCHMARKS.md and docs/bench (the table of `compare`: README.md)
    #[arg(long)]
    write: bool,
}

/// Builds the program of the benchmark `name` and `chaos`, and lets the one measure the other.
pub(super) fn run(name: &str, options: &Options) -> Result<()> {
    let text = measure(name, &options.how)?;
    if let Some(path) = &options.json {
        fs::write(path, &text).with_context(|| format!("writing {}", path.display()))?;
    }
    let document: Document = serde_json::from_str(&text).context("what the measuring program printed")?;
    if let Some(path) = &options.plot {
        write_plot(path, &document)?;
    }
    if options.how.write { write(name, options.how.kernel, &document) } else { Ok(()) }
}

/// The same without files of its own.
pub(super) fn run_as(name: &str, how: How) -> Result<()> {
    run(name, &Options { json: None, plot: None, how })
}

fn measure(name: &str, how: &How) -> Result<String> {
    let root = crate::root();
    let program = instrument::build(&root, "bench")?;
    let chaos = instrument::subject(&root, how.chaos.as_deref())?;
    let mut command = match how.kernel {
        None => {
            let privilege = Privilege::find("measuring the agent").map_err(anyhow::Error::msg)?;
            instrument::command(privilege, &program, &chaos)?
        }
        Some(kernel) => inside(kernel, &program, &chaos)?,
    };
    command.arg(name).args(how.quick.then_some("--quick"));
    if let Some(rounds) = how.rounds {
        command.args(["--rounds", &rounds.to_string()]);
    }
    let child = command.stdout(Stdio::piped()).spawn().context("the measuring program")?;
    let output = child.wait_with_output()?;
    ensure!(output.status.success(), "the measuring program ended with {}", output.status);
    String::from_utf8(output.stdout).context("what the measuring program printed")
}

/// A command that runs the measuring program in a virtual machine.
fn inside(kernel: Kernel, program: &Path, chaos: &Path) -> Result<Command> {
    let mut command = Command::new(std::env::current_exe()?);
    command.args(["vm", "--kernel", kernel.name(), "--limit", VM_LIMIT]).arg("--chaos").arg(chaos);
    command.arg("--with").arg(program).arg("--with").arg(program.with_file_name("traffic"));
    command.args(["--", "env", &format!("CHAOS_BIN={}", vm::CHAOS)]).arg(program);
    Ok(command)
}

fn write_plot(path: &Path, document: &Document) -> Result<()> {
    fs::write(path, plot::svg(&document.charts)?).with_context(|| format!("writing {}", path.display()))
}

/// Puts table and plot where readers find them.
fn write(name: &str, kernel: Option<Kernel>, document: &Document) -> Result<()> {
    let root = crate::root();
    let asked = kernel.map_or_else(|| name.to_owned(), |kernel| format!("{name} --kernel {}", kernel.name()));
    let plot = format!("{PLOTS}/{}.svg", asked.replace(" --kernel ", "-"));
    if !document.charts.is_empty() {
        fs::create_dir_all(root.join(PLOTS)).context(PLOTS)?;
        write_plot(&root.join(&plot), document)?;
    }
    let file = if name == WHY.0 { WHY.1 } else { FILE };
    let path = root.join(file);
    let committed = fs::read_to_string(&path).context(file)?;
    let begin = format!("<!-- {asked}: written by `cargo xtask bench {asked} --write` -->\n");
    let end = format!("<!-- end of {asked} -->\n");
    let text = document.markdown(&asked, &plot);
    fs::write(&path, between::put(file, &committed, (&begin, &end), &text)?).context(file)
}
