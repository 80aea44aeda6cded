//! `loss`: wire packets vanish: at random, every n-th, or in bursts (Gilbert-Elliott). With `ecn`
//! those that can be are marked instead.

use super::{Case, Fault, FaultKind};
#[cfg(feature = "user")]
use super::{DefaultDirection, FaultInfo, Faults, Need, Value};
use crate::{
    env::{DrawKind, Prob, Word},
    packet::Packet,
    verdict::Verdict,
    world::World,
};

/// Flags of [`Loss::flags`].
pub mod loss_flags {
    /// Mark congestion experienced instead of dropping, where the packet says that its ends understand it.
    pub const ECN: u32 = 1;
    /// Losses follow the two states of Gilbert and Elliott.
    pub const BURSTS: u32 = 2;
}

/// Parameters of random, of regular and of bursty loss; if several are set, each of them drops.
///
/// **Correlation.** The share stays exact: with the chance `correlation` a packet's dice fall as
/// those of the packet before, so losses come in bursts, but no more of them. In netem, 10 % with a
/// correlation of 25 % loses 1.8 %, and 1 % nothing: its weighted sum of the last draw and a fresh one
/// (`get_crandom`, `net/sched/sch_netem.c`, Linux 6.18) is not uniform, and `tc-netem(8)` calls the
/// option deprecated "due to the noticed bad behavior".
///
/// **Bursts.** `tc-netem(8)`, `loss gemodel p [ r [ 1-h [ 1-k ]]]`: "p and r are the transition
/// probabilities between the bad and the good states, 1-h is the loss probability in the bad state
/// and 1-k is the loss probability in the good state"; p leads from good to bad, r back, and the
/// defaults are r = 1-p, 1-h = 1 and 1-k = 0 (`loss_gilb_ell` of the file above). So h is the share
/// that survives in the bad state, k the share that survives in the good one. The share of packets
/// in the bad state is p / (p + r), and its visits last 1 / r packets on average.
#[repr(C)]
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Loss {
    /// 1 = the fault is set. `loss 0%` is set and drops nothing, but takes the same way as `loss 1%`.
    pub enabled: u32,
    /// Chance of each wire packet to vanish.
    pub probability: Prob,
    /// The n-th, 2n-th, ... packet of the rule and direction vanishes; 0 = none.
    pub every: u32,
    /// Chance that a packet's dice fall as those of the packet before.
    pub correlation: Prob,
    /// p: chance that the good state ends after a packet.
    pub to_bad: Prob,
    /// r: chance that the bad state ends after a packet.
    pub to_good: Prob,
    /// 1-h: chance of a packet to vanish in the bad state.
    pub lost_in_bad: Prob,
    /// 1-k: chance of a packet to vanish in the good state.
    pub lost_in_good: Prob,
    /// See [`loss_flags`].
    pub flags: u32,
    /// Keeps the size a multiple of eight bytes.
    pub reserved: u32,
}

/// What loss remembers.
#[repr(C)]
#[derive(Debug, Default)]
pub struct LossState {
    /// The last draw, for the correlation.
    pub last: Word,
    /// 1 = the bad state.
    pub bad: Word,
}

impl Loss {
    const fn has(&self, flag: u32) -> bool {
        self.flags & flag != 0
    }

    /// The chance of this packet to vanish in a burst, as `loss_gilb_ell` has it: by the state before
    /// the packet; then the state may change.
    #[inline(always)]
    fn burst<W: World>(&self, state: &LossState, case: &Case<'_, W>) -> Prob {
        let draw = case.draw(DrawKind::LossState);
        let bad = case.world.read(&state.bad);
        let (lost, leaves) =
            if bad == 0 { (self.lost_in_good, self.to_bad) } else { (self.lost_in_bad, self.to_good) };
        if leaves.hits(draw) {
            // If another CPU changes it at the same time, that change is this packet's, too.
            case.world.compare_exchange(&state.bad, bad, u64::from(bad == 0));
        }
        lost
    }

    #[inline(always)]
    fn hits<W: World>(&self, state: &LossState, case: &Case<'_, W>) -> bool {
        let draw = case.correlated(DrawKind::Loss, self.correlation, &state.last);
        let probability =
            if self.has(loss_flags::BURSTS) { self.burst(state, case) } else { self.probability };
        let nth = match self.every {
            0 => false,
            every => case.draws.ordinal.wrapping_add(1).checked_rem(u64::from(every)) == Some(0),
        };
        nth || probability.hits(draw)
    }
}

impl Fault for Loss {
    type State = LossState;

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
    fn decide<W: World>(&self, state: &LossState, case: &Case<'_, W>, verdict: &mut Verdict) {
        if !self.hits(state, case) {
            return;
        }
        if self.has(loss_flags::ECN) && is_ecn_capable(&case.job.packet) {
            verdict.mark_by = FaultKind::Loss.number();
        } else if verdict.duplicate_by != 0 {
            // A packet that is doubled and loses one of the two arrives once, as in `netem_enqueue`.
            verdict.duplicate_by = 0;
        } else {
            verdict.drop(FaultKind::Loss);
        }
    }
}

/// ECT(0), ECT(1), or marked already (RFC 3168, section 5). Others are dropped, as with
/// `INET_ECN_set_ce` in netem.
#[inline(always)]
const fn is_ecn_capable(packet: &Packet) -> bool {
    packet.is_ip() && packet.tos & 3 != 0
}

