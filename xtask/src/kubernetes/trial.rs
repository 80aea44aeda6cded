//! What is tried on the node, step by step. Runs as root.

use std::{
    fs,
    path::{Path, PathBuf},
    process::ExitCode,
    thread,
    time::{Duration, Instant},
};

use anyhow::{Context as _, Result, bail, ensure};
use serde_json::Value;

use super::{NO_NODE, cluster::Cluster};
use crate::{
    image::Image,
    manifest::{self, Container},
};

const IMAGE: &str = "localhost/chaos:dev";
const PODS: &str = include_str!("pods.yaml");
/// A container that nobody but us knows.
const ALONE: &str = "chaos-alone";
/// For what takes a moment on a node. The pods of a `DaemonSet` that is deleted are ended by the cluster's garbage
/// collector, which may be half a minute late on a new cluster, and have a grace period of half a minute then.
const PATIENCE: Duration = Duration::from_mins(2);

/// Arguments of the half that runs as root.
#[derive(Debug, clap::Args)]
pub(crate) struct Options {
    #[arg(long)]
    cluster: PathBuf,
    #[arg(long)]
    chaos: PathBuf,
}

/// Starts a node, tries, ends the node.
pub(crate) fn run(options: &Options) -> Result<ExitCode> {
    let begun = Instant::now();
    let say = |what: &str| println!("  {:6.1} s  {what}", begun.elapsed().as_secs_f64());
    let cluster = match Cluster::up(&options.cluster) {
        Ok(cluster) => cluster,
        Err(error) => {
            eprintln!("error: {error:#}");
            return Ok(NO_NODE.into());
        }
    };
    say("the node is ready");
    let trial = Trial::new(cluster, &options.chaos)?;
    say("the image is loaded; redis and its two clients run");
    let before = trial.state()?;
    trial.runs_alone(&before)?;
    say(
        "the image alone, without volumes: its words start the agent, its health check passes, its signal ends it",
    );
    trial.deploy(&manifest::without_command(&crate::root())?)?;
    trial.is_healthy()?;
    say("the DaemonSet is Ready with what the image runs by itself");
    let fault = trial.fault_hits_one_pod()?;
    say("a fault on one pod's cgroup stops redis for that pod, and for no other");
    trial.cluster.ask("DELETE", &format!("/v1/faults/{fault}"), "")?;
    ensure!(trial.talks("hit"), "the fault was deleted, but redis is not back");
    say("deleted: redis is back");
    trial.delays_one_pod()?;
    say("its packets can be delayed: the container has its TAP device");
    trial.fault_hits_one_pod()?;
    trial.cluster.kubectl("delete --namespace chaos daemonset chaos-agent --wait")?;
    trial.is_gone()?;
    trial.left_nothing(&before)?;
    say("the DaemonSet deleted under a fault: redis is back, nothing is left");
    trial.deploy(&fs::read_to_string(crate::root().join(manifest::FILE))?)?;
    trial.fault_hits_one_pod()?;
    let old = trial.agent_pod()?;
    trial.cluster.kubectl(&format!("delete --namespace chaos pod {old} --grace-period=0 --force"))?;
    wait("redis comes back for the pod that was hit", || Ok(trial.talks("hit")))?;
    wait("another pod takes over", || Ok(trial.agent_pod().is_ok_and(|new| new != old)))?;
    trial.ready()?;
    let list: Value = serde_json::from_str(&trial.cluster.ask("GET", "/v1/status", "")?)?;
    ensure!(list["faults"] == 0, "the successor holds faults: {list}");
    say("its pod deleted with grace period 0: redis is back, another pod took over");
    trial.cluster.kubectl("delete --namespace chaos daemonset chaos-agent --wait")?;
    trial.is_gone()?;
    trial.left_nothing(&before)?;
    ensure!(trial.talks("hit") && trial.talks("spared"), "redis is not back");
    say("nothing is left on the node");
    trial.cluster.down().map(|()| ExitCode::SUCCESS)
}

struct Trial {
    cluster: Cluster,
    /// Address of the redis server.
    server: String,
    /// What the image runs.
    image: Image,
    /// For what the node reads.
    folder: Folder,
}

/// A folder that is removed in the end.
struct Folder(PathBuf);

impl Drop for Folder {
    fn drop(&mut self) {
        let _ = fs::remove_dir_all(&self.0);
    }
}

