//! Finds the tools that build the kernel side, and says how to get those that are missing.

use std::{
    env,
    ffi::OsString,
    path::{Path, PathBuf},
    process::Command,
};

use anyhow::{Result, bail};

use super::pins;
use crate::process;

/// Tools that can build the object.
#[derive(Debug)]
pub(crate) struct Toolchain {
    /// What rustup calls it, as in `cargo +NAME`.
    pub(crate) name: String,
    /// Where its `lib/rustlib` is.
    pub(crate) sysroot: PathBuf,
    /// Version of the linker found.
    pub(crate) linker: String,
    /// Why the bytes may differ from the committed object; empty = the pinned set.
    pub(crate) deviations: Vec<String>,
}

/// One thing that is missing.
#[derive(Debug)]
pub(crate) struct Missing {
    /// What.
    pub(crate) what: String,
    /// The command that installs it.
    pub(crate) install: Vec<String>,
}

impl Missing {
    fn new(what: String, install: &[&str]) -> Self {
        Self { what, install: install.iter().map(|&word| word.to_owned()).collect() }
    }

    fn command(&self) -> Command {
        let mut command = Command::new(self.install.first().map_or("true", String::as_str));
        command.args(self.install.iter().skip(1));
        clean(&mut command);
        command
    }
}

/// Looks for the pinned set and reports each of the three parts that is missing.
pub(crate) fn find() -> Result<Toolchain, Vec<Missing>> {
    let mut missing = Vec::new();
    let pinned = installed().into_iter().find(|name| commit(name).as_deref() == Some(pins::RUSTC_COMMIT));
    let name = pinned.unwrap_or_else(|| {
        missing.push(Missing::new(
            format!("the toolchain {} ({})", pins::TOOLCHAIN, pins::RUSTC_VERSION),
            &[
                "rustup",
                "toolchain",
                "install",
                pins::TOOLCHAIN,
                "--component",
                "rust-src",
                "--profile",
                "minimal",
            ],
        ));
        String::new()
    });
    let sysroot = sysroot(&name);
    if missing.is_empty() && !has_rust_src(&sysroot) {
        missing.push(Missing::new(
            format!("the component rust-src of the toolchain {name}"),
            &["rustup", "component", "add", "rust-src", "--toolchain", &name],
        ));
    }
    let linker = linker_version();
    if linker.as_deref() != Some(pins::LINKER_VERSION) {
        let found = linker.as_deref().map_or(String::new(), |version| format!(" (found {version})"));
        missing.push(Missing::new(
            format!("bpf-linker {}{found}", pins::LINKER_VERSION),
            &["cargo", "install", "--locked", "bpf-linker", "--version", pins::LINKER_VERSION],
        ));
    }
    match (missing.is_empty(), linker) {
        (true, Some(linker)) => Ok(Toolchain { name, sysroot, linker, deviations: Vec::new() }),
        _ => Err(missing),
    }
}

/// The nearest to the pinned set that is installed: good enough to build and to test, not to
/// compare bytes.
pub(crate) fn find_near() -> Option<Toolchain> {
    let usable = |name: &String| commit(name).is_some() && has_rust_src(&sysroot(name));
    let name = installed().into_iter().filter(|name| name.starts_with("nightly")).find(usable)?;
    let linker = linker_version().filter(|version| version.starts_with(pins::LINKER_SERIES))?;
    let mut deviations = Vec::new();
    if commit(&name).as_deref() != Some(pins::RUSTC_COMMIT) {
        deviations.push(format!("toolchain {name} instead of {}", pins::TOOLCHAIN));
    }
    if linker != pins::LINKER_VERSION {
        deviations.push(format!("bpf-linker {linker} instead of {}", pins::LINKER_VERSION));
    }
    Some(Toolchain { sysroot: sysroot(&name), name, linker, deviations })
}

