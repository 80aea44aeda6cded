//! BPF programs, maps and links of the machine, by id and name.

use std::{collections::BTreeSet, fs};

use aya::{
    maps::loaded_maps,
    programs::{loaded_links, loaded_programs},
};

use super::{is_ours, processes};

/// Ids held by living processes that this test run did not start.
#[derive(Debug, Default)]
pub(super) struct Held {
    programs: BTreeSet<u32>,
    maps: BTreeSet<u32>,
    links: BTreeSet<u32>,
}

/// Reads `/proc/PID/fdinfo` of every other process (`proc_pid_fdinfo(5)`).
pub(super) fn held_by_others() -> Held {
    let mut held = Held::default();
    for process in processes() {
        let mut own = None;
        for entry in fs::read_dir(process.join("fd")).into_iter().flatten().flatten() {
            let target = fs::read_link(entry.path()).unwrap_or_default();
            if !target.to_string_lossy().contains("bpf") || *own.get_or_insert_with(|| is_ours(&process)) {
                continue;
            }
            let info = process.join("fdinfo").join(entry.file_name());
            held.read(&fs::read_to_string(info).unwrap_or_default());
        }
    }
    // A map may be held by a program or a memory mapping alone.
    let foreign = loaded_programs().flatten().filter(|info| held.programs.contains(&info.id()));
    let maps: Vec<u32> = foreign.filter_map(|info| info.map_ids().ok().flatten()).flatten().collect();
    held.maps.extend(maps);
    held
}

impl Held {
    fn read(&mut self, info: &str) {
        for line in info.lines() {
            let Some((key, value)) = line.split_once(':') else { continue };
            let Ok(id) = value.trim().parse() else { continue };
            match key {
                "prog_id" => drop(self.programs.insert(id)),
                "map_id" => drop(self.maps.insert(id)),
                "link_id" => drop(self.links.insert(id)),
                _ => {}
            }
        }
    }
}

pub(super) fn programs(foreign: &Held) -> Vec<String> {
    loaded_programs()
        .flatten()
        .filter(|info| !foreign.programs.contains(&info.id()))
        .map(|info| format!("{} {}", info.id(), info.name_as_str().unwrap_or("?")))
        .collect()
}

pub(super) fn maps(foreign: &Held) -> Vec<String> {
    loaded_maps()
        .flatten()
        .filter(|info| !foreign.maps.contains(&info.id()))
        // Made for a moment by whoever asks what the kernel can do, others included.
        .filter(|info| info.name_as_str() != Some("aya_global"))
        .map(|info| format!("{} {}", info.id(), info.name_as_str().unwrap_or("?")))
        .collect()
}

pub(super) fn links(foreign: &Held) -> Vec<String> {
    loaded_links()
        .flatten()
        .filter(|info| !foreign.links.contains(&info.id()))
        .map(|info| format!("{} of program {}", info.id(), info.program_id()))
        .collect()
}

#[cfg(test)]
mod tests {
    use super::Held;

    #[test]
    fn fdinfo_of_the_three_sorts_is_read() {
        let mut held = Held::default();
        held.read("pos:\t0\nflags:\t02000002\nprog_type:\t3\nprog_id:\t41\n");
        held.read("map_type:\t2\nmap_id:\t42\n");
        held.read("link_type:\ttcx\nlink_id:\t43\nprog_id:\t44\n");
        assert!(held.programs.contains(&41) && held.programs.contains(&44));
        assert!(held.maps.contains(&42) && held.links.contains(&43));
    }
}
