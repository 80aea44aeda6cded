//! The instruments of `cargo xtask fidelity` against the plain kernel: without a rule nothing is lost, late,
//! doubled or damaged, and what nftables or the plain stack does is seen as it is.
#![expect(clippy::unwrap_used, reason = "a failed unwrap in a test is a failed test")]

use std::time::Duration;

use chaos_tests::{
    lab::{
        alone,
        shapes::{B4, Pair, pair_address},
    },
    measure::{
        checksums::Since,
        datagrams::{self, Stream},
        dialogue::{Connection, Connections, Questions, Step, ask, ask_only, poke},
        distribution::Samples,
        helper::{End, at, warm_up},
        pour::{Load, pour},
        stats::check_rate,
    },
    require_root, require_tools,
};

const PORT: u16 = 5300;
const GRACE: Duration = Duration::from_millis(50);

#[test]
fn without_a_rule_datagrams_come_whole_in_order_and_at_once() {
    require_root!();
    let _alone = alone().unwrap();
    let pair = Pair::new().unwrap();
    let (a, b) = (End::plain(&pair.a), End::plain(&pair.b));
    for v6 in [false, true] {
        let address = pair_address(true, v6);
        warm_up(&pair.a, address).unwrap();
        let stream = Stream { flows: 4, ..Stream::new(at(address, PORT), 2000, Duration::from_micros(200)) };
        let seen = datagrams::send(a, b, &stream, GRACE).unwrap();
        assert_eq!((seen.count(), seen.lost(), seen.extra(), seen.damaged()), (2000, 0, 0, 0));
        assert_eq!((seen.reordered(), seen.marked()), (0, 0));
        let delays = Samples::ms(&seen.delays_ns()).unwrap();
        assert!(delays.median() < 0.2, "a datagram takes {} ms", delays.median());
        // Paced by absolute points in time: 2,000 take 0.4 s, whatever each costs.
        let took = seen.sent.at_ns.last().unwrap() - seen.sent.at_ns[0];
        assert!((390_000_000..450_000_000).contains(&took), "{took}");
    }
}

#[test]
fn loss_and_marks_are_seen() {
    require_root!();
    require_tools!("nft");
    let _alone = alone().unwrap();
    let pair = Pair::new().unwrap();
    for line in [
        "add table inet t",
        "add chain inet t c { type filter hook prerouting priority -400 ; }",
        "add rule inet t c meta l4proto udp numgen random mod 5 < 1 drop",
        "add rule inet t c ip ecn ect0 ip ecn set ce",
    ] {
        pair.b.run(&format!("nft {line}")).unwrap();
    }
    let stream = Stream { ecn: true, ..Stream::new(at(B4.into(), PORT), 3000, Duration::from_micros(200)) };
    let seen = datagrams::send(End::plain(&pair.a), End::plain(&pair.b), &stream, GRACE).unwrap();
    check_rate("nftables", seen.lost(), seen.count(), 0.2).unwrap();
    assert_eq!(seen.marked(), seen.count() - seen.lost());
}

#[test]
fn requests_and_their_errors_are_timed() {
    require_root!();
    let _alone = alone().unwrap();
    let pair = Pair::new().unwrap();
    let (a, b) = (End::plain(&pair.a), End::plain(&pair.b));
    for connections in [Connections::Fresh, Connections::Kept] {
        let questions = Questions::new(at(B4.into(), PORT), 100, connections);
        let answers = ask(a, b, &questions).unwrap();
        assert_eq!(answers.len(), 100);
        assert!(answers.iter().all(|answer| answer.error.is_none()), "{answers:?}");
        let took = Samples::ms(&answers.iter().map(|answer| answer.took_ns).collect::<Vec<_>>()).unwrap();
        assert!(took.median() < 2.0, "{} ms", took.median());
    }
    // Nobody listens.
    let answers = ask_only(a, &Questions::new(at(B4.into(), PORT), 3, Connections::Fresh)).unwrap();
    assert!(answers.iter().all(|answer| answer.error == Some((Step::Connect, libc::ECONNREFUSED))));
    let poked = poke(a, at(B4.into(), PORT), 2, 100).unwrap();
    assert!(poked.iter().all(|poked| poked.error == libc::ECONNREFUSED), "{poked:?}");
}

#[test]
fn the_end_of_a_connection_is_seen_at_both_ends() {
    require_root!();
    require_tools!("ss");
    let pair = Pair::new().unwrap();
    let (a, b) = (End::plain(&pair.a), End::plain(&pair.b));
    let to = at(B4.into(), PORT);
    let mut connection = Connection::new(a, b, to, 10, Duration::from_millis(5)).unwrap();
    connection.go().unwrap();
    std::thread::sleep(Duration::from_millis(200));
    let (near, far) = connection.finish(Duration::ZERO).unwrap();
    assert_eq!((near.error, far.error.unwrap_or(0)), (None, 0));
    assert!(near.sent >= 100 && far.received > 0, "{near:?} {far:?}");
    // SOCK_DESTROY at one end is a reset at the other.
    let connection = Connection::new(a, b, to, 0, Duration::ZERO).unwrap();
    pair.a.run(&format!("ss -K dst {B4} dport = {PORT}")).unwrap();
    let (near, far) = connection.finish(Duration::from_secs(2)).unwrap();
    if near.error.is_none() {
        chaos_tests::skip!("this kernel cannot destroy sockets (CONFIG_INET_DIAG_DESTROY)");
    }
    assert_eq!((near.error, far.error), (Some(libc::ECONNABORTED), Some(libc::ECONNRESET)));
    let (near_ns, far_ns) = (near.ended_at_ns.unwrap(), far.ended_at_ns.unwrap());
    assert!(near_ns.abs_diff(far_ns) < 100_000_000, "{near_ns} {far_ns}");
}

#[test]
fn a_transfer_comes_whole() {
    require_root!();
    let _alone = alone().unwrap();
    let pair = Pair::new().unwrap();
    let since = Since::now(&[&pair.a, &pair.b]).unwrap();
    let load =
        Load { to: at(B4.into(), PORT), bytes: 100_000_000, time: Duration::from_secs(30), hash: true };
    let (poured, drained) = pour(End::plain(&pair.a), End::plain(&pair.b), &load).unwrap();
    assert_eq!((poured.bytes, drained.bytes), (load.bytes, load.bytes));
    assert!(poured.sha256.is_some());
    assert_eq!(poured.sha256, drained.sha256);
    assert_eq!(drained.windows.iter().sum::<u64>(), drained.bytes);
    assert_eq!(since.errors(&[&pair.a, &pair.b]).unwrap(), 0);
}
