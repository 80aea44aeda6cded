//! `rate`: a link of so many bits a second. Packets wait until it is free; what finds its queue
//! full vanishes.

use super::{Case, Fault, FaultKind};
#[cfg(feature = "user")]
use super::{DefaultDirection, FaultInfo, Faults, Need, Value};
use crate::{abi::Direction, env::Word, job::job_flags, verdict::Verdict, world::World};

/// Flags of [`Rate::flags`].
pub mod rate_flags {
    /// The fault is set.
    pub const ENABLED: u32 = 1;
    /// Every connection has a link of its own.
    pub const PER_CONNECTION: u32 = 2;
}

/// Parameters of a link.
///
/// It is the virtual scheduling of the generic cell rate algorithm (ITU-T I.371, annex A), as in
/// a token bucket: a word holds when everything accepted so far has been sent; a packet adds the
/// time that its own bytes take and leaves when that moment, less the burst, has come.
#[repr(C)]
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Rate {
    /// Bits a second, for people; the program uses `byte_time`.
    pub bits_per_second: u64,
    /// How long a byte takes, in units of 2^-20 ns: exact to 10^-6 up to 10 Gbit/s, and a packet
    /// of 2^20 bytes does not overflow from 1 kbit/s on.
    pub byte_time: u64,
    /// How long the bytes take that may leave at once after a pause, nanoseconds.
    pub burst_ns: u64,
    /// The longest wait; what would have to wait longer vanishes. Nanoseconds.
    pub queue_ns: u64,
    /// See [`rate_flags`].
    pub flags: u32,
    /// Keeps the size a multiple of eight bytes.
    pub reserved: u32,
}

/// What a link remembers.
#[repr(C)]
#[derive(Debug, Default)]
pub struct RateState {
    /// When it has sent everything: since the rule's arming, in units of 2^-12 ns.
    pub clock: Word,
}

/// Fraction bits of [`Rate::byte_time`].
const BYTE_TIME_BITS: u32 = 20;
/// Fraction bits of a clock. Whole nanoseconds are too coarse: 64 bytes take 51.2 at 10 Gbit/s.
/// 2^52 ns, the range that is left, are 52 days, and no rule lives longer than an hour.
const CLOCK_BITS: u32 = 12;
/// Packets of more bytes count as this many.
const BYTES_MAX: u64 = 1 << 20;
/// How often a packet tries again when another CPU moved the clock at the same time.
const TRIES: u32 = 8;

/// From this rate on a GSO packet goes over the link as a whole: it takes half a millisecond.
const WHOLE_FROM_BPS: u64 = 1_000_000_000;

/// What the link says to a packet, in units of a clock.
enum Slot {
    /// It leaves after this time.
    After(u64),
    /// The queue is full.
    Full,
}

impl Rate {
    const fn has(&self, flag: u32) -> bool {
        self.flags & flag != 0
    }

    /// How long this many bytes take, in units of a clock.
    #[inline(always)]
    const fn bytes_time(&self, bytes: u64) -> u64 {
        let bytes = if bytes > BYTES_MAX { BYTES_MAX } else { bytes };
        bytes.wrapping_mul(self.byte_time) >> (BYTE_TIME_BITS - CLOCK_BITS)
    }

    /// The bytes that leave within this time and the burst; none if there is no link, or one for each
    /// connection.
    #[cfg(feature = "user")]
    #[must_use]
    pub fn bytes_within(&self, time_ns: u64) -> Option<u64> {
        if self.flags & (rate_flags::ENABLED | rate_flags::PER_CONNECTION) != rate_flags::ENABLED {
            return None;
        }
        let time = u128::from(time_ns.saturating_add(self.burst_ns)) << BYTE_TIME_BITS;
        u64::try_from(time.checked_div(self.byte_time.into())?).ok()
    }

