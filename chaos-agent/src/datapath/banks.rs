//! Writes compiled tables into the bank that is not read, and flips the generation.

use std::{
    collections::VecDeque,
    hash::{BuildHasher as _, RandomState},
    io,
    sync::atomic::{Ordering, fence},
    thread::{self, JoinHandle},
};

use aya::maps::MapError;
use chaos_common::{
    abi::{
        BANKS, CONNECTS_MAX, CgroupKey, CgroupSets, Connect, Device, DeviceKey, Header, PORTS, RULES_MAX,
        control, dims,
    },
    compile::{Prefix, Tables},
    packet::unmapped,
    passed,
};

use super::{
    DatapathError, Maps,
    membarrier::wait_for_readers,
    tables::{forget, net_key4, net_key6, put},
};

/// What each bank's hash tables and tries hold now.
#[derive(Debug, Default)]
pub(super) struct Written {
    generation: u64,
    devices: [Vec<DeviceKey>; BANKS as usize],
    cgroups: [Vec<CgroupKey>; BANKS as usize],
    nets: [Vec<(u32, Prefix)>; BANKS as usize],
    /// One wait for each swap whose retired bank has not been written since, oldest first.
    readers: VecDeque<JoinHandle<io::Result<()>>>,
}

impl Maps {
    /// Replaces the whole set of rules: packets see all of the old or all of the new.
    ///
    /// # Errors
    /// The set that was armed stays armed.
    pub fn swap(&mut self, tables: &Tables) -> Result<(), DatapathError> {
        let generation = self.written.generation + 1;
        let bank = (generation % u64::from(BANKS)) as usize;
        fits("sets of conditions", tables.sets.len(), self.sets_of_bank)?;
        fits("rules", tables.rules.len(), self.capacity as usize)?;
        self.wait_for_readers()?;
        self.clear(bank);
        self.write(bank, tables)?;
        fence(Ordering::SeqCst);
        self.written.generation = generation;
        // Keyed at random by the standard library.
        let random = RandomState::new().hash_one(generation);
        let word = passed::generation(u32::try_from(bank).unwrap_or(0), random, tables.header.dims);
        self.control.set(control::GENERATION as usize, word);
        // The wait for the last readers of the bank that was read until now goes on in the
        // background, until that bank's turn to be written comes.
        self.written.readers.push_back(thread::spawn(wait_for_readers));
        Ok(())
    }

    /// Returns when no program can still read the bank whose turn it is.
    fn wait_for_readers(&mut self) -> Result<(), DatapathError> {
        if self.written.readers.len() < BANKS as usize - 1 {
            return Ok(());
        }
        let Some(waiting) = self.written.readers.pop_front() else { return Ok(()) };
        let waited = waiting.join().unwrap_or_else(|_| wait_for_readers());
        waited.map_err(|error| DatapathError::io("waiting for readers of the old rules", error))
    }

    /// Disarms everything at once; the tables stay as they are.
    pub fn disarm(&mut self) {
        self.control.set(control::GENERATION as usize, 0);
    }

    fn clear(&mut self, bank: usize) {
        let Some(devices) = self.written.devices.get_mut(bank).map(std::mem::take) else { return };
        for key in devices {
            forget(&mut self.devices, &key);
        }
        for key in self.written.cgroups.get_mut(bank).map(std::mem::take).unwrap_or_default() {
            forget(&mut self.cgroups, &key);
        }
        for (table, prefix) in self.written.nets.get_mut(bank).map(std::mem::take).unwrap_or_default() {
            let removed = match unmapped(&prefix.addr) {
                Some(v4) if prefix.len >= 96 => self.nets4.remove(&net_key4(table, prefix.len - 96, v4)),
                _ => self.nets6.remove(&net_key6(table, prefix.len, prefix.addr)),
            };
            if let Err(error) = removed {
                tracing::debug!("removing an address range: {error}");
            }
        }
    }

    fn write(&mut self, bank: usize, tables: &Tables) -> Result<(), DatapathError> {
        self.write_patterns();
        let base = u32::try_from(bank * self.sets_of_bank).unwrap_or(0);
        for (index, set) in tables.sets.iter().enumerate() {
            self.sets.set(bank * self.sets_of_bank + index, *set);
        }
        for (index, clause) in tables.clauses.iter().enumerate() {
            self.clauses.set(bank * RULES_MAX + index, *clause);
        }
        // A slot without a rule says so: the delay line's thread looks there.
        let (first, capacity) = (bank * self.capacity as usize, self.capacity as usize);
        for slot in 0..capacity {
            self.rules.set_word(first + slot, 0, 0);
        }
        for (slot, rule) in &tables.rules {
            let slot = *slot as usize;
            if slot >= capacity || !self.rules.set(first + slot, *rule) {
                return Err(DatapathError::Full { what: "rules", count: slot + 1, limit: capacity });
            }
        }
        self.write_connects(bank, tables);
        self.write_gate(bank, tables);
        self.headers.set(bank, absolute(&tables.header, base));
        self.write_devices(bank, base, tables)?;
        self.write_nets(bank, base, tables)?;
        self.write_ports(bank, base, tables);
        self.write_cgroups(bank, base, tables)
    }

