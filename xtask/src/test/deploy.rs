//! The layers about `deploy/`: the files by themselves, and the `DaemonSet` on a node.

use std::{
    fs,
    path::{Path, PathBuf},
    process::{Command, Stdio},
};

use anyhow::{Context as _, Result, ensure};

use super::{Session, report::Report};
use crate::{
    cargo,
    dist::{self, Profile},
    image::Image,
    kubernetes::{self, Tried},
    manifest::{self, Container},
    packages,
    privilege::Privilege,
    process,
};

/// The checker of manifests, from Python's package index.
const VALIDATOR: &str = "kubernetes-validate==1.37.0";
/// Schemas it is asked for: the oldest it has, one between, the newest.
const VERSIONS: [&str; 3] = ["1.27", "1.30", "1.37"];
const UNIT: &str = "deploy/systemd/chaos-agent.service";
/// The highest that `systemd-analyze security` may say (0 = nothing allowed, 10 = everything), in tenths.
const EXPOSURE: &str = "45";

pub(super) fn files(session: &mut Session, report: &mut Report) {
    let image = Image::read(&session.root);
    let agrees = image
        .as_ref()
        .map_err(|error| anyhow::anyhow!("{error:#}"))
        .and_then(|image| Container::read(&session.root)?.agrees(image));
    report.check("Dockerfile: pinned, static, empty base", image.map(drop));
    report.check("image and manifest: user, command, probes", agrees);
    report.check("unit and manifest give the same capabilities", capabilities(&session.root));
    unit(session, report);
    match validator(&session.root) {
        Ok(program) => {
            for version in VERSIONS {
                let mut command = Command::new(&program);
                command
                    .args(["--strict", "--kubernetes-version", version])
                    .arg(session.root.join(manifest::FILE));
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
    let chaos = match dist::build(&session.root, Profile::Quick) {
        Ok(built) => built,
        Err(error) => return report.fail(format!("the static binary: {error:#}")),
    };
    report.check(&format!("the static binary: {}", chaos.in_words()), Ok(()));
    match kubernetes::try_on(privilege, &folder, &chaos.path) {
        Ok(Tried::NoNode) => {
            report.skip("the DaemonSet on a node: no node could be started, see above".to_owned());
        }
        tried => report.check("the DaemonSet on a node", tried.map(drop)),
    }
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
        verify(&path)?;
        // A directive with a wrong name would take nothing away, and `verify` but mention it.
        let wrong = folder.join("chaos-wrong.service");
        fs::write(
            &wrong,
            text.replace("/usr/local/bin/chaos", "/bin/true").replace("NoNewPrivileges", "NoNew"),
        )?;
        ensure!(verify(&wrong).is_err(), "a directive that there is not was not seen");
        let threshold = format!("--threshold={EXPOSURE}");
        let mut security = Command::new("systemd-analyze");
        security.args(["security", "--offline=true", "--no-pager", &threshold]).arg(&path);
        process::capture(&mut security).map(drop)
    };
    report.check("unit: systemd-analyze verify, security", checked());
}

/// What it mentions of the unit is an error, also where it calls it good: lines that it ignores are such.
fn verify(unit: &Path) -> Result<()> {
    let mut command = Command::new("systemd-analyze");
    command.args(["verify", "--man=no"]).arg(unit);
    let output = command.stdin(Stdio::null()).output().context("systemd-analyze")?;
    let said = String::from_utf8_lossy(&output.stderr);
    ensure!(output.status.success(), "{}: {}", output.status, said.trim());
    // It may have a word to say of the machine's own units, too.
    let name = unit.file_name().unwrap_or_default().to_string_lossy();
    let ours: Vec<&str> = said.lines().filter(|line| line.contains(name.as_ref())).collect();
    ensure!(ours.is_empty(), "{}", ours.join("; "));
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
    let mut of_manifest = Container::read(root)?.capabilities()?;
    of_unit.sort_unstable();
    of_manifest.sort_unstable();
    ensure!(of_unit == of_manifest, "the unit has {of_unit:?}, the manifest {of_manifest:?}");
    Ok(())
}
