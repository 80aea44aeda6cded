//! `mtu`: packets above a size vanish, as behind a link whose ICMP messages are filtered away.

use super::{Case, Fault, FaultKind, NoState};
#[cfg(feature = "user")]
use super::{DefaultDirection, FaultInfo, Faults, Need, Value};
use crate::{
    abi::intern_flags,
    packet::Packet,
    verdict::{Answer, Verdict, answers},
    world::World,
};

/// The smallest packet that every link must carry (RFC 791, section 3.2).
#[cfg(feature = "user")]
const SMALLEST: u32 = 68;
/// The largest packet there is.
#[cfg(feature = "user")]
const LARGEST: u32 = 65_535;

/// Parameters of a narrow path.
#[repr(C)]
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Mtu {
    /// Bytes of the largest IP packet that gets through; 0 = the fault is off.
    pub bytes: u32,
    /// 1 = the sender is told (RFC 1191, RFC 8201). 0 = a black hole.
    pub reply: u32,
}

impl Fault for Mtu {
    type State = NoState;

    #[inline(always)]
    fn is_off(&self) -> bool {
        self.bytes == 0
    }

    #[inline(always)]
    fn needs_wire(&self) -> bool {
        self.bytes != 0
    }

    /// An ICMP message made of a packet whose checksum a device shall still fill in would be damaged by it.
    fn needs_checksum(&self) -> bool {
        self.reply != 0
    }

    #[inline(always)]
    fn decide<W: World>(&self, _state: &NoState, case: &Case<'_, W>, verdict: &mut Verdict) {
        let packet = &case.job.packet;
        // Counted without the MAC header that a private device has added.
        let added = case.job.way_flags & intern_flags::L3 != 0;
        let offset = if added { 0 } else { packet.network_offset };
        if !packet.is_ip() || case.job.size.bytes.saturating_sub(u64::from(offset)) <= u64::from(self.bytes) {
            return;
        }
        match (self.reply, may_be_cut(packet)) {
            (0, _) => verdict.drop(FaultKind::Mtu),
            // A router would cut it, and the parts would arrive.
            (_, true) => {}
            (_, false) => {
                let answer = Answer { what: answers::TOO_BIG, mtu: self.bytes, ..Answer::default() };
                verdict.answer(FaultKind::Mtu, answer);
            }
        }
    }
}

#[inline(always)]
const fn may_be_cut(packet: &Packet) -> bool {
    !packet.is_whole()
}

/// What the host says about this kind.
#[cfg(feature = "user")]
pub(super) const INFO: FaultInfo = FaultInfo {
    kind: FaultKind::Mtu,
    name: "mtu",
    value: Value::Required("BYTES"),
    help: "IP packets above so many bytes vanish (1200), a black hole for path MTU discovery; with `,reply` their sender is told \"fragmentation needed\" (IPv6 does not believe in less than 1280)",
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
    let (bytes, reply) = match value.split_once(',') {
        None => (value, 0),
        Some((bytes, "reply")) => (bytes, 1),
        Some((_, other)) => return Err(format!("`{other}` is not an option of mtu: there is `,reply`")),
    };
    let bytes = bytes.parse().ok().filter(|bytes| (SMALLEST..=LARGEST).contains(bytes)).ok_or_else(|| {
        format!("`{bytes}` is not a packet size: write bytes, from {SMALLEST} to {LARGEST}, such as 1200")
    })?;
    faults.mtu = Mtu { bytes, reply };
    Ok(())
}

#[cfg(feature = "user")]
fn describe(faults: &Faults) -> Option<String> {
    match faults.mtu {
        Mtu { bytes: 0, .. } => None,
        Mtu { bytes, reply: 0 } => Some(format!("mtu {bytes} (black hole)")),
        Mtu { bytes, .. } => Some(format!("mtu {bytes}")),
    }
}
