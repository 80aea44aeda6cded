//! Compiles the kernel side so that the same sources give the same bytes on every machine.
//!
//! Three things of a machine would otherwise get in: paths (in the debug information BTF is made
//! from), DWARF, and the hash cargo passes as `-C metadata`, which ends in symbol names and
//! contains the absolute path of a path dependency outside the workspace (`../chaos-common`).

use std::{
    env, fs,
    path::{Path, PathBuf},
    process::{Command, ExitCode},
};

use anyhow::{Context as _, Result};

use super::{object, pins, toolchain, toolchain::Toolchain};
use crate::process;

/// Set for the compiler that cargo starts; see [`as_compiler`].
const AS_COMPILER: &str = "CHAOS_XTASK_AS_COMPILER";

/// What a build gave.
pub(crate) struct Built {
    /// The object, without DWARF.
    pub(crate) object: Vec<u8>,
    /// The files of the repository it was built from, from the root.
    pub(crate) sources: Vec<PathBuf>,
}

/// Builds `chaos-ebpf` with `tools`; cargo's files go to `target_dir`.
pub(crate) fn compile(root: &Path, tools: &Toolchain, target_dir: &Path) -> Result<Built> {
    process::run(cargo(root, tools, target_dir, "build")?.args(["--release"]))?;
    let out = target_dir.join(pins::TARGET).join("release");
    let linked = out.join("chaos-ebpf");
    let linked = fs::read(&linked).with_context(|| linked.display().to_string())?;
    Ok(Built { object: object::strip(&linked)?, sources: sources(root, &out.join("chaos-ebpf.d"))? })
}

/// Runs clippy over `chaos-ebpf`; any lint is an error.
pub(crate) fn clippy(root: &Path, tools: &Toolchain) -> Result<()> {
    let target_dir = root.join("target/ebpf-clippy");
    process::run(cargo(root, tools, &target_dir, "clippy")?.args(["--release", "--", "-Dwarnings"]))
}

/// A cargo command for the kernel side, with nothing of this machine in what it makes.
fn cargo(root: &Path, tools: &Toolchain, target_dir: &Path, subcommand: &str) -> Result<Command> {
    let mut command = toolchain::with(&tools.name, "cargo");
    command
        .args([subcommand, "--locked", "--target", pins::TARGET, "-Zbuild-std=core"])
        .current_dir(root.join("chaos-ebpf"))
        .env("CARGO_TARGET_DIR", target_dir)
        .env("CARGO_ENCODED_RUSTFLAGS", rustflags(root, tools)?)
        .env("RUSTC_WRAPPER", env::current_exe().context("own path")?)
        .env(AS_COMPILER, "1");
    Ok(command)
}

/// Runs rustc in the place of cargo's call, if that is what this process was started for.
///
/// For the BPF target `-C metadata` becomes the package's name and version.
pub(crate) fn as_compiler() -> Option<ExitCode> {
    env::var_os(AS_COMPILER)?;
    let mut args = env::args_os().skip(1);
    let rustc = args.next()?;
    let args: Vec<_> = args.collect();
    let for_bpf = args.iter().any(|arg| arg == pins::TARGET);
    let name = env::var("CARGO_PKG_NAME").unwrap_or_default();
    let version = env::var("CARGO_PKG_VERSION").unwrap_or_default();
    let args = args.into_iter().map(|arg| {
        let is_metadata = arg.to_str().is_some_and(|arg| arg.starts_with("metadata="));
        if for_bpf && is_metadata { format!("metadata={name}-{version}").into() } else { arg }
    });
    let status = Command::new(&rustc).args(args).status();
    match status {
        Ok(status) => Some(
            status.code().and_then(|code| u8::try_from(code).ok()).map_or(ExitCode::FAILURE, ExitCode::from),
        ),
        Err(error) => {
            eprintln!("cannot start {}: {error}", rustc.display());
            Some(ExitCode::FAILURE)
        }
    }
}

/// The fixed flags, and one prefix map for every folder sources come from.
fn rustflags(root: &Path, tools: &Toolchain) -> Result<String> {
    let mut flags: Vec<String> = pins::RUSTFLAGS.iter().map(|&flag| flag.to_owned()).collect();
    let mut remap =
        |from: &Path, to: &str| flags.push(format!("--remap-path-prefix={}={to}", from.display()));
    remap(root, "/chaos");
    remap(&tools.sysroot.join("lib/rustlib/src/rust"), "/rust");
    for (dir, name) in dependencies(root, tools)? {
        remap(&dir, &format!("/crates/{name}"));
    }
    Ok(flags.join("\x1f"))
}

/// Folder and `name-version` of every dependency from a registry.
fn dependencies(root: &Path, tools: &Toolchain) -> Result<Vec<(PathBuf, String)>> {
    let mut command = toolchain::with(&tools.name, "cargo");
    command.args(["metadata", "--format-version=1", "--locked"]).current_dir(root.join("chaos-ebpf"));
    let metadata: serde_json::Value = serde_json::from_str(&process::capture(&mut command)?)?;
    let packages = metadata["packages"].as_array().context("cargo metadata: no packages")?;
    let text = |value: &serde_json::Value| value.as_str().unwrap_or_default().to_owned();
    let from_registry = packages.iter().filter(|package| package["source"].is_string());
    Ok(from_registry
        .map(|package| {
            let manifest = PathBuf::from(text(&package["manifest_path"]));
            let dir = manifest.parent().map_or_else(PathBuf::new, Path::to_path_buf);
            (dir, format!("{}-{}", text(&package["name"]), text(&package["version"])))
        })
        .collect())
}

/// The files of the repository that make the object: what rustc read, and the manifests and pins.
fn sources(root: &Path, dep_info: &Path) -> Result<Vec<PathBuf>> {
    let text = fs::read_to_string(dep_info).with_context(|| dep_info.display().to_string())?;
    // `target: file file`; a space inside a name is written `\ `.
    let (_, files) = text.trim_end().split_once(": ").context("dep-info without a colon")?;
    let files = files.replace("\\ ", "\0");
    let read = files.split_whitespace().map(|file| PathBuf::from(file.replace('\0', " ")));
    let inside = read.filter_map(|file| file.strip_prefix(root).ok().map(Path::to_path_buf));
    let fixed = [
        "chaos-ebpf/Cargo.toml",
        "chaos-ebpf/Cargo.lock",
        "chaos-common/Cargo.toml",
        "xtask/src/build_ebpf/pins.rs",
    ];
    Ok(inside.chain(fixed.map(PathBuf::from)).collect())
}