impl Trial {
    fn new(cluster: Cluster, chaos: &Path) -> Result<Self> {
        let folder = std::env::temp_dir().join(format!("chaos-trial-{}", std::process::id()));
        fs::create_dir_all(&folder)?;
        let folder = Folder(folder);
        let image = Image::read(&crate::root())?;
        cluster.load_image(&image.write(chaos, &folder.0, IMAGE)?, IMAGE)?;
        let pods = folder.0.join("pods.yaml");
        fs::write(&pods, PODS)?;
        cluster.kubectl(&format!("apply -f {}", pods.display()))?;
        cluster.kubectl("wait --for=condition=Available deployment --all --timeout=90s")?;
        let server = cluster.kubectl("get pod -l app=cache -o jsonpath={.items[0].status.podIP}")?;
        let trial = Self { cluster, server, image, folder };
        wait("redis answers both clients", || Ok(trial.talks("hit") && trial.talks("spared")))?;
        Ok(trial)
    }

    /// Whether redis answers this client.
    fn talks(&self, client: &str) -> bool {
        let line = format!("exec deployment/{client} -- timeout 2 redis-cli -h {} ping", self.server);
        self.cluster.kubectl(&line).is_ok_and(|said| said.trim() == "PONG")
    }

    fn deploy(&self, manifest: &str) -> Result<()> {
        let path = self.folder.0.join("daemonset.yaml");
        fs::write(&path, manifest)?;
        self.cluster.kubectl(&format!("apply -f {}", path.display()))?;
        self.ready()
    }

    /// Runs a container of the image as `docker run` would: nothing is said but which capabilities it has.
    fn runs_alone(&self, before: &[String]) -> Result<()> {
        let mut words: Vec<String> =
            ["ctr", "-n", "k8s.io", "run", "--detach", "--net-host"].map(str::to_owned).to_vec();
        words.extend(["--with-ns".to_owned(), "pid:/proc/1/ns/pid".to_owned()]);
        for capability in Container::read(&crate::root())?.capabilities()? {
            words.extend(["--cap-add".to_owned(), format!("CAP_{capability}")]);
        }
        words.extend([IMAGE.to_owned(), ALONE.to_owned()]);
        self.cluster.run(&words.iter().map(String::as_str).collect::<Vec<_>>())?;
        let task = |words: &[&str]| self.cluster.run(&[&["ctr", "-n", "k8s.io", "task"], words].concat());
        let health: Vec<&str> = ["exec", "--exec-id", "health", ALONE]
            .into_iter()
            .chain(self.image.healthcheck.iter().map(String::as_str))
            .collect();
        wait("the image's health check passes", || Ok(task(&health).is_ok()))?;
        task(&["kill", "--signal", &self.image.stop_signal, ALONE])?;
        wait("its signal ends it", || Ok(task(&["ls"])?.lines().any(is_stopped)))?;
        task(&["rm", ALONE])?;
        self.cluster.run(&["ctr", "-n", "k8s.io", "container", "rm", ALONE])?;
        self.left_nothing(before)
    }

    /// The image's health check, in the pod.
    fn is_healthy(&self) -> Result<()> {
        let check = self.image.healthcheck.join(" ");
        self.cluster
            .kubectl(&format!("exec --namespace chaos daemonset/chaos-agent -- {check}"))
            .map(drop)
            .context("the image's health check")
    }

    fn ready(&self) -> Result<()> {
        let rollout = "rollout status --namespace chaos daemonset/chaos-agent --timeout=60s";
        let Err(error) = self.cluster.kubectl(rollout) else { return Ok(()) };
        let told = self.cluster.kubectl("describe --namespace chaos pod").unwrap_or_default();
        let logs = self.cluster.kubectl("logs --namespace chaos daemonset/chaos-agent").unwrap_or_default();
        bail!("{error:#}\n{told}\n{logs}")
    }

    fn agent_pod(&self) -> Result<String> {
        let line = "get pod --namespace chaos --field-selector=status.phase=Running -o jsonpath={.items[*].metadata.name}";
        let names = self.cluster.kubectl(line)?;
        let [name] = names.split_whitespace().collect::<Vec<_>>()[..] else { bail!("pods: `{names}`") };
        Ok(name.to_owned())
    }

