//! DNS faults as the C library's resolver sees them.
#![expect(clippy::unwrap_used, reason = "a failed unwrap in a test is a failed test")]

use std::{
    net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr},
    time::Duration,
};

use chaos_tests::{
    chaos::{self, Chaos},
    dns::{Resolved, Resolver, Server, TRUE4, TRUE6},
    lab::{
        alone,
        cgroup::Cgroup,
        netns::Netns,
        process,
        shapes::{B4, B6, Pair},
    },
    require_root, require_tools, skip,
};

/// How long an answer may take where nothing waits.
const AT_ONCE: Duration = Duration::from_millis(200);
const LIMIT: Duration = Duration::from_secs(30);

const STUB: Ipv4Addr = Ipv4Addr::new(127, 0, 0, 53);
const DOCKER: Ipv4Addr = Ipv4Addr::new(127, 0, 0, 11);

fn at(addr: impl Into<IpAddr>) -> SocketAddr {
    SocketAddr::new(addr.into(), 53)
}

/// The true addresses, and soon.
#[track_caller]
fn is_true(result: &Resolved) {
    assert_eq!((result.code, &result.addresses[..]), (0, &[IpAddr::from(TRUE4), TRUE6.into()][..]));
    assert!(result.time() < AT_ONCE, "{result:?}");
}

/// This error, and soon.
#[track_caller]
fn fails(result: &Resolved, code: i32) {
    assert_eq!(result.code, code, "{result:?}");
    assert!(result.time() < AT_ONCE, "{result:?}");
}

/// What every action does to a name that is meant, and to one that is not.
fn check_actions(target: &Netns, resolver: &Resolver<'_>, server: &Server, flags: &str) {
    let faulty = |action: &str| {
        let chaos = Chaos::inject(target, &format!("--dns {action}:*.faulty {flags}")).unwrap();
        let result = resolver.ask("Api.Faulty").unwrap();
        is_true(&resolver.ask("other.name").unwrap());
        let reached = server.take_asked();
        let rules = chaos.stop().unwrap();
        let answered = rules[0].both("answered_packets");
        (result, answered, reached.iter().filter(|name| name.ends_with(".faulty")).count())
    };
    is_true(&resolver.ask("api.faulty").unwrap());
    let _ = server.take_asked();
    for (action, code) in
        [("nxdomain", libc::EAI_NONAME), ("servfail", libc::EAI_AGAIN), ("refused", libc::EAI_AGAIN)]
    {
        let (result, answered, reached) = faulty(action);
        fails(&result, code);
        assert!(answered >= 2 && reached == 0, "{action}: {answered} answered, {reached} reached the server");
    }
    // The resolver asks again over TCP, which is reset.
    let (result, answered, reached) = faulty("truncate");
    fails(&result, libc::EAI_AGAIN);
    assert!(answered >= 3 && reached == 0, "truncate: {answered} answered, {reached} reached the server");

    let (result, _, reached) = faulty("silence");
    assert_eq!((result.code, reached), (libc::EAI_AGAIN, 0), "{result:?}");
    assert!(result.time() > Duration::from_millis(900), "{result:?}");

    let (result, _, _) = faulty("address=[10.9.9.9,fd99::9]");
    let chosen =
        [IpAddr::from(Ipv4Addr::new(10, 9, 9, 9)), Ipv6Addr::new(0xfd99, 0, 0, 0, 0, 0, 0, 9).into()];
    assert_eq!((result.code, &result.addresses[..]), (0, &chosen[..]));
    let (result, _, reached) = faulty("address=10.9.9.9");
    assert_eq!((result.code, &result.addresses[..], reached), (0, &chosen[..1], 0));
    is_true(&resolver.ask("api.faulty").unwrap());
}

#[test]
fn every_action_over_veth() {
    require_root!();
    require_tools!("unshare");
    let _alone = alone().unwrap();
    let pair = Pair::new().unwrap();
    for addr in [IpAddr::from(B4), B6.into()] {
        let server = Server::start(&pair.b, at(addr)).unwrap();
        let resolver = Resolver::new(&pair.a, addr).unwrap();
        check_actions(&pair.a, &resolver, &server, "");
    }
}

