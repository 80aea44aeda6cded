//! Loss as `ping` sees it: what is configured is what is lost, whichever way, IP version, device.
#![expect(clippy::unwrap_used, reason = "a failed unwrap in a test is a failed test")]

use std::net::IpAddr;

use chaos_tests::{
    chaos::Chaos,
    lab::{
        alone,
        shapes::{Pair, pair_address},
        tun::TunPair,
    },
    measure::{ping::ping, stats::check_rate},
    require_root, require_tools,
};

/// Requests of each case.
const COUNT: u32 = 5000;

/// A rule on end A, pinged from A; `flags` without the loss.
struct Case {
    name: &'static str,
    percent: u32,
    flags: &'static str,
    to: IpAddr,
    from: Option<IpAddr>,
}

fn check(case: &Case) {
    let pair = Pair::new().unwrap();
    for (address, prefix) in [("10.99.0.1", 32), ("10.99.0.2", 32), ("fd99::1", 128), ("fd99::2", 128)] {
        pair.a.run(&format!("ip addr add {address}/{prefix} dev lo")).unwrap();
    }
    let chaos = Chaos::inject(&pair.a, &format!("--loss {}% --seed 1 {}", case.percent, case.flags)).unwrap();
    let result = ping(&pair.a, case.to, case.from, COUNT).unwrap();
    let rules = chaos.stop().unwrap();
    let p = f64::from(case.percent) / 100.0;
    check_rate(case.name, result.lost(), result.sent, p).unwrap();
    assert_eq!(result.duplicates, 0, "{}", case.name);
    // The second opinion: chaos counts exactly what ping misses.
    assert_eq!(rules[0].both("dropped_packets"), result.lost(), "{}: {rules:?}", case.name);
}

fn check_together(cases: &[Case]) {
    require_root!();
    require_tools!("ping");
    let _alone = alone().unwrap();
    std::thread::scope(|scope| {
        let running: Vec<_> = cases.iter().map(|case| scope.spawn(|| check(case))).collect();
        for case in running {
            case.join().unwrap_or_else(|panic| std::panic::resume_unwind(panic));
        }
    });
}

fn literal(text: &str) -> IpAddr {
    text.parse().unwrap()
}

/// A naive drop at egress is retried by the sender and shows as 2 %.
#[test]
fn half_of_the_pings_are_lost_at_half() {
    let to = pair_address(true, false);
    let name = "veth egress IPv4, half";
    check_together(&[Case { name, percent: 50, flags: "--direction egress", to, from: None }]);
}

#[test]
fn veth_egress_and_ingress_in_both_ip_versions() {
    let case = |name, percent, flags, v6| {
        let to = pair_address(true, v6);
        Case { name, percent, flags, to, from: None }
    };
    check_together(&[
        case("veth egress IPv4", 20, "--direction egress", false),
        case("veth ingress IPv4", 10, "--direction ingress", false),
        case("veth egress IPv6", 5, "--direction egress", true),
        case("veth ingress IPv6", 1, "--direction ingress", true),
    ]);
}

/// On lo both requests and replies leave and come; the peer address picks one of them.
#[test]
fn lo_egress_and_ingress_in_both_ip_versions() {
    let case = |name, percent, flags, from, to| {
        let (to, from) = (literal(to), Some(literal(from)));
        Case { name, percent, flags, to, from }
    };
    let (near4, far4, near6, far6) = ("10.99.0.1", "10.99.0.2", "fd99::1", "fd99::2");
    check_together(&[
        case("lo egress IPv4", 20, "--direction egress --peer 10.99.0.2", near4, far4),
        case("lo ingress IPv4", 10, "--direction ingress --peer 10.99.0.1", near4, far4),
        case("lo egress IPv6", 5, "--direction egress --peer fd99::2", near6, far6),
        case("lo ingress IPv6", 20, "--direction ingress --peer fd99::1", near6, far6),
    ]);
}

#[test]
fn a_device_without_mac_header_loses_as_configured() {
    require_root!();
    let _alone = alone().unwrap();
    for (direction, v6) in [("egress", false), ("ingress", false), ("egress", true)] {
        let tun = TunPair::new().unwrap();
        let chaos =
            Chaos::inject(&tun.pair.a, &format!("--loss 20% --seed 2 --direction {direction}")).unwrap();
        let result = ping(&tun.pair.a, pair_address(true, v6), None, 2000).unwrap();
        chaos.stop().unwrap();
        check_rate(&format!("tun {direction}, IPv6 {v6}"), result.lost(), result.sent, 0.2).unwrap();
    }
}

#[test]
fn other_packets_than_those_matched_are_untouched() {
    require_root!();
    let _alone = alone().unwrap();
    let pair = Pair::new().unwrap();
    for flags in [
        "--proto tcp",
        "--peer 10.77.0.3",
        "--except 10.77.0.2",
        "--peer fd77::/64",
        "--interface lo",
        "--shadow",
        "--direction ingress --peer 10.77.0.9",
    ] {
        let chaos = Chaos::inject(&pair.a, &format!("--loss 50% {flags}")).unwrap();
        let result = ping(&pair.a, pair_address(true, false), None, 200).unwrap();
        let rules = chaos.stop().unwrap();
        assert_eq!((result.lost(), rules[0].both("dropped_packets")), (0, 0), "{flags}: {rules:?}");
    }
}
