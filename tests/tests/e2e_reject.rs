//! Rejections and parted networks as programs hear them: which error, how soon.
#![expect(clippy::unwrap_used, reason = "a failed unwrap in a test is a failed test")]

use std::{net::SocketAddr, time::Duration};

use chaos_tests::{
    chaos::Chaos,
    lab::{
        alone,
        cgroup::Cgroup,
        netns::{Netns, words},
        process::Process,
        shapes::{Pair, pair_address},
        tun::TunPair,
    },
    measure::{
        checksums::{Judge, Since, counters, fill_in},
        dialogue::{Answer, Connection, Connections, Questions, Step, ask_only, poke},
        helper::{End, at, warm_up},
    },
    require_root, require_tools,
    snapshot::Snapshot,
};

/// The error waits 2 ms for `connect()` to let its socket go; a busy machine may take longer.
const PROMPT: Duration = Duration::from_millis(100);
const PORT: u16 = 5310;

fn far(v6: bool) -> SocketAddr {
    at(pair_address(true, v6), PORT)
}

fn lo(v6: bool) -> SocketAddr {
    at(if v6 { "::1".parse().unwrap() } else { "127.0.0.1".parse().unwrap() }, PORT)
}

/// `connect()` fails with this error, soon.
fn connects_fail(name: &str, from: End<'_>, to: SocketAddr, errno: i32) {
    let limit = Duration::from_secs(3);
    let questions = Questions { limit, rest: Duration::ZERO, ..Questions::new(to, 4, Connections::Fresh) };
    let locked = || counters(from.netns).unwrap()["TcpExt.LockDroppedIcmps"];
    let ask = || {
        let before = locked();
        let answers = ask_only(from, &questions).unwrap();
        (locked() - before, answers)
    };
    // A machine that stands still for longer than the error waits is no fault of ours, but not twice in a row.
    let (mut met, mut answers) = ask();
    if met > 0 {
        println!("{name}, TCP to {to}: {met} errors met a locked socket; once more");
        (met, answers) = ask();
    }
    assert_eq!(met, 0, "{name} {to}: an error met a locked socket");
    let slowest = answers.iter().map(|answer| answer.took_ns).max().map(Duration::from_nanos).unwrap();
    println!("{name}, TCP to {to}: errno {errno} within {slowest:?}");
    let as_expected = |answer: &Answer| answer.error == Some((Step::Connect, errno));
    assert!(answers.iter().all(as_expected), "{name} {to}, expected {errno}: {answers:?}");
    assert!(slowest < PROMPT, "{name} {to}: {answers:?}");
}

/// A connected UDP socket hears this error, soon.
fn datagrams_fail(name: &str, from: End<'_>, to: SocketAddr, errno: i32) {
    let poked = poke(from, to, 4, 20).unwrap();
    let slowest = poked.iter().map(|poked| poked.took_ns).max().map(Duration::from_nanos).unwrap();
    println!("{name}, UDP to {to}: errno {errno} within {slowest:?}");
    assert!(poked.iter().all(|poked| poked.error == errno), "{name} {to}, expected {errno}: {poked:?}");
    assert!(slowest < PROMPT, "{name} {to}: {poked:?}");
}