/// A rule at the server answers in its place.
#[test]
fn every_action_at_the_server() {
    require_root!();
    require_tools!("unshare");
    let _alone = alone().unwrap();
    let pair = Pair::new().unwrap();
    let server = Server::start(&pair.b, at(B6)).unwrap();
    let resolver = Resolver::new(&pair.a, B6.into()).unwrap();
    check_actions(&pair.b, &resolver, &server, "--direction ingress");
}

#[test]
fn every_action_on_loopback() {
    require_root!();
    require_tools!("unshare");
    let _alone = alone().unwrap();
    let netns = Netns::new().unwrap();
    for (addr, flags) in [
        (IpAddr::from(STUB), ""),
        (Ipv6Addr::LOCALHOST.into(), "--direction both"),
        (STUB.into(), "--direction ingress"),
    ] {
        let server = Server::start(&netns, at(addr)).unwrap();
        let resolver = Resolver::new(&netns, addr).unwrap();
        check_actions(&netns, &resolver, &server, flags);
    }
}

#[test]
fn a_delay_is_as_long_as_asked_and_the_answer_is_the_true_one() {
    require_root!();
    require_tools!("unshare");
    let _alone = alone().unwrap();
    let pair = Pair::new().unwrap();
    let _server = Server::start(&pair.b, at(B4)).unwrap();
    let resolver = Resolver::new(&pair.a, B4.into()).unwrap();
    let chaos = Chaos::inject(&pair.a, "--dns delay=200ms:*.slow").unwrap();
    let result = resolver.ask("a.slow").unwrap();
    assert_eq!((result.code, result.addresses.len()), (0, 2));
    let time = result.time().as_millis();
    assert!((200..300).contains(&time), "{time} ms");
    is_true(&resolver.ask("a.fast").unwrap());
    chaos.stop().unwrap();
}

/// Docker's resolver: the container's own NAT turns its port 53 into another before tc sees it.
#[test]
fn dockers_resolver_behind_nat() {
    require_root!();
    require_tools!("unshare", "nft");
    let _alone = alone().unwrap();
    let netns = Netns::new().unwrap();
    let rules = [
        "add table ip nat",
        "add chain ip nat out { type nat hook output priority -100 ; }",
        "add chain ip nat post { type nat hook postrouting priority 100 ; }",
        "add rule ip nat out ip daddr 127.0.0.11 udp dport 53 dnat to 127.0.0.11:40053",
        "add rule ip nat out ip daddr 127.0.0.11 tcp dport 53 dnat to 127.0.0.11:40053",
        "add rule ip nat post ip saddr 127.0.0.11 udp sport 40053 snat to :53",
        "add rule ip nat post ip saddr 127.0.0.11 tcp sport 40053 snat to :53",
    ];
    for rule in rules {
        if let Err(error) = netns.run(&format!("nft {rule}")) {
            skip!("NAT in a namespace: {error}");
        }
    }
    let server = Server::start(&netns, SocketAddr::new(DOCKER.into(), 40053)).unwrap();
    let resolver = Resolver::new(&netns, DOCKER.into()).unwrap();
    check_actions(&netns, &resolver, &server, "");
}

/// Over TCP a query is reset, another one on its own connection is untouched.
#[test]
fn over_tcp_only_the_queries_that_are_meant_are_reset() {
    require_root!();
    require_tools!("unshare");
    let _alone = alone().unwrap();
    let pair = Pair::new().unwrap();
    let server = Server::start(&pair.b, at(B4)).unwrap();
    let resolver = Resolver::new(&pair.a, B4.into()).unwrap().over_tcp().unwrap();
    let chaos = Chaos::inject(&pair.a, "--dns nxdomain:*.faulty").unwrap();
    fails(&resolver.ask("api.faulty").unwrap(), libc::EAI_AGAIN);
    is_true(&resolver.ask("other.name").unwrap());
    let asked = server.take_asked();
    assert!(!asked.is_empty() && asked.iter().all(|name| name == "tcp other.name"), "{asked:?}");
    chaos.stop().unwrap();
}

