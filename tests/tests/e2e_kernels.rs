//! What depends on the kernel: how programs are attached, what cleans up, and what `chaos doctor` says of it. Here it
//! is one kernel; `cargo xtask test --vm` runs this on others.
#![expect(clippy::unwrap_used, reason = "a failed unwrap in a test is a failed test")]

use std::{collections::BTreeMap, fs, time::Duration};

use chaos_tests::{
    chaos::{self, Chaos},
    lab::{
        alone,
        netns::Netns,
        shapes::{B4, Pair},
    },
    require_root,
    snapshot::{Snapshot, own_processes},
};
use serde_json::Value;

/// The first kernel with tcx, whose links end with the agent.
const TCX: (u32, u32) = (6, 6);

/// The first two numbers of the kernel's version.
fn kernel() -> (u32, u32) {
    let release = fs::read_to_string("/proc/sys/kernel/osrelease").unwrap();
    let mut numbers = release.split(['.', '-']).map(|part| part.trim().parse().unwrap());
    (numbers.next().unwrap(), numbers.next().unwrap())
}

/// The checks of `chaos doctor`: status and detail by name.
fn doctor() -> (BTreeMap<String, (String, String)>, Option<i32>) {
    let output = chaos::run("doctor --json").unwrap();
    let document: Value = serde_json::from_slice(&output.stdout).unwrap();
    // What is not there has no detail.
    let text = |check: &Value, key: &str| check[key].as_str().unwrap_or_default().to_owned();
    let checks = document["checks"].as_array().unwrap().iter();
    let checks = checks.map(|check| (text(check, "name"), (text(check, "status"), text(check, "detail"))));
    (checks.collect(), output.status.code())
}

#[test]
fn doctor_says_what_this_kernel_has() {
    require_root!();
    let _alone = alone().unwrap();
    let (checks, code) = doctor();
    assert_eq!(code, Some(0), "the basics do not work: {checks:#?}");
    let ok = |name: &str| checks[name].0 == "ok";
    for name in ["our programs", "our classifier", "our normaliser", "delay line", "clsact"] {
        assert!(ok(name), "{name}: {:?}", checks[name]);
    }
    let (has_tcx, attach) = (ok("tcx"), checks["tc programs"].1.as_str());
    assert_eq!(has_tcx, kernel() >= TCX, "tcx: {:?}", checks["tcx"]);
    assert_eq!(attach, if has_tcx { "by tcx" } else { "by clsact, with a guard process that cleans up" });
    let netns = Netns::new().unwrap();
    for (check, qdisc) in [("sch_fq", "fq"), ("sch_netem", "netem delay 1ms")] {
        let made = netns.run(&format!("tc qdisc replace dev lo root {qdisc}"));
        assert_eq!(ok(check), made.is_ok(), "{check}: {:?}, and {made:?}", checks[check]);
    }
}

/// Nothing tells it how: it takes what this kernel has.
#[test]
fn a_kernel_without_tcx_has_a_guard_and_either_leaves_nothing() {
    require_root!();
    let _alone = alone().unwrap();
    let pair = Pair::new().unwrap();
    assert!(pair.a.reaches(B4));
    let namespaces = [&pair.a, &pair.b];
    let before = Snapshot::before(&namespaces).unwrap();
    for killed in [false, true] {
        let mut chaos = Chaos::inject(&pair.a, "--partition").unwrap();
        assert!(!pair.a.reaches(B4));
        let old = kernel() < TCX;
        assert_eq!(pair.a.run("tc qdisc show dev va").unwrap().contains("clsact"), old, "clsact");
        let agent = chaos.process().pid().as_raw();
        assert_eq!(own_processes().into_iter().any(|pid| pid != agent), old, "a guard");
        if killed {
            chaos.kill().unwrap();
        } else {
            chaos.stop().unwrap();
        }
        before.settle(&namespaces, Duration::from_secs(5)).unwrap();
        assert!(pair.a.reaches(B4));
    }
}
