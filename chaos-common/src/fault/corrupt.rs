//! `corrupt`: bits of the payload flip under way.

use super::{Case, Fault, FaultKind};
#[cfg(feature = "user")]
use super::{DefaultDirection, FaultInfo, Faults, Need, Value};
#[cfg(feature = "user")]
use crate::units::{options, parse_share, percent};
use crate::{
    env::{DrawKind, Prob, Word, mix},
    verdict::{Corruption, Verdict},
    world::World,
};

/// Most bits flipped in one packet.
pub const BITS_MAX: u32 = 16;

/// Parameters of corruption.
#[repr(C)]
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Corrupt {
    /// 1 = the fault is set.
    pub enabled: u32,
    /// Chance of each wire packet that carries payload.
    pub probability: Prob,
    /// How much each draw hangs on the one before (see [`crate::env::Draws::correlated`]).
    pub correlation: Prob,
    /// Bits to flip, 1 to [`BITS_MAX`].
    pub bits: u32,
    /// 1 = the checksum is mended: the application reads wrong bytes. 0 = the receiver's kernel sees it, as
    /// after a bad cable.
    pub silent: u32,
    /// First byte of the payload that may be hit.
    pub first: u32,
    /// Last byte of the payload that may be hit.
    pub last: u32,
    /// Keeps the size a multiple of eight bytes.
    pub reserved: u32,
}

/// What it remembers.
#[repr(C)]
#[derive(Debug, Default)]
pub struct CorruptState {
    /// The draw before.
    pub last: Word,
}

impl Fault for Corrupt {
    type State = CorruptState;

    #[inline(always)]
    fn is_off(&self) -> bool {
        self.enabled == 0
    }

    #[inline(always)]
    fn needs_wire(&self) -> bool {
        self.enabled != 0
    }

    #[inline(always)]
    fn needs_checksum(&self) -> bool {
        self.enabled != 0 && self.silent == 0
    }

    #[inline(always)]
    fn decide<W: World>(&self, state: &CorruptState, case: &Case<'_, W>, verdict: &mut Verdict) {
        let draw = case.correlated(DrawKind::Corrupt, self.correlation, &state.last);
        let seed = case.draw(DrawKind::CorruptPlace);
        // Without payload there is nothing to be hit.
        if self.probability.hits(draw) && case.job.packet.payload_len > self.first {
            verdict.corrupt_by = FaultKind::Corrupt.number();
            verdict.corruption = Corruption {
                seed: mix(u64::from(seed) << 32 | u64::from(draw)),
                bits: self.bits,
                silent: self.silent,
                first: self.first,
                last: self.last,
            };
        }
    }
}

/// Where the `index`-th bit lies: byte of the payload, and a mask of one bit. None = no byte may be hit.
///
/// Bits of one packet lie apart, so that no two undo each other.
#[inline(always)]
#[must_use]
pub fn place(corruption: &Corruption, index: u32, payload_len: u32) -> Option<(u32, u8)> {
    let end = if corruption.last < payload_len { corruption.last.wrapping_add(1) } else { payload_len };
    let bits = end.checked_sub(corruption.first)?.checked_mul(8)?;
    if index >= bits {
        return None;
    }
    let step = bits.checked_div(BITS_MAX).unwrap_or(0);
    let step = if step == 0 { 1 } else { step };
    let start = corruption.seed.checked_rem(u64::from(bits))? as u32;
    let bit = start.wrapping_add(step.wrapping_mul(index)).checked_rem(bits)?;
    Some((corruption.first.wrapping_add(bit >> 3), 1 << (bit & 7)))
}

/// What the host says about this kind.
#[cfg(feature = "user")]
pub(super) const INFO: FaultInfo = FaultInfo {
    kind: FaultKind::Corrupt,
    name: "corrupt",
    value: Value::Required("RATE"),
    help: "Bits of the payload flip in a share of wire packets (5%); the receiver's checksum catches it, or with `,silent` the application reads wrong bytes; `,bits=3`, `,bytes=0-99`, `,correlation=25%`",
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
    let mut fault = Corrupt {
        enabled: 1,
        probability: parse_share(share)?,
        bits: 1,
        last: u32::MAX,
        ..Corrupt::default()
    };
    for (part, option) in options {
        match option {
            None if part == "silent" => fault.silent = 1,
            None if part == "detectable" => fault.silent = 0,
            Some(("correlation", share)) => fault.correlation = parse_share(share)?,
            Some(("bits", bits)) => fault.bits = parse_bits(bits)?,
            Some(("bytes", range)) => (fault.first, fault.last) = parse_bytes(range)?,
            _ => {
                return Err(format!(
                    "`{part}` is not an option of corrupt: write a share such as 5%, then any of `,silent`, `,detectable`, `,bits=1` to `,bits={BITS_MAX}`, `,bytes=0-99`, `,correlation=25%`"
                ));
            }
        }
    }
    faults.corrupt = fault;
    Ok(())
}

#[cfg(feature = "user")]
fn parse_bits(text: &str) -> Result<u32, String> {
    let bits = text.parse().ok().filter(|bits| (1..=BITS_MAX).contains(bits));
    bits.ok_or_else(|| format!("`{text}`: bits= takes a whole number from 1 to {BITS_MAX}"))
}

#[cfg(feature = "user")]
fn parse_bytes(text: &str) -> Result<(u32, u32), String> {
    let range = match text.split_once('-') {
        None => text.parse().ok().map(|only| (only, only)),
        Some((first, "")) => first.parse().ok().map(|first| (first, u32::MAX)),
        Some((first, last)) => first.parse().ok().zip(last.parse().ok()),
    };
    range.filter(|(first, last)| first <= last).ok_or_else(|| {
        format!(
            "`{text}`: bytes= takes a place in the payload, counted from 0, or a range such as 0-99 or 100-"
        )
    })
}

#[cfg(feature = "user")]
fn describe(faults: &Faults) -> Option<String> {
    let fault = &faults.corrupt;
    if fault.is_off() {
        return None;
    }
    let mut text = format!("corrupt {}", percent(fault.probability));
    if fault.bits != 1 {
        text = format!("{text}, {} bits each", fault.bits);
    }
    if (fault.first, fault.last) != (0, u32::MAX) {
        let last = if fault.last == u32::MAX { String::new() } else { fault.last.to_string() };
        text = format!("{text}, in bytes {}-{last}", fault.first);
    }
    if fault.correlation != Prob::NEVER {
        text = format!("{text}, correlation {}", percent(fault.correlation));
    }
    Some(if fault.silent != 0 { format!("{text}, unseen by checksums") } else { text })
}
