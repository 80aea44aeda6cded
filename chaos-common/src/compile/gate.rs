//! The gate's tables: which groups of clauses a packet may fulfil, by hash.

use super::{Flat, Input, Prefix, SIDES};
use crate::{
    abi::{
        Direction, Gate, GateDevice, GateRange, GateSide, Side,
        gate::{ANY_KEY, CGROUPS, COARSE, DEVICES, FINE, FIRST, GROUPS, SHARED, TARGET, device_place, place},
    },
    gate::{GateAddr, keys},
    packet::unmapped,
};

/// Places for each entry of a table, so that few share one.
const ROOM: usize = 8;

/// Clauses with their groups. A group holds clauses that name the same dimensions and stand near each other; each has
/// one of its own as long as there are enough.
struct Grouped<'a> {
    flat: &'a [Flat<'a>],
    groups: Vec<u64>,
}

impl<'a> Grouped<'a> {
    fn new(flat: &'a [Flat<'a>]) -> Self {
        let kinds = flat.chunk_by(|a, b| a.kind == b.kind);
        let unshared = GROUPS.saturating_sub(kinds.clone().count());
        let mut groups = Vec::with_capacity(flat.len());
        let mut first = 0usize;
        for alike in kinds {
            let share =
                unshared.saturating_mul(alike.len()).checked_div(flat.len()).unwrap_or(0).saturating_add(1);
            let share = share.min(alike.len());
            for rank in 0..alike.len() {
                let within = rank.saturating_mul(share).checked_div(alike.len()).unwrap_or(0);
                // Of more kinds than groups the last share one.
                let group = first.saturating_add(within).min(GROUPS.saturating_sub(1));
                groups.push(1u64.checked_shl(u32::try_from(group).unwrap_or(0)).unwrap_or(0));
            }
            first = first.saturating_add(share);
        }
        Self { flat, groups }
    }

    fn iter(&self) -> impl Iterator<Item = (u64, &Flat<'_>)> {
        self.groups.iter().copied().zip(self.flat)
    }

    /// The groups of the clauses that `holds` is true for.
    fn of(&self, holds: impl Fn(&Flat<'_>) -> bool) -> u64 {
        self.iter().filter(|(_, clause)| holds(clause)).fold(0, |groups, (group, _)| groups | group)
    }
}

