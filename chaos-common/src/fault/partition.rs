//! `partition`: a black hole; every packet vanishes and nobody is told.

use super::{Case, Fault, NoState};
#[cfg(feature = "user")]
use super::{DefaultDirection, FaultInfo, Faults, Value};
use crate::{fault::FaultKind, verdict::Verdict, world::World};

/// Parameters of a partition.
#[repr(C)]
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Partition {
    /// 1 = the fault is set.
    pub enabled: u32,
    /// Keeps the size a multiple of eight bytes.
    pub reserved: u32,
}

impl Fault for Partition {
    type State = NoState;

    #[inline(always)]
    fn is_off(&self) -> bool {
        self.enabled == 0
    }

    #[inline(always)]
    fn needs_wire(&self) -> bool {
        false
    }

    fn cuts_link(&self) -> bool {
        self.enabled != 0
    }

    fn cuts_held(&self) -> bool {
        self.enabled != 0
    }

    #[inline(always)]
    fn decide<W: World>(&self, _state: &NoState, _case: &Case<'_, W>, verdict: &mut Verdict) {
        verdict.drop(FaultKind::Partition);
    }
}

/// What the host says about this kind.
#[cfg(feature = "user")]
pub(super) const INFO: FaultInfo = FaultInfo {
    kind: FaultKind::Partition,
    name: "partition",
    value: Value::Optional("MODE"),
    help: "Every packet vanishes, silently, in both directions unless one is named",
    default_direction: DefaultDirection::Both,
    parse,
    describe,
    check: None,
    protos: &[],
    needs: &[],
};

#[cfg(feature = "user")]
fn parse(value: &str, faults: &mut Faults) -> Result<(), String> {
    match value {
        "" | "drop" => {
            faults.partition.enabled = 1;
            Ok(())
        }
        _ => Err(format!("`{value}` is no way to part: write drop, or nothing")),
    }
}

#[cfg(feature = "user")]
fn describe(faults: &Faults) -> Option<String> {
    (!faults.partition.is_off()).then(|| "partition".to_owned())
}
