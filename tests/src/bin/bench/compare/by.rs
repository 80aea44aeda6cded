//! Who makes the fault.

use anyhow::Result;
use chaos_tests::lab::shapes::Pair;

use crate::{
    armed::{self, Armed},
    naive::{FQ, Naive},
};

/// What is done to all that leaves end A.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Fault {
    /// Milliseconds.
    Delay(u32),
    /// Percent.
    Loss(u32),
    /// Mbit/s.
    Rate(u32),
}

impl Fault {
    /// For `chaos inject`.
    fn flags(self) -> String {
        match self {
            Self::Delay(ms) => format!("--delay {ms}ms"),
            Self::Loss(percent) => format!("--loss {percent}%"),
            Self::Rate(mbit_s) => format!("--rate {mbit_s}Mbit/s"),
        }
    }

    /// The qdisc that makes it.
    fn netem(self) -> String {
        match self {
            Self::Delay(ms) => format!("netem delay {ms}ms limit 1000000"),
            Self::Loss(percent) => format!("netem loss {percent}%"),
            Self::Rate(mbit_s) => format!("netem rate {mbit_s}mbit"),
        }
    }
}

/// One of them.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum By {
    Chaos,
    Netem,
    Naive,
}

impl By {
    pub(super) const ALL: [Self; 3] = [Self::Chaos, Self::Netem, Self::Naive];

    pub(super) const fn name(self) -> &'static str {
        match self {
            Self::Chaos => "chaos",
            Self::Netem => "netem",
            Self::Naive => "naive eBPF",
        }
    }

    /// Why it cannot make this fault here, if so; tried on the device.
    pub(super) fn missing(self, pair: &Pair, fault: Fault) -> Option<String> {
        match (self, fault) {
            (Self::Netem, _) => armed::missing(pair, &fault.netem()),
            (Self::Naive, Fault::Delay(_) | Fault::Rate(_)) => armed::missing(pair, FQ),
            (Self::Chaos, _) | (Self::Naive, Fault::Loss(_)) => None,
        }
    }

    /// Makes it.
    pub(super) fn arm(self, pair: &Pair, fault: Fault) -> Result<Armed> {
        match (self, fault) {
            (Self::Chaos, _) => Armed::chaos(pair, &fault.flags()),
            (Self::Netem, _) => Armed::qdisc(pair, &fault.netem()),
            (Self::Naive, Fault::Delay(ms)) => {
                Ok(Armed::qdisc(pair, FQ)?.with(Naive::delay(&pair.a, "va", ms)?))
            }
            (Self::Naive, Fault::Rate(mbit_s)) => {
                Ok(Armed::qdisc(pair, FQ)?.with(Naive::rate(&pair.a, "va", mbit_s)?))
            }
            (Self::Naive, Fault::Loss(percent)) => {
                Ok(Armed::default().with(Naive::loss(&pair.a, "va", percent)?))
            }
        }
    }
}
