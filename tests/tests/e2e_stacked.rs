//! Devices on devices, both ends targeted, containers behind hosts, twins: a packet is judged once.
#![expect(clippy::unwrap_used, reason = "a failed unwrap in a test is a failed test")]

use chaos_tests::{
    chaos::Chaos,
    lab::{
        alone,
        netns::Netns,
        shapes::{B4, Contained, Pair, Stacked, Twins, has_vlan},
    },
    measure::{
        ping::ping,
        stats::check_rate,
        tcp::{self, plain},
    },
    require_root, skip,
};

const COUNT: u32 = 3000;

fn check_ping(what: &str, from: &Netns, p: f64) {
    let result = ping(from, B4.into(), None, COUNT).unwrap();
    check_rate(what, result.lost(), result.sent, p).unwrap();
}

fn check_stack(vlan: bool) {
    let stacked = Stacked::new(vlan).unwrap();
    let chaos = Chaos::inject(&stacked.a, "--loss 20% --seed 9 --direction egress").unwrap();
    check_ping("egress of a stack", &stacked.a, 0.2);
    chaos.stop().unwrap();
    let chaos = Chaos::inject(&stacked.b, "--loss 20% --seed 9 --direction ingress").unwrap();
    check_ping("ingress of a stack", &stacked.a, 0.2);
    chaos.stop().unwrap();
}

#[test]
fn bridge_over_veth_loses_once() {
    require_root!();
    let _alone = alone().unwrap();
    check_stack(false);
}

#[test]
fn vlan_over_bridge_over_veth_loses_once() {
    require_root!();
    if !has_vlan().unwrap() {
        skip!("VLAN devices: this kernel has none (CONFIG_VLAN_8021Q)");
    }
    let _alone = alone().unwrap();
    check_stack(true);
}

/// The marker of one end's normaliser must not make the other end's rule blind.
#[test]
fn both_ends_targeted_each_rule_judges_once() {
    require_root!();
    let _alone = alone().unwrap();
    let pair = Pair::new().unwrap();
    let sender = Chaos::inject(&pair.a, "--loss 20% --seed 9 --direction egress --proto icmp").unwrap();
    let receiver = Chaos::inject(&pair.b, "--loss 0% --direction ingress --proto icmp").unwrap();
    check_ping("the other end's rule loses nothing", &pair.a, 0.2);
    receiver.stop().unwrap();
    let receiver = Chaos::inject(&pair.b, "--loss 25% --seed 5 --direction ingress --proto icmp").unwrap();
    check_ping("both ends lose", &pair.a, 1.0 - 0.8 * 0.75);
    let sent = sender.stop().unwrap();
    let counted = receiver.stop().unwrap();
    assert!(sent[0].both("matched_packets") >= u64::from(2 * COUNT), "{sent:?}");
    assert!(counted[0].both("matched_packets") < u64::from(COUNT), "{counted:?}");
}

/// Two rules of one command's size on one namespace: 20 % and 25 % are 40 %.
#[test]
fn two_rules_on_one_namespace_both_act() {
    require_root!();
    let _alone = alone().unwrap();
    let pair = Pair::new().unwrap();
    let one = Chaos::inject(&pair.a, "--loss 20% --seed 9 --direction egress").unwrap();
    let two = Chaos::inject(&pair.a, "--loss 25% --seed 5 --direction egress").unwrap();
    check_ping("two rules", &pair.a, 1.0 - 0.8 * 0.75);
    one.stop().unwrap();
    check_ping("the second alone", &pair.a, 0.25);
    two.stop().unwrap();
    check_ping("none", &pair.a, 0.0);
}

/// The container's packets cross the host only by forwarding: the host's rule leaves them alone
/// unless asked.
#[test]
fn a_container_and_its_host_lose_as_the_container_alone() {
    require_root!();
    let _alone = alone().unwrap();
    let net = Contained::new().unwrap();
    let host = Chaos::inject(&net.host, "--loss 30% --seed 5 --direction egress").unwrap();
    check_ping("the host's rule alone", &net.container, 0.0);
    check_ping("the host itself", &net.host, 0.3);
    let container = Chaos::inject(&net.container, "--loss 20% --seed 9 --direction egress").unwrap();
    check_ping("container and host", &net.container, 0.2);
    host.stop().unwrap();
    container.stop().unwrap();
    let forwarded = format!("--loss 20% --seed 9 --direction egress --forwarded --peer {B4}");
    let host = Chaos::inject(&net.host, &forwarded).unwrap();
    check_ping("forwarded, asked for", &net.container, 0.2);
    host.stop().unwrap();
}

/// TCP through both normalisers, container and host: the rate is still p per wire packet.
#[test]
fn tcp_of_a_container_behind_a_host_with_a_rule_loses_p() {
    require_root!();
    let _alone = alone().unwrap();
    let net = Contained::new().unwrap();
    let arm = || {
        let host = Chaos::inject(&net.host, "--loss 50% --direction egress")?;
        Ok((host, Chaos::inject(&net.container, "--loss 1% --direction egress --proto tcp")?))
    };
    let (measured, (host, container)) =
        tcp::transfer((&net.container, &plain), (&net.peer, &plain), &tcp::usual(B4), arm).unwrap();
    measured.check_loss("1 % in the container, 50 % on the host's own", 0.01).unwrap();
    host.stop().unwrap();
    container.stop().unwrap();
}

/// Equal ifindex, addresses and MACs: each namespace has its own rule, state and counters.
#[test]
fn twins_are_told_apart() {
    require_root!();
    let _alone = alone().unwrap();
    let twins = Twins::new().unwrap();
    let one = Chaos::inject(&twins.one.a, "--loss 20% --seed 9 --direction egress").unwrap();
    check_ping("the twin without a rule", &twins.two.a, 0.0);
    let two = Chaos::inject(&twins.two.a, "--loss 40% --seed 5 --direction egress").unwrap();
    std::thread::scope(|scope| {
        scope.spawn(|| check_ping("one", &twins.one.a, 0.2));
        scope.spawn(|| check_ping("two", &twins.two.a, 0.4));
    });
    let (one, two) = (one.stop().unwrap(), two.stop().unwrap());
    assert_eq!(one[0].both("matched_packets"), u64::from(COUNT), "{one:?}");
    assert_eq!(two[0].both("matched_packets"), u64::from(COUNT), "{two:?}");
}
