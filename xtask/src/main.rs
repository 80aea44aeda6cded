//! The project's own commands: `cargo xtask <command>`.

mod bench;
mod between;
mod build_ebpf;
mod cargo;
mod demo;
mod dist;
mod docs;
mod fidelity;
mod image;
mod instrument;
mod kubernetes;
mod manifest;
mod packages;
mod privilege;
mod process;
mod test;
mod vm;

use std::{
    path::{Path, PathBuf},
    process::ExitCode,
};

use clap::{Parser, Subcommand};

#[derive(Parser)]
#[command(name = "cargo xtask", about = "The project's own commands", max_term_width = 110)]
struct Args {
    #[command(subcommand)]
    command: Command,
}

#[derive(Subcommand)]
enum Command {
    /// Build the kernel side and put the object beside chaos-agent
    BuildEbpf(build_ebpf::Options),
    /// Run every test that can run here, in layers, and say what could not
    Test(test::Options),
    /// Show loss and a partition between a client and a real redis, and check what they did
    Demo(demo::Options),
    /// Measure what every kind of fault does, row by row, against its bounds
    Fidelity(fidelity::Options),
    /// Measure how fast the agent is and what it costs, beside the goals
    Bench(bench::Options),
    /// Build the static binary that is released, and check it
    Dist(dist::Options),
    /// Run a command on a real kernel of a distribution, in a virtual machine
    Vm(vm::Options),
    /// Try the `DaemonSet` on a real Kubernetes node
    Kubernetes(kubernetes::Options),
    #[command(hide = true)]
    KubernetesTrial(kubernetes::trial::Options),
    #[command(hide = true)]
    KubernetesNode,
    #[command(hide = true)]
    DemoLab(demo::lab::Options),
    #[command(hide = true)]
    DemoClient(demo::client::Options),
    /// Write the generated parts of the README
    Docs(docs::Options),
}

fn main() -> ExitCode {
    // Cargo runs this very program in place of the compiler while it builds the kernel side.
    if let Some(code) = build_ebpf::as_compiler() {
        return code;
    }
    let result = match Args::parse().command {
        Command::BuildEbpf(options) => build_ebpf::run(&options),
        Command::Test(options) => test::run(&options),
        Command::Demo(options) => demo::run(&options),
        Command::Fidelity(options) => fidelity::run(&options),
        Command::Bench(options) => bench::run(&options),
        Command::Dist(options) => dist::run(&options),
        Command::Vm(options) => return vm::run(&options).unwrap_or_else(|error| failure(&error)),
        Command::Kubernetes(options) => kubernetes::run(&options),
        Command::KubernetesTrial(options) => {
            return kubernetes::trial::run(&options).unwrap_or_else(|error| failure(&error));
        }
        Command::KubernetesNode => {
            kubernetes::node::run();
            Ok(())
        }
        Command::DemoLab(options) => demo::lab::run(&options),
        Command::DemoClient(options) => demo::client::run(&options),
        Command::Docs(options) => docs::run(&options),
    };
    match result {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => failure(&error),
    }
}

fn failure(error: &anyhow::Error) -> ExitCode {
    eprintln!("error: {error:#}");
    ExitCode::FAILURE
}

/// The root of the repository; xtask only ever runs from a checkout.
fn root() -> PathBuf {
    let here = Path::new(env!("CARGO_MANIFEST_DIR"));
    here.parent().unwrap_or(here).to_path_buf()
}
