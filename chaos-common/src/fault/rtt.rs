//! `rtt`: the round trip takes longer, half of it each way.

use super::{
    Case, Fault, FaultKind,
    delay::{Delay, DelayState},
};
#[cfg(feature = "user")]
use super::{DefaultDirection, FaultInfo, Faults, Need, Value};
use crate::{env::DrawKind, verdict::Verdict, world::World};

/// Parameters of a round trip's delay.
#[repr(transparent)]
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Rtt {
    /// What each direction is late by: half of the time and half of the jitter.
    pub half: Delay,
}

impl Fault for Rtt {
    type State = DelayState;

    #[inline(always)]
    fn is_off(&self) -> bool {
        self.half.off()
    }

    #[inline(always)]
    fn needs_wire(&self) -> bool {
        self.half.needs_wire()
    }

    fn needs_line(&self) -> bool {
        self.half.needs_line()
    }

    #[inline(always)]
    fn decide<W: World>(&self, state: &DelayState, case: &Case<'_, W>, verdict: &mut Verdict) {
        self.half.add((FaultKind::Rtt, DrawKind::Rtt), state, case, verdict);
    }
}

/// What the host says about this kind.
#[cfg(feature = "user")]
pub(super) const INFO: FaultInfo = FaultInfo {
    kind: FaultKind::Rtt,
    name: "rtt",
    value: Value::Required("TIME"),
    help: "The round trip takes longer, half of the time and half of the jitter each way: 100ms, 100ms±20ms, \
           with the options of --delay",
    default_direction: DefaultDirection::Both,
    parse: |value, faults| {
        let whole = super::delay::parse(value)?;
        faults.rtt.half = Delay { base_ns: whole.base_ns >> 1, jitter_ns: whole.jitter_ns >> 1, ..whole };
        Ok(())
    },
    describe: |faults: &Faults| {
        let half = faults.rtt.half;
        let whole = Delay { base_ns: half.base_ns << 1, jitter_ns: half.jitter_ns << 1, ..half };
        super::delay::describe(&whole).map(|text| format!("round trip {text}, half each way"))
    },
    check: None,
    protos: &[],
    ports: &[],
    needs: &[Need::Line, Need::Normaliser],
};
