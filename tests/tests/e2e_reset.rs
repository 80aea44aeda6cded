//! Resets as both ends of real connections hear them: which error, how soon, how often.
#![expect(clippy::unwrap_used, reason = "a failed unwrap in a test is a failed test")]

use std::{net::SocketAddr, time::Duration};

use chaos_tests::{
    chaos::Chaos,
    lab::{
        alone,
        cgroup::Cgroup,
        netns::Netns,
        shapes::{Pair, pair_address},
        tun::TunPair,
    },
    measure::{
        checksums::{Judge, fill_in},
        dialogue::{Answer, Connection, Connections, Held, Questions, Step, ask},
        helper::{End, at, warm_up},
        stats::check_rate,
    },
    require_root, require_tools,
    snapshot::Snapshot,
};

/// 5 ms are asked for; a busy machine may take longer, and the figure is printed.
const PROMPT: Duration = Duration::from_millis(100);
/// How long both ends may take to hear anything at all.
const LIMIT: Duration = Duration::from_secs(5);
const PORT: u16 = 5300;

fn far(v6: bool) -> SocketAddr {
    at(pair_address(true, v6), PORT)
}

fn near(v6: bool) -> SocketAddr {
    at(if v6 { "::1".parse().unwrap() } else { "127.0.0.1".parse().unwrap() }, PORT)
}

/// Both ends heard that the connection was reset, soon after the packet that was its end.
fn check_reset(name: &str, (near, far): &(Held, Held)) {
    assert_eq!((near.error, far.error), (Some(libc::ECONNRESET), Some(libc::ECONNRESET)), "{name}");
    let since = near.last_sent_at_ns.unwrap();
    let after = |held: &Held| Duration::from_nanos(held.ended_at_ns.unwrap().saturating_sub(since));
    println!("{name}: the near end heard after {:?}, the far end after {:?}", after(near), after(far));
    assert!(after(near) < PROMPT && after(far) < PROMPT, "{name}: {near:?} {far:?}");
}

/// A connection that sends 100 bytes every 2 ms until each packet is reset with a chance of one half.
fn running(name: &str, target: &str, flags: &str, (from, to, address): (&Netns, &Netns, SocketAddr)) {
    let period = Duration::from_millis(2);
    let mut connection = Connection::new(End::plain(from), End::plain(to), address, 100, period).unwrap();
    connection.go().unwrap();
    let chaos = Chaos::start(&format!("inject {target} --for 1m --reset 50% {flags}")).unwrap();
    let ends = connection.finish(LIMIT).unwrap();
    let rules = chaos.stop().unwrap();
    check_reset(name, &ends);
    assert!(rules[0].both("answered_packets") > 0, "{name}: {rules:?}");
}

#[test]
fn running_connections_end_at_both_ends() {
    require_root!();
    let _alone = alone().unwrap();
    let pair = Pair::new().unwrap();
    let (a, b) = (&pair.a, &pair.b);
    let before = Snapshot::before(&[a, b]).unwrap();
    let (at_a, at_b) = (format!("netns:{}", a.name()), format!("netns:{}", b.name()));
    running("veth egress IPv4", &at_a, "--direction egress", (a, b, far(false)));
    running("veth ingress IPv4", &at_a, "--direction ingress", (a, b, far(false)));
    running("veth both ways IPv6", &at_a, "", (a, b, far(true)));
    running("veth IPv4, at the far end", &at_b, "--direction ingress", (a, b, far(false)));
    running("veth IPv6, at the far end", &at_b, "--direction egress", (a, b, far(true)));
    running("lo IPv4", &at_a, "", (a, a, near(false)));
    running("lo IPv6 egress", &at_a, "--direction egress", (a, a, near(true)));
    running("lo IPv6 ingress", &at_a, "--direction ingress", (a, a, near(true)));
    before.settle(&[a, b], Duration::from_secs(5)).unwrap();
}

#[test]
fn connections_over_devices_without_mac_header_end() {
    require_root!();
    let _alone = alone().unwrap();
    let tun = TunPair::new().unwrap();
    let (a, b) = (&tun.pair.a, &tun.pair.b);
    let at_a = format!("netns:{}", a.name());
    running("tun egress IPv4", &at_a, "--direction egress", (a, b, far(false)));
    running("tun ingress IPv6", &at_a, "--direction ingress", (a, b, far(true)));
}