    /// Books `bytes` at `now`, and says when they leave.
    #[inline(always)]
    fn book<W: World>(&self, world: &W, clock: &Word, now: u64, bytes: u64) -> Slot {
        let takes = self.bytes_time(bytes);
        let burst = self.burst_ns << CLOCK_BITS;
        let limit = self.queue_ns << CLOCK_BITS;
        let mut wait = 0;
        for _ in 0..TRIES {
            let before = world.read(clock);
            let begins = if before > now { before } else { now };
            let ends = begins.saturating_add(takes);
            wait = ends.saturating_sub(burst).saturating_sub(now);
            // What finds the link free goes, however long it takes: else nothing would pass a
            // queue that is shorter than a packet.
            if wait > limit && before.saturating_sub(burst) > now {
                return Slot::Full;
            }
            if world.compare_exchange(clock, before, ends) == before {
                break;
            }
        }
        // Eight CPUs in a row were quicker: its bytes are not booked, but it waits like the others.
        Slot::After(wait)
    }
}

impl Fault for Rate {
    type State = RateState;

    #[inline(always)]
    fn is_off(&self) -> bool {
        !self.has(rate_flags::ENABLED)
    }

    #[inline(always)]
    fn needs_wire(&self) -> bool {
        !self.is_off() && self.bits_per_second < WHOLE_FROM_BPS
    }

    fn needs_line(&self) -> bool {
        !self.is_off()
    }

    fn needs_memory(&self) -> bool {
        self.has(rate_flags::PER_CONNECTION)
    }

    #[inline(always)]
    fn decide<W: World>(&self, state: &RateState, case: &Case<'_, W>, verdict: &mut Verdict) {
        // What is lost before the link, or went over it already, does not use it.
        if verdict.drop_by | verdict.answer_by != 0 || case.job.has(job_flags::HELD) {
            return;
        }
        let clock = match (case.flow, case.direction()) {
            (Some(flow), direction) if self.has(rate_flags::PER_CONNECTION) => {
                let [egress, ingress] = &flow.clocks;
                if direction == Direction::Egress { egress } else { ingress }
            }
            _ => &state.clock,
        };
        let bytes = case.job.size.bytes << u32::from(verdict.duplicate_by != 0);
        let now = case.job.now_ns.saturating_sub(case.rule.armed_ns) << CLOCK_BITS;
        match self.book(case.world, clock, now, bytes) {
            // Rounded up: never before its time.
            Slot::After(wait) => {
                let round = (1u64 << CLOCK_BITS).wrapping_sub(1);
                verdict.queue(FaultKind::Rate, wait.wrapping_add(round) >> CLOCK_BITS);
            }
            Slot::Full => verdict.drop(FaultKind::Rate),
        }
    }
}

/// What the host says about this kind.
#[cfg(feature = "user")]
pub(super) const INFO: FaultInfo = FaultInfo {
    kind: FaultKind::Rate,
    name: "rate",
    value: Value::Required("RATE"),
    help: "A link of so many bits a second, from 1kbit/s to 100Gbit/s: 10Mbit/s, 1KB/s, then ,burst=16KB \
           ,queue=250ms (or bytes; what does not fit vanishes) ,per=rule|connection. All bytes of a frame count, \
           from its MAC header on",
    default_direction: DefaultDirection::Egress,
    parse: |value, faults| {
        faults.rate = text::parse(value)?;
        Ok(())
    },
    describe: |faults: &Faults| text::describe(&faults.rate),
    check: None,
    protos: &[],
    ports: &[],
    needs: &[Need::Line, Need::Normaliser],
};

#[cfg(feature = "user")]
mod text {
    use super::{BYTE_TIME_BITS, Fault, Rate, rate_flags};
    use crate::units::{
        options, parse_duration, parse_rate, parse_size, show_duration, show_rate, show_size,
    };

    const LOWEST_BPS: u64 = 1_000;
    const HIGHEST_BPS: u64 = 100_000_000_000;
    /// The longest queue; a packet that waits longer has been given up by its sender.
    const QUEUE_MAX_NS: u64 = 600_000_000_000;
    /// The queue when none is given: the larger of these. A router's quarter of a second, but so
    /// much that TCP can begin (ten segments, RFC 6928) on the slowest link.
    const QUEUE_NS: u64 = 250_000_000;
    const QUEUE_BYTES: u64 = 32 << 10;

