//! `cargo xtask kubernetes`: the `DaemonSet` on a real node. This half runs as the user and builds; `trial` runs as
//! root, `node` on the node.

mod cluster;
pub(crate) mod node;
pub(crate) mod trial;

use std::path::{Path, PathBuf};

use anyhow::{Context as _, Result, bail, ensure};

use crate::{
    dist::{self, Profile},
    packages,
    privilege::Privilege,
};

/// What gives pods their network.
const BRIDGE: &str = "/usr/lib/cni/bridge";

/// Arguments of `cargo xtask kubernetes`.
#[derive(Debug, clap::Args)]
pub(crate) struct Options {
    /// The folder with the script that starts a node [default: `$CHAOS_CLUSTER_DIR`, or shared/kubernetes beside us]
    #[arg(long, value_name = "FOLDER")]
    cluster: Option<PathBuf>,
    /// Use this static `chaos` instead of building one
    #[arg(long, value_name = "FILE")]
    chaos: Option<PathBuf>,
}

/// Runs the command.
pub(crate) fn run(options: &Options) -> Result<()> {
    let root = crate::root();
    let folder = cluster::find(options.cluster.as_deref(), &root).map_err(anyhow::Error::msg)?;
    let chaos = match &options.chaos {
        Some(path) => std::path::absolute(path)?,
        None => dist::build(&root, Profile::Quick)?.path,
    };
    let privilege = Privilege::find("starting a Kubernetes node").map_err(anyhow::Error::msg)?;
    match try_on(privilege, &folder, &chaos)? {
        Tried::Passed => Ok(()),
        Tried::NoNode => bail!("the node did not start"),
    }
}

/// How far the trial came.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Tried {
    /// To its end.
    Passed,
    /// Not to its beginning: there was no node to try anything on, which says nothing of ours.
    NoNode,
}

/// What the trial exits with then (`EX_UNAVAILABLE` of sysexits(3)).
const NO_NODE: u8 = 69;

/// Why the trial cannot be made here, or the folder of the script.
pub(crate) fn ability(root: &Path) -> Result<PathBuf, String> {
    let folder = cluster::find(None, root)?;
    let target = dist::target();
    if !dist::is_installed(&target) {
        return Err(format!("a static binary cannot be built: `rustup target add {target}`"));
    }
    let lacking =
        ["etcd", "containerd", "ctr", "runc", "busybox", "redis-server", "kubectl", "curl", "xz", "openssl"]
            .into_iter()
            .find(|program| packages::find(program).is_none())
            .or_else(|| (!Path::new(BRIDGE).is_file()).then_some(BRIDGE));
    match lacking {
        Some(program) => {
            Err(format!("{program} is not installed: `{}/cluster deps` names the packages", folder.display()))
        }
        None => Ok(folder),
    }
}

/// The trial, as root.
pub(crate) fn try_on(privilege: Privilege, folder: &Path, chaos: &Path) -> Result<Tried> {
    let program = std::env::current_exe()?;
    let mut command = privilege.command("env");
    let path = std::env::var("PATH").unwrap_or_default();
    command.arg(format!("PATH={path}:/usr/sbin:/sbin")).arg(program);
    command.arg("kubernetes-trial").arg("--cluster").arg(folder).arg("--chaos").arg(chaos);
    let status = command.status().context("the trial on the node")?;
    if status.code() == Some(NO_NODE.into()) {
        return Ok(Tried::NoNode);
    }
    ensure!(status.success(), "the trial on the node: {status}");
    Ok(Tried::Passed)
}
