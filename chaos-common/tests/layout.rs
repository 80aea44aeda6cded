//! The bytes that kernel and host exchange, as `layout.golden` remembers them.
//!
//! `CHAOS_BLESS=1 cargo test -p chaos-common layout` writes the file anew, but only together with
//! another [`ABI_VERSION`].

use std::{
    collections::BTreeSet,
    fs,
    mem::offset_of,
    path::{Path, PathBuf},
};

use chaos_common::{
    abi::{
        ABI_VERSION, CgroupKey, CgroupSets, Clause, Connect, Counters, Delays, Device, DeviceKey, DistTable,
        Flow, FlowKey, FlowMemory, FlowOrder, Gate, GateDevice, GateRange, GateSide, Header, Intern, Lane,
        MemoryKey, Owner, Record, Rule, RuleState, Set, Tally, TestInput,
    },
    dns::{
        Asked,
        glob::{Pattern, Scan},
        query::Query,
    },
    env::{Prob, Word},
    fault::{
        Faults, NoState, States,
        corrupt::{Corrupt, CorruptState},
        delay::{Delay, DelayState},
        dns::Dns,
        duplicate::{Duplicate, DuplicateState},
        loss::{Loss, LossState},
        mtu::Mtu,
        partition::Partition,
        rate::{Rate, RateState},
        refuse::Refuse,
        reject::Reject,
        reorder::{Reorder, ReorderState},
        reset::Reset,
        rtt::Rtt,
        stall::Stall,
    },
    job::{Job, Matches, Size, View, Walk},
    packet::{Class, Packet},
    sample::{SampleState, Sampling},
    verdict::{Answer, Corruption, Verdict},
};

/// The layout of one type in words, and the sum of its fields' sizes.
struct Layout {
    name: &'static str,
    text: String,
    size: usize,
    fields: usize,
}

fn field_size<T, F>(_: impl Fn(&T) -> &F) -> usize {
    size_of::<F>()
}

/// Every field must be named, or the pattern does not compile.
macro_rules! layout {
    ($ty:ident { $($field:tt),+ $(,)? }) => {{
        let complete = |value: $ty| { let $ty { $($field: _),+ } = value; };
        let _ = complete;
        layout!(@text $ty { $($field),+ })
    }};
    // Fields are private: their sizes must still add up.
    ($ty:ident, whole) => {
        Layout {
            name: stringify!($ty),
            text: format!("{} size {} align {}\n", stringify!($ty), size_of::<$ty>(), align_of::<$ty>()),
            size: size_of::<$ty>(),
            fields: size_of::<$ty>(),
        }
    };
    (@text $ty:ident { $($field:tt),+ }) => {{
        let mut text = format!("{} size {} align {}\n", stringify!($ty), size_of::<$ty>(), align_of::<$ty>());
        let mut fields = 0;
        $(
            let size = field_size(|value: &$ty| &value.$field);
            text.push_str(&format!("  {} at {} size {size}\n", stringify!($field), offset_of!($ty, $field)));
            fields += size;
        )+
        Layout { name: stringify!($ty), text, size: size_of::<$ty>(), fields }
    }};
}

fn layouts() -> Vec<Layout> {
    [tables(), rules(), counters(), faults(), jobs()].into_iter().flatten().collect()
}

fn tables() -> Vec<Layout> {
    vec![
        layout!(Set { summary, words }),
        layout!(Clause { slot, excludes }),
        layout!(Header {
            dims,
            all_set,
            class_sets,
            any_addr_sets,
            no_port_sets,
            any_cgroup_set,
            any_peer_cgroup_set,
            both_set,
            reserved,
            cgroup_levels
        }),
        layout!(DeviceKey { netns, ifindex, bank }),
        layout!(Device { sets, tagged_sets, flags, normaliser, line, reserved }),
        layout!(FlowKey { netns, local, peer, local_port, peer_port, proto }),
        layout!(Owner { cgroup, cookie }),
        layout!(Flow { first_seen_ns, last_seen_ns }),
        layout!(CgroupKey { id, bank, reserved }),
        layout!(CgroupSets { own, peer }),
        layout!(Pattern { bytes, len, anchor }),
        layout!(Query, whole),
        layout!(Scan, whole),
        layout!(Asked { query, scan, reserved }),
        layout!(Intern { macs, ifindex, mark, flags, netns }),
        layout!(Connect { netns, cgroup, peer, mask, slot, flags, first_port, last_port, reserved }),
        layout!(GateDevice { netns, ifindex, flags, groups }),
        layout!(GateRange { key, groups }),
        layout!(GateSide {
            short_mask,
            middle_mask,
            whole_mask,
            fine_mask,
            first,
            short,
            middle,
            whole,
            coarse,
            fine
        }),
        layout!(Gate {
            dims,
            device_mask,
            cgroup_levels,
            classes,
            any_cgroup,
            any_peer_cgroup,
            no_ports,
            devices,
            cgroups,
            sides
        }),
        layout!(TestInput { now_ns, random, direction, cgroups }),
    ]
}

