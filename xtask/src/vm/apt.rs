//! Packages without installing them: the machine's own package manager, told to keep its books in another folder.
//! Nothing of the system is changed, and root is not needed.

use std::{
    env, fs,
    path::{Path, PathBuf},
    process::Command,
};

use anyhow::{Context as _, Result, ensure};

use crate::{packages, process};

/// A mirror of Debian, where the machine's own configuration names none.
const MIRROR: &str = "CHAOS_VM_MIRROR";
/// What signs Debian's archives, on Debian and (package `debian-archive-keyring`) elsewhere.
const KEYRING: &str = "/usr/share/keyrings/debian-archive-keyring.gpg";

/// What counts as installed when dependencies are looked at.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Installed {
    /// Nothing: the packages are not for this machine.
    Nothing,
    /// What this machine has.
    Here,
}

/// A private configuration of apt.
#[derive(Debug)]
pub(super) struct Apt {
    folder: PathBuf,
}

impl Apt {
    /// Makes one in `folder` that knows these suites (such as `trixie`), prefers the last, and fetches their lists.
    ///
    /// # Errors
    /// Without apt, a mirror of Debian, or its keys, with what to do about it.
    pub(super) fn new(folder: &Path, suites: &[&str], installed: Installed) -> Result<Self> {
        for program in ["apt-get", "apt-cache", "dpkg"] {
            let found = packages::find(program);
            found
                .with_context(|| format!("{program} is not installed: kernels come as packages of Debian"))?;
        }
        ensure!(Path::new(KEYRING).is_file(), "{KEYRING} is missing: install debian-archive-keyring");
        for part in ["lists/partial", "cache/archives/partial"] {
            let path = folder.join(part);
            fs::create_dir_all(&path).with_context(|| format!("making {}", path.display()))?;
        }
        let mirror = mirror()?;
        let source = |suite: &&str| format!("deb [signed-by={KEYRING}] {mirror} {suite} main\n");
        fs::write(folder.join("sources.list"), suites.iter().map(source).collect::<String>())?;
        fs::write(folder.join("status"), "")?;
        fs::write(folder.join("apt.conf"), configuration(folder, suites, installed))?;
        let apt = Self { folder: folder.to_path_buf() };
        process::capture(apt.command("apt-get").args(["update", "--quiet=2"]))?;
        Ok(apt)
    }

    fn command(&self, program: &str) -> Command {
        let mut command = Command::new(program);
        command.env("APT_CONFIG", self.folder.join("apt.conf")).env("LC_ALL", "C");
        command
    }

    /// A package and what it depends on, near and far, as far as the names begin with `prefix`.
    pub(super) fn closure(&self, package: &str, prefix: &str) -> Result<Vec<String>> {
        let mut command = self.command("apt-cache");
        let listed = process::capture(command.args(["depends", "--recurse", "--important", package]))?;
        Ok(listed.lines().filter(|line| line.starts_with(prefix)).map(str::to_owned).collect())
    }

    /// Downloads exactly these and unpacks them below `root`.
    pub(super) fn unpack(&self, packages: &[String], root: &Path) -> Result<()> {
        let folder = self.folder.join("cache/archives");
        let mut command = self.command("apt-get");
        command.args(["download", "--quiet=2"]).args(packages).current_dir(&folder);
        process::capture(&mut command)?;
        self.extract(root)
    }

    /// Downloads a package and all it needs and this machine lacks, and unpacks them below `root`.
    pub(super) fn unpack_beside(&self, package: &str, root: &Path) -> Result<()> {
        let mut command = self.command("apt-get");
        command.args(["install", "--download-only", "--yes", "--quiet=2", "--no-install-recommends"]);
        process::capture(command.arg(package))?;
        self.extract(root)
    }

    /// Unpacks what was downloaded, and lets the packages go.
    fn extract(&self, root: &Path) -> Result<()> {
        fs::create_dir_all(root)?;
        let folder = self.folder.join("cache/archives");
        let entries = fs::read_dir(&folder).with_context(|| folder.display().to_string())?;
        let files = entries.flatten().map(|entry| entry.path());
        for package in files.filter(|path| path.extension().is_some_and(|extension| extension == "deb")) {
            process::capture(Command::new("dpkg").arg("-x").arg(&package).arg(root))?;
            fs::remove_file(&package)?;
        }
        Ok(())
    }
}

