//! The script that starts a node, and commands on that node.

use std::{
    env,
    path::{Path, PathBuf},
    process::Command,
};

use anyhow::{Context as _, Result, ensure};

use crate::process;

/// Where the script is, unless it is told.
const VARIABLE: &str = "CHAOS_CLUSTER_DIR";
/// Beside a checkout, or beside the folder that checkouts lie in.
const BESIDE: [&str; 2] = ["../shared/kubernetes", "../../shared/kubernetes"];

/// The folder with the script `cluster`; else the sentence that says where it was looked for.
pub(crate) fn find(told: Option<&Path>, root: &Path) -> Result<PathBuf, String> {
    let told = told.map(Path::to_path_buf).or_else(|| env::var_os(VARIABLE).map(PathBuf::from));
    let places = told.map_or_else(|| BESIDE.map(|place| root.join(place)).to_vec(), |place| vec![place]);
    let found = places.iter().find(|place| place.join("cluster").is_file());
    found.and_then(|place| place.canonicalize().ok()).ok_or_else(|| {
        let places: Vec<String> = places.iter().map(|place| place.display().to_string()).collect();
        format!(
            "there is no script `cluster` in {}; give its folder with --cluster or {VARIABLE}",
            places.join(" or ")
        )
    })
}

/// A cluster of ours; dropping it ends it.
pub(crate) struct Cluster {
    script: PathBuf,
    state: PathBuf,
}

impl Cluster {
    /// Starts one in a folder of its own.
    ///
    /// # Errors
    /// What the script says, such as which package it lacks.
    pub(crate) fn up(folder: &Path) -> Result<Self> {
        let state = env::temp_dir().join("chaos-xtask-kubernetes");
        let cluster = Self { script: folder.join("cluster"), state };
        // What a run that was killed has left.
        process::run(&mut cluster.command(&["down"]))?;
        process::run(&mut cluster.command(&["up"]))?;
        Ok(cluster)
    }

    fn command(&self, words: &[&str]) -> Command {
        let mut command = Command::new(&self.script);
        command.arg("--dir").arg(&self.state).args(words);
        command
    }

    /// Gives the node an image of a folder.
    pub(crate) fn load_image(&self, folder: &Path, name: &str) -> Result<()> {
        let folder = folder.to_str().context("a path that is not UTF-8")?;
        process::capture(&mut self.command(&["load-image", folder, name])).map(drop)
    }

    /// Runs a program on the node, and returns what it printed.
    pub(crate) fn run(&self, words: &[&str]) -> Result<String> {
        process::capture(&mut self.command(&[&["run", "--"], words].concat()))
    }

    /// The same with what it reads.
    pub(crate) fn kubectl(&self, words: &str) -> Result<String> {
        let words: Vec<&str> = ["kubectl"].into_iter().chain(words.split_whitespace()).collect();
        self.run(&words)
    }

    /// Asks the agent on the node; the answer's body. Anything but success is an error.
    pub(crate) fn ask(&self, method: &str, path: &str, body: &str) -> Result<String> {
        let url = format!("http://chaos{path}");
        let mut words = vec!["curl", "--silent", "--show-error", "--fail-with-body", "--max-time", "20"];
        words.extend(["--unix-socket", "/run/chaos/agent.sock", "-X", method, &url]);
        if !body.is_empty() {
            words.extend(["-H", "content-type: application/json", "--data", body]);
        }
        self.run(&words)
    }

    /// Ends it.
    pub(crate) fn down(self) -> Result<()> {
        process::run(&mut self.command(&["down"]))?;
        ensure!(!self.state.join("live").exists(), "{} is left", self.state.join("live").display());
        Ok(())
    }
}

impl Drop for Cluster {
    fn drop(&mut self) {
        let _ = process::run(&mut self.command(&["down"]));
    }
}
