//! Data stops, the connection stays: as its two ends, and the kernel's list of connections, see it.
#![expect(clippy::unwrap_used, reason = "a failed unwrap in a test is a failed test")]

use std::{
    net::{IpAddr, Ipv4Addr, SocketAddr},
    time::Duration,
};

use chaos_tests::{
    chaos::Chaos,
    lab::{
        alone,
        netns::Netns,
        shapes::{Pair, pair_address},
    },
    measure::{
        dialogue::{Connection, Connections, Questions, ask, poke},
        helper::{End, at},
        pour::{Load, Pour},
    },
    require_root,
    snapshot::Snapshot,
};

const PORT: u16 = 5330;

fn far(v6: bool) -> SocketAddr {
    at(pair_address(true, v6), PORT)
}

/// How many connections the kernel calls established.
fn established(netns: &Netns) -> usize {
    netns.run("ss -tnH state established").unwrap().lines().count()
}

/// Nothing arrives while it lasts, no end hears of it, and all arrives afterwards.
#[test]
fn data_stops_and_goes_on() {
    require_root!();
    let _alone = alone().unwrap();
    let pair = Pair::new().unwrap();
    let (a, b) = (End::plain(&pair.a), End::plain(&pair.b));
    let before = Snapshot::before(&[&pair.a, &pair.b]).unwrap();
    for (v6, target) in [(false, &pair.a), (true, &pair.a), (false, &pair.b)] {
        let load = Load { to: far(v6), bytes: 60_000_000_000, time: Duration::from_secs(4), hash: true };
        let pour = Pour::start(a, b, &load).unwrap();
        std::thread::sleep(Duration::from_millis(300));
        let chaos = Chaos::start(&format!("inject netns:{} --stall --for 1200ms", target.name())).unwrap();
        std::thread::sleep(Duration::from_millis(800));
        assert_eq!((established(&pair.a), established(&pair.b)), (1, 1), "the connection is open");
        chaos.finish(Duration::from_secs(5)).unwrap();
        let (sent, came) = pour.finish(Duration::from_secs(20)).unwrap();
        assert_eq!((sent.bytes, &sent.sha256), (came.bytes, &came.sha256));
        let silent = came.windows.split(|bytes| *bytes > 0).map(<[u64]>::len).max().unwrap_or(0);
        println!("stall, IPv6 {v6}: nothing came for {} ms", silent * 10);
        assert!((110..300).contains(&silent), "{silent} windows of 10 ms without a byte");
    }
    before.settle(&[&pair.a, &pair.b], Duration::from_secs(5)).unwrap();
}

/// New connections are made and stay; their data does not get through, on loopback either.
#[test]
fn connections_are_made_and_say_nothing() {
    require_root!();
    let _alone = alone().unwrap();
    let pair = Pair::new().unwrap();
    let (a, b) = (End::plain(&pair.a), End::plain(&pair.b));
    let here = at(IpAddr::V4(Ipv4Addr::LOCALHOST), PORT);
    let chaos = Chaos::inject(&pair.a, "--stall").unwrap();
    for (to, end) in [(far(false), b), (far(true), b), (here, a)] {
        let limit = Duration::from_millis(400);
        let questions = Questions { limit, ..Questions::new(to, 1, Connections::Fresh) };
        let answers = ask(a, end, &questions).unwrap();
        let error = answers[0].error;
        assert!(answers[0].connect_ns.is_some() && error.is_some_and(|(_, errno)| errno == libc::ETIMEDOUT));
    }
    let poked = poke(a, far(false), 1, 10).unwrap();
    assert_eq!(poked[0].error, libc::EAGAIN, "datagrams stop, too");
    chaos.stop().unwrap();
}

/// A connection that speaks is closed when its data was stopped for so long, at both ends.
#[test]
fn it_closes_when_told() {
    require_root!();
    let _alone = alone().unwrap();
    let pair = Pair::new().unwrap();
    for v6 in [false, true] {
        let (a, b) = (End::plain(&pair.a), End::plain(&pair.b));
        let chaos = Chaos::inject(&pair.a, "--stall close=800ms").unwrap();
        let mut connection = Connection::new(a, b, far(v6), 100, Duration::from_millis(10)).unwrap();
        connection.go().unwrap();
        let (one, other) = connection.finish(Duration::from_secs(5)).unwrap();
        chaos.stop().unwrap();
        assert_eq!(other.received, 0, "{other:?}");
        let ended = |error| matches!(error, Some(libc::ECONNRESET | libc::ECONNABORTED));
        assert!(ended(one.error) && ended(other.error), "{one:?} {other:?}");
        let lived = Duration::from_nanos(one.ended_at_ns.unwrap() - one.first_sent_at_ns.unwrap());
        println!("close=800ms, IPv6 {v6}: closed after {lived:?}");
        assert!((Duration::from_millis(780)..Duration::from_millis(1700)).contains(&lived), "{lived:?}");
        let apart = one.ended_at_ns.unwrap().abs_diff(other.ended_at_ns.unwrap());
        assert!(apart < 100_000_000, "{one:?} {other:?}");
    }
}