/// The private part of apt's configuration. Proxies and the like still come from the system's.
fn configuration(folder: &Path, suites: &[&str], installed: Installed) -> String {
    let at = |part: &str| folder.join(part).display().to_string();
    let status = match installed {
        Installed::Nothing => at("status"),
        Installed::Here => "/var/lib/dpkg/status".to_owned(),
    };
    let values = [
        ("Dir::Etc::sourcelist", at("sources.list")),
        ("Dir::Etc::sourceparts", "/dev/null".to_owned()),
        ("Dir::Etc::preferences", "/dev/null".to_owned()),
        ("Dir::Etc::preferencesparts", "/dev/null".to_owned()),
        ("Dir::State", at("")),
        ("Dir::State::status", status),
        ("Dir::Cache", at("cache")),
        ("APT::Architecture", "amd64".to_owned()),
        ("APT::Default-Release", suites.last().copied().unwrap_or_default().to_owned()),
        // Its user may not reach the folder.
        ("APT::Sandbox::User", "root".to_owned()),
        // A mirror that does not answer must not hold up what can do without it.
        ("Acquire::http::Timeout", "20".to_owned()),
        ("Acquire::https::Timeout", "20".to_owned()),
        ("Acquire::Retries", "2".to_owned()),
        ("APT::Update::Error-Mode", "any".to_owned()),
        ("Acquire::Languages", "none".to_owned()),
        ("Acquire::IndexTargets::deb::DEP-11::DefaultEnabled", "false".to_owned()),
        // The lock of dpkg, which nothing is changed under.
        ("Debug::NoLocking", "true".to_owned()),
    ];
    let lines = values.iter().map(|(name, value)| format!("{name} \"{value}\";"));
    lines.collect::<Vec<_>>().join("\n")
}

/// Where Debian's packages come from: told, or as the machine itself fetches its own.
fn mirror() -> Result<String> {
    if let Ok(told) = env::var(MIRROR) {
        return Ok(told);
    }
    let known = process::capture(Command::new("apt-get").args(["update", "--print-uris"]))?;
    from_uris(&known, codename(&release()).as_deref()).with_context(|| {
        format!("this machine's packages do not come from a mirror of Debian; name one in {MIRROR}")
    })
}

/// The part before `dists` where the machine's own release comes from.
fn from_uris(uris: &str, codename: Option<&str>) -> Option<String> {
    let end = format!("/dists/{}/InRelease", codename?);
    let addresses = uris.lines().filter_map(|line| line.split('\'').nth(1));
    addresses.filter_map(|address| address.strip_suffix(&end)).map(str::to_owned).next()
}

/// What the system says it is (os-release(5)).
fn release() -> String {
    fs::read_to_string("/etc/os-release").unwrap_or_default()
}

/// The name of this machine's release, if it is Debian.
fn codename(release: &str) -> Option<String> {
    let value = |name: &str| release.lines().find_map(|line| line.strip_prefix(name));
    (value("ID=")? == "debian").then(|| value("VERSION_CODENAME=").map(str::to_owned))?
}

/// The same of this machine.
pub(super) fn own_codename() -> Option<String> {
    codename(&release())
}

#[cfg(test)]
mod tests {
    use super::{codename, from_uris};

    #[test]
    fn the_mirror_is_where_the_own_release_comes_from() {
        let uris = "'http://x.test/tools/dists/stable/InRelease' a 0\n\
                    'http://m.test/debian/dists/bookworm-updates/InRelease' b 0\n\
                    'http://m.test/debian/dists/bookworm/InRelease' c 0 \n";
        assert_eq!(from_uris(uris, Some("bookworm")).as_deref(), Some("http://m.test/debian"));
        assert_eq!(from_uris(uris, Some("noble")), None);
        assert_eq!(from_uris(uris, None), None);
    }

    #[test]
    fn only_debian_has_a_release_of_debian() {
        assert_eq!(codename("ID=debian\nVERSION_CODENAME=trixie").as_deref(), Some("trixie"));
        assert_eq!(codename("VERSION_CODENAME=noble\nID=ubuntu\nID_LIKE=debian"), None);
    }
}
