//! `loss`: wire packets vanish, at random or every n-th.

use super::{Case, Fault, FaultKind, NoState};
#[cfg(feature = "user")]
use super::{DefaultDirection, FaultInfo, Faults, Need, Value};
use crate::{
    env::{DrawKind, Prob},
    verdict::Verdict,
    world::World,
};

/// Parameters of random and of regular loss; both may be set, then either drops.
#[repr(C)]
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Loss {
    /// 1 = the fault is set. `loss 0%` is set and drops nothing, but takes the same way as `loss 1%`.
    pub enabled: u32,
    /// Chance of each wire packet to vanish.
    pub probability: Prob,
    /// The n-th, 2n-th, ... packet of the rule and direction vanishes; 0 = none.
    pub every: u32,
    /// Keeps the size a multiple of eight bytes.
    pub reserved: u32,
}

impl Fault for Loss {
    type State = NoState;

    #[inline(always)]
    fn is_off(&self) -> bool {
        self.enabled == 0
    }

    #[inline(always)]
    fn needs_wire(&self) -> bool {
        // Always and every first are whole: nothing survives, so there is nothing to tell apart.
        self.enabled != 0 && self.probability != Prob::ALWAYS && self.every != 1
    }

    fn needs_ordinal(&self) -> bool {
        self.every != 0
    }

    #[inline(always)]
    fn decide<W: World>(&self, _state: &NoState, case: &Case<'_, W>, verdict: &mut Verdict) {
        let draw = case.draw(DrawKind::Loss);
        let nth = match self.every {
            0 => false,
            every => case.draws.ordinal.wrapping_add(1).checked_rem(u64::from(every)) == Some(0),
        };
        if !nth && !self.probability.hits(draw) {
            return;
        }
        // A packet that is doubled and loses one of the two arrives once, as in `netem_enqueue`.
        if verdict.duplicate_by != 0 {
            verdict.duplicate_by = 0;
        } else {
            verdict.drop(FaultKind::Loss);
        }
    }
}

/// What the host says about this kind.
#[cfg(feature = "user")]
pub(super) const INFO: FaultInfo = FaultInfo {
    kind: FaultKind::Loss,
    name: "loss",
    value: Value::Required("RATE"),
    help: "Wire packets vanish: a share of them at random (10%, 0.1), or every n-th (every=7)",
    default_direction: DefaultDirection::Egress,
    parse,
    describe,
    check: None,
    protos: &[],
    needs: &[Need::Normaliser],
};

#[cfg(feature = "user")]
fn parse(value: &str, faults: &mut Faults) -> Result<(), String> {
    let loss = &mut faults.loss;
    if let Some(every) = value.strip_prefix("every=") {
        loss.every = every
            .parse()
            .ok()
            .filter(|n| *n > 0)
            .ok_or_else(|| format!("`{value}`: every= takes a whole number from 1 to {}", u32::MAX))?;
    } else {
        loss.probability = crate::units::parse_share(value)
            .map_err(|error| format!("{error}, or every n-th packet, such as every=7"))?;
    }
    loss.enabled = 1;
    Ok(())
}

#[cfg(feature = "user")]
fn describe(faults: &Faults) -> Option<String> {
    let loss = &faults.loss;
    match (loss.enabled, loss.probability, loss.every) {
        (0, ..) => None,
        (_, p, 0) => Some(format!("loss {}", crate::units::percent(p))),
        (_, Prob::NEVER, n) => Some(format!("loss of every {n}. packet")),
        (_, p, n) => Some(format!("loss {} and of every {n}. packet", crate::units::percent(p))),
    }
}
