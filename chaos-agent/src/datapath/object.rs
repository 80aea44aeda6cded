//! The embedded object, loaded once per namespace, with one set of tables for all.

use std::{
    collections::BTreeMap,
    io,
    sync::{Mutex, MutexGuard, OnceLock, PoisonError},
};

use aya::{Ebpf, EbpfLoader, VerifierLogLevel, maps::Array, programs::Program};
use chaos_common::abi::ABI_VERSION;

use super::{DatapathError, Maps, Sizes, bpffs::PrivateBpffs};

/// The compiled kernel side.
pub static OBJECT: &[u8] = aya::include_bytes_aligned!(concat!(env!("OUT_DIR"), "/chaos.bpf.o"));

/// Every program of the object.
pub const PROGRAMS: [&str; 11] = [
    "chaos_egress",
    "chaos_ingress",
    "chaos_return",
    "chaos_bounce",
    "chaos_due",
    "chaos_core",
    "chaos_bind4",
    "chaos_bind6",
    "chaos_release",
    "chaos_connect4",
    "chaos_connect6",
];

/// The one table that each instance has for itself.
const NETNS: &str = "CHAOS_NETNS";

/// Maps that all instances of one agent share; the rest (constants) is each instance's own.
pub(super) const SHARED: [&str; 35] = [
    "CHAOS_CONTROL",
    "CHAOS_CORE",
    "CHAOS_GATES",
    "CHAOS_BOOKED",
    "CHAOS_PASSED",
    "CHAOS_HEADERS",
    "CHAOS_SETS",
    "CHAOS_CLAUSES",
    "CHAOS_RULES",
    "CHAOS_CONNECT",
    "CHAOS_PORTS",
    "CHAOS_DEVICES",
    "CHAOS_NETS4",
    "CHAOS_NETS6",
    "CHAOS_CGROUPS",
    "CHAOS_HOOKED",
    "CHAOS_STATES",
    "CHAOS_COUNTERS",
    "CHAOS_OWNERS",
    "CHAOS_SOCKETS",
    "CHAOS_FLOWS",
    "CHAOS_PROTECT",
    "CHAOS_LOCALS",
    "CHAOS_INTERN",
    "CHAOS_MEMORY",
    "CHAOS_ORDER",
    "CHAOS_DISTS",
    "CHAOS_SCRATCH",
    "CHAOS_WISH",
    "CHAOS_JOB",
    "CHAOS_PATTERNS",
    "CHAOS_ASKED",
    "CHAOS_EVENTS",
    "CHAOS_LOST",
    "AYA_LOGS",
];

/// Loads instances of the object that share their tables.
#[derive(Debug)]
pub struct Object {
    bpffs: PrivateBpffs,
    /// This agent's marker, 1 to 15.
    tag: u32,
    /// aya-log's level: 0 = off, and then the verifier removes every log statement.
    log_level: u8,
    /// Clock, randomness and cgroups come from a map.
    testing: bool,
    /// What the tables hold.
    sizes: Sizes,
}

impl Object {
    /// `tag` is this agent's marker, 1 to 15; `log_level` 0 (off) to 5 (trace).
    pub fn new(tag: u32, log_level: u8) -> Result<Self, DatapathError> {
        let doing = "making a private BPF file system";
        let bpffs = PrivateBpffs::new().map_err(|error| DatapathError::io(doing, error))?;
        Ok(Self { bpffs, tag, log_level, testing: false, sizes: Sizes::default() })
    }

    /// Instances take clock, random word and cgroups from the map `CHAOS_TEST`.
    #[must_use]
    pub fn for_tests(mut self) -> Self {
        self.testing = true;
        self
    }

    /// Tables of other sizes; call it before the first instance.
    #[must_use]
    pub const fn with_sizes(mut self, sizes: Sizes) -> Self {
        self.sizes = sizes;
        self
    }

    /// The tables that all instances share; call it once, before the first instance.
    pub fn maps(&self, with_log: bool) -> Result<Maps, DatapathError> {
        Maps::take(&mut self.instance(0)?, with_log)
    }

    /// Loads an instance for the namespace of this cookie.
    pub fn instance(&self, netns: u64) -> Result<Ebpf, DatapathError> {
        allow_memory();
        let mut loader = loader();
        loader
            .verifier_log_level(VerifierLogLevel::STATS)
            .override_global("AYA_LOG_LEVEL", lasting(&[self.log_level]), true)
            .override_global("CHAOS_ABI", lasting(&ABI_VERSION.to_ne_bytes()), true)
            .override_global("CHAOS_TAG", lasting(&self.tag.to_ne_bytes()), true)
            .override_global("CHAOS_CAPACITY", lasting(&self.sizes.rules().to_ne_bytes()), true)
            .override_global("CHAOS_TESTING", lasting(&u32::from(self.testing).to_ne_bytes()), true);
        for (name, entries) in self.sizes.tables() {
            loader.map_max_entries(name, entries);
        }
        for name in SHARED {
            loader.map_pin_path(name, self.bpffs.path(name));
        }
        let mut ebpf = loader.load(OBJECT).map_err(|error| DatapathError::object(&error))?;
        assign(&mut ebpf, netns)?;
        Ok(ebpf)
    }
}

