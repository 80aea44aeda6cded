//! What is in the machine while a load runs.

use std::{fmt::Write as _, fs, path::PathBuf, time::Instant};

use anyhow::{Context as _, Result, ensure};
use chaos_tests::{
    api::{Agent, matched},
    bench::{
        cpu_s,
        rules::{Rule, unmatched},
    },
    lab::{
        netns::words,
        process::{Process, serve_command},
        unique_name,
    },
    measure::helper::at,
    skip::find_tool,
};
use nix::unistd::Pid;
use serde_json::{Value, json};

use super::place::{DIRECT, PROXIED, Place, port};

/// How many, see [`unmatched`].
pub(super) const RULES: usize = 1000;
/// A port that no load uses.
const OTHER_PORT: u16 = 9999;

/// One of them.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Condition {
    /// Nothing, once more: how far the method can be trusted.
    Control,
    /// An agent without a fault.
    Idle,
    /// [`RULES`] that the client's packets do not match.
    Rules,
    /// 1 % of the packets of another port of the client are lost.
    OtherPort,
    /// A TCP proxy beside the client.
    Proxy,
}

impl Condition {
    pub(super) const ALL: [Self; 5] = [Self::Control, Self::Idle, Self::Rules, Self::OtherPort, Self::Proxy];

    pub(super) const fn name(self) -> &'static str {
        match self {
            Self::Control => "direct again",
            Self::Idle => "agent idle",
            Self::Rules => "1,000 rules",
            Self::OtherPort => "loss elsewhere",
            Self::Proxy => "haproxy",
        }
    }

    /// The least share of direct that is wanted.
    pub(super) const fn goal(self) -> Option<f64> {
        match self {
            Self::Idle | Self::Rules | Self::OtherPort => Some(0.97),
            Self::Control | Self::Proxy => None,
        }
    }

    /// Why it cannot be here, if so.
    pub(super) fn missing(self) -> Option<String> {
        (self == Self::Proxy && find_tool("haproxy").is_none())
            .then(|| "no haproxy here; the package `haproxy` has it".to_owned())
    }

    /// Makes it so.
    pub(super) fn enter(self, place: &Place) -> Result<Armed> {
        let mut armed = Armed::default();
        match self {
            Self::Control => {}
            Self::Idle => armed.agent = Some(agent()?),
            Self::Rules => {
                let fault = |rule: &Rule| rule.fault(&place.tried.pair.a, &place.cgroups, false);
                armed.arm(&unmatched(RULES).iter().map(fault).collect::<Vec<_>>())?;
            }
            Self::OtherPort => {
                let target = format!("netns:{}", place.tried.pair.a.name());
                armed.arm(&[json!({"target": target, "faults": {"loss": "1%"}, "duration": "10m",
                    "match": {"peer_port": [OTHER_PORT]}})])?;
            }
            Self::Proxy => armed.proxy = Some(Proxy::start(place)?),
        }
        Ok(armed)
    }
}

fn agent() -> Result<Agent> {
    let agent = Agent::start("--max-rules 4096 --max-faults 4096")?;
    agent.prepared()?;
    Ok(agent)
}

/// What has to go when the load is over.
#[derive(Default)]
pub(super) struct Armed {
    agent: Option<Agent>,
    faults: usize,
    proxy: Option<Proxy>,
}

impl Armed {
    fn arm(&mut self, faults: &[Value]) -> Result<()> {
        let agent = agent()?;
        let answer = agent.ask("PUT", "/v1/faults", &json!({"faults": faults}))?;
        ensure!(answer.status == 200, "the rules are refused: {answer:?}");
        self.faults = faults.len();
        self.agent = Some(agent);
        Ok(())
    }

    /// What the agent takes of a CPU from now on.
    pub(super) fn meter(&mut self) -> Result<Option<Meter>> {
        let pid = self.agent.as_mut().map(|agent| agent.chaos().process().pid());
        pid.map(|pid| Ok(Meter { pid, since: Instant::now(), before: cpu_s(pid)? })).transpose()
    }

    /// Takes it away; the rules must have been there to the end, and have matched nothing.
    pub(super) fn leave(self) -> Result<()> {
        if let Some(agent) = self.agent {
            let list = agent.ask("GET", "/v1/faults", &Value::Null)?.body;
            let faults = list["faults"].as_array().context("the agent lists no faults")?;
            let hits = faults.iter().filter(|fault| fault["state"] != "active" || matched(fault) > 0);
            let (there, wanted, hits) = (faults.len(), self.faults, hits.count());
            ensure!(there == wanted && hits == 0, "{there} of {wanted} faults, {hits} of them over or hit");
            agent.stop()?;
        }
        drop(self.proxy);
        Ok(())
    }
}

/// The CPU time of an agent.
pub(super) struct Meter {
    pid: Pid,
    since: Instant,
    before: f64,
}

impl Meter {
    /// Percent of a CPU.
    pub(super) fn read(self) -> Result<f64> {
        Ok((cpu_s(self.pid)? - self.before) * 100.0 / self.since.elapsed().as_secs_f64())
    }
}

/// haproxy with one entrance for each server.
struct Proxy {
    _process: Process,
    settings: PathBuf,
}

impl Proxy {
    fn start(place: &Place) -> Result<Self> {
        let mut text =
            "defaults\n  mode tcp\n  option splice-auto\n  timeout connect 5s\n  timeout client 1m\n  \
                        timeout server 1m\n"
                .to_owned();
        for port in [port::IPERF, port::REDIS, port::HTTP] {
            let (near, far) = (at(PROXIED, port), at(DIRECT, port));
            let _ = write!(text, "listen port{port}\n  bind {near}\n  server far {far}\n");
        }
        let settings = std::env::temp_dir().join(unique_name() + ".cfg");
        fs::write(&settings, text).with_context(|| settings.display().to_string())?;
        let mut command = words("haproxy -db -f");
        command.arg(&settings);
        let ready = at(PROXIED, port::HTTP);
        let process = serve_command(&place.tried.pair.a, place.tried.pair.a.inside(command), ready)?;
        Ok(Self { _process: process, settings })
    }
}

impl Drop for Proxy {
    fn drop(&mut self) {
        let _ = fs::remove_file(&self.settings);
    }
}