/// What the host says about this kind.
#[cfg(feature = "user")]
pub(super) const INFO: FaultInfo = FaultInfo {
    kind: FaultKind::Loss,
    name: "loss",
    value: Value::Required("RATE"),
    help: "Wire packets vanish: a share of them at random (10%, 0.1; ,correlation=25% makes bursts of the same \
           share), every n-th (every=7), or in bursts after Gilbert and Elliott (p=1%,r=25%: p is the chance \
           to go from the good to the bad state, r to come back; h=, the share that survives in the bad \
           state, is 0%; k=, the same in the good state, is 100%; netem's 1-h= and 1-k= are also read). \
           ,ecn marks packets that can be marked instead",
    default_direction: DefaultDirection::Egress,
    parse: text::parse,
    describe: text::describe,
    check: None,
    protos: &[],
    ports: &[],
    needs: &[Need::Normaliser],
};

#[cfg(feature = "user")]
mod text {
    use super::{Fault, Faults, Loss, Prob, loss_flags};
    use crate::units::{parse_share, percent};

    const FORM: &str = "or every n-th packet, such as every=7, or bursts, such as p=1%,r=25%";

    /// The rest to 100 %.
    const fn rest(prob: Prob) -> Prob {
        Prob(!prob.0)
    }

    pub(super) fn parse(value: &str, faults: &mut Faults) -> Result<(), String> {
        let loss = &mut faults.loss;
        let mut return_given = false;
        for part in value.split(',').map(str::trim) {
            match part.split_once('=') {
                Some(("every", number)) => {
                    loss.every = number.parse().ok().filter(|n| *n > 0).ok_or_else(|| {
                        format!("`{part}`: every= takes a whole number from 1 to {}", u32::MAX)
                    })?;
                }
                Some(("correlation", share)) => loss.correlation = parse_share(share)?,
                Some(("p", share)) => {
                    loss.flags |= loss_flags::BURSTS;
                    loss.to_bad = parse_share(share)?;
                    loss.lost_in_bad = Prob::ALWAYS;
                }
                Some(("r", share)) => {
                    loss.to_good = bursts(loss, part, parse_share(share)?)?;
                    return_given = true;
                }
                Some(("h", share)) => loss.lost_in_bad = bursts(loss, part, rest(parse_share(share)?))?,
                Some(("1-h", share)) => loss.lost_in_bad = bursts(loss, part, parse_share(share)?)?,
                Some(("k", share)) => loss.lost_in_good = bursts(loss, part, rest(parse_share(share)?))?,
                Some(("1-k", share)) => loss.lost_in_good = bursts(loss, part, parse_share(share)?)?,
                Some((key, _)) => {
                    return Err(format!(
                        "`{key}=`: loss knows every=, correlation=, p=, r=, h=, k= (and 1-h=, 1-k=) and ecn"
                    ));
                }
                None if part == "ecn" => loss.flags |= loss_flags::ECN,
                None => loss.probability = parse_share(part).map_err(|error| format!("{error}, {FORM}"))?,
            }
        }
        loss.enabled = 1;
        complete(loss, return_given, value)
    }

    /// The other probabilities mean nothing without p.
    fn bursts(loss: &Loss, part: &str, prob: Prob) -> Result<Prob, String> {
        if loss.flags & loss_flags::BURSTS == 0 {
            return Err(format!("`{part}` belongs to bursts: write p= before it, such as p=1%,{part}"));
        }
        Ok(prob)
    }

    fn complete(loss: &mut Loss, return_given: bool, value: &str) -> Result<(), String> {
        if loss.has(loss_flags::BURSTS) {
            if !return_given {
                loss.to_good = rest(loss.to_bad);
            }
            if loss.probability != Prob::NEVER {
                return Err(format!("`{value}`: either a share at random or bursts (p=), not both"));
            }
            if loss.correlation != Prob::NEVER {
                return Err(format!(
                    "`{value}`: correlation= goes with a share at random; bursts have p= and r="
                ));
            }
        } else if loss.probability == Prob::NEVER && loss.correlation != Prob::NEVER {
            return Err(format!(
                "`{value}`: correlation= goes with a share at random, such as 10%,correlation=25%"
            ));
        } else if loss.every == 0 && loss.probability == Prob::NEVER && value == "ecn" {
            return Err("`ecn` says what happens instead of a loss: write 10%,ecn, for example".to_owned());
        }
        Ok(())
    }

    pub(super) fn describe(faults: &Faults) -> Option<String> {
        let loss = &faults.loss;
        if loss.is_off() {
            return None;
        }
        let mut text = if loss.has(loss_flags::BURSTS) {
            format!(
                "loss in bursts: good to bad {}, back {}, lost in bad {}, in good {} ({} of all)",
                percent(loss.to_bad),
                percent(loss.to_good),
                percent(loss.lost_in_bad),
                percent(loss.lost_in_good),
                share_of_all(loss)
            )
        } else if loss.every != 0 && loss.probability == Prob::NEVER {
            String::new()
        } else {
            format!("loss {}", percent(loss.probability))
        };
        if loss.every != 0 {
            let and = if text.is_empty() { "loss" } else { " and" };
            text = format!("{text}{and} of every {}. packet", loss.every);
        }
        if loss.correlation != Prob::NEVER {
            text = format!("{text}, correlation {}", percent(loss.correlation));
        }
        if loss.has(loss_flags::ECN) {
            text += ", marked instead where ECN allows it";
        }
        Some(text)
    }

    /// The share of all packets that bursts take, in the long run.
    fn share_of_all(loss: &Loss) -> String {
        let [p, r, bad, good] =
            [loss.to_bad, loss.to_good, loss.lost_in_bad, loss.lost_in_good].map(|prob| u128::from(prob.0));
        let all = p.saturating_add(r);
        let vanished = p.saturating_mul(bad).saturating_add(r.saturating_mul(good));
        // Neither state is ever left: it stays in the good one, where it begins.
        let share = vanished.checked_div(all).unwrap_or(good);
        percent(Prob(u32::try_from(share).unwrap_or(u32::MAX)))
    }
}
