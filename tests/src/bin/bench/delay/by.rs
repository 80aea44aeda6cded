//! Who makes the delay.

use anyhow::{Context as _, Result};
use chaos_tests::{chaos::Chaos, lab::shapes::Pair, skip::find_tool};

use super::departure::Departure;

/// One of them.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum By {
    Chaos,
    Netem,
    /// A program that writes `skb->tstamp`, and `sch_fq` that keeps packets until then.
    Fq,
}

impl By {
    pub(super) const ALL: [Self; 3] = [Self::Chaos, Self::Netem, Self::Fq];

    pub(super) const fn name(self) -> &'static str {
        match self {
            Self::Chaos => "chaos",
            Self::Netem => "netem",
            Self::Fq => "tstamp + fq",
        }
    }

    /// The root qdisc that it puts on the device.
    fn qdisc(self, ms: u32) -> Option<String> {
        match self {
            Self::Chaos => None,
            Self::Netem => Some(format!("netem delay {ms}ms limit 1000000")),
            Self::Fq => Some("fq limit 1000000 flow_limit 1000000 horizon 10s".to_owned()),
        }
    }

    /// Why it cannot be here, if so; tried on the device.
    pub(super) fn missing(self, pair: &Pair) -> Option<String> {
        let qdisc = self.qdisc(1)?;
        if find_tool("tc").is_none() {
            return Some("no tc here; the package `iproute2` has it".to_owned());
        }
        let name = qdisc.split(' ').next().unwrap_or_default();
        let tried = pair.a.run(&format!("tc qdisc replace dev va root {qdisc}"));
        let _ = pair.a.run("tc qdisc del dev va root");
        tried.err().map(|_| format!("this kernel has no sch_{name}"))
    }

    /// Delays what leaves end A.
    pub(super) fn arm(self, pair: &Pair, ms: u32) -> Result<Armed> {
        let mut armed = Armed::default();
        if let Some(qdisc) = self.qdisc(ms) {
            pair.a.run(&format!("tc qdisc replace dev va root {qdisc}"))?;
            armed.qdisc = true;
        }
        match self {
            Self::Chaos => {
                let flags = format!("--delay {ms}ms --direction egress");
                armed.chaos = Some(Chaos::inject(&pair.a, &flags)?);
            }
            Self::Netem => {}
            Self::Fq => armed.departure = Some(Departure::attach(&pair.a, "va", ms).context("tstamp + fq")?),
        }
        Ok(armed)
    }
}

/// What has to go afterwards.
#[derive(Default)]
pub(super) struct Armed {
    chaos: Option<Chaos>,
    qdisc: bool,
    departure: Option<Departure>,
}

impl Armed {
    pub(super) fn disarm(self, pair: &Pair) -> Result<()> {
        drop(self.departure);
        if self.qdisc {
            pair.a.run("tc qdisc del dev va root")?;
        }
        self.chaos.map_or(Ok(()), |chaos| chaos.stop().map(drop))
    }
}
