//! `cargo xtask build-ebpf`: the kernel side, from source, with one pinned set of tools.

mod compile;
mod object;
pub(crate) mod pins;
#[path = "../../../chaos-agent/build/sources.rs"]
mod sources;
#[cfg(test)]
mod stack;
pub(crate) mod toolchain;

use std::{fmt::Write as _, fs, path::Path, path::PathBuf};

use anyhow::{Context as _, Result, bail};

pub(crate) use compile::{as_compiler, clippy};
pub(crate) use sources::OBJECT;
use sources::{LIST, Sources};
use toolchain::Toolchain;

/// Arguments of `cargo xtask build-ebpf`.
#[derive(Debug, clap::Args)]
pub(crate) struct Options {
    /// Install what is missing of the pinned tools (else the commands are printed)
    #[arg(long)]
    install: bool,
    /// Build into a temporary folder and compare with the committed object instead of replacing it
    #[arg(long)]
    check: bool,
}

/// What a check found.
pub(crate) enum Checked {
    /// The rebuilt object is the committed one, byte for byte.
    Same,
    /// It is not: what differs.
    Differs(Vec<String>),
    /// The pinned tools are not here: why, and the object rebuilt with others, if any could.
    NotComparable {
        /// What is missing.
        why: String,
        /// What to test instead.
        rebuilt: Option<PathBuf>,
    },
}

/// Runs the command.
pub(crate) fn run(options: &Options) -> Result<()> {
    let root = crate::root();
    if !options.check {
        return build(&root, &toolchain::provide(options.install)?);
    }
    if options.install {
        toolchain::provide(true)?;
    }
    match check(&root)? {
        Checked::Same => {
            eprintln!("{OBJECT}: rebuilt, the same bytes");
            Ok(())
        }
        Checked::Differs(lines) => bail!(
            "{OBJECT} is not what its sources make; run `cargo xtask build-ebpf` and commit both files:\n  {}",
            lines.join("\n  ")
        ),
        Checked::NotComparable { why, rebuilt } => {
            eprintln!("SKIPPED: object comparison: {why}");
            match rebuilt {
                Some(path) => {
                    eprintln!("the rebuilt object is tested instead: CHAOS_EBPF_OBJECT={}", path.display());
                }
                None => eprintln!("nothing here can rebuild it; the committed object is tested as it is"),
            }
            Ok(())
        }
    }
}

/// Builds and puts object and list of sources where chaos-agent takes them from.
fn build(root: &Path, tools: &Toolchain) -> Result<()> {
    let built = compile::compile(root, tools, &root.join("target/ebpf"))?;
    let write = |path: &str, content: &[u8]| {
        let path = root.join(path);
        fs::create_dir_all(path.parent().unwrap_or(root))?;
        // Unchanged files stay untouched, so that cargo does not build the agent again.
        if fs::read(&path).is_ok_and(|old| old == content) {
            return Ok(());
        }
        fs::write(&path, content).with_context(|| path.display().to_string())
    };
    write(OBJECT, &built.object)?;
    let list = list(root, built.sources.into_iter().chain([OBJECT.into()]))?;
    write(LIST, list.as_bytes())?;
    eprintln!(
        "{OBJECT}: {} bytes, toolchain {}, bpf-linker {}",
        built.object.len(),
        tools.name,
        tools.linker
    );
    Ok(())
}

/// Rebuilds and compares.
pub(crate) fn check(root: &Path) -> Result<Checked> {
    let target = root.join("target/ebpf-check");
    let tools = match toolchain::find() {
        Ok(tools) => tools,
        Err(missing) => return near(root, &target, format!("not installed: {}", toolchain::join(&missing))),
    };
    let built = compile::compile(root, &tools, &target)?;
    let committed = fs::read(root.join(OBJECT)).with_context(|| OBJECT.to_owned())?;
    let mut lines = Vec::new();
    if built.object != committed {
        lines = object::diff(&committed, &built.object)?;
        if lines.is_empty() {
            lines.push("headers or symbol table".to_owned());
        }
    }
    let text = fs::read_to_string(root.join(LIST)).with_context(|| LIST.to_owned())?;
    let listed = Sources::parse(&text).map_err(anyhow::Error::msg)?;
    lines.extend(
        listed
            .changed(root)
            .iter()
            .map(|path| format!("{}: changed since the object was built", path.display())),
    );
    let unlisted = built.sources.iter().filter(|path| !listed.files().any(|file| file == path.as_path()));
    lines.extend(unlisted.map(|path| format!("{}: not in {LIST}", path.display())));
    Ok(if lines.is_empty() { Checked::Same } else { Checked::Differs(lines) })
}

fn near(root: &Path, target: &Path, mut why: String) -> Result<Checked> {
    let Some(tools) = toolchain::find_near() else {
        return Ok(Checked::NotComparable { why, rebuilt: None });
    };
    let built = compile::compile(root, &tools, target)?;
    let path = target.join("chaos.bpf.o");
    fs::write(&path, built.object).with_context(|| path.display().to_string())?;
    why.push_str("; built with ");
    why.push_str(&tools.deviations.join(", "));
    Ok(Checked::NotComparable { why, rebuilt: Some(path) })
}

fn list(root: &Path, files: impl Iterator<Item = PathBuf>) -> Result<String> {
    let mut files: Vec<PathBuf> = files.collect();
    files.sort();
    files.dedup();
    let hashed = files.into_iter().map(|path| {
        let content = fs::read(root.join(&path)).with_context(|| path.display().to_string())?;
        Ok((path, sources::hash(&content)))
    });
    let mut text = String::from(
        "# What chaos.bpf.o was built from, and itself: made by `cargo xtask build-ebpf`, checked by build.rs\n\
         # (by hand, from the root: sha256sum --check chaos-agent/ebpf/chaos.bpf.sources).\n",
    );
    for (path, hash) in hashed.collect::<Result<Vec<_>>>()? {
        writeln!(text, "{hash}  {}", path.display())?;
    }
    Ok(text)
}