fn rules() -> Vec<Layout> {
    vec![
        layout!(Rule {
            id,
            seed,
            share_seed,
            armed_ns,
            starts_ns,
            expires_ns,
            flap_on_ns,
            flap_period_ns,
            max_packets,
            max_bytes,
            max_flows,
            flags,
            share,
            tcp_flags,
            kinds,
            cut_kinds,
            reserved,
            faults
        }),
        layout!(RuleState { lease_until_ns, packets, bytes, flows, sample, ordinals, held, states }),
        layout!(SampleState { second, seen }),
        layout!(Sampling { 0 }),
        layout!(FlowMemory { first_ns, bytes, admitted, ended, clocks }),
        layout!(MemoryKey { flow, rule }),
        layout!(Lane { holder, release_ns }),
        layout!(FlowOrder { lanes }),
        layout!(DistTable { len, reserved, entries }),
    ]
}

fn counters() -> Vec<Layout> {
    vec![
        layout!(Tally { packets, bytes }),
        layout!(Counters { tallies, delays }),
        layout!(Delays { sum_ns, classes }),
        layout!(Record {
            time_ns,
            armed_ns,
            netns,
            cgroup,
            delay_ns,
            bytes,
            source,
            destination,
            slot,
            ifindex,
            segments,
            verdicts,
            kinds,
            direction,
            pid,
            proto,
            source_port,
            destination_port,
            tcp_flags,
            command
        }),
    ]
}

fn faults() -> Vec<Layout> {
    vec![
        layout!(Faults, whole),
        layout!(States, whole),
        layout!(NoState, whole),
        layout!(Duplicate { enabled, probability, correlation, reserved }),
        layout!(DuplicateState { last }),
        layout!(Loss {
            enabled,
            probability,
            every,
            correlation,
            to_bad,
            to_good,
            lost_in_bad,
            lost_in_good,
            flags,
            reserved
        }),
        layout!(LossState { last, bad }),
        layout!(Corrupt { enabled, probability, correlation, bits, silent, first, last, reserved }),
        layout!(CorruptState { last }),
        layout!(Partition { enabled, mode }),
        layout!(Mtu { bytes, reply }),
        layout!(Dns { mode, count, names, delay_ns, code, shape, addr4, reserved, addr6 }),
        layout!(Reset { when, probability, per_connection, reserved, after }),
        layout!(Refuse { errno, probability }),
        layout!(Reject { enabled, reset, code, code6 }),
        layout!(Stall { enabled, reserved, close_ns }),
        layout!(Rate { bits_per_second, byte_time, burst_ns, queue_ns, flags, reserved }),
        layout!(RateState { clock }),
        layout!(Delay { base_ns, jitter_ns, correlation, table, flags, reserved }),
        layout!(DelayState { last }),
        layout!(Rtt { half }),
        layout!(Reorder { enabled, probability, gap, correlation }),
        layout!(ReorderState { count, last }),
        layout!(Word, whole),
        layout!(Prob { 0 }),
    ]
}

fn jobs() -> Vec<Layout> {
    vec![
        layout!(Class { 0 }),
        layout!(Packet {
            source,
            destination,
            source_port,
            destination_port,
            class,
            proto,
            tcp_flags,
            flags,
            network_offset,
            header_len,
            transport_offset,
            payload_len,
            tos,
            reserved
        }),
        layout!(View { direction, own, peer }),
        layout!(Matches { slots, count }),
        layout!(Walk { words, bits, base, decided }),
        layout!(Size { segments, bytes }),
        layout!(Job {
            packet,
            device,
            size,
            netns,
            now_ns,
            line_ns,
            walk,
            bank,
            direction,
            flags,
            intern,
            way_ifindex,
            way_flags,
            view,
            before,
            candidates,
            candidates_before,
            looks_back,
            judged,
            matches,
            kinds,
            place,
            reserved,
            ordinal,
            verdict
        }),
        layout!(Answer { what, code, code6, mtu, address, address6 }),
        layout!(Corruption { seed, bits, silent, first, last }),
        layout!(Verdict {
            drop_by,
            answer_by,
            duplicate_by,
            corrupt_by,
            mark_by,
            hold_by,
            hold_slot,
            flags,
            queue_ns,
            delay_ns,
            longest_ns,
            armed_ns,
            answer,
            corruption
        }),
    ]
}

