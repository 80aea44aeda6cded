//! `cargo xtask dist`: the static binary that is released, checked.

use std::{
    fs,
    path::{Path, PathBuf},
    process::Command,
};

use anyhow::{Context as _, Result, bail, ensure};
use object::{Object as _, ObjectSection as _};

use crate::{cargo, process};

/// More than this and something was linked in that does not belong there.
const LIMIT_BYTES: u64 = 15 << 20;

/// The entry that names a library (elf(5)).
const DT_NEEDED: u64 = 1;

/// Arguments of `cargo xtask dist`.
#[derive(Debug, clap::Args)]
pub(crate) struct Options {
    /// Where the binary is put
    #[arg(long, value_name = "FOLDER", default_value = "target/dist")]
    out: PathBuf,
}

/// Runs the command.
pub(crate) fn run(options: &Options) -> Result<()> {
    let built = build(&crate::root(), true)?;
    fs::create_dir_all(&options.out).with_context(|| options.out.display().to_string())?;
    let path = options.out.join("chaos");
    fs::copy(&built, &path).with_context(|| format!("copying to {}", path.display()))?;
    let bytes = fs::metadata(&path)?.len();
    println!("{}: {}.{} MiB, static, stripped", path.display(), bytes >> 20, ((bytes * 10) >> 20) % 10);
    Ok(())
}

/// Builds for this machine's processor with musl, and checks what came out.
///
/// # Errors
/// The target is not installed, with the command that installs it; the binary is not as it should be.
pub(crate) fn build(root: &Path, release: bool) -> Result<PathBuf> {
    let target = target();
    ensure!(is_installed(&target), "the target is not installed: `rustup target add {target}`");
    let mut command = cargo::command(root, None, "build");
    command.args(["--locked", "--package", "chaos-agent", "--bin", "chaos", "--target", &target]);
    command.args(release.then_some("--release"));
    let built = cargo::executables(&mut command)?.into_iter().find(|built| built.kind == "bin");
    let path = built.map(|built| built.path).context("cargo built no `chaos`")?;
    let bytes = fs::read(&path).with_context(|| path.display().to_string())?;
    check(&bytes, release).with_context(|| path.display().to_string())?;
    let said = process::capture(Command::new(&path).arg("--version"))?;
    ensure!(said.starts_with("chaos "), "`chaos --version` says `{}`", said.trim());
    Ok(path)
}

/// The target for a static binary on this machine.
pub(crate) fn target() -> String {
    format!("{}-unknown-linux-musl", std::env::consts::ARCH)
}

/// Whether the standard library for it is there.
pub(crate) fn is_installed(target: &str) -> bool {
    let listed = process::probe(Command::new("rustc").args(["--print", "target-libdir", "--target", target]));
    listed.is_some_and(|path| Path::new(path.trim()).is_dir())
}

/// Static, small, and (released) without symbols.
fn check(bytes: &[u8], release: bool) -> Result<()> {
    let file = object::File::parse(bytes)?;
    if file.sections().any(|section| section.name() == Ok(".interp")) {
        bail!("it asks for a dynamic linker");
    }
    let dynamic =
        file.section_by_name(".dynamic").and_then(|section| section.data().ok().map(<[u8]>::to_vec));
    ensure!(!needs_library(&dynamic.unwrap_or_default()), "it is linked with a shared library");
    if release {
        ensure!(file.section_by_name(".symtab").is_none(), "it is not stripped");
        ensure!((bytes.len() as u64) < LIMIT_BYTES, "{} bytes; {LIMIT_BYTES} are the limit", bytes.len());
    }
    Ok(())
}

/// Whether a `.dynamic` section (of 64 bits, in this machine's order) names a library.
fn needs_library(dynamic: &[u8]) -> bool {
    let tag = |entry: &[u8]| entry.get(..8).and_then(|bytes| bytes.try_into().ok()).map(u64::from_ne_bytes);
    dynamic.chunks_exact(16).any(|entry| tag(entry) == Some(DT_NEEDED))
}

#[cfg(test)]
mod tests {
    use super::needs_library;

    #[test]
    fn a_library_is_seen() {
        let entry = |tag: u64| [tag.to_ne_bytes(), 7u64.to_ne_bytes()].concat();
        assert!(!needs_library(&[entry(12), entry(0)].concat()));
        assert!(needs_library(&[entry(12), entry(1), entry(0)].concat()));
        assert!(!needs_library(&[]));
    }
}
