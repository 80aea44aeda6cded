//! The layers about `deploy/`: the files by themselves, and the `DaemonSet` on a node.

use std::{
    fs,
    path::{Path, PathBuf},
    process::Command,
};

use anyhow::{Context as _, Result, ensure};

use super::{Session, report::Report};
use crate::{cargo, dist, kubernetes, packages, privilege::Privilege, process};

/// The checker of manifests, from Python's package index.
const VALIDATOR: &str = "kubernetes-validate==1.37.0";
/// Schemas it is asked for: the oldest it has, one between, the newest.
const VERSIONS: [&str; 3] = ["1.27", "1.30", "1.37"];
const UNIT: &str = "deploy/systemd/chaos-agent.service";
const MANIFEST: &str = "deploy/kubernetes/daemonset.yaml";
/// The highest that `systemd-analyze security` may say (0 = nothing allowed, 10 = everything), in tenths.
const EXPOSURE: &str = "45";

pub(super) fn files(session: &mut Session, report: &mut Report) {
    report.check("Dockerfile: pinned, static, empty base", dockerfile(&session.root));
    report.check("unit and manifest give the same capabilities", capabilities(&session.root));
    unit(session, report);
    match validator(&session.root) {
        Ok(program) => {
            for version in VERSIONS {
                let mut command = Command::new(&program);
                command.args(["--strict", "--kubernetes-version", version]).arg(session.root.join(MANIFEST));
                report.check(&format!("manifest, Kubernetes {version}"), process::run(&mut command));
            }
        }
        Err(why) => report.skip(format!("manifest: {VALIDATOR} cannot be had: {why:#}")),
    }
}

pub(super) fn node(session: &mut Session, report: &mut Report) {
    let folder = match kubernetes::ability(&session.root) {
        Ok(folder) => folder,
        Err(why) => return report.skip(format!("the DaemonSet on a node: {why}")),
    };
    let privilege = match Privilege::find("starting a Kubernetes node") {
        Ok(privilege) => privilege,
        Err(why) => return report.skip(format!("the DaemonSet on a node: {why}")),
    };
    let tried =
        dist::build(&session.root, false).and_then(|chaos| kubernetes::try_on(privilege, &folder, &chaos));
    report.check("the DaemonSet on a node", tried);
}

/// A virtual environment in the build folder, made once.
fn validator(root: &Path) -> Result<PathBuf> {
    let folder = target_folder(root)?.join("kubernetes-validate");
    let program = folder.join("bin/kubernetes-validate");
    if !program.is_file() {
        process::capture(Command::new("python3").args(["-m", "venv", "--clear"]).arg(&folder))?;
        process::capture(Command::new(folder.join("bin/pip")).args(["install", "--quiet", VALIDATOR]))?;
    }
    Ok(program)
}

fn target_folder(root: &Path) -> Result<PathBuf> {
    let mut command = cargo::command(root, None, "metadata");
    let text = process::capture(command.args(["--locked", "--no-deps", "--format-version=1"]))?;
    let metadata: serde_json::Value = serde_json::from_str(&text)?;
    Ok(metadata["target_directory"].as_str().context("no target_directory")?.into())
}

/// What systemd says about the unit. The program it starts need not be installed here: one that is stands in for it.
fn unit(session: &Session, report: &mut Report) {
    if packages::find("systemd-analyze").is_none() {
        return report.skip("unit: systemd-analyze is not installed".to_owned());
    }
    let checked = || -> Result<()> {
        let text = fs::read_to_string(session.root.join(UNIT))?;
        let folder = target_folder(&session.root)?.join("unit");
        fs::create_dir_all(&folder)?;
        let path = folder.join("chaos-agent.service");
        fs::write(&path, text.replace("/usr/local/bin/chaos", "/bin/true"))?;
        process::capture(Command::new("systemd-analyze").args(["verify", "--man=no"]).arg(&path))?;
        let threshold = format!("--threshold={EXPOSURE}");
        let mut security = Command::new("systemd-analyze");
        security.args(["security", "--offline=true", "--no-pager", &threshold]).arg(&path);
        process::capture(&mut security).map(drop)
    };
    report.check("unit: systemd-analyze verify, security", checked());
}

fn dockerfile(root: &Path) -> Result<()> {
    let text = fs::read_to_string(root.join("deploy/Dockerfile"))?;
    let toolchain = fs::read_to_string(root.join("rust-toolchain.toml"))?;
    let channel = toolchain.split('"').nth(1).context("no channel in rust-toolchain.toml")?;
    let bases: Vec<&str> = text.lines().filter_map(|line| line.strip_prefix("FROM ")).collect();
    let builder = format!("rust:{channel}-alpine AS build");
    ensure!(bases == [builder.as_str(), "scratch"], "bases are {bases:?}, not {builder} and scratch");
    let copies: Vec<&str> = text.lines().filter(|line| line.starts_with("COPY --from")).collect();
    ensure!(copies == ["COPY --from=build /out/chaos /chaos"], "the image holds more: {copies:?}");
    ensure!(text.contains("cargo build --locked --release"), "what is built is not what Cargo.lock names");
    ensure!(!text.contains("ADD "), "nothing is fetched by ADD");
    Ok(())
}

/// The unit has one more: its socket belongs to a group, where a container has none.
fn capabilities(root: &Path) -> Result<()> {
    let unit = fs::read_to_string(root.join(UNIT))?;
    let line = unit.lines().find_map(|line| line.strip_prefix("CapabilityBoundingSet=")).context(UNIT)?;
    let mut of_unit: Vec<&str> = line
        .split_whitespace()
        .map(|name| name.trim_start_matches("CAP_"))
        .filter(|name| *name != "CHOWN")
        .collect();
    let manifest = fs::read_to_string(root.join(MANIFEST))?;
    let (_, list) = manifest.split_once("add:\n").context(MANIFEST)?;
    let names = list.lines().map_while(|line| line.trim().strip_prefix("- "));
    let mut of_manifest: Vec<&str> = names.filter_map(|name| name.split_whitespace().next()).collect();
    of_unit.sort_unstable();
    of_manifest.sort_unstable();
    ensure!(of_unit == of_manifest, "the unit has {of_unit:?}, the manifest {of_manifest:?}");
    Ok(())
}
