//! Nothing is left behind, however it ends: stopped, killed, its target gone.
#![expect(clippy::unwrap_used, reason = "a failed unwrap in a test is a failed test")]

use std::{
    collections::BTreeSet,
    fs,
    path::PathBuf,
    process::Stdio,
    thread,
    time::{Duration, Instant},
};

use chaos_tests::{
    chaos::{self, Chaos},
    lab::{
        alone,
        cgroup::Cgroup,
        netns::{Netns, words},
        process::{Process, wait_until},
        shapes::{self, B4, Pair},
    },
    require_root,
    skip::report,
    snapshot::{Snapshot, own_processes},
};
use nix::{
    sys::signal::{Signal, kill},
    unistd::Pid,
};
use rand::{Rng, SeedableRng, rngs::StdRng};

/// Rules that use everything that could be left: the fast path, the normaliser, both directions.
const RULES: [&str; 4] = [
    "--loss 10% --direction both",
    "--partition --direction ingress",
    "--loss 1% --direction ingress",
    "--loss every=9 --direction egress",
];

fn pair() -> Pair {
    let pair = Pair::new().unwrap();
    pair.a.run(&format!("ping -c 1 -W 2 -q {B4}")).unwrap();
    pair
}

/// Packets in flight at all times.
fn traffic(pair: &Pair) -> Process {
    let mut ping = pair.a.command(&format!("ping -q -i 0.005 {B4}"));
    ping.stdout(Stdio::null());
    Process::start(ping).unwrap()
}

#[test]
fn stopping_restores_everything() {
    require_root!();
    let _alone = alone().unwrap();
    let pair = pair();
    let namespaces = [&pair.a, &pair.b];
    let before = Snapshot::before(&namespaces).unwrap();
    for attach in ["tcx", "clsact"] {
        for rule in RULES {
            let chaos = Chaos::inject(&pair.a, &format!("{rule} --attach {attach}")).unwrap();
            let _traffic = traffic(&pair);
            thread::sleep(Duration::from_millis(100));
            chaos.stop().unwrap();
            before.settle(&namespaces, Duration::from_secs(2)).unwrap();
        }
    }
}

/// 50 times, at a random moment of start or work: a moment later nothing is left.
#[test]
fn killed_with_tcx_nothing_is_left_a_moment_later() {
    require_root!();
    let _alone = alone().unwrap();
    let pair = pair();
    let namespaces = [&pair.a, &pair.b];
    let mut rng = StdRng::seed_from_u64(50);
    let _traffic = traffic(&pair);
    let before = Snapshot::before(&namespaces).unwrap();
    for round in 0..50 {
        let rule = RULES[round % RULES.len()];
        let arguments = format!("inject netns:{} {rule} --for 1m --json --attach tcx", pair.a.name());
        let mut command = chaos::command(&arguments).unwrap();
        command.stdout(Stdio::null()).stderr(Stdio::null());
        let mut process = Process::start(command).unwrap();
        let life = Duration::from_millis(rng.random_range(1..800));
        thread::sleep(life);
        process.signal(Signal::SIGKILL).unwrap();
        process.wait(Duration::from_secs(1)).unwrap();
        thread::sleep(chaos::FREED);
        let settled = before.settle(&namespaces, Duration::from_secs(2));
        settled.unwrap_or_else(|error| panic!("round {round}, `{rule}` killed after {life:?}: {error}"));
    }
    pair.a.run(&format!("ping -c 1 -W 2 -q {B4}")).unwrap();
}

#[test]
fn killed_with_clsact_the_guard_cleans_within_a_second() {
    require_root!();
    let _alone = alone().unwrap();
    let pair = pair();
    let namespaces = [&pair.a, &pair.b];
    let before = Snapshot::before(&namespaces).unwrap();
    for (round, rule) in RULES.iter().cycle().take(12).enumerate() {
        let chaos = Chaos::inject(&pair.a, &format!("{rule} --attach clsact")).unwrap();
        thread::sleep(Duration::from_millis(20 * round as u64));
        chaos.kill().unwrap();
        before.settle(&namespaces, Duration::from_secs(1)).unwrap();
    }
}

