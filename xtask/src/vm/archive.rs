//! The files of a machine, as the archive that its kernel unpacks into memory (initramfs).

use std::{
    collections::BTreeMap,
    fs::{self, File},
    io::{BufWriter, Write},
    path::{Path, PathBuf},
    process::Command,
};

use anyhow::{Context as _, Result, bail};
use cpio::newc::{self, ModeFileType};

use crate::process;

/// Folders that are links to those below `/usr`, as on every newer system.
const MERGED: [&str; 4] = ["bin", "sbin", "lib", "lib64"];

#[derive(Debug)]
enum Node {
    Folder,
    Link(String),
    Program(PathBuf),
    Data(PathBuf),
    Text(String, u32),
}

/// What is where. Everything belongs to root.
#[derive(Debug)]
pub(super) struct Archive(BTreeMap<String, Node>);

impl Archive {
    /// One with nothing but the usual folders.
    pub(super) fn new() -> Self {
        let mut archive = Self(BTreeMap::new());
        for folder in ["dev", "etc", "proc", "root", "run", "sys", "tmp", "var/lib", "var/log"] {
            archive.put(folder, Node::Folder);
        }
        for name in MERGED {
            archive.put(&format!("usr/{name}"), Node::Folder);
            // Put by hand: `put` would follow it.
            archive.0.insert(name.to_owned(), Node::Link(format!("usr/{name}")));
        }
        archive.link("var/run", "/run");
        archive.link("var/tmp", "/tmp");
        archive
    }

    /// A file of this text.
    pub(super) fn text(&mut self, at: &str, text: impl Into<String>) {
        self.put(at, Node::Text(text.into(), 0o644));
    }

    /// The same, to be executed.
    pub(super) fn script(&mut self, at: &str, text: impl Into<String>) {
        self.put(at, Node::Text(text.into(), 0o755));
    }

    /// A link, unless there is something already.
    pub(super) fn link(&mut self, at: &str, to: &str) {
        if !self.0.contains_key(&normal(at)) {
            self.put(at, Node::Link(to.to_owned()));
        }
    }

    /// A program with the libraries it is linked with.
    ///
    /// # Errors
    /// When it lacks one here, too.
    pub(super) fn program(&mut self, at: &str, source: &Path) -> Result<()> {
        for library in libraries(source)? {
            self.put(&library.to_string_lossy(), Node::Program(library.clone()));
        }
        self.put(at, Node::Program(source.to_path_buf()));
        Ok(())
    }

    /// A folder with all that is in it.
    pub(super) fn tree(&mut self, at: &str, source: &Path) -> Result<()> {
        let entries = fs::read_dir(source).with_context(|| source.display().to_string())?;
        for entry in entries {
            let entry = entry?;
            let inside = format!("{at}/{}", entry.file_name().to_string_lossy());
            if entry.file_type()?.is_dir() {
                self.tree(&inside, &entry.path())?;
            } else {
                self.data(&inside, &entry.path());
            }
        }
        Ok(())
    }

    /// A file that is not run.
    pub(super) fn data(&mut self, at: &str, source: &Path) {
        self.put(at, Node::Data(source.to_path_buf()));
    }

    fn put(&mut self, at: &str, node: Node) {
        let at = normal(at);
        for (end, _) in at.match_indices('/') {
            let parent = at.get(..end).unwrap_or_default();
            if !self.0.contains_key(parent) {
                self.0.insert(parent.to_owned(), Node::Folder);
            }
        }
        self.0.insert(at, node);
    }

    /// Writes it.
    pub(super) fn write(&self, to: &Path) -> Result<()> {
        let mut file = BufWriter::new(File::create(to).with_context(|| to.display().to_string())?);
        // A folder stands before what is in it: names are in order.
        for (number, (name, node)) in (1..).zip(&self.0) {
            let entry = newc::Builder::new(name).ino(number);
            let (kind, mode, bytes) = match node {
                Node::Folder => (ModeFileType::Directory, 0o755, Vec::new()),
                Node::Link(to) => (ModeFileType::Symlink, 0o777, to.clone().into_bytes()),
                Node::Text(text, mode) => (ModeFileType::Regular, *mode, text.clone().into_bytes()),
                Node::Program(path) => (ModeFileType::Regular, 0o755, read(path)?),
                Node::Data(path) => (ModeFileType::Regular, 0o644, read(path)?),
            };
            let size = u32::try_from(bytes.len()).with_context(|| format!("{name} is too large"))?;
            let mut writer = entry.mode(mode).set_mode_file_type(kind).write(&mut file, size);
            writer.write_all(&bytes)?;
            writer.finish()?;
        }
        newc::trailer(&mut file)?;
        file.flush().context("the end of the archive")
    }
}

fn read(path: &Path) -> Result<Vec<u8>> {
    fs::read(path).with_context(|| path.display().to_string())
}

/// A path without the first slash, below `usr` where the machine has a link.
fn normal(path: &str) -> String {
    let path = path.trim_start_matches('/');
    let first = path.split('/').next().unwrap_or_default();
    if MERGED.contains(&first) && path != first { format!("usr/{path}") } else { path.to_owned() }
}

/// The libraries a program is linked with, and what loads them; none if it is static.
fn libraries(program: &Path) -> Result<Vec<PathBuf>> {
    // What ldd says of a static program it says with a failure.
    let said = process::probe(Command::new("ldd").arg(program)).unwrap_or_default();
    let mut found = Vec::new();
    for line in said.lines() {
        if line.contains("not found") {
            bail!("{}: {}", program.display(), line.trim());
        }
        found.extend(line.split_whitespace().find(|word| word.starts_with('/')).map(PathBuf::from));
    }
    Ok(found)
}

#[cfg(test)]
mod tests {
    use super::{Archive, normal};

    #[test]
    fn what_lies_in_a_merged_folder_is_put_below_usr() {
        assert_eq!(normal("/lib/x/libc.so.6"), "usr/lib/x/libc.so.6");
        assert_eq!(normal("/usr/sbin/ip"), "usr/sbin/ip");
        assert_eq!(normal("/library/x"), "library/x");
    }

    #[test]
    fn folders_stand_before_what_is_in_them() {
        let mut archive = Archive::new();
        archive.text("/sbin/a/b", "");
        let names: Vec<&String> = archive.0.keys().collect();
        let at = |name: &str| names.iter().position(|known| *known == name).unwrap_or(usize::MAX);
        assert!(at("usr") < at("usr/sbin") && at("usr/sbin") < at("usr/sbin/a"));
        assert!(at("usr/sbin/a") < at("usr/sbin/a/b") && at("usr/sbin/a/b") < names.len());
    }
}
