//! What the delay line's thread must know of the tables, and tells them: read and written in shared memory,
//! without a lock or a system call.

use std::{mem::offset_of, sync::Arc};

use chaos_common::{
    abi::{BANKS, Rule, RuleState, control},
    fault::rate::Rate,
};
use nix::time::{ClockId, clock_gettime};

use super::{memory::Mapped, tables::StateWords};
use crate::lines::{RuleWatch, WINDOW_NS};

/// The tables as the delay line's thread sees them.
#[derive(Debug)]
pub struct TableWatch {
    /// Rules that the tables hold.
    pub(super) capacity: u32,
    pub(super) control: Arc<Mapped<u64>>,
    pub(super) rules: Arc<Mapped<Rule>>,
    pub(super) states: Arc<Mapped<StateWords>>,
}

/// Where a field lies, in words.
const ID: usize = offset_of!(Rule, id) / 8;
const EXPIRES: usize = offset_of!(Rule, expires_ns) / 8;
const BYTE_TIME: usize = offset_of!(Rule, faults.rate.byte_time) / 8;
const BURST: usize = offset_of!(Rule, faults.rate.burst_ns) / 8;
const RATE_FLAGS: usize = offset_of!(Rule, faults.rate.flags) / 8;
const LEASE: usize = offset_of!(RuleState, lease_until_ns) / 8;
pub(super) const HELD: usize = offset_of!(RuleState, held) / 8;

impl TableWatch {
    /// Where the rule in this slot begins.
    fn rule(&self, slot: u32) -> Option<usize> {
        let generation = self.control.word(control::GENERATION as usize, 0)?;
        if generation == 0 || slot >= self.capacity {
            return None;
        }
        Some((generation % u64::from(BANKS)) as usize * self.capacity as usize + slot as usize)
    }

    /// Whether the rule is over, and if not, for how long its lease and its time still run.
    fn ends_ns(&self, slot: u32) -> Option<u64> {
        let at = self.rule(slot)?;
        if self.rules.word(at, ID)? == 0 {
            return None;
        }
        Some(self.rules.word(at, EXPIRES)?.min(self.states.word(slot as usize, LEASE)?))
    }
}

impl RuleWatch for TableWatch {
    fn is_over(&self, slot: u32) -> bool {
        let now_ns = clock_gettime(ClockId::CLOCK_BOOTTIME).ok().and_then(|now| {
            let seconds = u64::try_from(now.tv_sec()).ok()?.checked_mul(1_000_000_000)?;
            seconds.checked_add(u64::try_from(now.tv_nsec()).ok()?)
        });
        // Without a clock nothing may be held any more.
        now_ns.is_none_or(|now_ns| self.ends_ns(slot).is_none_or(|ends_ns| now_ns >= ends_ns))
    }

    fn released(&self, slot: u32, frames: u64) {
        self.states.subtract(slot as usize, HELD, frames);
    }

    fn held(&self, slot: u32) -> u64 {
        self.states.word(slot as usize, HELD).unwrap_or(0)
    }

    fn window_bytes(&self, slot: u32) -> Option<u64> {
        let at = self.rule(slot)?;
        let mut link = Rate { byte_time: self.rules.word(at, BYTE_TIME)?, ..Rate::default() };
        link.burst_ns = self.rules.word(at, BURST)?;
        // The first half of the word.
        link.flags = self.rules.word(at, RATE_FLAGS)? as u32;
        link.bytes_within(WINDOW_NS)
    }

    fn heartbeat(&self, monotonic_ns: u64) {
        self.control.set(control::HEARTBEAT as usize, monotonic_ns);
    }
}
