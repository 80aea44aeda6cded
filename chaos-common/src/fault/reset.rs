//! `reset`: TCP connections end with a reset at both ends.

use super::{Case, Fault, FaultKind, NoState};
#[cfg(feature = "user")]
use super::{DefaultDirection, FaultInfo, Faults, Need, Value};
use crate::{
    env::{DrawKind, Prob},
    judge::opens_connection,
    lookup::{flow_hash, flow_key},
    packet::{Class, tcp},
    verdict::{Answer, Verdict, answers},
    world::World,
};

/// What a reset waits for, in [`Reset::when`].
pub mod when {
    /// The next packet.
    pub const NOW: u32 = 1;
    /// A SYN: connections are refused, those that exist live.
    pub const SYN: u32 = 2;
    /// So many bytes of payload, both directions together.
    pub const BYTES: u32 = 3;
    /// So much time since the connection began, or since the rule did.
    pub const TIME: u32 = 4;
}

/// Parameters of a reset.
#[repr(C)]
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Reset {
    /// See [`when`]; 0 = the fault is off.
    pub when: u32,
    /// Chance of each packet, or of each connection.
    pub probability: Prob,
    /// 1 = the chance is a connection's, and all its packets agree.
    pub per_connection: u32,
    /// Keeps the next field aligned.
    pub reserved: u32,
    /// Bytes, or nanoseconds.
    pub after: u64,
}

impl Fault for Reset {
    type State = NoState;

    #[inline(always)]
    fn is_off(&self) -> bool {
        self.when == 0
    }

    /// Bytes and chances are those of wire packets; the rest takes the packets as they come.
    #[inline(always)]
    fn needs_wire(&self) -> bool {
        self.when == when::BYTES || self.is_by_chance()
    }

    fn needs_memory(&self) -> bool {
        self.when == when::BYTES || self.when == when::TIME || self.is_by_chance()
    }

    fn ends_connections(&self) -> bool {
        self.when == when::NOW && self.probability == Prob::ALWAYS
    }

    fn closes_after_ns(&self) -> u64 {
        if self.when == when::TIME && self.probability == Prob::ALWAYS { self.after } else { 0 }
    }

    #[inline(always)]
    fn decide<W: World>(&self, _state: &NoState, case: &Case<'_, W>, verdict: &mut Verdict) {
        let packet = &case.job.packet;
        let draw = case.draw(DrawKind::Reset);
        // A reset is never answered (RFC 9293, section 3.5.2), and must get through.
        if packet.class != Class::TCP || packet.tcp_flags & tcp::RST != 0 || !packet.has_ports() {
            return;
        }
        let due = match self.when {
            when::NOW => true,
            when::SYN => opens_connection(packet),
            when::BYTES => self.is_used_up(case),
            when::TIME => self.is_old(case),
            _ => false,
        };
        let chosen = if self.per_connection == 0 {
            self.probability.hits(draw)
        } else {
            let key = flow_key(packet, case.job.netns, case.direction());
            self.probability.hits((flow_hash(case.rule.share_seed, &key) >> 32) as u32)
        };
        if Self::is_over(case, due && chosen, verdict) {
            verdict.answer(FaultKind::Reset, Answer { what: answers::RESET, ..Answer::default() });
        }
    }
}

impl Reset {
    /// Each packet has its own draw.
    #[inline(always)]
    fn is_by_chance(&self) -> bool {
        self.when != 0 && self.per_connection == 0 && self.probability != Prob::ALWAYS
    }

    /// The first packet that is hit, and not lost, ends the connection, and all that come after it are answered, too,
    /// whatever loss says of them. For a reset made of an acknowledgment names a number that the data under way makes old,
    /// and one made of data may name a number beyond a hole: the far end ignores the one and asks back about the
    /// other (RFC 9293, section 3.10.7.4), and what answers that names the right one. The nearer end may be silent:
    /// while a program is in `send()`, what came for its socket is discarded once the reset among it was read.
    #[inline(always)]
    fn is_over<W: World>(case: &Case<'_, W>, hit: bool, verdict: &mut Verdict) -> bool {
        let Some(flow) = case.flow else { return hit };
        let opens = opens_connection(&case.job.packet);
        let was_over = !opens && case.world.read(&flow.ended) != 0;
        let ends = hit && verdict.drop_by == 0;
        if was_over {
            verdict.drop_by = 0;
        } else if ends || opens {
            case.world.write(&flow.ended, u64::from(ends));
        }
        hit || was_over
    }

