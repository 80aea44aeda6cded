//! What `deploy/kubernetes/daemonset.yaml` says about the agent's container.

use std::{fs, path::Path};

use anyhow::{Context as _, Result, ensure};
use serde_json::Value;

use crate::image::Image;

/// Where it is in the repository.
pub(crate) const FILE: &str = "deploy/kubernetes/daemonset.yaml";
/// What it runs, as it is written there. Without this line the image's own words are run.
const COMMAND: &str = "          command: [/chaos, agent]\n";

/// The container of the agent.
#[derive(Debug)]
pub(crate) struct Container(Value);

impl Container {
    /// Reads the file.
    ///
    /// # Errors
    /// It cannot be read, or has no `DaemonSet` of one container.
    pub(crate) fn read(root: &Path) -> Result<Self> {
        let text = fs::read_to_string(root.join(FILE)).context(FILE)?;
        let documents: Vec<Value> = serde_saphyr::from_multiple(&text).context(FILE)?;
        let set =
            documents.iter().find(|document| document["kind"] == "DaemonSet").context("no DaemonSet")?;
        let containers = set["spec"]["template"]["spec"]["containers"].as_array().context("no containers")?;
        let [container] = containers.as_slice() else { anyhow::bail!("{} containers", containers.len()) };
        Ok(Self(container.clone()))
    }

    /// The capabilities it is given; all others are taken from it.
    ///
    /// # Errors
    /// It keeps others.
    pub(crate) fn capabilities(&self) -> Result<Vec<String>> {
        let capabilities = &self.0["securityContext"]["capabilities"];
        ensure!(capabilities["drop"] == serde_json::json!(["ALL"]), "not all other capabilities are dropped");
        words(&capabilities["add"])
    }

    /// Everything that it runs is in the image, and the image alone would run the same as the same user.
    ///
    /// # Errors
    /// Where they differ.
    pub(crate) fn agrees(&self, image: &Image) -> Result<()> {
        let own = [image.entrypoint.as_slice(), &image.cmd].concat();
        let command = words(&self.0["command"])?;
        ensure!(command == own, "the manifest runs {command:?}, the image {own:?}");
        let user =
            format!("{}:{}", self.0["securityContext"]["runAsUser"], self.0["securityContext"]["runAsGroup"]);
        ensure!(user == image.user, "the manifest's user is {user}, the image's {}", image.user);
        for probe in ["startupProbe", "readinessProbe", "livenessProbe"] {
            let asks = words(&self.0[probe]["exec"]["command"]).context(probe)?;
            let own = &image.healthcheck;
            ensure!(asks.starts_with(own), "the {probe} runs {asks:?}, the image's health check {own:?}");
        }
        let stop = words(&self.0["lifecycle"]["preStop"]["exec"]["command"]).context("preStop")?;
        ensure!(stop.first() == Some(&image.binary), "preStop runs {stop:?}, the image has {}", image.binary);
        Ok(())
    }
}

/// The manifest without what it runs, so that the image's ENTRYPOINT and CMD are.
///
/// # Errors
/// It says that in another way.
pub(crate) fn without_command(root: &Path) -> Result<String> {
    let text = fs::read_to_string(root.join(FILE)).context(FILE)?;
    ensure!(text.contains(COMMAND), "{FILE} has no line `{}`", COMMAND.trim());
    Ok(text.replace(COMMAND, ""))
}

fn words(list: &Value) -> Result<Vec<String>> {
    let list = list.as_array().context("no list of words")?;
    list.iter().map(|word| word.as_str().map(str::to_owned).context("not a word")).collect()
}
