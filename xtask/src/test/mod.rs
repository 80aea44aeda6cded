//! `cargo xtask test`: everything that can run here, in layers, and what could not and why.

mod checks;
mod deploy;
mod kernel;
mod libtest;
mod report;
mod vm;

use std::{path::PathBuf, process::Command, time::Duration};

use anyhow::{Result, bail};

use crate::{cargo, vm::Kernel};
use report::Report;

/// Arguments of `cargo xtask test`.
#[derive(Debug, clap::Args)]
pub(crate) struct Options {
    /// Layers to run, in their fixed order; all if none are named
    layers: Vec<String>,
    /// List the layers and what they need
    #[arg(long)]
    list: bool,
    /// Run the layer `vm` alone, on these kernels [default: 6.1 6.12]
    #[arg(long, value_name = "KERNEL", num_args = 0.., value_enum, conflicts_with = "layers")]
    vm: Option<Vec<Kernel>>,
    /// There, run everything, which takes hours
    #[arg(long, requires = "vm")]
    full: bool,
}

/// What the layers of one run share.
#[derive(Debug)]
struct Session {
    root: PathBuf,
    /// An object to test instead of the committed one, see `build_ebpf::Checked`.
    object: Option<PathBuf>,
    /// What the layer `vm` runs, and on which kernels.
    vm: vm::Extent,
}

impl Session {
    /// A cargo command in the root, with the toolchain of the repository.
    fn cargo(&self, subcommand: &str) -> Command {
        cargo::command(&self.root, self.object.as_deref(), subcommand)
    }
}

struct Layer {
    name: &'static str,
    about: &'static str,
    run: fn(&mut Session, &mut Report),
}

/// From quick to slow.
const LAYERS: &[Layer] = &[
    Layer { name: "fmt", about: "rustfmt agrees with every file", run: checks::fmt },
    Layer {
        name: "clippy",
        about: "no lint speaks up, on the host crates and on the kernel side",
        run: checks::clippy,
    },
    Layer {
        name: "deny",
        about: "licences, sources, bans; advisories where their database can be had",
        run: checks::deny,
    },
    Layer {
        name: "docs",
        about: "rustdoc without warnings; generated parts of the README are fresh",
        run: checks::docs,
    },
    Layer {
        name: "object",
        about: "the committed eBPF object is what its sources make",
        run: checks::object,
    },
    Layer {
        name: "deploy",
        about: "service unit, image, manifest: checked by their own tools",
        run: deploy::files,
    },
    Layer { name: "host", about: "units, properties, statistics; no kernel, no root", run: host },
    Layer {
        name: "fuzz-replay",
        about: "the committed corpora through parser, lookup and the reading of bodies; no root",
        run: fuzz_replay,
    },
    Layer {
        name: "kernel",
        about: "packet tables, kernel = host, verifier budget; root",
        run: kernel::tables,
    },
    Layer {
        name: "e2e",
        about: "real programs in network namespaces, lifecycle; root",
        run: kernel::end_to_end,
    },
    Layer {
        name: "kubernetes",
        about: "static binary, image and DaemonSet on a real node, where the script that starts one is; root",
        run: deploy::node,
    },
    Layer {
        name: VM,
        about: "kernels of distributions in a virtual machine: attaching, life, every kind of fault",
        run: vm::layer,
    },
];

const VM: &str = "vm";

/// Runs the command.
pub(crate) fn run(options: &Options) -> Result<()> {
    if options.list {
        for layer in LAYERS {
            println!("{:<12} {}", layer.name, layer.about);
        }
        return Ok(());
    }
    if let Some(unknown) = options.layers.iter().find(|name| LAYERS.iter().all(|layer| layer.name != **name))
    {
        let names: Vec<&str> = LAYERS.iter().map(|layer| layer.name).collect();
        bail!("no layer is called `{unknown}`; there are {}", names.join(", "));
    }
    let mut extent = vm::Extent { full: options.full, ..vm::Extent::usual() };
    let mut wanted = options.layers.clone();
    if let Some(kernels) = &options.vm {
        wanted.push(VM.to_owned());
        if !kernels.is_empty() {
            extent.kernels.clone_from(kernels);
        }
    }
    let mut session = Session { root: crate::root(), object: None, vm: extent };
    let mut done = Vec::new();
    for layer in LAYERS {
        if wanted.is_empty() || wanted.iter().any(|name| name == layer.name) {
            println!("\n== {}: {}", layer.name, layer.about);
            done.push((layer.name, Report::of(|report| (layer.run)(&mut session, report))));
        }
    }
    println!("{}", report::summary(&done));
    // The count is the last line; what failed stands above it.
    let failed = done.iter().any(|(_, report)| !report.failures.is_empty());
    std::process::exit(i32::from(failed));
}

/// Tests named so belong to the layer `fuzz-replay` alone.
const REPLAY: &str = "fuzz_replay";

fn host(session: &mut Session, report: &mut Report) {
    // The agent's test programs need root: layer `kernel`.
    let agent: &[&str] = &["chaos-agent", "--lib", "--bins"];
    let client: &[&str] = &["chaos-client", "--all-features"];
    for what in [&["chaos-common"], client, agent, &["xtask"]] {
        let package = what.first().copied().unwrap_or_default();
        let mut command = session.cargo("test");
        command.args(["--locked", "--no-fail-fast", "--package"]).args(what);
        command.args(["--", "--show-output", "--skip", REPLAY]);
        libtest::run(report, package, &mut command, Duration::from_mins(20));
    }
}

fn fuzz_replay(session: &mut Session, report: &mut Report) {
    let before = report.passed;
    for what in [&["chaos-common", "--all-targets"], &["chaos-agent", "--lib"]] {
        let mut command = session.cargo("test");
        command.args(["--locked", "--no-fail-fast", "--package"]).args(what);
        command.args(["--", "--show-output", REPLAY]);
        let package = what.first().copied().unwrap_or_default();
        libtest::run(report, &format!("corpora of {package}"), &mut command, Duration::from_mins(10));
    }
    if report.passed == before && report.failures.is_empty() {
        report.fail(format!("no test of chaos-common is named *{REPLAY}*"));
    }
}
