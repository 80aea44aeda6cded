//! A fault on what leaves end A of a pair, by whomever, and how it goes again.

use anyhow::Result;
use chaos_tests::{chaos::Chaos, lab::shapes::Pair, skip::find_tool};

use crate::naive::Naive;

/// What has to go afterwards.
#[derive(Default)]
pub(crate) struct Armed {
    chaos: Option<Chaos>,
    qdisc: bool,
    naive: Option<Naive>,
}

impl Armed {
    /// By `chaos inject` with these flags.
    ///
    /// # Errors
    /// When it arms nothing.
    pub(crate) fn chaos(pair: &Pair, flags: &str) -> Result<Self> {
        let chaos = Chaos::inject(&pair.a, &format!("{flags} --direction egress"))?;
        Ok(Self { chaos: Some(chaos), ..Self::default() })
    }

    /// By the root qdisc of the device.
    ///
    /// # Errors
    /// When the kernel has none of that kind; see [`missing`].
    pub(crate) fn qdisc(pair: &Pair, qdisc: &str) -> Result<Self> {
        pair.a.run(&format!("tc qdisc replace dev va root {qdisc}"))?;
        Ok(Self { qdisc: true, ..Self::default() })
    }

    /// By a program beside that.
    pub(crate) fn with(self, naive: Naive) -> Self {
        Self { naive: Some(naive), ..self }
    }

    /// Takes it away.
    ///
    /// # Errors
    /// When something does not go.
    pub(crate) fn disarm(self, pair: &Pair) -> Result<()> {
        drop(self.naive);
        if self.qdisc {
            pair.a.run("tc qdisc del dev va root")?;
        }
        self.chaos.map_or(Ok(()), |chaos| chaos.stop().map(drop))
    }
}

/// Why there can be no such qdisc here, if so; tried on the device.
pub(crate) fn missing(pair: &Pair, qdisc: &str) -> Option<String> {
    if find_tool("tc").is_none() {
        return Some("no tc here; the package `iproute2` has it".to_owned());
    }
    let tried = Armed::qdisc(pair, qdisc).and_then(|armed| armed.disarm(pair));
    let name = qdisc.split(' ').next().unwrap_or_default();
    tried.err().map(|_| format!("this kernel has no sch_{name}"))
}
