//! `cargo xtask dist`: the static binary that is released, checked.

use std::{
    fs,
    path::{Path, PathBuf},
    process::Command,
};

use anyhow::{Context as _, Result, bail, ensure};
use object::{Object as _, ObjectSection as _};

use crate::{cargo, packages, process};

/// How much work goes into a binary.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Profile {
    /// As it is released.
    Release,
    /// Of the profile `dev`: what runs while it is built (macros, build scripts) is there from the tests. Slower and
    /// larger, in a fraction of the time.
    Quick,
}

impl Profile {
    /// Its name for Cargo.
    fn name(self) -> &'static str {
        match self {
            Self::Release => "release",
            Self::Quick => "dev",
        }
    }

    /// More than this and something was linked in that does not belong there.
    fn limit_bytes(self) -> u64 {
        match self {
            Self::Release => 15 << 20,
            Self::Quick => 40 << 20,
        }
    }
}

/// A binary that was built and checked.
#[derive(Debug)]
pub(crate) struct Built {
    /// Where it is.
    pub(crate) path: PathBuf,
    /// Its size, bytes.
    bytes: u64,
}

impl Built {
    /// What was checked, in words.
    pub(crate) fn in_words(&self) -> String {
        format!("{}.{} MiB, static, stripped", self.bytes >> 20, ((self.bytes * 10) >> 20) % 10)
    }
}

/// The entry that names a library (elf(5)).
const DT_NEEDED: u64 = 1;

/// Arguments of `cargo xtask dist`.
#[derive(Debug, clap::Args)]
pub(crate) struct Options {
    /// Where the binary is put
    #[arg(long, value_name = "FOLDER", default_value = "target/dist")]
    out: PathBuf,
    /// Build in a fraction of the time what runs slower, as CI does
    #[arg(long)]
    quick: bool,
}

/// Runs the command.
pub(crate) fn run(options: &Options) -> Result<()> {
    let profile = if options.quick { Profile::Quick } else { Profile::Release };
    let built = build(&crate::root(), profile)?;
    fs::create_dir_all(&options.out).with_context(|| options.out.display().to_string())?;
    let path = options.out.join("chaos");
    fs::copy(&built.path, &path).with_context(|| format!("copying to {}", path.display()))?;
    println!("{}: {}", path.display(), built.in_words());
    Ok(())
}

/// Builds for this machine's processor with musl, and checks what came out.
///
/// # Errors
/// The target is not installed, with the command that installs it; the binary is not as it should be.
pub(crate) fn build(root: &Path, profile: Profile) -> Result<Built> {
    let target = target();
    ensure!(is_installed(&target), "the target is not installed: `rustup target add {target}`");
    let mut command = cargo::command(root, None, "build");
    command.args(["--locked", "--package", "chaos-agent", "--bin", "chaos", "--profile", profile.name()]);
    make_static(&mut command, &target)
        .env(format!("CARGO_TARGET_{}_RUSTFLAGS", plain(&target).to_uppercase()), "-Cstrip=symbols");
    let built = cargo::executables(&mut command)?.into_iter().find(|built| built.kind == "bin");
    let path = built.map(|built| built.path).context("cargo built no `chaos`")?;
    let bytes = fs::read(&path).with_context(|| path.display().to_string())?;
    check(&bytes, profile.limit_bytes()).with_context(|| path.display().to_string())?;
    let said = process::capture(Command::new(&path).arg("--version"))?;
    ensure!(said.starts_with("chaos "), "`chaos --version` says `{}`", said.trim());
    Ok(Built { path, bytes: bytes.len() as u64 })
}

/// Has a command of cargo's build static programs.
pub(crate) fn make_static<'c>(command: &'c mut Command, target: &str) -> &'c mut Command {
    command.args(["--target", target]).envs(c_compiler(target))
}

/// A target as Cargo and cc have it in names of variables, but for the case.
fn plain(target: &str) -> String {
    target.replace('-', "_")
}

/// What ring's C is compiled with where there is no compiler for musl: the machine's own. It calls nothing of the C
/// library but `memcpy` and the like, so the headers of another one do; but for the checked variants of these, which
/// some distributions switch on and musl does not have.
fn c_compiler(target: &str) -> Vec<(String, &'static str)> {
    let own = [format!("{}-linux-musl-gcc", std::env::consts::ARCH), "musl-gcc".to_owned()];
    let name = plain(target);
    let (compiler, flags) = (format!("CC_{name}"), format!("CFLAGS_{name}"));
    let is_told = [&compiler, &flags].iter().any(|name| std::env::var_os(name).is_some());
    let is_native = cfg!(target_env = "musl");
    if is_told || is_native || own.iter().any(|program| packages::find(program).is_some()) {
        return Vec::new();
    }
    vec![(compiler, "cc"), (flags, "-U_FORTIFY_SOURCE")]
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

/// Static, small, and without symbols.
fn check(bytes: &[u8], limit: u64) -> Result<()> {
    let file = object::File::parse(bytes)?;
    if file.sections().any(|section| section.name() == Ok(".interp")) {
        bail!("it asks for a dynamic linker");
    }
    let dynamic =
        file.section_by_name(".dynamic").and_then(|section| section.data().ok().map(<[u8]>::to_vec));
    ensure!(!needs_library(&dynamic.unwrap_or_default()), "it is linked with a shared library");
    ensure!(file.section_by_name(".symtab").is_none(), "it is not stripped");
    ensure!((bytes.len() as u64) < limit, "{} bytes; {limit} are the limit", bytes.len());
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