/// An idle connection has no packet to be answered: its socket is destroyed at the target, its peer gets a reset.
#[test]
fn idle_connections_end_at_both_ends() {
    require_root!();
    let _alone = alone().unwrap();
    let (pair, cgroup) = (Pair::new().unwrap(), Cgroup::new().unwrap());
    let wrap = |command| cgroup.inside(command);
    let inside = End { netns: &pair.a, wrap: &wrap };
    let b = End::plain(&pair.b);
    for (v6, of_cgroup) in [(false, false), (true, false), (false, true)] {
        let connection = Connection::new(inside, b, far(v6), 0, Duration::ZERO).unwrap();
        let target =
            if of_cgroup { format!("cgroup:{}", cgroup.name()) } else { format!("netns:{}", pair.a.name()) };
        let chaos = Chaos::start(&format!("inject {target} --for 1m --reset")).unwrap();
        let (near, far) = connection.finish(LIMIT).unwrap();
        chaos.stop().unwrap();
        assert!(ended(&near) && far.error == Some(libc::ECONNRESET), "{target}: {near:?} {far:?}");
        let apart = Duration::from_nanos(near.ended_at_ns.unwrap().abs_diff(far.ended_at_ns.unwrap()));
        println!("idle, {target}: {apart:?} between both ends");
        assert!(apart < PROMPT, "{target}");
    }
}

/// Only what the cgroup owns; the connection beside it goes on.
#[test]
fn connections_of_a_cgroup_end_and_their_neighbours_do_not() {
    require_root!();
    let _alone = alone().unwrap();
    let (pair, cgroup) = (Pair::new().unwrap(), Cgroup::new().unwrap());
    let wrap = |command| cgroup.inside(command);
    let inside = End { netns: &pair.a, wrap: &wrap };
    let period = Duration::from_millis(2);
    for (direction, v6) in [("egress", false), ("ingress", false), ("both", true)] {
        let (to, other) = (far(v6), at(pair_address(true, v6), PORT + 1));
        let mut neighbour =
            Connection::new(End::plain(&pair.a), End::plain(&pair.b), other, 100, period).unwrap();
        let mut connection = Connection::new(inside, End::plain(&pair.b), to, 100, period).unwrap();
        neighbour.go().unwrap();
        connection.go().unwrap();
        let flags = format!("inject cgroup:{} --for 1m --reset 50% --direction {direction}", cgroup.name());
        let chaos = Chaos::start(&flags).unwrap();
        let ends = connection.finish(LIMIT).unwrap();
        chaos.stop().unwrap();
        check_reset(&format!("cgroup {direction}"), &ends);
        let (one, _) = neighbour.finish(Duration::from_millis(100)).unwrap();
        assert_eq!(one.error, None, "the neighbour: {one:?}");
    }
}

/// The whole of a large packet goes; the numbers of the resets are right all the same.
#[test]
fn bulk_streams_end_at_both_ends() {
    require_root!();
    let _alone = alone().unwrap();
    let pair = Pair::new().unwrap();
    for (flags, v6) in [("--reset 0.2%", false), ("--reset 0.2%", true), ("--reset after=300ms", false)] {
        let mut connection =
            Connection::new(End::plain(&pair.a), End::plain(&pair.b), far(v6), 1 << 16, Duration::ZERO)
                .unwrap();
        let chaos = Chaos::inject(&pair.a, flags).unwrap();
        connection.go().unwrap();
        let (near, far) = connection.finish(LIMIT).unwrap();
        chaos.stop().unwrap();
        println!("bulk {flags}: {} bytes came", far.received);
        assert!(ended(&near) && far.error == Some(libc::ECONNRESET), "{flags}: {near:?} {far:?}");
    }
}

/// With a reset, or because its socket was destroyed (`tcp_abort`).
fn ended(held: &Held) -> bool {
    matches!(held.error, Some(libc::ECONNRESET | libc::ECONNABORTED))
}

fn questions(to: SocketAddr, count: u32) -> Questions {
    Questions {
        limit: Duration::from_secs(2),
        rest: Duration::ZERO,
        ..Questions::new(to, count, Connections::Fresh)
    }
}

fn slowest(answers: &[Answer]) -> Duration {
    Duration::from_nanos(answers.iter().map(|answer| answer.took_ns).max().unwrap_or(0))
}

/// New connections are refused at once, those that exist live.
#[test]
fn a_syn_is_refused_and_older_connections_live() {
    require_root!();
    let _alone = alone().unwrap();
    let pair = Pair::new().unwrap();
    let (a, b) = (End::plain(&pair.a), End::plain(&pair.b));
    let older_at = at(pair_address(true, false), PORT + 1);
    let mut older = Connection::new(a, b, older_at, 100, Duration::from_millis(2)).unwrap();
    older.go().unwrap();
    for (target, direction) in [(&pair.a, "egress"), (&pair.b, "ingress")] {
        let chaos = Chaos::inject(target, &format!("--reset syn --direction {direction}")).unwrap();
        let places = [(b, far(false)), (b, far(true)), (a, near(false)), (a, near(true))];
        for (end, to) in &places[..if direction == "egress" { 4 } else { 2 }] {
            let answers = ask(a, *end, &questions(*to, 5)).unwrap();
            println!("{direction} {to}: refused within {:?}", slowest(&answers));
            let refused = |answer: &Answer| answer.error == Some((Step::Connect, libc::ECONNREFUSED));
            assert!(answers.iter().all(refused), "{direction} {to}: {answers:?}");
            assert!(slowest(&answers) < PROMPT, "{direction} {to}: {answers:?}");
        }
        chaos.stop().unwrap();
    }
    let (one, other) = older.finish(Duration::from_millis(100)).unwrap();
    assert_eq!((one.error, one.sent > 0, other.received > 0), (None, true, true), "{one:?}");
}

