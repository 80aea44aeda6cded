//! `duplicate`: wire packets arrive twice.

use super::{Case, Fault, FaultKind};
#[cfg(feature = "user")]
use super::{DefaultDirection, FaultInfo, Faults, Need, Value};
#[cfg(feature = "user")]
use crate::units::{options, parse_share, percent};
use crate::{
    env::{DrawKind, Prob, Word},
    verdict::Verdict,
    world::World,
};

/// Parameters of duplication.
#[repr(C)]
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Duplicate {
    /// 1 = the fault is set.
    pub enabled: u32,
    /// Chance of each wire packet to leave twice.
    pub probability: Prob,
    /// How much each draw hangs on the one before (see [`crate::env::Draws::correlated`]).
    pub correlation: Prob,
    /// Keeps the size a multiple of eight bytes.
    pub reserved: u32,
}

/// What it remembers.
#[repr(C)]
#[derive(Debug, Default)]
pub struct DuplicateState {
    /// The draw before.
    pub last: Word,
}

impl Fault for Duplicate {
    type State = DuplicateState;

    #[inline(always)]
    fn is_off(&self) -> bool {
        self.enabled == 0
    }

    #[inline(always)]
    fn needs_wire(&self) -> bool {
        self.enabled != 0
    }

    #[inline(always)]
    fn decide<W: World>(&self, state: &DuplicateState, case: &Case<'_, W>, verdict: &mut Verdict) {
        let draw = case.correlated(DrawKind::Duplicate, self.correlation, &state.last);
        if self.probability.hits(draw) {
            verdict.duplicate_by = FaultKind::Duplicate.number();
        }
    }
}

/// What the host says about this kind.
#[cfg(feature = "user")]
pub(super) const INFO: FaultInfo = FaultInfo {
    kind: FaultKind::Duplicate,
    name: "duplicate",
    value: Value::Required("RATE"),
    help: "Wire packets arrive twice: a share of them (5%), with `,correlation=25%` in runs",
    default_direction: DefaultDirection::Egress,
    parse,
    describe,
    check: None,
    protos: &[],
    ports: &[],
    needs: &[Need::Normaliser],
};

#[cfg(feature = "user")]
fn parse(value: &str, faults: &mut Faults) -> Result<(), String> {
    let (share, options) = options(value);
    let mut fault = Duplicate { enabled: 1, probability: parse_share(share)?, ..Duplicate::default() };
    for (part, option) in options {
        match option {
            Some(("correlation", share)) => fault.correlation = parse_share(share)?,
            _ => {
                return Err(format!(
                    "`{part}` is not an option of duplicate: write a share such as 5%, then `,correlation=25%`"
                ));
            }
        }
    }
    faults.duplicate = fault;
    Ok(())
}

#[cfg(feature = "user")]
fn describe(faults: &Faults) -> Option<String> {
    let fault = &faults.duplicate;
    (!fault.is_off()).then(|| {
        let share = percent(fault.probability);
        match fault.correlation {
            Prob::NEVER => format!("duplicate {share}"),
            rho => format!("duplicate {share}, correlation {}", percent(rho)),
        }
    })
}
