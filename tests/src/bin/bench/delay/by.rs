//! Who makes the delay.

use anyhow::{Context as _, Result};
use chaos_tests::lab::shapes::Pair;

use super::line::{How, Line};
use crate::{
    armed,
    naive::{FQ, Naive},
};

/// One of them.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum By {
    Chaos,
    Netem,
    /// A program that writes `skb->tstamp`, and `sch_fq` that keeps packets until then.
    Fq,
    /// A private pair of devices with `sch_fq`, see [`Line`].
    Line(How),
}

impl By {
    pub(super) const ALL: [Self; 5] =
        [Self::Chaos, Self::Netem, Self::Fq, Self::Line(How::AtOnce), Self::Line(How::Steps)];

    pub(super) const fn name(self) -> &'static str {
        match self {
            Self::Chaos => "chaos",
            Self::Netem => "netem",
            Self::Fq => "tstamp + fq",
            Self::Line(How::Never) => "pair alone",
            Self::Line(How::AtOnce) => "fq line",
            Self::Line(How::Steps) => "fq line in steps",
        }
    }

    /// Why it cannot be here, if so; tried on the device.
    pub(super) fn missing(self, pair: &Pair) -> Option<String> {
        match self {
            Self::Chaos | Self::Line(How::Never) => None,
            Self::Netem => armed::missing(pair, &netem(1)),
            Self::Fq | Self::Line(_) => armed::missing(pair, FQ),
        }
    }

    /// Delays what leaves end A.
    pub(super) fn arm(self, pair: &Pair, ms: u32) -> Result<Armed<'_>> {
        use armed::Armed as Plain;
        let plain = match self {
            Self::Chaos => Plain::chaos(pair, &format!("--delay {ms}ms"))?,
            Self::Netem => Plain::qdisc(pair, &netem(ms))?,
            Self::Fq => Plain::qdisc(pair, FQ)?.with(Naive::delay(&pair.a, "va", ms).context(self.name())?),
            Self::Line(how) => {
                let line = Line::new(&pair.a, "va", ms, how).context(self.name())?;
                return Ok(Armed { plain: Plain::default(), line: Some(line) });
            }
        };
        Ok(Armed { plain, line: None })
    }
}

fn netem(ms: u32) -> String {
    format!("netem delay {ms}ms limit 1000000")
}

/// What has to go afterwards.
pub(super) struct Armed<'a> {
    plain: armed::Armed,
    line: Option<Line<'a>>,
}

impl Armed<'_> {
    pub(super) fn disarm(self, pair: &Pair) -> Result<()> {
        drop(self.line);
        self.plain.disarm(pair)
    }
}