/// Installs what is missing, announcing each command; prints the commands only if `install` is not set.
pub(crate) fn provide(install: bool) -> Result<Toolchain> {
    let missing = match find() {
        Ok(found) => return Ok(found),
        Err(missing) => missing,
    };
    if !install {
        let lines: Vec<String> =
            missing.iter().map(|m| format!("  {}\n    {}", m.what, m.install.join(" "))).collect();
        bail!(
            "missing for building the kernel side (run these, or `cargo xtask build-ebpf --install`):\n{}",
            lines.join("\n")
        );
    }
    for part in &missing {
        eprintln!("installing {}: {}", part.what, part.install.join(" "));
        process::run(&mut part.command())?;
    }
    find().or_else(|still| bail!("still missing: {}", join(&still)))
}

/// A list for one line.
pub(crate) fn join(missing: &[Missing]) -> String {
    missing.iter().map(|m| format!("{} (`{}`)", m.what, m.install.join(" "))).collect::<Vec<_>>().join("; ")
}

/// A command run with the toolchain `name`, whatever toolchain runs us.
pub(crate) fn with(name: &str, program: &str) -> Command {
    let mut command = Command::new("rustup");
    command.args(["run", name, program]);
    clean(&mut command);
    command
}

/// Takes away what the cargo that started us left in the environment, and what a user set for
/// host builds: none of it may reach the object.
fn clean(command: &mut Command) {
    for (key, _) in env::vars_os() {
        let name = key.to_string_lossy();
        let keep =
            matches!(&*name, "CARGO_HOME" | "CARGO_NET_OFFLINE" | "CARGO_TERM_COLOR" | "CARGO_BUILD_JOBS")
                || name.starts_with("CARGO_HTTP_")
                || name.starts_with("CARGO_REGISTR");
        if (name.starts_with("CARGO") && !keep) || name.starts_with("RUSTC") || name.starts_with("RUSTFLAGS")
        {
            command.env_remove(&key);
        }
    }
    command.env_remove("RUSTUP_TOOLCHAIN").env("RUSTUP_AUTO_INSTALL", "0").env("PATH", path_with_cargo_bin());
}

/// `PATH` with the folder in which `cargo install` puts bpf-linker.
fn path_with_cargo_bin() -> OsString {
    let path = env::var_os("PATH").unwrap_or_default();
    let bin = cargo_home().join("bin");
    let dirs = env::split_paths(&path).chain([bin]);
    env::join_paths(dirs).unwrap_or(path)
}

/// Cargo's home folder.
fn cargo_home() -> PathBuf {
    let default = || Path::new(&env::var_os("HOME").unwrap_or_default()).join(".cargo");
    env::var_os("CARGO_HOME").map_or_else(default, PathBuf::from)
}

/// Installed toolchains, the pinned name first, then plain `nightly`, then the others.
fn installed() -> Vec<String> {
    let mut command = Command::new("rustup");
    command.args(["toolchain", "list", "--quiet"]);
    let listed = process::probe(&mut command).unwrap_or_default();
    let mut names: Vec<String> =
        listed.lines().filter_map(|l| l.split_whitespace().next()).map(str::to_owned).collect();
    names.sort_by_key(|name| {
        (!name.starts_with(pins::TOOLCHAIN), !name.starts_with("nightly-x"), name.clone())
    });
    names
}

fn commit(name: &str) -> Option<String> {
    let version = process::probe(with(name, "rustc").arg("-vV"))?;
    version.lines().find_map(|line| line.strip_prefix("commit-hash: ")).map(str::to_owned)
}

fn sysroot(name: &str) -> PathBuf {
    let printed = process::probe(with(name, "rustc").args(["--print", "sysroot"]));
    printed.unwrap_or_default().trim_end().into()
}

fn has_rust_src(sysroot: &Path) -> bool {
    sysroot.join("lib/rustlib/src/rust/library/core/src/lib.rs").exists()
}

fn linker_version() -> Option<String> {
    let mut command = Command::new("bpf-linker");
    clean(command.arg("--version"));
    process::probe(&mut command)?.split_whitespace().nth(1).map(str::to_owned)
}
