//! `reject`: packets are answered with an ICMP error, or TCP with a reset.

use super::{Case, Fault, FaultKind, NoState};
#[cfg(feature = "user")]
use super::{DefaultDirection, FaultInfo, Faults, Need, Value};
use crate::{
    packet::{Class, tcp},
    verdict::{Answer, Verdict, answers},
    world::World,
};

/// Parameters of a rejection.
#[repr(C)]
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Reject {
    /// 1 = the fault is set.
    pub enabled: u32,
    /// 1 = TCP gets a reset, the rest port unreachable.
    pub reset: u32,
    /// Code of the ICMP message (RFC 792, RFC 1812, section 5.2.7.1).
    pub code: u32,
    /// Code of the `ICMPv6` message (RFC 4443, section 3.1).
    pub code6: u32,
}

impl Fault for Reject {
    type State = NoState;

    #[inline(always)]
    fn is_off(&self) -> bool {
        self.enabled == 0
    }

    /// An ICMP message made of a packet whose checksum a device shall still fill in would be damaged by it.
    #[inline(always)]
    fn needs_wire(&self) -> bool {
        self.enabled != 0
    }

    /// The same holds on loopback.
    fn needs_checksum(&self) -> bool {
        self.enabled != 0
    }

    /// See [`Verdict::refuse`].
    fn needs_line(&self) -> bool {
        self.enabled != 0
    }

    fn cuts_held(&self) -> bool {
        self.enabled != 0
    }

    #[inline(always)]
    fn decide<W: World>(&self, _state: &NoState, case: &Case<'_, W>, verdict: &mut Verdict) {
        let packet = &case.job.packet;
        let is_tcp = packet.class == Class::TCP && !packet.is_later_fragment();
        // A reset is never answered (RFC 9293, section 3.5.2).
        if !packet.is_ip() || (is_tcp && packet.tcp_flags & tcp::RST != 0) {
            return;
        }
        let what = if is_tcp && self.reset != 0 { answers::RESET } else { answers::UNREACHABLE };
        let answer = Answer { what, code: self.code, code6: self.code6, ..Answer::default() };
        if what == answers::RESET {
            verdict.answer(FaultKind::Reject, answer);
        } else {
            verdict.refuse(FaultKind::Reject, packet, answer);
        }
    }
}

/// What the host says about this kind.
#[cfg(feature = "user")]
pub(super) const INFO: FaultInfo = FaultInfo {
    kind: FaultKind::Reject,
    name: "reject",
    value: Value::Optional("WITH"),
    help: "Packets are answered with an ICMP error: port (unless told), host, net, proto, admin, host-admin, net-admin; or rst: TCP gets a reset, the rest port unreachable",
    default_direction: DefaultDirection::Egress,
    parse,
    describe,
    check: None,
    protos: &[],
    ports: &[],
    needs: &[Need::Line, Need::Normaliser],
};

/// Name, ICMP code, `ICMPv6` code, as in iptables' target REJECT (`iptables-extensions(8)`).
#[cfg(feature = "user")]
const CODES: [(&str, u32, u32); 7] = [
    ("port", 3, 4),
    ("host", 1, 3),
    ("net", 0, 0),
    ("proto", 2, 4),
    ("admin", 13, 1),
    ("host-admin", 10, 1),
    ("net-admin", 9, 1),
];

#[cfg(feature = "user")]
fn parse(value: &str, faults: &mut Faults) -> Result<(), String> {
    let name = if value.is_empty() || value == "rst" { "port" } else { value };
    let (_, code, code6) = CODES.iter().find(|(known, ..)| *known == name).ok_or_else(|| {
        let known: Vec<&str> = CODES.iter().map(|(name, ..)| *name).collect();
        format!("`{value}` is not a way to reject: write rst, {}", known.join(", "))
    })?;
    faults.reject = Reject { enabled: 1, reset: u32::from(value == "rst"), code: *code, code6: *code6 };
    Ok(())
}

#[cfg(feature = "user")]
fn describe(faults: &Faults) -> Option<String> {
    let fault = &faults.reject;
    let name = CODES.iter().find(|(_, code, _)| *code == fault.code).map_or("port", |(name, ..)| name);
    match (fault.enabled, fault.reset) {
        (0, _) => None,
        (_, 0) => Some(format!("reject ({name} unreachable)")),
        _ => Some("reject (reset)".to_owned()),
    }
}
