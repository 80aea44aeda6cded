//! The program that plays the machine: the installed one if it is good enough, else one that is fetched.

use std::{
    env,
    ffi::OsString,
    fs,
    path::{Path, PathBuf},
    process::Command,
};

use anyhow::{Context as _, Result, bail, ensure};

use super::{
    apt::{self, Apt, Installed},
    cache,
};
use crate::{packages, process};

const PROGRAM: &str = "qemu-system-x86_64";
const PACKAGE: &str = "qemu-system-x86";
/// The oldest that boots every kernel: 7.2 panics on some boots of 6.12.
const OLDEST: u32 = 8;

/// A QEMU that can be started.
#[derive(Debug)]
pub(super) struct Qemu {
    program: PathBuf,
    /// Where a fetched one has been unpacked; none for that of the machine.
    root: Option<PathBuf>,
}

impl Qemu {
    /// Finds it, or fetches it.
    ///
    /// # Errors
    /// When there is none and this machine's packages have none, with what to install.
    pub(super) fn get() -> Result<Self> {
        let installed = packages::find(PROGRAM).map(|program| Self { program, root: None });
        if let Some(qemu) = installed.filter(|qemu| qemu.major().is_ok_and(|major| major >= OLDEST)) {
            return Ok(qemu);
        }
        let folder = cache::folder()?.join("qemu");
        if !folder.join("complete").is_file() {
            eprintln!("fetching QEMU (once); it is not installed");
            cache::afresh(&folder, fetch).with_context(|| {
                format!("{PROGRAM} {OLDEST} or newer is not installed (package {PACKAGE}), nor could it be fetched")
            })?;
        }
        Ok(Self::unpacked(&folder))
    }

    fn unpacked(folder: &Path) -> Self {
        let root = folder.join("root");
        Self { program: root.join("usr/bin").join(PROGRAM), root: Some(root) }
    }

    /// A command that starts it with its own libraries and data.
    pub(super) fn command(&self) -> Command {
        let mut command = Command::new(&self.program);
        if let Some(root) = &self.root {
            let below = |part: &str| root.join(part);
            let own = ["usr/lib/x86_64-linux-gnu", "lib/x86_64-linux-gnu"].map(below);
            let told = env::var_os("LD_LIBRARY_PATH");
            let all = own.into_iter().chain(told.iter().flat_map(env::split_paths));
            command.env("LD_LIBRARY_PATH", env::join_paths(all).unwrap_or_else(|_| OsString::new()));
            for data in ["usr/share/qemu", "usr/share/seabios"] {
                command.arg("-L").arg(below(data));
            }
        }
        command
    }

    /// The first number of its version.
    fn major(&self) -> Result<u32> {
        let said = process::capture(self.command().arg("--version"))?;
        major(&said).with_context(|| format!("`{PROGRAM} --version` says `{}`", said.trim()))
    }
}

/// Fetches the newest of this machine's release, with the libraries that are not here, and tries it.
fn fetch(folder: &Path) -> Result<()> {
    let Some(codename) = apt::own_codename() else { bail!("this system is not Debian") };
    // Debian 12 itself has QEMU 7.2.
    let backports = format!("{codename}-backports");
    let suites = if codename == "bookworm" { vec![&*codename, &*backports] } else { vec![&*codename] };
    let books = folder.join("apt");
    Apt::new(&books, &suites, Installed::Here)?.unpack_beside(PACKAGE, &folder.join("root"))?;
    fs::remove_dir_all(&books)?;
    let major = Qemu::unpacked(folder).major()?;
    ensure!(major >= OLDEST, "{codename} has QEMU {major}");
    fs::write(folder.join("complete"), "")?;
    Ok(())
}

fn major(said: &str) -> Option<u32> {
    said.split_once("version ")?.1.split('.').next()?.parse().ok()
}

#[cfg(test)]
mod tests {
    use super::major;

    #[test]
    fn the_version_is_read() {
        assert_eq!(major("QEMU emulator version 10.0.2 (Debian 1:10.0.2+ds-2)\nCopyright"), Some(10));
        assert_eq!(major("nothing"), None);
    }
}