/// Without the guard the filters stay; the lease makes them harmless, the next command removes them.
#[test]
fn killed_with_its_guard_it_is_harmless_at_lease_end_and_the_next_command_cleans() {
    require_root!();
    let _alone = alone().unwrap();
    let pair = pair();
    let namespaces = [&pair.a, &pair.b];
    let before = Snapshot::before(&namespaces).unwrap();
    for rule in ["--partition", "--loss 50% --direction egress"] {
        let chaos = Chaos::inject(&pair.a, &format!("{rule} --attach clsact --lease 2s")).unwrap();
        let processes = own_processes();
        assert!(processes.len() >= 2, "there is no guard: {processes:?}");
        let killed_at = Instant::now();
        for pid in processes {
            kill(Pid::from_raw(pid), Signal::SIGKILL).unwrap();
        }
        drop(chaos);
        thread::sleep(Duration::from_millis(2300).saturating_sub(killed_at.elapsed()));
        let ping = chaos_tests::measure::ping::ping(&pair.a, B4.into(), None, 100).unwrap();
        assert_eq!(ping.lost(), 0, "`{rule}` still acts after its lease");
        let next = Chaos::inject(&pair.a, "--partition --proto udp").unwrap();
        next.stop().unwrap();
        before.settle(&namespaces, Duration::from_secs(2)).unwrap();
    }
}

#[test]
fn stop_all_ends_what_runs_and_what_was_left() {
    require_root!();
    let _alone = alone().unwrap();
    let (pair, other) = (pair(), pair());
    let namespaces = [&pair.a, &pair.b, &other.a, &other.b];
    let before = Snapshot::before(&namespaces).unwrap();
    let mut running = Chaos::inject(&pair.a, "--partition").unwrap();
    let left = Chaos::inject(&other.a, "--partition --attach clsact --lease 60s").unwrap();
    let survivor = running.process().pid().as_raw();
    let left_behind: Vec<i32> = own_processes().into_iter().filter(|pid| *pid != survivor).collect();
    for pid in left_behind {
        // The guard of the first one falls too: `stop --all` must not need it.
        kill(Pid::from_raw(pid), Signal::SIGKILL).unwrap();
    }
    drop(left);
    let output = chaos::run("stop --all").unwrap();
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
    pair.a.run(&format!("ping -c 1 -W 2 -q {B4}")).unwrap();
    other.a.run(&format!("ping -c 1 -W 2 -q {B4}")).unwrap();
    wait_until("the running command ends", Duration::from_secs(2), || !running.process().is_running())
        .unwrap();
    before.settle(&namespaces, Duration::from_secs(5)).unwrap();
    let again = chaos::run("stop --all").unwrap();
    assert!(again.status.success(), "with nothing to stop it must succeed too");
}

/// `ip netns del` under a fault: the fault's descriptors must not keep the namespace alive.
#[test]
fn deleting_a_namespace_under_a_fault_frees_its_peer_within_a_second() {
    require_root!();
    let _alone = alone().unwrap();
    for rule in RULES {
        let Pair { a, b } = pair();
        let mut chaos = Chaos::inject(&a, rule).unwrap();
        a.delete().unwrap();
        let gone = || b.run("ip link show vb").is_err();
        let took = wait_until("the peer's end of the veth is gone", Duration::from_secs(1), gone);
        assert!(took.is_ok(), "`{rule}`: {took:?}");
        if chaos.process().is_running() {
            chaos.stop().unwrap();
        }
    }
}

/// How soon what comes back must be hit again. The dev profile alone spends longer on reading the
/// object.
const BOUND_AGAIN: Duration = Duration::from_millis(100);
const BOUND_AGAIN_UNOPTIMISED: Duration = Duration::from_millis(1500);

fn bound_again_limit() -> Duration {
    if chaos::binary().unwrap().components().any(|part| part.as_os_str() == "release") {
        return BOUND_AGAIN;
    }
    report(
        "e2e_lifecycle::a_named_namespace_that_comes_back_is_bound_again",
        "the 100 ms: chaos is a debug build",
    );
    BOUND_AGAIN_UNOPTIMISED
}

/// A namespace of the same name comes back: the rule acts in it again, with an event.
#[test]
fn a_named_namespace_that_comes_back_is_bound_again() {
    require_root!();
    let _alone = alone().unwrap();
    let Pair { a, b } = pair();
    let name = a.name().to_owned();
    let mut chaos = Chaos::inject(&a, "--partition").unwrap();
    a.delete().unwrap();
    wait_until("the old veth is gone", Duration::from_secs(2), || b.run("ip link show vb").is_err()).unwrap();
    let a = Netns::named(name).unwrap();
    shapes::join(&a, "va", &b, "vb", None).unwrap();
    shapes::address(&a, "va", shapes::A4, shapes::A6).unwrap();
    shapes::address(&b, "vb", B4, shapes::B6).unwrap();
    thread::sleep(bound_again_limit());
    assert!(a.run(&format!("ping -c 3 -i 0.01 -W 1 -q {B4}")).is_err(), "the new namespace is not parted");
    chaos.wait_for("event", Duration::from_secs(1)).unwrap();
    chaos.stop().unwrap();
    a.run(&format!("ping -c 1 -W 2 -q {B4}")).unwrap();
}