/// Linux' reading of the codes: `icmp_err_convert` (`net/ipv4/icmp.c`), `tab_unreach` (`net/ipv6/icmp.c`).
#[test]
fn each_code_has_its_errno() {
    use libc::{EACCES, ECONNREFUSED, EHOSTUNREACH, ENETUNREACH, ENOPROTOOPT};
    require_root!();
    let _alone = alone().unwrap();
    let pair = Pair::new().unwrap();
    let before = Snapshot::before(&[&pair.a, &pair.b]).unwrap();
    let a = End::plain(&pair.a);
    for (with, v4, v6) in [
        ("", ECONNREFUSED, ECONNREFUSED),
        ("port", ECONNREFUSED, ECONNREFUSED),
        ("host", EHOSTUNREACH, EHOSTUNREACH),
        ("net", ENETUNREACH, ENETUNREACH),
        ("proto", ENOPROTOOPT, ECONNREFUSED),
        ("admin", EHOSTUNREACH, EACCES),
        ("host-admin", EHOSTUNREACH, EACCES),
        ("net-admin", ENETUNREACH, EACCES),
        ("rst", ECONNREFUSED, ECONNREFUSED),
    ] {
        let chaos = Chaos::inject(&pair.a, &format!("--reject {with}")).unwrap();
        connects_fail(with, a, far(false), v4);
        connects_fail(with, a, far(true), v6);
        datagrams_are_told(with, a, (v4, v6));
        let rules = chaos.stop().unwrap();
        assert!(rules[0].both("answered_packets") >= 8, "{with}: {rules:?}");
    }
    before.settle(&[&pair.a, &pair.b], Duration::from_secs(5)).unwrap();
}

/// A datagram socket hears only of what will stay (`icmp_err_convert[].fatal`, `icmpv6_err_convert`): to the
/// others the error is a hint, which it does not pass on.
fn datagrams_are_told(with: &str, from: End<'_>, (v4, v6): (i32, i32)) {
    if matches!(with, "" | "port" | "proto" | "admin" | "host-admin" | "net-admin" | "rst") {
        datagrams_fail(with, from, far(false), v4);
    }
    if !matches!(with, "host" | "net") {
        datagrams_fail(with, from, far(true), v6);
    }
}

/// Nobody listens, so what a program hears must be something else than what it would hear without us.
fn prohibited(name: &str, from: End<'_>, to: SocketAddr) {
    let errno = if to.is_ipv4() { libc::EHOSTUNREACH } else { libc::EACCES };
    connects_fail(name, from, to, errno);
    datagrams_fail(name, from, to, errno);
}

/// At either end, either way, on loopback, for a cgroup: the program hears the same.
#[test]
fn wherever_it_stands() {
    require_root!();
    let _alone = alone().unwrap();
    let (pair, cgroup) = (Pair::new().unwrap(), Cgroup::new().unwrap());
    let a = End::plain(&pair.a);
    let wrap = |command| cgroup.inside(command);
    let inside = End { netns: &pair.a, wrap: &wrap };
    let in_both = |name: &str, from: End<'_>, targets: [SocketAddr; 2]| {
        for to in targets {
            prohibited(name, from, to);
        }
    };
    let away = [far(false), far(true)];
    let here = [lo(false), lo(true)];

    let chaos = Chaos::inject(&pair.a, "--reject admin --direction both").unwrap();
    in_both("both ways", a, away);
    in_both("both ways on lo", a, here);
    chaos.stop().unwrap();
    let chaos = Chaos::inject(&pair.b, "--reject admin --direction ingress").unwrap();
    in_both("ingress at the far end", a, away);
    chaos.stop().unwrap();
    // A namespace is the cgroup's once a process of it is there.
    let there = pair.a.inside(cgroup.inside(words("sleep 60")));
    let _there = Process::start(there).unwrap();
    let chaos = Chaos::start(&format!("inject cgroup:{} --for 1m --reject admin", cgroup.name())).unwrap();
    in_both("a cgroup", inside, away);
    in_both("a cgroup on lo", inside, here);
    chaos.stop().unwrap();
    let chaos = Chaos::inject(&pair.a, "--reject admin --delay 50ms").unwrap();
    let poked = poke(a, far(false), 3, 20).unwrap();
    assert!(poked.iter().all(|poked| poked.took_ns > 49_000_000), "an answer waits, too: {poked:?}");
    chaos.stop().unwrap();
}

