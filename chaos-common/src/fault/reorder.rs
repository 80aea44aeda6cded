//! `reorder`: some of the packets that a delay holds up leave at once, and so overtake the others.

use super::{Case, Fault, FaultKind};
#[cfg(feature = "user")]
use super::{DefaultDirection, FaultInfo, Faults, Need, Value};
#[cfg(feature = "user")]
use crate::units::{options, parse_share, percent};
use crate::{
    env::{DrawKind, Prob, Word},
    verdict::{Verdict, verdict_flags},
    world::World,
};

/// Parameters of reordering.
#[repr(C)]
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Reorder {
    /// 1 = the fault is set.
    pub enabled: u32,
    /// Chance of a packet to overtake.
    pub probability: Prob,
    /// Only the n-th packet after the last that overtook may be next, or one after it; 0 and 1 = any.
    pub gap: u32,
    /// Chance that a packet's dice fall as those of the packet before.
    pub correlation: Prob,
}

/// What reordering remembers.
#[repr(C)]
#[derive(Debug, Default)]
pub struct ReorderState {
    /// Packets since the last that overtook.
    pub count: Word,
    /// The last draw, for the correlation.
    pub last: Word,
}

impl Fault for Reorder {
    type State = ReorderState;

    #[inline(always)]
    fn is_off(&self) -> bool {
        self.enabled == 0
    }

    #[inline(always)]
    fn needs_wire(&self) -> bool {
        self.enabled != 0
    }

    #[inline(always)]
    fn decide<W: World>(&self, state: &ReorderState, case: &Case<'_, W>, verdict: &mut Verdict) {
        let draw = case.correlated(DrawKind::Reorder, self.correlation, &state.last);
        // What does not wait cannot overtake, and is not counted.
        if verdict.hold_by == 0 || verdict.drop_by | verdict.answer_by != 0 {
            return;
        }
        // As `netem_enqueue` of `net/sched/sch_netem.c` (Linux 6.18): the gap first, then the dice.
        let number = case.world.fetch_add(&state.count, 1).wrapping_add(1);
        if number < u64::from(self.gap) || !self.probability.hits(draw) {
            return;
        }
        case.world.write(&state.count, 0);
        verdict.hold_by = FaultKind::Reorder.number();
        verdict.flags |= verdict_flags::OVERTAKES;
        // It still has to be sent over the link, if there is one.
        verdict.delay_ns = 0;
    }
}

/// What the host says about this kind.
#[cfg(feature = "user")]
pub(super) const INFO: FaultInfo = FaultInfo {
    kind: FaultKind::Reorder,
    name: "reorder",
    value: Value::Required("SHARE"),
    help: "Of the packets that wait because of --delay or --rtt a share leaves at once and overtakes the others: \
           25%, then ,gap=5 (the four after one that overtook always wait) ,correlation=50%",
    default_direction: DefaultDirection::Egress,
    parse,
    describe,
    check: Some(check),
    protos: &[],
    ports: &[],
    needs: &[Need::Line, Need::Normaliser],
};

#[cfg(feature = "user")]
fn check(faults: &Faults) -> Result<(), String> {
    if !faults.delay.is_off() || !faults.rtt.is_off() {
        return Ok(());
    }
    Err("reorder lets packets overtake others that wait, and here nothing waits: add a delay, such as --delay 10ms"
        .to_owned())
}

#[cfg(feature = "user")]
fn parse(value: &str, faults: &mut Faults) -> Result<(), String> {
    let (share, options) = options(value);
    let mut reorder = Reorder { enabled: 1, probability: parse_share(share)?, ..Reorder::default() };
    for (part, option) in options {
        match option {
            Some(("gap", number)) => {
                reorder.gap =
                    number.parse().ok().filter(|gap| *gap > 0).ok_or_else(|| {
                        format!("`{part}`: gap= takes a whole number from 1 to {}", u32::MAX)
                    })?;
            }
            Some(("correlation", share)) => reorder.correlation = parse_share(share)?,
            _ => {
                return Err(format!(
                    "`{part}`: after the share come gap= and correlation=, divided by commas"
                ));
            }
        }
    }
    faults.reorder = reorder;
    Ok(())
}

#[cfg(feature = "user")]
fn describe(faults: &Faults) -> Option<String> {
    let reorder = &faults.reorder;
    if reorder.is_off() {
        return None;
    }
    let mut text = format!("reorder {}", percent(reorder.probability));
    if reorder.gap > 1 {
        text = format!("{text}, gap {}", reorder.gap);
    }
    if reorder.correlation != Prob::NEVER {
        text = format!("{text}, correlation {}", percent(reorder.correlation));
    }
    Some(text)
}
