//! The same packet through the kernel's program and through `chaos-common` on the host: clock,
//! random word and cgroups are given, so verdict and counters must be equal.

pub mod build;
pub mod host;
pub mod kernel;
pub mod rules;

use chaos_common::{
    abi::{Direction, TestInput, device_flags},
    compile::{CgroupInput, DeviceInput},
    verdict::Verdict,
};
use rand::{Rng, rngs::StdRng, seq::IndexedRandom};

/// Cookie of the namespace under test; any number, the programs are told the same.
pub const NETNS: u64 = 0x00c0_ffee;
/// A moment long after boot, in nanoseconds.
pub const NOW_NS: u64 = 1_000_000_000_000;
/// Where packets for the normaliser would go: no such device, nothing is sent in a test run.
pub const NORMALISER: u32 = 0x7fff_0001;
/// Where packets for the delay line would go, likewise.
pub const LINE: u32 = 0x7fff_0002;

/// The device of the tests that has no normaliser.
pub const PLAIN: u32 = 11;
/// A device that the tables call the loopback device: what leaves it comes to it.
pub const LOOPBACK: u32 = 13;
/// A device on which the operator's traffic is protected.
pub const PROTECTED: u32 = 14;
/// A device without MAC header.
pub const TUN: u32 = 15;
/// The device of the tests that has one.
pub const NORMALISING: u32 = 12;

/// What became of a packet.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Fate {
    /// Handed on untouched.
    Pass,
    /// Vanished.
    Drop,
    /// Sent into the normaliser.
    Normalise,
    /// Sent into the delay line.
    Hold,
    /// Something comes back in its place.
    Answer,
}

impl Fate {
    /// Every fate, by number.
    pub const ALL: [Self; 5] = [Self::Pass, Self::Drop, Self::Normalise, Self::Hold, Self::Answer];

    /// What a verdict makes of a packet.
    #[must_use]
    pub const fn of(verdict: &Verdict) -> Self {
        if verdict.drop_by != 0 {
            Self::Drop
        } else if verdict.answer_by != 0 {
            Self::Answer
        } else if verdict.hold_by != 0 {
            Self::Hold
        } else {
            Self::Pass
        }
    }
}

/// The cgroups of the tests: (id, level, ids above). 99 is nobody's target.
const CGROUPS: &[(u64, u32, &[u64])] =
    &[(11, 1, &[]), (12, 2, &[11]), (13, 2, &[11]), (21, 1, &[]), (22, 3, &[21, 99])];

/// Every cgroup that a rule may name.
#[must_use]
pub fn cgroups() -> Vec<CgroupInput> {
    let input = |(id, level, above): &(u64, u32, &[u64])| CgroupInput {
        id: *id,
        level: *level,
        ancestors: above.to_vec(),
    };
    CGROUPS.iter().map(input).collect()
}

/// The devices of the tests.
#[must_use]
pub fn devices() -> Vec<DeviceInput> {
    let device =
        |ifindex, flags, normaliser| DeviceInput { netns: NETNS, ifindex, flags, normaliser, line: LINE };
    vec![
        device(PLAIN, 0, 0),
        device(NORMALISING, 0, NORMALISER),
        device(LOOPBACK, device_flags::LOOPBACK, 0),
        device(PROTECTED, device_flags::PROTECT, 0),
        device(TUN, device_flags::L3, 0),
    ]
}

/// What a packet meets besides the rules.
#[derive(Clone, Copy, Debug)]
pub struct Given {
    /// Clock, random word and cgroups; the direction is [`Given::direction`].
    pub input: TestInput,
    /// Which program judges it.
    pub direction: Direction,
    /// On which device.
    pub ifindex: u32,
}

/// A random moment around [`NOW_NS`], random bits, and a socket in one of the cgroups or in none.
#[must_use]
pub fn random_given(rng: &mut StdRng) -> Given {
    let mut levels = [0; 8];
    levels[0] = 1;
    if let Some((id, level, above)) = CGROUPS.choose(rng).filter(|_| rng.random_ratio(2, 3)) {
        for (place, above) in levels[1..].iter_mut().zip(*above) {
            *place = *above;
        }
        levels[*level as usize] = *id;
    } else if rng.random() {
        levels[1] = 99;
    }
    let direction = if rng.random() { Direction::Egress } else { Direction::Ingress };
    let input = TestInput {
        now_ns: NOW_NS + rng.random_range(0..1_000_000_000),
        random: rng.random(),
        direction: direction as u32,
        cgroups: levels,
    };
    let ifindex = [PLAIN, PLAIN, NORMALISING, LOOPBACK, PROTECTED].choose(rng).copied().unwrap_or(PLAIN);
    Given { input, direction, ifindex }
}