    #[inline(always)]
    fn is_used_up<W: World>(&self, case: &Case<'_, W>) -> bool {
        let Some(flow) = case.flow else { return false };
        let new = u64::from(case.job.packet.payload_len);
        let before = if opens_connection(&case.job.packet) {
            case.world.write(&flow.bytes, 0);
            0
        } else {
            case.world.fetch_add(&flow.bytes, new)
        };
        before.saturating_add(new) > self.after
    }

    #[inline(always)]
    fn is_old<W: World>(&self, case: &Case<'_, W>) -> bool {
        let Some(flow) = case.flow else { return false };
        let mut first_ns = case.world.read(&flow.first_ns);
        if opens_connection(&case.job.packet) {
            first_ns = case.job.now_ns;
            case.world.write(&flow.first_ns, first_ns);
        } else if first_ns == 0 {
            first_ns = case.rule.starts_ns;
            case.world.write(&flow.first_ns, first_ns);
        }
        case.job.now_ns.saturating_sub(first_ns) >= self.after
    }
}

/// What the host says about this kind.
#[cfg(feature = "user")]
pub(super) const INFO: FaultInfo = FaultInfo {
    kind: FaultKind::Reset,
    name: "reset",
    value: Value::Optional("WHEN"),
    help: "TCP connections are reset at both ends: now (idle ones, too; unless told), syn (new ones are refused), after=5s, after=1MiB, or at each packet with a chance (10%), or a share of the connections (10%/connection, also after a comma: after=5s,10%/connection)",
    default_direction: DefaultDirection::Both,
    parse,
    describe,
    check: None,
    protos: &[Class::TCP],
    ports: &[],
    needs: &[Need::SockDestroy],
};

#[cfg(feature = "user")]
fn parse(value: &str, faults: &mut Faults) -> Result<(), String> {
    let mut fault = Reset { when: when::NOW, probability: Prob::ALWAYS, ..Reset::default() };
    for part in value.split(',').filter(|part| !part.is_empty()) {
        if part == "now" {
            fault.when = when::NOW;
        } else if part == "syn" {
            fault.when = when::SYN;
        } else if let Some(after) = part.strip_prefix("after=") {
            (fault.when, fault.after) = parse_after(after)?;
        } else if let Some(share) = part.strip_suffix("/connection") {
            fault.probability = crate::units::parse_share(share)?;
            fault.per_connection = 1;
        } else {
            fault.probability = crate::units::parse_share(part).map_err(|_| {
                format!(
                    "`{part}` is not a reset: write now, syn, after=5s, after=1MiB, 10% or 10%/connection"
                )
            })?;
        }
    }
    faults.reset = fault;
    Ok(())
}

#[cfg(feature = "user")]
fn parse_after(text: &str) -> Result<(u32, u64), String> {
    if let Ok(time) = crate::units::parse_duration(text) {
        return Ok((when::TIME, time));
    }
    crate::units::parse_size(text)
        .map(|size| (when::BYTES, size))
        .map_err(|_| format!("`{text}` is neither a time nor a size: write after=5s or after=1MiB"))
}

#[cfg(feature = "user")]
fn describe(faults: &Faults) -> Option<String> {
    let fault = &faults.reset;
    let when = match fault.when {
        0 => return None,
        when::SYN => "reset of new connections".to_owned(),
        when::BYTES => format!("reset after {} bytes", fault.after),
        when::TIME => format!("reset after {}", crate::units::show_duration(fault.after)),
        _ => "reset".to_owned(),
    };
    let share = crate::units::percent(fault.probability);
    Some(match (fault.probability, fault.per_connection) {
        (Prob::ALWAYS, _) => when,
        (_, 0) => format!("{when}, {share} of the packets"),
        _ => format!("{when}, {share} of the connections"),
    })
}