    /// Nanoseconds that `bytes` take, rounded up.
    fn bytes_ns(bytes: u64, bps: u64) -> u64 {
        let bit_ns = u128::from(bytes).saturating_mul(8_000_000_000);
        u64::try_from(bit_ns.div_ceil(u128::from(bps))).unwrap_or(u64::MAX)
    }

    /// Bytes that take `ns`, rounded down.
    fn ns_bytes(ns: u64, bps: u64) -> u64 {
        let bit_ns = u128::from(ns).saturating_mul(u128::from(bps));
        u64::try_from(bit_ns.checked_div(8_000_000_000).unwrap_or_default()).unwrap_or(u64::MAX)
    }

    pub(super) fn parse(value: &str) -> Result<Rate, String> {
        let (speed, options) = options(value);
        let bps = parse_rate(speed)?;
        if !(LOWEST_BPS..=HIGHEST_BPS).contains(&bps) {
            return Err(format!("{} is out of range: from 1kbit/s to 100Gbit/s", show_rate(bps)));
        }
        let byte_time =
            (8_000_000_000u128 << BYTE_TIME_BITS).checked_div(u128::from(bps)).unwrap_or_default();
        let mut rate = Rate {
            bits_per_second: bps,
            byte_time: u64::try_from(byte_time).map_err(|error| error.to_string())?,
            queue_ns: QUEUE_NS.max(bytes_ns(QUEUE_BYTES, bps)),
            flags: rate_flags::ENABLED,
            ..Rate::default()
        };
        for (part, option) in options {
            match option {
                Some(("burst", text)) => rate.burst_ns = amount("burst", text, bps)?,
                Some(("queue", text)) => rate.queue_ns = amount("queue", text, bps)?,
                Some(("per", "rule")) => rate.flags &= !rate_flags::PER_CONNECTION,
                Some(("per", "connection")) => rate.flags |= rate_flags::PER_CONNECTION,
                Some(("per", other)) => {
                    return Err(format!("`per={other}`: a link is per=rule (the default) or per=connection"));
                }
                _ => {
                    return Err(format!(
                        "`{part}`: after the rate come burst=, queue= and per=, divided by commas"
                    ));
                }
            }
        }
        Ok(rate)
    }

    /// Bytes or a time, in nanoseconds at this rate.
    fn amount(name: &str, text: &str, bps: u64) -> Result<u64, String> {
        // `2M` would be two months: bytes are told by their `B`, or by having no unit at all.
        let is_bytes = text.ends_with(['B', 'b']) || text.bytes().all(|byte| byte.is_ascii_digit());
        let ns =
            if is_bytes { parse_size(text).map(|bytes| bytes_ns(bytes, bps)) } else { parse_duration(text) }
                .map_err(|error| format!("{name}= takes bytes (64KB) or a time (100ms): {error}"))?;
        if ns > QUEUE_MAX_NS {
            return Err(format!(
                "`{name}={text}` is {} at {}; at most 10m",
                show_duration(ns),
                show_rate(bps)
            ));
        }
        Ok(ns)
    }

    pub(super) fn describe(rate: &Rate) -> Option<String> {
        if rate.is_off() {
            return None;
        }
        let bps = rate.bits_per_second;
        let mut text = format!("rate {}", show_rate(bps));
        if rate.has(rate_flags::PER_CONNECTION) {
            text += " per connection";
        }
        if rate.burst_ns != 0 {
            text = format!("{text}, burst {}", show_size(ns_bytes(rate.burst_ns, bps)));
        }
        let whole_ms = rate.queue_ns.next_multiple_of(1_000_000);
        Some(format!(
            "{text}, queue {} ({})",
            show_duration(whole_ms),
            show_size(ns_bytes(rate.queue_ns, bps))
        ))
    }
}