fn golden_path() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/layout.golden")
}

#[test]
fn layouts_are_as_remembered() {
    let version = format!("ABI_VERSION {ABI_VERSION}\n");
    let now = layouts().iter().fold(version.clone(), |text, layout| text + "\n" + &layout.text);
    let golden = fs::read_to_string(golden_path()).unwrap_or_default();
    if now == golden {
        return;
    }
    if golden.starts_with(&version) {
        let lost: Vec<_> = golden.lines().filter(|line| !now.contains(line)).collect();
        let new: Vec<_> = now.lines().filter(|line| !golden.contains(line)).collect();
        panic!(
            "what kernel and host exchange changed, but ABI_VERSION is still {ABI_VERSION}: an old agent \
             would read new maps wrongly. Raise it in chaos-common/src/abi.rs, then run \
             `CHAOS_BLESS=1 cargo test -p chaos-common layout`.\nnew: {new:#?}\ngone: {lost:#?}"
        );
    }
    assert!(
        std::env::var_os("CHAOS_BLESS").is_some(),
        "ABI_VERSION is {ABI_VERSION}, which layout.golden does not know yet: run \
         `CHAOS_BLESS=1 cargo test -p chaos-common layout` and commit the file"
    );
    fs::write(golden_path(), now).unwrap();
}

/// The kernel copies whole values: bytes that no field names would be compared, hashed and leaked.
#[test]
fn no_type_has_padding() {
    for Layout { name, size, fields, .. } in layouts() {
        assert_eq!(size, fields, "{name} has padding: add a field `reserved`");
    }
}

/// Finds the types by their source, so that a new one cannot be forgotten here.
#[test]
fn every_shared_type_is_remembered() {
    let known: BTreeSet<&str> = layouts().iter().map(|layout| layout.name).collect();
    let mut found = 0;
    for path in sources(&Path::new(env!("CARGO_MANIFEST_DIR")).join("src")) {
        let text = fs::read_to_string(&path).unwrap();
        let mut lines = text.lines().map(str::trim);
        while let Some(line) = lines.next() {
            if line != "#[repr(C)]" && line != "#[repr(transparent)]" {
                continue;
            }
            let head = lines.find(|line| line.starts_with("pub struct ")).unwrap();
            let name = head["pub struct ".len()..].split(|c: char| !c.is_alphanumeric()).next().unwrap();
            assert!(known.contains(name), "{}: {name} is not in tests/layout.rs", path.display());
            found += 1;
        }
    }
    assert_eq!(found, known.len(), "tests/layout.rs names a type that is not there any more");
}

fn sources(folder: &Path) -> Vec<PathBuf> {
    let mut found = Vec::new();
    for entry in fs::read_dir(folder).unwrap() {
        let path = entry.unwrap().path();
        if path.is_dir() {
            found.extend(sources(&path));
        } else {
            found.push(path);
        }
    }
    found
}

/// One rule with every field told apart, byte by byte as a little-endian kernel reads it.
#[cfg(target_endian = "little")]
#[test]
fn a_filled_rule_has_golden_bytes() {
    let rule = Rule {
        id: 0x0101,
        seed: 0x0202,
        share_seed: 0x0303,
        armed_ns: 0x0404,
        starts_ns: 0x0505,
        expires_ns: 0x0606,
        flap_on_ns: 0x0707,
        flap_period_ns: 0x0808,
        max_packets: 0x0909,
        max_bytes: 0x0a0a,
        max_flows: 0x0b0b,
        flags: 0x0c0c,
        share: Prob(0x0d0d),
        tcp_flags: 0x0e0e,
        kinds: 0x0f0f,
        cut_kinds: 0x1010,
        reserved: 0x1111,
        faults: Faults::default(),
    };
    // SAFETY: `Rule` has no padding (`no_type_has_padding`), so every byte of it is initialised.
    let bytes = unsafe { std::slice::from_raw_parts((&raw const rule).cast::<u8>(), size_of::<Rule>()) };
    let wide = (1..=11u8).flat_map(|n| [n, n, 0, 0, 0, 0, 0, 0]);
    let narrow = (12..=17u8).flat_map(|n| [n, n, 0, 0]);
    let (own, faults) = bytes.split_at(std::mem::offset_of!(Rule, faults));
    assert_eq!(own, wide.chain(narrow).collect::<Vec<u8>>(), "{bytes:02x?}");
    assert!(faults.iter().all(|byte| *byte == 0), "no fault is all zeroes");
}
