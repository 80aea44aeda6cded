//! `stall`: data stops, the connection stays open.

use super::{Case, Fault, FaultKind, NoState};
#[cfg(feature = "user")]
use super::{DefaultDirection, FaultInfo, Faults, Need, Value};
use crate::{
    packet::{Class, tcp},
    verdict::{Answer, Verdict, answers},
    world::World,
};

/// Parameters of a stall.
#[repr(C)]
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Stall {
    /// 1 = the fault is set.
    pub enabled: u32,
    /// Keeps the next field aligned.
    pub reserved: u32,
    /// A connection whose data was stopped for so long is reset, nanoseconds; 0 = never.
    pub close_ns: u64,
}

impl Fault for Stall {
    type State = NoState;

    #[inline(always)]
    fn is_off(&self) -> bool {
        self.enabled == 0
    }

    #[inline(always)]
    fn needs_wire(&self) -> bool {
        false
    }

    fn needs_memory(&self) -> bool {
        self.close_ns != 0
    }

    fn cuts_held(&self) -> bool {
        self.enabled != 0
    }

    fn closes_after_ns(&self) -> u64 {
        self.close_ns
    }

    /// SYNs, acknowledgements and resets get through: connections are made and kept alive. Data, and the FIN
    /// behind it, do not.
    #[inline(always)]
    fn decide<W: World>(&self, _state: &NoState, case: &Case<'_, W>, verdict: &mut Verdict) {
        let packet = &case.job.packet;
        let is_tcp = packet.class == Class::TCP;
        let stops = packet.has_data() || (is_tcp && packet.tcp_flags & tcp::FIN != 0);
        if is_tcp && self.close_ns != 0 && packet.tcp_flags & tcp::RST == 0 && self.is_over(stops, case) {
            verdict.answer(FaultKind::Stall, Answer { what: answers::RESET, ..Answer::default() });
        } else if stops && matches!(packet.class, Class::TCP | Class::UDP) {
            verdict.drop(FaultKind::Stall);
        }
    }
}

impl Stall {
    /// The connection's data was stopped long enough; `stops` = this packet's is.
    #[inline(always)]
    fn is_over<W: World>(&self, stops: bool, case: &Case<'_, W>) -> bool {
        let Some(flow) = case.flow else { return false };
        let first_ns = case.world.read(&flow.first_ns);
        if first_ns == 0 {
            if stops {
                case.world.write(&flow.first_ns, case.job.now_ns);
            }
            return false;
        }
        case.job.now_ns.saturating_sub(first_ns) >= self.close_ns
    }
}

/// What the host says about this kind.
#[cfg(feature = "user")]
pub(super) const INFO: FaultInfo = FaultInfo {
    kind: FaultKind::Stall,
    name: "stall",
    value: Value::Optional("OPTIONS"),
    help: "Data stops, connections stay open; with close=10s a connection whose data was stopped for so long is reset",
    default_direction: DefaultDirection::Both,
    parse,
    describe,
    check: None,
    protos: &[],
    ports: &[],
    needs: &[Need::SockDestroy],
};

#[cfg(feature = "user")]
fn parse(value: &str, faults: &mut Faults) -> Result<(), String> {
    let close_ns = match value.split_once('=') {
        None if value.is_empty() => 0,
        Some(("close", time)) => crate::units::parse_duration(time)?,
        _ => return Err(format!("`{value}` is not an option of stall: there is close=10s")),
    };
    faults.stall = Stall { enabled: 1, reserved: 0, close_ns };
    Ok(())
}

#[cfg(feature = "user")]
fn describe(faults: &Faults) -> Option<String> {
    let fault = &faults.stall;
    (!fault.is_off()).then(|| match fault.close_ns {
        0 => "stall".to_owned(),
        close => format!("stall, closed after {}", crate::units::show_duration(close)),
    })
}