/// aya's loader, made once: `EbpfLoader::new` reads the kernel's own types (`/sys/kernel/btf/vmlinux`, 5 MB, some
/// 40 ms) to relocate against them, which no program of this object asks for.
fn loader() -> MutexGuard<'static, EbpfLoader<'static>> {
    static LOADER: OnceLock<Mutex<EbpfLoader<'static>>> = OnceLock::new();
    let make = || {
        let mut loader = EbpfLoader::new();
        loader.btf(None);
        Mutex::new(loader)
    };
    // Whoever panicked while it had it, all of it is set anew before each load.
    LOADER.get_or_init(make).lock().unwrap_or_else(PoisonError::into_inner)
}

/// A constant's bytes for the loader, which lives as long as the process. Each value is kept once, and there are few.
fn lasting(bytes: &[u8]) -> &'static [u8] {
    static KEPT: Mutex<BTreeMap<Vec<u8>, &'static [u8]>> = Mutex::new(BTreeMap::new());
    let mut kept = KEPT.lock().unwrap_or_else(PoisonError::into_inner);
    kept.entry(bytes.to_vec()).or_insert_with(|| Box::leak(bytes.into()))
}

/// Tells an instance which namespace it serves.
pub(super) fn assign(ebpf: &mut Ebpf, netns: u64) -> Result<(), DatapathError> {
    let map = ebpf.map_mut(NETNS).ok_or_else(|| DatapathError::Object(format!("no table `{NETNS}`")))?;
    Array::<_, u64>::try_from(map)
        .and_then(|mut table| table.set(0, netns, 0))
        .map_err(|error| DatapathError::table(NETNS, &error))
}

/// Before Linux 5.11 maps count against the memlock limit. Without `CAP_SYS_RESOURCE` it cannot
/// be raised, and where memory is accounted by cgroup that does not matter.
fn allow_memory() {
    let limit = libc::rlimit { rlim_cur: libc::RLIM_INFINITY, rlim_max: libc::RLIM_INFINITY };
    // SAFETY: the structure outlives the call.
    if unsafe { libc::setrlimit(libc::RLIMIT_MEMLOCK, &raw const limit) } != 0 {
        tracing::debug!("the memlock limit stays as it is: {}", io::Error::last_os_error());
    }
}

/// Loads every program; its name and how many instructions the verifier went through
/// (`verified_insns`, Linux 5.16; 0 before).
#[expect(clippy::wildcard_enum_match_arm, reason = "every other of thirty kinds is as wrong")]
pub fn instructions(object: &Object) -> Result<Vec<(String, u32)>, DatapathError> {
    let mut ebpf = object.instance(0)?;
    let mut counts = Vec::new();
    for (name, program) in ebpf.programs_mut() {
        let loaded = match program {
            Program::SchedClassifier(program) => program.load().and_then(|()| program.info()),
            Program::CgroupSock(program) => program.load().and_then(|()| program.info()),
            Program::CgroupSockAddr(program) => match program.load().and_then(|()| program.info()) {
                // Before Linux 5.18; a row of its own says so, and only one kind of fault needs it.
                Err(_) if !super::can_refuse() => continue,
                loaded => loaded,
            },
            _ => return Err(DatapathError::Object(format!("the program `{name}` is of an unexpected kind"))),
        };
        let info = loaded.map_err(|error| DatapathError::load(name, &error))?;
        counts.push((name.to_owned(), info.verified_instruction_count().unwrap_or(0)));
    }
    Ok(counts)
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeSet;

    use super::*;

    /// Constants, and the tables of one instance or of a test.
    const OWN: [&str; 6] = [NETNS, "CHAOS_TEST", "CHAOS_ABI", "CHAOS_TAG", "CHAOS_CAPACITY", "CHAOS_TESTING"];

    /// A table that is not shared stays empty in every instance but the first.
    #[test]
    fn every_table_of_the_object_is_shared() {
        let names = OBJECT.split(|byte| *byte == 0).filter_map(|word| std::str::from_utf8(word).ok());
        let found: BTreeSet<&str> = names.filter(|name| name.starts_with("CHAOS_")).collect();
        let known: BTreeSet<&str> =
            SHARED.into_iter().filter(|name| *name != "AYA_LOGS").chain(OWN).collect();
        assert_eq!(found, known);
    }
}
