//! `delay`: packets arrive later, by a constant time or by one that strays around it.

use super::{Case, Fault, FaultKind};
#[cfg(feature = "user")]
use super::{DefaultDirection, FaultInfo, Faults, Need, Value};
#[cfg(feature = "user")]
use crate::units::{options, parse_duration, parse_share, percent, show_duration};
use crate::{
    dist,
    env::{DrawKind, Prob, Word},
    packet::{Class, Packet, tcp},
    verdict::Verdict,
    world::World,
};

/// Flags of [`Delay::flags`].
pub mod delay_flags {
    /// The fault is set. `delay 0ms` is set and delays nothing, but takes the same way as `delay 1ms`.
    pub const ENABLED: u32 = 1;
    /// What carries no data of the application does not wait.
    pub const DATA_ONLY: u32 = 2;
}

/// Parameters of a delay.
#[repr(C)]
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Delay {
    /// What every packet waits, nanoseconds.
    pub base_ns: u64,
    /// How far it strays, nanoseconds: half the width of a uniform distribution, one sigma of any
    /// other.
    pub jitter_ns: u64,
    /// Chance that a packet strays exactly as the one before did.
    pub correlation: Prob,
    /// Number of the distribution's table ([`crate::dist`]); 0 = uniform.
    pub table: u32,
    /// See [`delay_flags`].
    pub flags: u32,
    /// Keeps the size a multiple of eight bytes.
    pub reserved: u32,
}

/// What a delay remembers.
#[repr(C)]
#[derive(Debug, Default)]
pub struct DelayState {
    /// The last draw, for the correlation.
    pub last: Word,
}

/// How a packet takes part in a delay.
enum Part {
    /// It waits.
    Waits,
    /// It does not wait itself, but stays behind those that do.
    Follows,
    /// It goes ahead.
    Passes,
}

impl Delay {
    /// See [`Fault::is_off`].
    #[inline(always)]
    pub(super) const fn off(&self) -> bool {
        self.flags & delay_flags::ENABLED == 0
    }

    #[inline(always)]
    fn part(&self, packet: &Packet) -> Part {
        let empty_tcp = packet.class == Class::TCP && !packet.has_data() && !packet.is_later_fragment();
        if self.flags & delay_flags::DATA_ONLY == 0 || !empty_tcp {
            Part::Waits
        } else if packet.tcp_flags & (tcp::FIN | tcp::RST) != 0 {
            // The end must not overtake the data before it.
            Part::Follows
        } else {
            Part::Passes
        }
    }

    /// How late a packet is, for 32 random bits.
    #[inline(always)]
    fn late_ns<W: World>(&self, world: &W, draw: u32) -> u64 {
        if self.table == 0 {
            return dist::uniform(self.base_ns, self.jitter_ns, draw);
        }
        // Without its table a delay is constant.
        let sample = world.dist(self.table, draw).unwrap_or_default();
        dist::spread(self.base_ns, self.jitter_ns, sample)
    }

    /// Adds its wish, for the kind that it belongs to.
    #[inline(always)]
    pub(super) fn add<W: World>(
        &self,
        kind: (FaultKind, DrawKind),
        state: &DelayState,
        case: &Case<'_, W>,
        verdict: &mut Verdict,
    ) {
        let late_ns = if self.jitter_ns == 0 {
            self.base_ns
        } else {
            self.late_ns(case.world, case.correlated(kind.1, self.correlation, &state.last))
        };
        match self.part(&case.job.packet) {
            Part::Waits => verdict.delay(kind.0, late_ns),
            Part::Follows => verdict.delay(kind.0, 0),
            Part::Passes => {}
        }
    }
}

impl Fault for Delay {
    type State = DelayState;

    #[inline(always)]
    fn is_off(&self) -> bool {
        self.off()
    }

    /// A constant delay keeps GSO: all wire packets of one GSO packet are equally late.
    #[inline(always)]
    fn needs_wire(&self) -> bool {
        !self.off() && self.jitter_ns != 0
    }

    fn needs_line(&self) -> bool {
        !self.off()
    }

    #[inline(always)]
    fn decide<W: World>(&self, state: &DelayState, case: &Case<'_, W>, verdict: &mut Verdict) {
        self.add((FaultKind::Delay, DrawKind::Delay), state, case, verdict);
    }
}