    /// An entry that is off ends the table.
    fn write_connects(&mut self, bank: usize, tables: &Tables) {
        let end = [Connect::default()];
        for (index, entry) in tables.connects.iter().chain(&end).take(CONNECTS_MAX).enumerate() {
            self.connects.set(bank * CONNECTS_MAX + index, *entry);
        }
    }

    fn write_devices(&mut self, bank: usize, base: u32, tables: &Tables) -> Result<(), DatapathError> {
        for ((netns, ifindex), device) in &tables.devices {
            let key = DeviceKey { netns: *netns, ifindex: *ifindex, bank: u32::try_from(bank).unwrap_or(0) };
            let device = Device {
                sets: device.sets.map(|number| number + base),
                tagged_sets: device.tagged_sets.map(|number| number + base),
                ..*device
            };
            put(&mut self.devices, "CHAOS_DEVICES", key, device)?;
            if let Some(written) = self.written.devices.get_mut(bank) {
                written.push(key);
            }
        }
        Ok(())
    }

    fn write_nets(&mut self, bank: usize, base: u32, tables: &Tables) -> Result<(), DatapathError> {
        for (side, nets) in tables.nets.iter().enumerate() {
            let table = u32::try_from(bank << 1 | side).unwrap_or(0);
            for (prefix, number) in nets {
                self.write_net(table, prefix, number + base)
                    .map_err(|error| DatapathError::table("CHAOS_NETS", &error))?;
                if let Some(written) = self.written.nets.get_mut(bank) {
                    written.push((table, *prefix));
                }
            }
        }
        Ok(())
    }

    fn write_net(&mut self, table: u32, prefix: &Prefix, number: u32) -> Result<(), MapError> {
        match unmapped(&prefix.addr) {
            Some(v4) if prefix.len >= 96 => {
                self.nets4.insert(&net_key4(table, prefix.len - 96, v4), number, 0)
            }
            _ => self.nets6.insert(&net_key6(table, prefix.len, prefix.addr), number, 0),
        }
    }

    /// Every port has an entry; only the dimensions in use are written.
    fn write_ports(&mut self, bank: usize, base: u32, tables: &Tables) {
        for (side, ports) in tables.ports.iter().enumerate() {
            let dim = if side == 0 { dims::LOCAL_PORT } else { dims::PEER_PORT };
            if tables.header.dims & dim == 0 {
                continue;
            }
            let first = (bank << 1 | side) * PORTS as usize;
            let ends = ports.keys().skip(1).map(|start| *start as usize).chain([PORTS as usize]);
            for ((start, number), end) in ports.iter().zip(ends) {
                for port in *start as usize..end {
                    self.ports.set(first + port, number + base);
                }
            }
        }
    }

    fn write_cgroups(&mut self, bank: usize, base: u32, tables: &Tables) -> Result<(), DatapathError> {
        for (id, sets) in &tables.cgroups {
            let key = CgroupKey { id: *id, bank: u32::try_from(bank).unwrap_or(0), reserved: 0 };
            let sets = CgroupSets { own: sets.own + base, peer: sets.peer + base };
            put(&mut self.cgroups, "CHAOS_CGROUPS", key, sets)?;
            if let Some(written) = self.written.cgroups.get_mut(bank) {
                written.push(key);
            }
        }
        Ok(())
    }
}

fn fits(what: &'static str, count: usize, limit: usize) -> Result<(), DatapathError> {
    if count > limit { Err(DatapathError::Full { what, count, limit }) } else { Ok(()) }
}

/// The header with set numbers that count from the beginning of the table, not of the bank.
fn absolute(header: &Header, base: u32) -> Header {
    Header {
        dims: header.dims,
        all_set: header.all_set + base,
        class_sets: header.class_sets.map(|number| number + base),
        any_addr_sets: header.any_addr_sets.map(|number| number + base),
        no_port_sets: header.no_port_sets.map(|number| number + base),
        any_cgroup_set: header.any_cgroup_set + base,
        any_peer_cgroup_set: header.any_peer_cgroup_set + base,
        both_set: header.both_set + base,
        reserved: 0,
        cgroup_levels: header.cgroup_levels,
    }
}
