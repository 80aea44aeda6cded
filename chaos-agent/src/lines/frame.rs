//! What the classifier writes into a frame that has to wait, and the arithmetic of its clock.
//!
//! The 12 bytes of the two MAC addresses carry: bytes 0..4 the number of what they said (not looked at
//! here), bytes 4..12 a native word: bits 0..48 the release time, bits 48..60 the slot of the rule that
//! holds the frame, bit 60 *paced*, bit 61
//! *ingress*, bit 63 *drain*.

use crate::net::tap::VNET_HEADER_BYTES;

/// The virtio header and the Ethernet header; nothing shorter comes from a device.
pub(super) const SHORTEST: usize = VNET_HEADER_BYTES + 14;

/// Slots of rules a frame can name.
pub(super) const SLOTS: usize = 1 << SLOT_BITS;

const WORD_AT: usize = VNET_HEADER_BYTES + 4;
const TIME_BITS: u32 = 48;
const SLOT_BITS: u32 = 12;
const DRAIN: u64 = 1 << 63;
const PACED: u64 = 1 << 60;
const INGRESS: u64 = 1 << 61;

/// The time, the rule and the order to hurry, as read from a frame.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Ticket {
    /// `CLOCK_MONOTONIC`, in ns.
    pub(super) release_ns: u64,
    /// Which rule holds it.
    pub(super) slot: u16,
    /// To be written at once, after what its rule still holds.
    pub(super) drain: bool,
    /// It waits for a link, and keeps its distance to the one before it.
    pub(super) paced: bool,
    /// It comes in.
    pub(super) ingress: bool,
}

impl Ticket {
    /// Reads a frame with its virtio header; none if it is too short to have been marked.
    pub(super) fn read(frame: &[u8], now_ns: u64) -> Option<Self> {
        if frame.len() < SHORTEST {
            return None;
        }
        let bytes = frame.get(WORD_AT..WORD_AT + 8)?;
        Some(Self::unpack(u64::from_ne_bytes(bytes.try_into().ok()?), now_ns))
    }

    fn unpack(word: u64, now_ns: u64) -> Self {
        let slot = (word >> TIME_BITS) as u16 & (SLOTS - 1) as u16;
        let is = |bit| word & bit != 0;
        Self {
            release_ns: near(word, now_ns),
            slot,
            drain: is(DRAIN),
            paced: is(PACED),
            ingress: is(INGRESS),
        }
    }
}

/// The time nearest to `now_ns` whose low 48 bits are those of `time`: within 39 hours of it.
fn near(time: u64, now_ns: u64) -> u64 {
    const ABOVE: u32 = u64::BITS - TIME_BITS;
    let ahead_ns = (time.wrapping_sub(now_ns) << ABOVE).cast_signed() >> ABOVE;
    now_ns.saturating_add_signed(ahead_ns)
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    const HOUR_NS: u64 = 3_600_000_000_000;

    #[test]
    fn the_clock_wraps_without_a_jump() {
        let wrap = 1_u64 << TIME_BITS;
        assert_eq!(near(5, wrap - 10), wrap + 5);
        assert_eq!(near(wrap - 10, wrap + 5), wrap - 10);
        assert_eq!(near((7 * wrap + 3) % wrap, 7 * wrap - 3), 7 * wrap + 3);
        assert_eq!(near(0, 0), 0);
    }

    #[test]
    fn a_time_before_the_machine_started_is_its_start() {
        assert_eq!(near((1 << TIME_BITS) - 1, 10), 0);
    }

    #[test]
    fn a_short_frame_has_no_ticket() {
        assert_eq!(Ticket::read(&[0; SHORTEST - 1], 0), None);
        assert!(Ticket::read(&[0; SHORTEST], 0).is_some());
    }

    proptest! {
        #[test]
        fn every_field_comes_back(now in 39 * HOUR_NS..u64::MAX / 2, ahead in 0..39 * HOUR_NS,
            late in 0..39 * HOUR_NS, slot in 0_u16..4096, drain: bool, spare in 0_u64..8) {
            for release_ns in [now + ahead, now - late] {
                let word = release_ns & ((1 << TIME_BITS) - 1) | u64::from(slot) << TIME_BITS
                    | spare << 60 | u64::from(drain) << 63;
                let (paced, ingress) = (spare & 1 != 0, spare & 2 != 0);
                prop_assert_eq!(Ticket::unpack(word, now), Ticket { release_ns, slot, drain, paced, ingress });
            }
        }
    }
}