    /// Sets a fault on the cgroup of the pod `hit`; its number.
    fn fault_hits_one_pod(&self) -> Result<u64> {
        ensure!(self.talks("hit") && self.talks("spared"), "redis must answer both before");
        let group = self.cgroup("hit")?;
        let body = serde_json::json!({"target": format!("cgroup:{group}"), "faults": {"partition": true},
            "match": {"peer_port": [6379]}, "duration": "2m"});
        let made = self.cluster.ask("POST", "/v1/faults", &body.to_string())?;
        let made: Value = serde_json::from_str(&made).with_context(|| made.clone())?;
        let id = made["id"].as_u64().with_context(|| made.to_string())?;
        ensure!(!self.talks("hit"), "redis still answers the pod that is hit");
        ensure!(self.talks("spared"), "redis does not answer the other pod");
        let stats: Value =
            serde_json::from_str(&self.cluster.ask("GET", &format!("/v1/faults/{id}/stats"), "")?)?;
        ensure!(stats["egress"]["matched_packets"].as_u64() > Some(0), "nothing was counted: {stats}");
        Ok(id)
    }

    /// A fault that needs private devices and the line's thread.
    fn delays_one_pod(&self) -> Result<()> {
        let body = serde_json::json!({"target": format!("cgroup:{}", self.cgroup("hit")?),
            "faults": {"delay": "300ms", "loss": "1%"}, "match": {"peer_port": [6379]}, "duration": "2m"});
        let made: Value =
            serde_json::from_str(&self.cluster.ask("POST", "/v1/faults", &body.to_string())?)?;
        let begun = Instant::now();
        self.talks("hit");
        // Two packets of the client's at least: its SYN and its question.
        ensure!(begun.elapsed() > Duration::from_millis(600), "nothing was late");
        let ended: Value =
            serde_json::from_str(&self.cluster.ask("DELETE", &format!("/v1/faults/{}", made["id"]), "")?)?;
        ensure!(ended["egress"]["delayed_packets"].as_u64() > Some(1), "nothing was delayed: {ended}");
        Ok(())
    }

    /// The pod's directory below the cgroup2 mount.
    fn cgroup(&self, client: &str) -> Result<String> {
        let uid = self
            .cluster
            .kubectl(&format!("get pod -l app={client} -o jsonpath={{.items[0].metadata.uid}}"))?;
        let mount = self.cluster.run(&["findmnt", "-nfo", "TARGET", "-t", "cgroup2"])?;
        let found = self.cluster.run(&["find", mount.trim(), "-type", "d", "-name", &format!("pod{uid}")])?;
        let path = found.lines().next().with_context(|| format!("no cgroup of the pod {uid}"))?;
        path.strip_prefix(mount.trim()).map(str::to_owned).context("a path below the mount")
    }

    /// No pod of the agent is there any more, and what it ran had ended well.
    fn is_gone(&self) -> Result<()> {
        let gone = wait("the agent's pods end", || {
            let pods: Value =
                serde_json::from_str(&self.cluster.kubectl("get pod --namespace chaos -o json")?)?;
            let pods = pods["items"].as_array().context("a list of pods")?;
            let ended = |pod: &Value| pod["status"]["containerStatuses"][0]["state"]["terminated"].clone();
            let ill =
                pods.iter().map(ended).find(|ended| ended["exitCode"].as_i64().is_some_and(|code| code != 0));
            ensure!(ill.is_none(), "the agent did not end by its signal: {ill:?}");
            Ok(pods.is_empty())
        });
        let Err(error) = gone else { return Ok(()) };
        bail!("{error:#}\n{}", self.cluster.kubectl("describe --namespace chaos pod").unwrap_or_default())
    }

    fn state(&self) -> Result<Vec<String>> {
        let program = std::env::current_exe()?;
        let said =
            self.cluster.run(&[program.to_str().context("a path that is not UTF-8")?, "kubernetes-node"])?;
        Ok(said.lines().map(str::to_owned).collect())
    }

    /// What is there now was there before.
    fn left_nothing(&self, before: &[String]) -> Result<()> {
        let begun = Instant::now();
        loop {
            let now = self.state()?;
            let new: Vec<&String> = now.iter().filter(|line| !before.contains(line)).collect();
            if new.is_empty() {
                return Ok(());
            }
            ensure!(begun.elapsed() < Duration::from_secs(5), "left on the node: {new:#?}");
            thread::sleep(Duration::from_millis(200));
        }
    }
}

/// Whether a line of `ctr task ls` says that our container has ended.
fn is_stopped(line: &str) -> bool {
    let words: Vec<&str> = line.split_whitespace().collect();
    words.first() == Some(&ALONE) && words.last() == Some(&"STOPPED")
}

fn wait(what: &str, is_done: impl Fn() -> Result<bool>) -> Result<()> {
    let begun = Instant::now();
    while !is_done()? {
        ensure!(begun.elapsed() < PATIENCE, "{what}: not within {PATIENCE:?}");
        thread::sleep(Duration::from_millis(200));
    }
    Ok(())
}
