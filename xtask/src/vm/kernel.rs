//! Kernels as Debian builds them for clouds: which there are, and what of them goes into a machine.

use std::{
    fs,
    path::{Path, PathBuf},
    process::Command,
};

use anyhow::{Context as _, Result};

use super::{
    apt::{Apt, Installed},
    cache,
};
use crate::process;

/// The package that stands for the newest build of a suite.
const META: &str = "linux-image-cloud-amd64";
/// Modules that are packed: what networks are made of, and the ports of the machine. The rest of a kernel is drivers
/// for devices it does not have.
const MODULES: &[&str] = &[
    "arch/x86/crypto",
    "crypto",
    "drivers/char/virtio_console",
    "drivers/net/",
    "drivers/virtio",
    "lib",
    "net",
];
/// But for these, which are large and useless here.
const WITHOUT: &[&str] = &["drivers/net/ethernet", "drivers/net/wwan", "net/sunrpc", "net/smc", "net/tipc"];

/// Written last.
const COMPLETE: &str = "complete";

/// A kernel that can be booted.
#[derive(Clone, Copy, Debug, PartialEq, Eq, clap::ValueEnum)]
pub(crate) enum Kernel {
    /// Debian 12: clsact, no tcx
    #[value(name = "6.1")]
    V6_1,
    /// Debian 13: tcx
    #[value(name = "6.12")]
    V6_12,
    /// The newest that Debian has for a stable release
    #[value(name = "latest")]
    Latest,
}

impl Kernel {
    /// What it is called on the command line.
    pub(crate) fn name(self) -> &'static str {
        match self {
            Self::V6_1 => "6.1",
            Self::V6_12 => "6.12",
            Self::Latest => "latest",
        }
    }

    /// The suites its packages are in.
    fn suites(self) -> &'static [&'static str] {
        match self {
            Self::V6_1 => &["bookworm"],
            Self::V6_12 => &["trixie"],
            Self::Latest => &["trixie", "trixie-backports"],
        }
    }
}

/// A kernel in the cache, ready to be packed.
#[derive(Debug)]
pub(super) struct Ready {
    /// The kernel itself.
    pub(super) image: PathBuf,
    /// The folder that is to be `/lib/modules/RELEASE` in the machine, with depmod's files.
    pub(super) modules: PathBuf,
    /// What `uname -r` will say.
    pub(super) release: String,
    /// A static busybox.
    pub(super) busybox: PathBuf,
}

impl Ready {
    /// Takes a kernel from the cache; fetches it if it is not there, or if it is asked for `afresh`.
    ///
    /// # Errors
    /// Those of fetching; a package that is not as expected, with what is missing.
    pub(super) fn get(kernel: Kernel, afresh: bool) -> Result<Self> {
        let folder = cache::folder()?.join(kernel.name());
        if afresh || known(&folder).is_none() {
            eprintln!("fetching Linux {} (once)", kernel.name());
            cache::afresh(&folder, |folder| fetch(kernel, folder))
                .with_context(|| format!("Linux {}", kernel.name()))?;
        }
        let release = known(&folder).context("what was fetched cannot be read")?;
        Ok(Self {
            image: folder.join("vmlinuz"),
            modules: folder.join("lib/modules").join(&release),
            busybox: folder.join("busybox"),
            release,
        })
    }
}

/// Fetches a kernel into an empty folder, and keeps what is needed of it.
fn fetch(kernel: Kernel, folder: &Path) -> Result<()> {
    let (books, root) = (folder.join("apt"), folder.join("root"));
    let apt = Apt::new(&books, kernel.suites(), Installed::Nothing)?;
    let mut packages = apt.closure(META, "linux-")?;
    packages.push("busybox-static".to_owned());
    apt.unpack(&packages, &root)?;
    let release = arrange(&root, folder)?;
    fs::remove_dir_all(&books)?;
    fs::remove_dir_all(&root)?;
    fs::write(folder.join(COMPLETE), format!("{release}\n{MODULES:?}"))?;
    Ok(())
}

/// The release that was fetched whole, and with the modules that are wanted now.
fn known(folder: &Path) -> Option<String> {
    let text = fs::read_to_string(folder.join(COMPLETE)).ok()?;
    let (release, modules) = text.split_once('\n')?;
    (modules == format!("{MODULES:?}")).then(|| release.to_owned())
}

/// Takes out of unpacked packages what is needed; returns the release.
fn arrange(root: &Path, folder: &Path) -> Result<String> {
    let busybox = [root.join("usr/bin/busybox"), root.join("bin/busybox")];
    let busybox = busybox.iter().find(|path| path.is_file()).context("no busybox in busybox-static")?;
    fs::copy(busybox, folder.join("busybox"))?;
    // /lib of 6.1, /usr/lib since.
    let modules = [root.join("usr/lib/modules"), root.join("lib/modules")];
    let mut releases = modules.iter().filter_map(|path| fs::read_dir(path).ok()).flatten().flatten();
    let source = releases.next().context("no modules in the packages of the kernel")?.path();
    let release = source.file_name().and_then(|name| name.to_str()).context("no release")?.to_owned();
    let image = [root.join("boot").join(format!("vmlinuz-{release}")), source.join("vmlinuz")];
    let image =
        image.iter().find(|path| path.is_file()).context("no vmlinuz in the packages of the kernel")?;
    fs::copy(image, folder.join("vmlinuz"))?;
    let target = folder.join("lib/modules").join(&release);
    fs::create_dir_all(&target)?;
    for file in ["modules.builtin", "modules.builtin.modinfo", "modules.order"] {
        fs::copy(source.join(file), target.join(file)).with_context(|| format!("{file} of the kernel"))?;
    }
    modules_into(&source.join("kernel"), &target.join("kernel"), folder)?;
    let mut depmod = Command::new(folder.join("busybox"));
    process::capture(depmod.arg("depmod").arg("-b").arg(folder).arg(&release))?;
    Ok(release)
}

/// Copies the wanted modules, unpacked: the machine has nothing to unpack them with.
fn modules_into(from: &Path, to: &Path, folder: &Path) -> Result<()> {
    let mut waiting = vec![PathBuf::new()];
    while let Some(part) = waiting.pop() {
        for entry in fs::read_dir(from.join(&part))?.flatten() {
            let path = part.join(entry.file_name());
            let name = path.to_string_lossy().into_owned();
            if entry.file_type()?.is_dir() {
                waiting.push(path);
            } else if is_wanted(&name) {
                fs::create_dir_all(to.join(&part))?;
                let copy = to.join(&path);
                fs::copy(entry.path(), &copy)?;
                if copy.extension().is_some_and(|extension| extension == "xz") {
                    process::capture(Command::new(folder.join("busybox")).arg("unxz").arg(&copy))?;
                }
            }
        }
    }
    Ok(())
}

fn is_wanted(module: &str) -> bool {
    let below = |places: &[&str]| places.iter().any(|place| module.starts_with(place));
    below(MODULES) && !below(WITHOUT)
}