/// What the host says about this kind.
#[cfg(feature = "user")]
pub(super) const INFO: FaultInfo = FaultInfo {
    kind: FaultKind::Delay,
    name: "delay",
    value: Value::Required("TIME"),
    help: "Packets arrive later, in their order: 100ms, or 100ms±20ms (or 100ms+-20ms), then \
           ,distribution=uniform|normal|pareto|paretonormal|FILE.dist ,correlation=25% ,mode=per-packet|data-only \
           (data-only: handshakes and pure acknowledgements do not wait)",
    default_direction: DefaultDirection::Egress,
    parse: |value, faults| {
        faults.delay = parse(value)?;
        Ok(())
    },
    describe: |faults: &Faults| describe(&faults.delay).map(|text| format!("delay {text}")),
    check: None,
    protos: &[],
    ports: &[],
    needs: &[Need::Line, Need::Normaliser],
};

/// The longest delay: longer, and every protocol has given up.
#[cfg(feature = "user")]
const LONGEST_NS: u64 = 600_000_000_000;

/// Reads `100ms`, `100ms±20ms` and the options behind.
#[cfg(feature = "user")]
pub(super) fn parse(value: &str) -> Result<Delay, String> {
    let (time, options) = options(value);
    let (base, jitter) = time.split_once('±').or_else(|| time.split_once("+-")).unwrap_or((time, "0"));
    let mut delay = Delay {
        base_ns: parse_duration(base)?,
        jitter_ns: parse_duration(jitter)?,
        flags: delay_flags::ENABLED,
        ..Delay::default()
    };
    if delay.base_ns.saturating_add(delay.jitter_ns) > LONGEST_NS {
        return Err(format!("`{time}` is too long: a packet may be late by at most 10m, jitter included"));
    }
    for (part, cut) in options {
        option(&mut delay, part, cut)?;
    }
    Ok(delay)
}

#[cfg(feature = "user")]
fn option(delay: &mut Delay, part: &str, cut: Option<(&str, &str)>) -> Result<(), String> {
    let needs_jitter = |name: &str| match delay.jitter_ns {
        0 => Err(format!("{name}= needs a delay that strays, such as 100ms±20ms")),
        _ => Ok(()),
    };
    match cut {
        Some(("distribution", name)) => {
            needs_jitter("distribution")?;
            delay.table = table(name)?;
        }
        Some(("correlation", share)) => {
            needs_jitter("correlation")?;
            delay.correlation = parse_share(share)?;
        }
        Some(("mode", "per-packet")) => delay.flags &= !delay_flags::DATA_ONLY,
        Some(("mode", "data-only")) => delay.flags |= delay_flags::DATA_ONLY,
        Some(("mode", other)) => {
            return Err(format!("`mode={other}`: the modes are per-packet and data-only"));
        }
        _ => {
            return Err(format!(
                "`{part}`: after the time come distribution=, correlation= and mode=, divided by commas"
            ));
        }
    }
    Ok(())
}

/// The number of a distribution by its name or its file; 0 = uniform.
#[cfg(feature = "user")]
fn table(name: &str) -> Result<u32, String> {
    if name == "uniform" {
        return Ok(0);
    }
    if let Some(shape) = dist::Shape::ALL.into_iter().find(|shape| shape.name() == name) {
        return dist::intern(name, &dist::generate(shape));
    }
    let path = std::path::Path::new(name);
    if !name.contains('/') && path.extension().is_none_or(|extension| extension != "dist") {
        return Err(format!(
            "`distribution={name}`: the distributions are uniform, normal, pareto, paretonormal, or a file in \
             netem's format, such as ./mine.dist"
        ));
    }
    dist::intern(name, &dist::read_dist(path)?)
}

/// The delay in plain words; none = off.
#[cfg(feature = "user")]
pub(super) fn describe(delay: &Delay) -> Option<String> {
    if delay.off() {
        return None;
    }
    let mut text = show_duration(delay.base_ns);
    if delay.jitter_ns != 0 {
        let shape = match delay.table {
            0 => "uniform".to_owned(),
            number => dist::name(number).unwrap_or_else(|| format!("distribution {number}")),
        };
        text = format!("{text}±{} ({shape})", show_duration(delay.jitter_ns));
    }
    if delay.correlation != Prob::NEVER {
        text = format!("{text}, correlation {}", percent(delay.correlation));
    }
    if delay.flags & delay_flags::DATA_ONLY != 0 {
        text += ", data only";
    }
    Some(text)
}