#[test]
fn a_rule_for_a_cgroup_hits_only_the_cgroup() {
    require_root!();
    require_tools!("unshare");
    let _alone = alone().unwrap();
    let (pair, cgroup) = (Pair::new().unwrap(), Cgroup::new().unwrap());
    for (netns, addr) in [(&pair.a, IpAddr::from(STUB)), (&pair.b, B4.into())] {
        let _server = Server::start(netns, at(addr)).unwrap();
        let inside = Resolver::new(&pair.a, addr).unwrap().within(&cgroup);
        let outside = Resolver::new(&pair.a, addr).unwrap();
        // The namespace must be known by a process of the cgroup before the rule is armed.
        let _resident = process::Process::start(cgroup.inside(pair.a.command("sleep 60"))).unwrap();
        let flags = format!("inject cgroup:{} --dns nxdomain:* --for 1m", cgroup.name());
        let chaos = Chaos::start(&flags).unwrap();
        fails(&inside.ask("any.name").unwrap(), libc::EAI_NONAME);
        is_true(&outside.ask("any.name").unwrap());
        chaos.stop().unwrap();
        is_true(&inside.ask("any.name").unwrap());
    }
}

#[test]
fn a_command_under_exec_and_its_neighbour() {
    require_root!();
    require_tools!("unshare");
    let _alone = alone().unwrap();
    let pair = Pair::new().unwrap();
    let _server = Server::start(&pair.b, at(B4)).unwrap();
    let resolver = Resolver::new(&pair.a, B4.into()).unwrap();
    let chaos = chaos::binary().unwrap();
    let before = [chaos.to_str().unwrap(), "exec", "--dns", "address=10.9.9.9:redis", "--"];
    let output = process::output(resolver.command(&before, "redis").unwrap(), LIMIT).unwrap();
    let (stdout, stderr) = (String::from_utf8_lossy(&output.stdout), String::from_utf8_lossy(&output.stderr));
    let result: Resolved = serde_json::from_str(&stdout).unwrap_or_else(|_| panic!("{stdout}{stderr}"));
    assert_eq!(result.addresses, [IpAddr::from(Ipv4Addr::new(10, 9, 9, 9))], "{stderr}");
    is_true(&resolver.ask("redis").unwrap());
}

/// tcpdump is the judge of what was made, and the kernel's own counters.
#[test]
fn checksums_and_lengths_are_right() {
    require_root!();
    require_tools!("unshare", "tcpdump");
    let _alone = alone().unwrap();
    let pair = Pair::new().unwrap();
    for (addr, action) in [
        (IpAddr::from(B4), "nxdomain"),
        (B6.into(), "servfail"),
        (B4.into(), "address=[10.9.9.9,fd99::9]"),
        (B6.into(), "address=[10.9.9.9,fd99::9]"),
    ] {
        let _server = Server::start(&pair.b, at(addr)).unwrap();
        let resolver = Resolver::new(&pair.a, addr).unwrap();
        let chaos = Chaos::inject(&pair.a, &format!("--dns {action}:*")).unwrap();
        let mut capture = pair.a.command("tcpdump -n -vv -l -i va --immediate-mode -c 2 udp port 53");
        capture.stdin(std::process::Stdio::null());
        let captured = std::thread::scope(|scope| {
            let capture = scope.spawn(|| process::output(capture, LIMIT).unwrap());
            std::thread::sleep(Duration::from_millis(700));
            resolver.ask("any.name").unwrap();
            String::from_utf8(capture.join().unwrap().stdout).unwrap()
        });
        chaos.stop().unwrap();
        let answers: Vec<_> = captured.lines().filter(|line| line.contains(".53 > ")).collect();
        assert!(answers.len() == 2, "{captured}");
        for answer in answers {
            assert!(answer.contains("udp sum ok") && !answer.contains("bad"), "{captured}");
        }
        let nstat = pair.a.run("cat /proc/net/snmp /proc/net/snmp6").unwrap();
        assert!(
            nstat.lines().all(|line| !line.starts_with("Udp6InCsumErrors") || line.ends_with('0')),
            "{nstat}"
        );
    }
}
