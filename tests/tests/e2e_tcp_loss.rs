//! Loss of a TCP bulk transfer, measured where the segments arrive: right rate, no bursts.
#![expect(clippy::unwrap_used, reason = "a failed unwrap in a test is a failed test")]

use std::process::Command;

use chaos_tests::{
    chaos::Chaos,
    lab::{
        alone,
        cgroup::Cgroup,
        netns::{Netns, words},
        process::{Process, on_one_cpu},
        shapes::{B4, B6, Pair},
    },
    measure::tcp::{self, Measured, plain},
    require_root,
};

/// A cgroup with a process in `netns`, so that its namespace is known before traffic starts.
fn populated(netns: &Netns) -> (Cgroup, Process) {
    let cgroup = Cgroup::new().unwrap();
    let sleeper = Process::start(netns.inside(cgroup.inside(words("sleep 600")))).unwrap();
    (cgroup, sleeper)
}

/// Transfers from A to B under a rule for the whole namespace of the end that `direction` names.
fn under_host_rule(direction: &str, flags: &str, wrap: tcp::Wrap<'_>) -> Measured {
    let pair = Pair::new().unwrap();
    let target = if direction == "egress" { &pair.a } else { &pair.b };
    let arm = || Chaos::inject(target, &format!("{flags} --direction {direction} --proto tcp"));
    let (measured, chaos) = tcp::transfer((&pair.a, wrap), (&pair.b, wrap), &tcp::usual(B4), arm).unwrap();
    chaos.stop().unwrap();
    measured
}

/// The same under a rule for the cgroup of the program at that end.
fn under_cgroup_rule(direction: &str, percent: u32) -> Measured {
    let pair = Pair::new().unwrap();
    let egress = direction == "egress";
    let (cgroup, _sleeper) = populated(if egress { &pair.a } else { &pair.b });
    let inside = |command: Command| cgroup.inside(command);
    let arm = || {
        let target = cgroup.name();
        Chaos::start(&format!(
            "inject cgroup:{target} --loss {percent}% --seed 8 --direction {direction} --for 2m"
        ))
    };
    let (sender, receiver): (tcp::Wrap<'_>, tcp::Wrap<'_>) =
        if egress { (&inside, &plain) } else { (&plain, &inside) };
    let (measured, chaos) =
        tcp::transfer((&pair.a, sender), (&pair.b, receiver), &tcp::usual(B4), arm).unwrap();
    chaos.stop().unwrap();
    measured
}

fn check_host_rule(direction: &str, percent: u32) {
    require_root!();
    let _alone = alone().unwrap();
    let measured = under_host_rule(direction, &format!("--loss {percent}% --seed 8"), &plain);
    let what = format!("{percent} % at {direction} of a namespace");
    measured.check_loss(&what, f64::from(percent) / 100.0).unwrap();
}

fn check_cgroup_rule(direction: &str, percent: u32) {
    require_root!();
    let _alone = alone().unwrap();
    let measured = under_cgroup_rule(direction, percent);
    let what = format!("{percent} % at {direction} of a cgroup");
    measured.check_loss(&what, f64::from(percent) / 100.0).unwrap();
}

#[test]
fn one_percent_at_egress_of_a_namespace() {
    check_host_rule("egress", 1);
}

#[test]
fn one_percent_at_ingress_of_a_namespace() {
    check_host_rule("ingress", 1);
}

#[test]
fn five_percent_at_egress_of_a_namespace() {
    check_host_rule("egress", 5);
}

#[test]
fn five_percent_at_ingress_of_a_namespace() {
    check_host_rule("ingress", 5);
}

#[test]
fn one_percent_at_egress_of_a_cgroup() {
    check_cgroup_rule("egress", 1);
}

#[test]
fn one_percent_at_ingress_of_a_cgroup() {
    check_cgroup_rule("ingress", 1);
}

#[test]
fn five_percent_at_egress_of_a_cgroup() {
    check_cgroup_rule("egress", 5);
}

#[test]
fn five_percent_at_ingress_of_a_cgroup() {
    check_cgroup_rule("ingress", 5);
}

/// The same way through the normaliser, nothing lost: the way itself must not harm. Both programs
/// stay on one CPU (see [`on_one_cpu`]), or the veth of the test would do the reordering.
#[test]
fn at_zero_percent_nothing_is_lost_and_next_to_nothing_reordered() {
    require_root!();
    let _alone = alone().unwrap();
    for direction in ["egress", "ingress"] {
        let what = format!("0 % at {direction}");
        under_host_rule(direction, "--loss 0%", &on_one_cpu).check_untouched(&what).unwrap();
    }
}

#[test]
fn ipv6_segments_are_lost_as_configured() {
    require_root!();
    let _alone = alone().unwrap();
    let pair = Pair::new().unwrap();
    let arm = || Chaos::inject(&pair.a, "--loss 1% --seed 8 --direction egress --proto tcp");
    let (measured, chaos) =
        tcp::transfer((&pair.a, &plain), (&pair.b, &plain), &tcp::usual(B6), arm).unwrap();
    chaos.stop().unwrap();
    measured.check_loss("1 % at egress, IPv6", 0.01).unwrap();
}
