//! The list of what the committed eBPF object was built from, shared by `build.rs` and by
//! `cargo xtask build-ebpf`.
//!
//! One line per file, as `sha256sum` writes and checks them: `<sha256>  <path from the root>`.
//! Contents decide, never modification times: a fresh clone has those in any order.

use std::{
    fmt::Write as _,
    fs,
    path::{Path, PathBuf},
};

use sha2::{Digest as _, Sha256};

/// The object, from the root of the repository.
pub(crate) const OBJECT: &str = "chaos-agent/ebpf/chaos.bpf.o";

/// The list, from the root of the repository.
pub(crate) const LIST: &str = "chaos-agent/ebpf/chaos.bpf.sources";

/// Files and their hashes.
#[derive(Debug, PartialEq, Eq)]
pub(crate) struct Sources(pub(crate) Vec<(PathBuf, String)>);

impl Sources {
    /// Reads a list; lines that start with `#` are for people.
    pub(crate) fn parse(text: &str) -> Result<Self, String> {
        let lines = text.lines().filter(|line| !line.is_empty() && !line.starts_with('#'));
        let entry = |line: &str| match line.split_once("  ") {
            Some((hash, path)) if hash.len() == 64 => Ok((PathBuf::from(path), hash.to_owned())),
            _ => Err(format!("{LIST}: `{line}` is not `<sha256>  <path>`")),
        };
        lines.map(entry).collect::<Result<_, _>>().map(Self)
    }

    /// The files, in order.
    pub(crate) fn files(&self) -> impl Iterator<Item = &Path> {
        self.0.iter().map(|(path, _)| path.as_path())
    }

    /// The files that are no longer what they were, or are gone.
    pub(crate) fn changed(&self, root: &Path) -> Vec<&Path> {
        let same =
            |path: &Path, was: &str| fs::read(root.join(path)).is_ok_and(|content| hash(&content) == was);
        self.0.iter().filter(|(path, was)| !same(path, was)).map(|(path, _)| path.as_path()).collect()
    }
}

/// SHA-256 in hexadecimal.
pub(crate) fn hash(content: &[u8]) -> String {
    Sha256::digest(content).iter().fold(String::with_capacity(64), |mut hex, byte| {
        let _ = write!(hex, "{byte:02x}");
        hex
    })
}
