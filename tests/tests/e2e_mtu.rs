//! Narrow paths: a black hole for large packets, and one that says what it can carry.
#![expect(clippy::unwrap_used, reason = "a failed unwrap in a test is a failed test")]

use std::{net::SocketAddr, time::Duration};

use chaos_tests::{
    chaos::Chaos,
    lab::{
        alone,
        netns::Netns,
        shapes::{Pair, pair_address},
    },
    measure::{
        checksums::{Judge, fill_in},
        dialogue::{Connection, Connections, Questions, ask, poke},
        helper::{End, at, warm_up},
        pour::{Load, pour},
    },
    require_root, require_tools,
    snapshot::Snapshot,
};

const PORT: u16 = 5320;

fn far(v6: bool) -> SocketAddr {
    at(pair_address(true, v6), PORT)
}

/// Requests and answers of 100 bytes get through; a stream of full segments stands still, and goes on when
/// the rule is over.
#[test]
fn a_black_hole_swallows_large_packets_only() {
    require_root!();
    let _alone = alone().unwrap();
    let pair = Pair::new().unwrap();
    let (a, b) = (End::plain(&pair.a), End::plain(&pair.b));
    for v6 in [false, true] {
        let chaos = Chaos::inject(&pair.a, "--mtu 1300").unwrap();
        let answers = ask(a, b, &Questions::new(far(v6), 20, Connections::Fresh)).unwrap();
        assert!(answers.iter().all(|answer| answer.error.is_none()), "{answers:?}");
        let mut connection = Connection::new(a, b, far(v6), 1 << 16, Duration::ZERO).unwrap();
        connection.go().unwrap();
        std::thread::sleep(Duration::from_millis(600));
        let rules = chaos.stop().unwrap();
        assert!(rules[0].both("dropped_packets") > 0, "{rules:?}");
        let (one, other) = connection.finish(Duration::from_millis(1500)).unwrap();
        println!("black hole, IPv6 {v6}: {} bytes came, the first 600 ms later", other.received);
        // The far end may hear of the near one's orderly end.
        assert!(one.error.is_none() && other.error.unwrap_or(0) == 0, "{one:?} {other:?}");
        let first = one.first_sent_at_ns.unwrap();
        assert!(other.received > 0 && other.last_received_at_ns.unwrap() - first > 500_000_000, "{other:?}");
        let silent = chaos_tests::measure::checksums::counters(&pair.a).unwrap();
        assert_eq!(silent["Icmp.InDestUnreachs"] + silent["Icmp6InPktTooBigs"], 0, "nobody is told");
    }
}

/// The size that A's kernel has learnt for the way to B; none = it has not.
fn learnt(netns: &Netns, v6: bool) -> Option<u32> {
    let text = netns.run(&format!("ip route get {}", pair_address(true, v6))).unwrap();
    let mut words = text.split_whitespace().skip_while(|word| *word != "mtu").skip(1);
    words.next()?.parse().ok()
}

/// With `,reply` the sender learns the size and the transfer is whole.
#[test]
fn path_mtu_discovery_goes_on_with_a_reply() {
    require_root!();
    let _alone = alone().unwrap();
    for (v6, direction) in [(false, "egress"), (true, "egress"), (false, "ingress"), (true, "ingress")] {
        let pair = Pair::new().unwrap();
        let (a, b) = (End::plain(&pair.a), End::plain(&pair.b));
        let before = Snapshot::before(&[&pair.a, &pair.b]).unwrap();
        let target = if direction == "egress" { &pair.a } else { &pair.b };
        let chaos = Chaos::inject(target, &format!("--mtu 1300,reply --direction {direction}")).unwrap();
        assert_eq!(learnt(&pair.a, v6), None);
        let load = Load { to: far(v6), bytes: 4 << 20, time: Duration::from_secs(10), hash: true };
        let (sent, came) = pour(a, b, &load).unwrap();
        assert_eq!((sent.bytes, &sent.sha256), (came.bytes, &came.sha256));
        assert_eq!(learnt(&pair.a, v6), Some(1300), "{direction}, IPv6 {v6}");
        println!("reply at {direction}, IPv6 {v6}: 4 MiB in {:?}", Duration::from_nanos(came.took_ns));
        assert!(came.took_ns < 2_000_000_000, "{direction}: {came:?}");
        let rules = chaos.stop().unwrap();
        assert!(rules[0].both("answered_packets") > 0, "{rules:?}");
        before.settle(&[&pair.a, &pair.b], Duration::from_secs(5)).unwrap();
    }
}

/// A datagram that is too large is answered with EMSGSIZE: the first by the error that comes back, the next at
/// once; one that fits is not.
#[test]
fn datagrams_hear_of_their_size() {
    require_root!();
    require_tools!("tcpdump", "ethtool");
    let _alone = alone().unwrap();
    for v6 in [false, true] {
        let pair = Pair::new().unwrap();
        fill_in([(&pair.a, "va"), (&pair.b, "vb")]).unwrap();
        warm_up(&pair.a, pair_address(true, v6)).unwrap();
        let chaos = Chaos::inject(&pair.a, "--mtu 1300,reply").unwrap();
        let judge = Judge::start(&pair.a, "va", "icmp or icmp6").unwrap();
        let headers = if v6 { 48 } else { 28 };
        let small = poke(End::plain(&pair.a), far(v6), 1, 1300 - headers).unwrap();
        assert_ne!(small[0].error, libc::EMSGSIZE, "{small:?}");
        let large = poke(End::plain(&pair.a), far(v6), 3, 1301 - headers).unwrap();
        assert!(large.iter().all(|poked| poked.error == libc::EMSGSIZE), "{large:?}");
        println!("EMSGSIZE, IPv6 {v6}: first within {} us", large[0].took_ns / 1000);
        assert!(large.iter().all(|poked| poked.took_ns < 100_000_000), "{large:?}");
        chaos.stop().unwrap();
        let judgement = judge.finish().unwrap();
        assert!(judgement.wrong.is_empty(), "{judgement:#?}");
    }
}
