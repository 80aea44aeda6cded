//! `partition`: a black hole; every packet vanishes and nobody is told.

use super::{Case, Fault, NoState};
#[cfg(feature = "user")]
use super::{DefaultDirection, FaultInfo, Faults, Need, Value};
use crate::{
    fault::FaultKind,
    packet::{Class, tcp},
    verdict::{Answer, Verdict, answers},
    world::World,
};

/// What becomes of the packets, in [`Partition::mode`].
pub mod modes {
    /// They vanish, silently.
    pub const DROP: u32 = 0;
    /// TCP connections end with a reset at both ends; the rest vanishes.
    pub const RESET: u32 = 1;
    /// An ICMP error says that the way is prohibited.
    pub const REJECT: u32 = 2;
}

/// Parameters of a partition.
#[repr(C)]
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Partition {
    /// 1 = the fault is set.
    pub enabled: u32,
    /// See [`modes`].
    pub mode: u32,
}

impl Fault for Partition {
    type State = NoState;

    #[inline(always)]
    fn is_off(&self) -> bool {
        self.enabled == 0
    }

    #[inline(always)]
    fn needs_wire(&self) -> bool {
        self.enabled != 0 && self.mode == modes::REJECT
    }

    fn needs_checksum(&self) -> bool {
        self.enabled != 0 && self.mode == modes::REJECT
    }

    /// See [`Verdict::refuse`].
    fn needs_line(&self) -> bool {
        self.enabled != 0 && self.mode == modes::REJECT
    }

    fn cuts_link(&self) -> bool {
        self.enabled != 0
    }

    fn cuts_held(&self) -> bool {
        self.enabled != 0
    }

    fn ends_connections(&self) -> bool {
        self.enabled != 0 && self.mode == modes::RESET
    }

    #[inline(always)]
    fn decide<W: World>(&self, _state: &NoState, case: &Case<'_, W>, verdict: &mut Verdict) {
        let packet = &case.job.packet;
        let is_tcp = packet.class == Class::TCP && packet.has_ports();
        let what = match self.mode {
            modes::RESET if is_tcp => answers::RESET,
            modes::REJECT if packet.is_ip() => answers::UNREACHABLE,
            _ => 0,
        };
        if what == 0 {
            verdict.drop(FaultKind::Partition);
        } else if !is_tcp || packet.tcp_flags & tcp::RST == 0 {
            // A reset is never answered, and gets through: it may be ours.
            let answer = Answer { what, code: PROHIBITED, code6: PROHIBITED6, ..Answer::default() };
            if what == answers::RESET {
                verdict.answer(FaultKind::Partition, answer);
            } else {
                verdict.refuse(FaultKind::Partition, packet, answer);
            }
        }
    }
}

/// Communication administratively prohibited (RFC 1812, section 5.2.7.1).
const PROHIBITED: u32 = 13;
/// The same in `ICMPv6` (RFC 4443, section 3.1).
const PROHIBITED6: u32 = 1;

/// What the host says about this kind.
#[cfg(feature = "user")]
pub(super) const INFO: FaultInfo = FaultInfo {
    kind: FaultKind::Partition,
    name: "partition",
    value: Value::Optional("MODE"),
    help: "Every packet vanishes, silently (drop, unless told), in both directions unless one is named; reset: TCP connections are reset at both ends, the rest vanishes; reject: the sender gets an ICMP error",
    default_direction: DefaultDirection::Both,
    parse,
    describe,
    check: None,
    protos: &[],
    ports: &[],
    needs: &[Need::Line, Need::Normaliser, Need::SockDestroy],
};

#[cfg(feature = "user")]
fn parse(value: &str, faults: &mut Faults) -> Result<(), String> {
    let mode = match value {
        "" | "drop" => modes::DROP,
        "reset" => modes::RESET,
        "reject" => modes::REJECT,
        _ => return Err(format!("`{value}` is no way to part: write drop, reset or reject, or nothing")),
    };
    faults.partition = Partition { enabled: 1, mode };
    Ok(())
}

#[cfg(feature = "user")]
fn describe(faults: &Faults) -> Option<String> {
    let fault = &faults.partition;
    (!fault.is_off()).then(|| match fault.mode {
        modes::RESET => "partition (reset)".to_owned(),
        modes::REJECT => "partition (reject)".to_owned(),
        _ => "partition".to_owned(),
    })
}