#[test]
fn on_a_device_without_mac_header() {
    require_root!();
    let _alone = alone().unwrap();
    let tun = TunPair::new().unwrap();
    let a = End::plain(&tun.pair.a);
    for (netns, direction) in [(&tun.pair.a, "egress"), (&tun.pair.b, "ingress")] {
        let chaos = Chaos::inject(netns, &format!("--reject admin --direction {direction}")).unwrap();
        for v6 in [false, true] {
            prohibited("tun", a, far(v6));
        }
        chaos.stop().unwrap();
    }
}

/// Two namespaces parted by errors or by resets instead of silence.
#[test]
fn parted_namespaces_are_told() {
    require_root!();
    let _alone = alone().unwrap();
    let pair = Pair::new().unwrap();
    let (a, b) = (pair.a.name(), pair.b.name());
    let before = Snapshot::before(&[&pair.a, &pair.b]).unwrap();
    let part =
        |mode: &str| Chaos::start(&format!("partition netns:{a} netns:{b} --mode {mode} --for 1m")).unwrap();
    let ends: [(&Netns, bool); 2] = [(&pair.a, true), (&pair.b, false)];

    let chaos = part("reject");
    for (netns, to_b) in ends {
        let from = End::plain(netns);
        let to = |v6| at(pair_address(to_b, v6), PORT);
        connects_fail("parted by errors", from, to(false), libc::EHOSTUNREACH);
        connects_fail("parted by errors", from, to(true), libc::EACCES);
        datagrams_fail("parted by errors", from, to(false), libc::EHOSTUNREACH);
        datagrams_fail("parted by errors", from, to(true), libc::EACCES);
    }
    chaos.stop().unwrap();

    let period = Duration::from_millis(2);
    let (at_a, at_b) = (End::plain(&pair.a), End::plain(&pair.b));
    let mut connection = Connection::new(at_a, at_b, far(false), 100, period).unwrap();
    connection.go().unwrap();
    let chaos = part("reset");
    let (one, other) = connection.finish(Duration::from_secs(5)).unwrap();
    let heard = [one.error, other.error].map(Option::unwrap);
    let expected = |errno| matches!(errno, libc::ECONNRESET | libc::ECONNABORTED);
    assert!(heard.into_iter().all(expected), "{one:?} {other:?}");
    for (netns, to_b) in ends {
        for v6 in [false, true] {
            let to = at(pair_address(to_b, v6), PORT);
            connects_fail("parted by resets", End::plain(netns), to, libc::ECONNREFUSED);
        }
    }
    let silent = poke(at_a, far(false), 1, 20).unwrap();
    assert_eq!(silent[0].error, libc::EAGAIN, "datagrams vanish");
    chaos.stop().unwrap();
    warm_up(&pair.a, pair_address(true, false)).unwrap();
    before.settle(&[&pair.a, &pair.b], Duration::from_secs(5)).unwrap();
}

/// ICMP messages that come to the peer are right to an outsider, and to the kernel.
#[test]
fn tcpdump_finds_the_checksums_of_errors_right() {
    require_root!();
    require_tools!("tcpdump", "ethtool");
    let _alone = alone().unwrap();
    let pair = Pair::new().unwrap();
    fill_in([(&pair.a, "va"), (&pair.b, "vb")]).unwrap();
    let since = Since::now(&[&pair.a, &pair.b]).unwrap();
    for direction in ["egress", "ingress"] {
        let netns = if direction == "egress" { &pair.a } else { &pair.b };
        for v6 in [false, true] {
            warm_up(&pair.a, pair_address(true, v6)).unwrap();
            let judge = Judge::start(&pair.a, "va", "icmp or icmp6").unwrap();
            let chaos = Chaos::inject(netns, &format!("--reject admin --direction {direction}")).unwrap();
            prohibited(direction, End::plain(&pair.a), far(v6));
            chaos.stop().unwrap();
            let judgement = judge.finish().unwrap();
            assert!(judgement.packets >= 8 && judgement.wrong.is_empty(), "{judgement:#?}");
        }
    }
    assert_eq!(since.errors(&[&pair.a, &pair.b]).unwrap(), 0);
}