/// The gate of a set of rules; `dims` and `cgroup_levels` as in its header.
pub(super) fn gate(flat: &[Flat<'_>], input: &Input, dims: u32, cgroup_levels: u64) -> Box<Gate> {
    let grouped = Grouped::new(flat);
    let mut gate = Gate::zeroed();
    gate.dims = dims;
    gate.cgroup_levels = cgroup_levels;
    for (class, groups) in gate.classes.iter_mut().enumerate() {
        *groups = grouped.of(|clause| clause.rule.classes >> class & 1 != 0);
    }
    devices(&mut gate, &grouped, input);
    cgroups(&mut gate, &grouped, input);
    for (which, side) in SIDES.into_iter().zip(&mut gate.sides) {
        addresses(side, &grouped, which);
    }
    for (which, (side, no_ports)) in SIDES.into_iter().zip(gate.sides.iter_mut().zip(&mut gate.no_ports)) {
        *no_ports = grouped.of(|clause| clause.ports(which).is_empty());
        ports(side, *no_ports, &grouped, which);
    }
    gate
}

/// The mask of a table of so many entries.
fn mask(entries: usize, room: usize) -> usize {
    let places = entries.saturating_mul(ROOM).next_power_of_two().clamp(room.min(64), room);
    places.saturating_sub(1)
}

fn devices(gate: &mut Gate, grouped: &Grouped<'_>, input: &Input) {
    let mask = mask(input.devices.len(), DEVICES);
    gate.device_mask = u32::try_from(mask).unwrap_or(0);
    for device in &input.devices {
        let groups = |ingress: bool| {
            grouped.of(|clause| {
                clause.rule.places.iter().any(|place| {
                    place.netns == device.netns
                        && place.ifindex == device.ifindex
                        && if ingress { place.ingress } else { place.egress }
                })
            })
        };
        let Some(place) = gate.devices.get_mut(device_place(device.netns, device.ifindex) & mask) else {
            continue;
        };
        if place.netns != 0 && (place.netns, place.ifindex) != (device.netns, device.ifindex) {
            place.flags |= SHARED;
            continue;
        }
        let mut known = [0; 2];
        for direction in [Direction::Egress, Direction::Ingress] {
            if let Some(known) = known.get_mut(direction as usize) {
                *known = groups(direction == Direction::Ingress);
            }
        }
        let shared = place.flags & SHARED;
        *place = GateDevice {
            netns: device.netns,
            ifindex: device.ifindex,
            flags: device.flags | shared,
            groups: known,
        };
    }
}

fn cgroups(gate: &mut Gate, grouped: &Grouped<'_>, input: &Input) {
    gate.any_cgroup = grouped.of(|clause| clause.rule.cgroups.is_empty());
    gate.any_peer_cgroup = grouped.of(|clause| clause.rule.peer_cgroups.is_empty());
    gate.cgroups = [gate.any_cgroup; CGROUPS];
    for cgroup in &input.cgroups {
        let own = grouped.of(|clause| {
            let ids = &clause.rule.cgroups;
            ids.iter().any(|id| *id == cgroup.id || cgroup.ancestors.contains(id))
        });
        if let Some(groups) = gate.cgroups.get_mut(place(cgroup.id) & (CGROUPS - 1)) {
            *groups |= own | TARGET;
        }
    }
}

/// Entries of one table before its size is known.
#[derive(Default)]
struct Entries(Vec<(u64, u64)>);

impl Entries {
    /// Writes them; the mask, 0 = there are none.
    fn write(&self, places: &mut [GateRange]) -> u32 {
        if self.0.is_empty() {
            return 0;
        }
        let mask = mask(self.0.len(), places.len());
        for (key, groups) in &self.0 {
            if let Some(known) = places.get_mut(place(*key) & mask) {
                let is_alone = known.groups == 0 || known.key == *key;
                *known =
                    GateRange { key: if is_alone { *key } else { ANY_KEY }, groups: known.groups | groups };
            }
        }
        u32::try_from(mask).unwrap_or(0)
    }
}

fn addresses(side: &mut GateSide, grouped: &Grouped<'_>, which: Side) {
    side.first = [grouped.of(|clause| clause.nets(which).is_empty()); FIRST];
    let [mut short, mut middle, mut whole] = [Entries::default(), Entries::default(), Entries::default()];
    for (group, clause) in grouped.iter() {
        for prefix in clause.nets(which) {
            let range = Range::of(prefix);
            let entries = match range.bits {
                Bits::First => {
                    for key in range.keys() {
                        if let Some(groups) = side.first.get_mut(usize::try_from(key).unwrap_or(0)) {
                            *groups |= group;
                        }
                    }
                    continue;
                }
                Bits::Short => &mut short,
                Bits::Middle => &mut middle,
                Bits::Whole => &mut whole,
            };
            entries.0.extend(range.keys().map(|key| (key, group)));
        }
    }
    side.short_mask = short.write(&mut side.short);
    side.middle_mask = middle.write(&mut side.middle);
    side.whole_mask = whole.write(&mut side.whole);
}

/// Which table a range of addresses is in.
#[derive(Clone, Copy)]
enum Bits {
    First,
    Short,
    Middle,
    Whole,
}

impl Bits {
    /// A range is written as up to this power of two of keys of the next longer kind. Ranges of few bits are rare, and
    /// written as a shorter one they would stop many packets.
    const fn spread(self) -> u8 {
        match self {
            Self::First => 8,
            Self::Short => 5,
            Self::Middle | Self::Whole => 2,
        }
    }
}

/// A range of addresses as keys of one table.
struct Range {
    bits: Bits,
    first: u64,
    count: u64,
}

impl Range {
    fn of(prefix: &Prefix) -> Self {
        let [a, b, c, d] = prefix.addr.map(|word| u64::from(u32::from_be(word)));
        let (addr, table) = match unmapped(&prefix.addr) {
            Some(v4) if prefix.is_v4() => {
                let addr = GateAddr::V4(u32::from_be(v4));
                (addr, [(8, Bits::First), (16, Bits::Short), (24, Bits::Middle), (32, Bits::Whole)])
            }
            _ => {
                let addr = GateAddr::V6(a << 32 | b, c << 32 | d);
                (addr, [(8, Bits::First), (32, Bits::Short), (64, Bits::Middle), (128, Bits::Whole)])
            }
        };
        let len = if prefix.is_v4() { prefix.len.saturating_sub(96) } else { prefix.len };
        // The table whose keys have no more bits than count, or the next one if that takes few keys.
        let below = table.iter().zip(keys(addr)).rfind(|((bits, _), _)| *bits <= len);
        let above = table.iter().zip(keys(addr)).find(|((bits, _), _)| *bits >= len);
        if let Some(((bits, table), key)) = above
            && bits.saturating_sub(len) <= table.spread()
        {
            let count = 1u64.checked_shl(u32::from(bits.saturating_sub(len))).unwrap_or(1);
            return Self { bits: *table, first: key, count };
        }
        // With spread over them all, there is one for ranges shorter than a byte, too.
        let (table, key) = below.map_or((Bits::First, 0), |((_, table), key)| (*table, key));
        Self { bits: table, first: key, count: 1 }
    }

    fn keys(&self) -> impl Iterator<Item = u64> {
        // The bits that vary are zero in the first, but for those of a whole IPv6 address, where others are mixed in.
        (0..self.count).map(|bits| self.first ^ bits)
    }
}

fn ports(side: &mut GateSide, none: u64, grouped: &Grouped<'_>, which: Side) {
    side.coarse = [none; COARSE];
    let ranges = || grouped.flat.iter().flat_map(|clause| clause.ports(which));
    let count: usize =
        ranges().map(|(first, last)| usize::from(last.saturating_sub(*first)).saturating_add(1)).sum();
    let mask = mask(count, FINE);
    side.fine_mask = u32::try_from(mask).unwrap_or(0);
    side.fine.iter_mut().take(mask.saturating_add(1)).for_each(|groups| *groups = none);
    for (group, clause) in grouped.iter() {
        for (first, last) in clause.ports(which) {
            for coarse in first >> 8..=last >> 8 {
                if let Some(groups) = side.coarse.get_mut(usize::from(coarse)) {
                    *groups |= group;
                }
            }
            let ports = usize::from(*first)..=usize::from(*last);
            for port in ports.take(mask.saturating_add(1)) {
                if let Some(groups) = side.fine.get_mut(port & mask) {
                    *groups |= group;
                }
            }
        }
    }
}
