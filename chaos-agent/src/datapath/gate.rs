//! Writes the gate: only the parts in use, so that a few rules take a few pages.

use std::mem::offset_of;

use aya::maps::MapError;
use chaos_common::{
    abi::{
        FlowKey, Gate, GateSide, Owner, control, dims,
        gate::{BOOKED, booked_place},
    },
    compile::Tables,
};

use super::Maps;

/// Dimensions of a side: addresses, ports.
const SIDES: [(u32, u32); 2] = [(dims::LOCAL_ADDR, dims::LOCAL_PORT), (dims::PEER_ADDR, dims::PEER_PORT)];

impl Maps {
    /// Writes the gate of a bank that is not read.
    pub(super) fn write_gate(&self, bank: usize, tables: &Tables) {
        let Some(gate) = tables.gate.as_deref() else { return };
        let part = Part { maps: self, bank, offset: 0 };
        part.words(offset_of!(Gate, dims), &[gate.dims, gate.device_mask]);
        part.words(offset_of!(Gate, cgroup_levels), &[gate.cgroup_levels]);
        part.words(offset_of!(Gate, classes), &gate.classes);
        part.words(offset_of!(Gate, any_cgroup), &[gate.any_cgroup, gate.any_peer_cgroup]);
        part.words(offset_of!(Gate, no_ports), &gate.no_ports);
        part.places(offset_of!(Gate, devices), &gate.devices, gate.device_mask);
        if gate.dims & (dims::CGROUP | dims::LEARN_OWNERS) != 0 {
            part.words(offset_of!(Gate, cgroups), &gate.cgroups);
        }
        let sides = SIDES.iter().zip(&gate.sides).enumerate();
        for (number, ((addresses, ports), side)) in sides {
            let offset = offset_of!(Gate, sides) + number * size_of::<GateSide>();
            let part = Part { offset, ..part };
            if gate.dims & addresses != 0 {
                part.addresses(side);
            }
            if gate.dims & ports != 0 {
                part.words(offset_of!(GateSide, fine_mask), &[side.fine_mask]);
                part.words(offset_of!(GateSide, coarse), &side.coarse);
                part.places(offset_of!(GateSide, fine), &side.fine, side.fine_mask);
            }
        }
    }

    /// Books an owner. The gate is told first: it must look at what has one.
    ///
    /// # Errors
    /// When the table takes no more.
    pub fn own(&mut self, key: FlowKey, owner: Owner) -> Result<(), MapError> {
        let place = booked_place(key.netns, key.local_port);
        if self.booked.byte(0, place) != Some(1) {
            self.booked.set_part(0, place, &[1u8]);
            let next = |generation| (generation != 0).then(|| control::NEXT.wrapping_add(generation));
            self.control.update(control::GENERATION as usize, 0, next);
        }
        self.owners.insert(key, owner, 0)
    }

    /// Forgets every owner. Only while nothing is armed.
    ///
    /// # Errors
    /// When the table cannot be read or written.
    pub fn disown(&mut self) -> Result<(), MapError> {
        self.booked.set_part(0, 0, &vec![0u64; BOOKED / 8]);
        let owners: Vec<_> = self.owners.keys().collect::<Result<_, _>>()?;
        owners.iter().try_for_each(|key| self.owners.remove(key))
    }
}

/// A part of a bank's gate.
#[derive(Clone, Copy)]
struct Part<'a> {
    maps: &'a Maps,
    bank: usize,
    offset: usize,
}

impl Part<'_> {
    fn words<T: Copy>(&self, offset: usize, values: &[T]) {
        self.maps.gates.set_part(self.bank, self.offset + offset, values);
    }

    /// The places in use.
    fn places<T: Copy>(&self, offset: usize, values: &[T], mask: u32) {
        self.words(offset, values.get(..=mask as usize).unwrap_or(values));
    }

    fn addresses(&self, side: &GateSide) {
        self.words(offset_of!(GateSide, short_mask), &[side.short_mask, side.middle_mask, side.whole_mask]);
        self.words(offset_of!(GateSide, first), &side.first);
        for (offset, values, mask) in [
            (offset_of!(GateSide, short), &side.short[..], side.short_mask),
            (offset_of!(GateSide, middle), &side.middle[..], side.middle_mask),
            (offset_of!(GateSide, whole), &side.whole[..], side.whole_mask),
        ] {
            if mask != 0 {
                self.places(offset, values, mask);
            }
        }
    }
}
