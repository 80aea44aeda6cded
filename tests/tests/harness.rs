//! The instruments themselves, against the plain kernel: they must see what is there, and go
//! red where it is wrong.
#![expect(clippy::unwrap_used, reason = "a failed unwrap in a test is a failed test")]

use std::net::SocketAddr;

use chaos_tests::{
    lab::shapes::{A6, B4, B6, Pair},
    measure::{
        bulk::{self, Counts, Transfer},
        capture::Capture,
        order::{Transmissions, by_connection},
        ping::ping,
        stats::{check_rate, check_runs},
    },
    require_root, require_tools,
};

const PORT: u16 = 5201;
const MSS: u32 = 1448;

/// Drops packets with probability 1/`one_in` where they enter the receiver's stack.
fn drop_at_random(pair: &Pair, one_in: u32) {
    let b = &pair.b;
    b.run("nft add table inet t").unwrap();
    b.run("nft add chain inet t c { type filter hook prerouting priority -400 ; }").unwrap();
    b.run(&format!("nft add rule inet t c numgen random mod {one_in} < 1 drop")).unwrap();
}

fn measured_transfer(pair: &Pair, what: &Transfer) -> (Counts, Vec<Transmissions>) {
    let sink = bulk::sink(&pair.b, what.to, |command| command).unwrap();
    let capture = Capture::start(&pair.b, PORT, MSS).unwrap();
    let counts = bulk::transfer(&pair.a, sink, what, |command| command).unwrap();
    let order = by_connection(&capture.finish().unwrap()).into_values().collect();
    (counts, order)
}

fn losses(order: &[Transmissions]) -> Vec<Vec<bool>> {
    order.iter().map(Transmissions::losses).collect()
}

#[test]
fn without_a_rule_nothing_is_lost_or_late() {
    require_root!();
    let pair = Pair::new().unwrap();
    let what = Transfer::new((B4, PORT).into());
    let (counts, order) = measured_transfer(&pair, &what);
    assert!(counts.total() >= 100_000);
    assert_eq!(counts.lost(), 0);
    assert_eq!(order.iter().map(Transmissions::lost).sum::<u64>(), 0);
    let seen: usize = order.iter().map(|connection| connection.arrived.len()).sum();
    assert!(seen as u64 >= counts.total());
}

/// The same loss is rolled by nftables: for wire packets, and once for whole skbs, where the
/// burst must be seen.
#[test]
fn loss_of_single_packets_is_geometric_and_of_skbs_is_not() {
    require_root!();
    require_tools!("nft");
    let pair = Pair::new().unwrap();
    let what = Transfer::new((B4, PORT).into());
    drop_at_random(&pair, 100);

    let (_, bursts) = measured_transfer(&pair, &what);
    assert!(check_runs("skbs", &losses(&bursts), 0.01).is_err(), "bursts pass as single losses");

    pair.single_segments().unwrap();
    let (counts, order) = measured_transfer(&pair, &what);
    check_rate("by the sockets' counters", counts.lost(), counts.total(), 0.01).unwrap();
    let sent: usize = order.iter().map(|connection| connection.arrived.len()).sum();
    let lost: u64 = order.iter().map(Transmissions::lost).sum();
    check_rate("by the order of arrival", lost, sent as u64, 0.01).unwrap();
    assert!(lost.abs_diff(counts.lost()) < 20, "{lost} and {}", counts.lost());
    check_runs("single segments", &losses(&order), 0.01).unwrap();
}

#[test]
fn ping_sees_the_loss_of_both_ip_versions() {
    require_root!();
    require_tools!("nft", "ping");
    let pair = Pair::new().unwrap();
    let to: SocketAddr = (B6, 0).into();
    assert_eq!(ping(&pair.a, to.ip(), Some(A6.into()), 500).unwrap().lost(), 0);
    drop_at_random(&pair, 5);
    for to in [B4.into(), B6.into()] {
        let result = ping(&pair.a, to, None, 1000).unwrap();
        check_rate("ping", result.lost(), result.sent, 0.2).unwrap();
    }
}
