//! Every program loads, and the verifier's work has a budget: what grows past it is noticed
//! long before the kernel's limit of a million instructions.
#![expect(clippy::unwrap_used, reason = "a failed unwrap in a test is a failed test")]

use std::{fs, io::Write as _};

use aya::programs::{CgroupSock, Program};
use chaos_agent::datapath::{Object, PROGRAMS};
use chaos_tests::require_root;

/// Instructions that the verifier may look at, all ways together (`verified_insns`), on any kernel that is
/// supported: Linux 6.1 needs twice as many for `chaos_connect6` as 6.18, 6.12 the most for `chaos_core`.
const BUDGETS: [(&str, u32); 11] = [
    ("chaos_egress", 20_000),
    ("chaos_ingress", 20_000),
    ("chaos_return", 1_000),
    ("chaos_bounce", 100),
    ("chaos_core", 150_000),
    ("chaos_due", 1_000),
    ("chaos_bind4", 2_000),
    ("chaos_bind6", 2_000),
    ("chaos_release", 2_000),
    ("chaos_connect4", 15_000),
    ("chaos_connect6", 15_000),
];

#[test]
fn every_program_loads_within_its_budget() {
    require_root!();
    let kernel = fs::read_to_string("/proc/sys/kernel/osrelease").unwrap();
    let mut known: Vec<_> = BUDGETS.iter().map(|(name, _)| *name).collect();
    let mut all = PROGRAMS.to_vec();
    known.sort_unstable();
    all.sort_unstable();
    assert_eq!(known, all, "every program has a budget");
    let mut ebpf = Object::new(1, 0).unwrap().instance(1).unwrap();
    for (name, budget) in BUDGETS {
        let program = ebpf.program_mut(name).unwrap();
        load(program).unwrap_or_else(|error| panic!("{name} does not load: {error}"));
        let count = program.info().unwrap().verified_instruction_count().unwrap();
        writeln!(std::io::stderr(), "{name}: {count} of {budget} instructions, {}", kernel.trim()).unwrap();
        assert!(
            count <= budget,
            "{name}: the verifier looked at {count} instructions, {budget} are budgeted"
        );
    }
}

fn load(program: &mut Program) -> Result<(), aya::programs::ProgramError> {
    if let Program::SchedClassifier(program) = program {
        return program.load();
    }
    if let Program::CgroupSockAddr(program) = program {
        return program.load();
    }
    let program: &mut CgroupSock = program.try_into()?;
    program.load()
}
