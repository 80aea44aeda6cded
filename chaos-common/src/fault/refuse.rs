//! `refuse`: connect(2) of the target's processes fails at once; nothing goes on the wire.

use super::{Case, Fault, NoState};
#[cfg(feature = "user")]
use super::{DefaultDirection, FaultInfo, FaultKind, Faults, Need, Value};
#[cfg(feature = "user")]
use crate::packet::Class;
use crate::{
    env::{DrawKind, Draws, Env, Prob},
    verdict::Verdict,
    world::World,
};

/// The answers there are, by name and number (`include/uapi/asm-generic/errno-base.h` and
/// `errno.h`: the same on every architecture this runs on). No others: `EINTR`, for instance, is
/// retried by the C library and would look like a hang.
pub const ERRNOS: [(&str, u32); 5] =
    [("ECONNREFUSED", 111), ("ETIMEDOUT", 110), ("EACCES", 13), ("ENETUNREACH", 101), ("EHOSTUNREACH", 113)];

/// Parameters of refused connections.
#[repr(C)]
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Refuse {
    /// What connect(2) fails with, one of [`ERRNOS`]; 0 = the fault is not set.
    pub errno: u32,
    /// Chance of each call to fail.
    pub probability: Prob,
}

impl Fault for Refuse {
    type State = NoState;

    #[inline(always)]
    fn is_off(&self) -> bool {
        self.errno == 0
    }

    #[inline(always)]
    fn needs_wire(&self) -> bool {
        false
    }

    fn acts_on_packets(&self) -> bool {
        false
    }

    fn acts_on_connect(&self) -> bool {
        self.errno != 0
    }

    #[inline(always)]
    fn refuse<E: Env>(&self, draws: &Draws, env: &E) -> u32 {
        if self.is_off() {
            return 0;
        }
        if self.probability.hits(draws.next(env, DrawKind::Refuse)) { self.errno } else { 0 }
    }

    #[cfg(feature = "user")]
    fn blind_spots(&self) -> &'static [&'static str] {
        if self.is_off() { &[] } else { &BLIND_SPOTS }
    }

    /// Packets are not its business.
    #[inline(always)]
    fn decide<W: World>(&self, _state: &NoState, _case: &Case<'_, W>, _verdict: &mut Verdict) {}
}

/// What refused connections do not cover, for `--explain`.
#[cfg(feature = "user")]
const BLIND_SPOTS: [&str; 1] = [
    "refuse answers connect() before any packet: connections that exist go on, and so does UDP that is sent without connect()",
];

/// What the host says about this kind.
#[cfg(feature = "user")]
pub(super) const INFO: FaultInfo = FaultInfo {
    kind: FaultKind::Refuse,
    name: "refuse",
    value: Value::Optional("ERRNO[,SHARE]"),
    help: "connect() fails at once with ECONNREFUSED, ETIMEDOUT, EACCES, ENETUNREACH or EHOSTUNREACH, always or in a share of the calls (ETIMEDOUT,50%)",
    default_direction: DefaultDirection::Egress,
    parse,
    describe,
    check: None,
    protos: &[Class::TCP, Class::UDP],
    ports: &[],
    needs: &[Need::ConnectHook],
};

/// `ETIMEDOUT`, `50%`, `ETIMEDOUT,50%`; what is not given is `ECONNREFUSED`, always.
#[cfg(feature = "user")]
fn parse(value: &str, faults: &mut Faults) -> Result<(), String> {
    let refuse = |why: &str| {
        let names: Vec<&str> = ERRNOS.iter().map(|(name, _)| *name).collect();
        format!(
            "`{value}`: {why}; write one of {}, and if not every call shall fail a share, such as ETIMEDOUT,50%",
            names.join(", ")
        )
    };
    let mut refused = Refuse { errno: 0, probability: Prob::NEVER };
    let mut shared = false;
    for part in value.split(',').map(str::trim).filter(|part| !part.is_empty()) {
        let named = ERRNOS.iter().find(|(name, _)| name.eq_ignore_ascii_case(part));
        match named {
            Some((_, errno)) if refused.errno == 0 => refused.errno = *errno,
            Some(_) => return Err(refuse("two answers to one call")),
            None if part.starts_with(|c: char| c.is_ascii_digit() || c == '.') && !shared => {
                shared = true;
                refused.probability = crate::units::parse_share(part).map_err(|error| refuse(&error))?;
            }
            None => return Err(refuse(&format!("connect() cannot be made to fail with `{part}`"))),
        }
    }
    if refused.errno == 0 {
        refused.errno = 111;
    }
    if !shared {
        refused.probability = Prob::ALWAYS;
    }
    faults.refuse = refused;
    Ok(())
}

#[cfg(feature = "user")]
fn describe(faults: &Faults) -> Option<String> {
    let Refuse { errno, probability } = faults.refuse;
    let (name, _) = ERRNOS.iter().find(|(_, number)| *number == errno)?;
    Some(match probability {
        Prob::ALWAYS => format!("refuse {name}"),
        share => format!("refuse {name} {}", crate::units::percent(share)),
    })
}