#[test]
fn after_a_time_and_after_bytes() {
    require_root!();
    let _alone = alone().unwrap();
    let pair = Pair::new().unwrap();
    let (a, b) = (End::plain(&pair.a), End::plain(&pair.b));
    let chaos = Chaos::inject(&pair.a, "--reset after=400ms").unwrap();
    for v6 in [false, true] {
        let mut connection = Connection::new(a, b, far(v6), 10, Duration::from_millis(5)).unwrap();
        connection.go().unwrap();
        let (near, far) = connection.finish(LIMIT).unwrap();
        assert!(ended(&near) && far.error == Some(libc::ECONNRESET), "{near:?} {far:?}");
        let lived = Duration::from_nanos(near.ended_at_ns.unwrap() - near.established_at_ns);
        println!("after=400ms: the connection lived for {lived:?}");
        assert!((Duration::from_millis(395)..Duration::from_millis(500)).contains(&lived), "{lived:?}");
    }
    chaos.stop().unwrap();
    let chaos = Chaos::inject(&pair.a, "--reset after=64KiB").unwrap();
    for (v6, chunk) in [(false, 1000), (true, 1000), (false, 1 << 16)] {
        let mut connection = Connection::new(a, b, far(v6), chunk, Duration::from_micros(500)).unwrap();
        connection.go().unwrap();
        let (near, far) = connection.finish(LIMIT).unwrap();
        assert_eq!((near.error, far.error), (Some(libc::ECONNRESET), Some(libc::ECONNRESET)));
        println!("after=64KiB, {chunk} bytes at once: {} came", far.received);
        assert!((60_000..=65_536).contains(&far.received), "{far:?}");
    }
    chaos.stop().unwrap();
}

#[test]
fn a_share_of_connections() {
    require_root!();
    let _alone = alone().unwrap();
    let pair = Pair::new().unwrap();
    let (a, b) = (End::plain(&pair.a), End::plain(&pair.b));
    for v6 in [false, true] {
        let chaos = Chaos::inject(&pair.a, "--reset 10%/connection --seed 7").unwrap();
        let answers = ask(a, b, &questions(far(v6), 300)).unwrap();
        chaos.stop().unwrap();
        let errors: Vec<_> = answers.iter().filter_map(|answer| answer.error).collect();
        let expected = (Step::Connect, libc::ECONNREFUSED);
        assert!(errors.iter().all(|error| *error == expected), "{errors:?}");
        check_rate("connections", errors.len() as u64, answers.len() as u64, 0.1).unwrap();
    }
}

/// Losses and delays beside it: both ends hear all the same.
#[test]
fn with_other_faults_both_ends_hear_of_it() {
    require_root!();
    let _alone = alone().unwrap();
    let pair = Pair::new().unwrap();
    let period = Duration::from_millis(5);
    for flags in
        ["--loss 20% --reset 20%", "--delay 20ms --reset after=200ms", "--delay 20ms±15ms --reset 10%"]
    {
        for round in 0..3 {
            let ends = (End::plain(&pair.a), End::plain(&pair.b));
            let mut connection = Connection::new(ends.0, ends.1, far(round == 1), 100, period).unwrap();
            // A SYN could be hit, too: the connection is there before.
            let chaos = Chaos::inject(&pair.a, &format!("{flags} --direction both")).unwrap();
            connection.go().unwrap();
            let (near, far) = connection.finish(LIMIT).unwrap();
            chaos.stop().unwrap();
            assert!(ended(&near) && far.error == Some(libc::ECONNRESET), "{flags}: {near:?} {far:?}");
        }
    }
}

/// An outsider looks at what came to either end.
#[test]
fn tcpdump_finds_the_checksums_of_resets_right() {
    require_root!();
    require_tools!("tcpdump", "ethtool");
    let _alone = alone().unwrap();
    let pair = Pair::new().unwrap();
    fill_in([(&pair.a, "va"), (&pair.b, "vb")]).unwrap();
    for v6 in [false, true] {
        warm_up(&pair.a, pair_address(true, v6)).unwrap();
        let sees = |netns, device| Judge::start(netns, device, "tcp").unwrap();
        let (one, other) = (sees(&pair.a, "va"), sees(&pair.b, "vb"));
        let chaos = Chaos::inject(&pair.a, "--reset 20%").unwrap();
        let (a, b) = (End::plain(&pair.a), End::plain(&pair.b));
        let answers = ask(a, b, &questions(far(v6), 100)).unwrap();
        assert!(answers.iter().any(|answer| answer.error.is_some()));
        chaos.stop().unwrap();
        for judge in [one, other] {
            let judgement = judge.finish().unwrap();
            assert!(judgement.packets > 100 && judgement.wrong.is_empty(), "{judgement:#?}");
        }
    }
}