/// A device that appears while the rule acts is covered too.
#[test]
fn a_new_device_is_covered() {
    require_root!();
    let _alone = alone().unwrap();
    let pair = pair();
    let chaos = Chaos::inject(&pair.a, "--partition").unwrap();
    shapes::join(&pair.a, "late", &pair.b, "later", None).unwrap();
    pair.a.run("ip addr add 10.88.0.1/24 dev late").unwrap();
    pair.b.run("ip addr add 10.88.0.2/24 dev later").unwrap();
    thread::sleep(Duration::from_millis(100));
    assert!(pair.a.run("ping -c 3 -i 0.01 -W 1 -q 10.88.0.2").is_err(), "the new device is not covered");
    chaos.stop().unwrap();
}

#[test]
fn a_cgroup_that_dies_in_the_middle_ends_nothing_else() {
    require_root!();
    let _alone = alone().unwrap();
    let pair = pair();
    let namespaces = [&pair.a, &pair.b];
    let before = Snapshot::before(&namespaces).unwrap();
    let cgroup = Cgroup::new().unwrap();
    let command = format!("ping -q -i 0.005 {B4}");
    let mut ping = pair.a.inside(cgroup.inside(words(&command)));
    ping.stdout(Stdio::null());
    let process = Process::start(ping).unwrap();
    let arguments = format!("inject cgroup:{} --loss 50% --direction both --for 1m", cgroup.name());
    let mut chaos = Chaos::start(&arguments).unwrap();
    thread::sleep(Duration::from_millis(200));
    drop(process);
    drop(cgroup);
    thread::sleep(Duration::from_millis(500));
    if chaos.process().is_running() {
        let rules = chaos.stop().unwrap();
        assert!(rules[0].both("dropped_packets") > 0, "{rules:?}");
    }
    before.settle(&namespaces, Duration::from_secs(2)).unwrap();
}

/// A target whose processes move through 200 namespaces: none of them is kept.
#[test]
fn two_hundred_namespaces_leave_no_descriptor() {
    require_root!();
    let _alone = alone().unwrap();
    let (home, cgroup) = (pair(), Cgroup::new().unwrap());
    let resident = |netns: &Netns| Process::start(netns.inside(cgroup.inside(words("sleep 600")))).unwrap();
    let _first = resident(&home.a);
    let mut chaos =
        Chaos::start(&format!("inject cgroup:{} --loss 10% --direction both --for 10m", cgroup.name()))
            .unwrap();
    let pid = chaos.process().pid();
    let list = || {
        let entries = fs::read_dir(format!("/proc/{pid}/fd")).unwrap().flatten();
        entries.filter_map(|entry| fs::read_link(entry.path()).ok()).collect::<Vec<_>>()
    };
    let namespaces = || -> BTreeSet<PathBuf> {
        list().into_iter().filter(|target| target.to_string_lossy().starts_with("net:")).collect()
    };
    // Once there and back, so that everything that is opened only once is open.
    let first = namespaces();
    let warm_up = Netns::new().unwrap();
    let process = resident(&warm_up);
    let patience = Duration::from_secs(10);
    wait_until("the second namespace noticed", patience, || namespaces() != first).unwrap();
    drop((process, warm_up));
    wait_until("the second namespace let go", patience, || namespaces() == first).unwrap();
    let (before, held) = (list(), namespaces());
    let mut most = 0;
    for round in 0..200 {
        let netns = Netns::new().unwrap();
        let _process = resident(&netns);
        // Every tenth stays long enough to be noticed for sure.
        thread::sleep(Duration::from_millis(if round % 10 == 0 { 150 } else { 10 }));
        most = most.max(list().len());
    }
    assert!(most > before.len(), "no other namespace was ever noticed");
    // A namespace that is there may be held by one descriptor more or less, none that is gone by any.
    let flat = || namespaces() == held && list().len() <= before.len() + 2;
    wait_until("as many descriptors as before", Duration::from_secs(2), flat)
        .unwrap_or_else(|error| panic!("{error}: before {before:?}, now {:?}", list()));
    chaos.stop().unwrap();
}
