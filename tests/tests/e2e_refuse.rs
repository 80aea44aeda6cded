//! `refuse` as real programs see it: the errno and the time of their connect(2), and whose calls.
#![expect(clippy::unwrap_used, reason = "a failed unwrap in a test is a failed test")]

use std::{
    io::{Read, Write},
    net::{Ipv4Addr, Ipv6Addr, SocketAddr, TcpListener, TcpStream},
    thread,
    time::Duration,
};

use chaos_tests::{
    chaos::{self, Chaos},
    lab::{
        alone,
        cgroup::Cgroup,
        netns::Netns,
        process::{self, Process},
        shapes::{B4, B6, Pair},
    },
    measure::connect::{attempts, command, errno, from},
    require_root,
    snapshot::Snapshot,
};
use nix::sys::signal::Signal;

const ERRNOS: [(&str, i32); 5] = [
    ("ECONNREFUSED", libc::ECONNREFUSED),
    ("ETIMEDOUT", libc::ETIMEDOUT),
    ("EACCES", libc::EACCES),
    ("ENETUNREACH", libc::ENETUNREACH),
    ("EHOSTUNREACH", libc::EHOSTUNREACH),
];
/// A refused call returns within this.
const AT_ONCE: Duration = Duration::from_millis(5);
const PORT: u16 = 7000;
const OTHER_PORT: u16 = 7001;

fn v4(port: u16) -> SocketAddr {
    (B4, port).into()
}

fn v6(port: u16) -> SocketAddr {
    (B6, port).into()
}

fn mapped(port: u16) -> SocketAddr {
    (B4.to_ipv6_mapped(), port).into()
}

/// Listens on both ports, in both families.
fn listen(netns: &Netns) -> Vec<TcpListener> {
    let any = |port| TcpListener::bind((Ipv6Addr::UNSPECIFIED, port));
    netns.enter(|| [PORT, OTHER_PORT].map(any)).unwrap().into_iter().map(Result::unwrap).collect()
}

fn once(netns: &Netns, to: SocketAddr) -> i32 {
    errno(&from(netns, "tcp", to, 1).unwrap()).unwrap()
}

#[test]
fn every_errno_comes_at_once_in_both_families_and_for_udp() {
    require_root!();
    let _alone = alone().unwrap();
    let pair = Pair::new().unwrap();
    let _listeners = listen(&pair.b);
    for (name, number) in ERRNOS {
        let chaos = Chaos::inject(&pair.a, &format!("--refuse {name} --peer-port {PORT}")).unwrap();
        let mut calls = 0;
        for proto in ["tcp", "nonblocking", "udp"] {
            for to in [v4(PORT), v6(PORT), mapped(PORT)] {
                let mut seen = from(&pair.a, proto, to, 11).unwrap();
                assert_eq!(errno(&seen).unwrap(), number, "{proto} to {to}: {name}");
                seen.sort_by_key(|attempt| attempt.took);
                // The median: another process may have the CPU for a while.
                assert!(seen[5].took < AT_ONCE, "{proto} to {to}: {:?}", seen[5].took);
                calls += 11;
            }
        }
        for to in [v4(OTHER_PORT), v6(OTHER_PORT), mapped(OTHER_PORT)] {
            assert_eq!(once(&pair.a, to), 0, "{to} is not meant");
        }
        let rules = chaos.stop().unwrap();
        assert_eq!(rules[0].both("refused_packets"), calls, "{rules:?}");
        assert_eq!(rules[0].both("matched_packets"), calls, "{rules:?}");
        assert_eq!(once(&pair.a, v4(PORT)), 0, "it is over");
    }
}

/// Neither the peer's namespace, nor the host's, nor what was connected before.
#[test]
fn only_new_calls_of_the_targets_namespace_are_hit() {
    require_root!();
    let pair = Pair::new().unwrap();
    let listeners = listen(&pair.b);
    let mut older = pair.a.enter(|| TcpStream::connect(v4(PORT))).unwrap().unwrap();
    let (mut accepted, _) = listeners[0].accept().unwrap();
    let host = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).unwrap();
    let chaos = Chaos::inject(&pair.a, "--refuse ENETUNREACH").unwrap();
    assert_eq!(once(&pair.a, v4(PORT)), libc::ENETUNREACH);
    assert_eq!(once(&pair.a, v6(OTHER_PORT)), libc::ENETUNREACH);
    assert_eq!(once(&pair.b, v4(PORT)), 0, "the peer's own calls");
    let own = attempts(command("tcp", host.local_addr().unwrap(), 1).unwrap()).unwrap();
    assert_eq!(errno(&own).unwrap(), 0, "the host's calls");
    older.write_all(b"x").unwrap();
    accepted.read_exact(&mut [0]).unwrap();
    let rules = chaos.stop().unwrap();
    assert_eq!(rules[0].both("refused_packets"), 2, "{rules:?}");
}

#[test]
fn only_the_cgroup_and_what_is_below_it_is_hit() {
    require_root!();
    let pair = Pair::new().unwrap();
    let _listeners = listen(&pair.b);
    let (target, other) = (Cgroup::new().unwrap(), Cgroup::new().unwrap());
    let below = target.child("below").unwrap();
    // So that its namespace is known before anything connects.
    let mut sleep = std::process::Command::new("sleep");
    sleep.arg("100");
    let _resident = Process::start(target.inside(pair.a.inside(sleep))).unwrap();
    let call = |cgroup: &Cgroup| {
        let calls = cgroup.inside(pair.a.inside(command("tcp", v4(PORT), 3).unwrap()));
        errno(&attempts(calls).unwrap()).unwrap()
    };
    let flags = format!("inject cgroup:{} --refuse ETIMEDOUT --to {B4} --for 1m", target.name());
    let chaos = Chaos::start(&flags).unwrap();
    assert_eq!(call(&target), libc::ETIMEDOUT);
    assert_eq!(call(&below), libc::ETIMEDOUT);
    assert_eq!(call(&other), 0);
    assert_eq!(once(&pair.a, v4(PORT)), 0, "outside of every cgroup of ours");
    let rules = chaos.stop().unwrap();
    assert_eq!(rules[0].both("refused_packets"), 6, "{rules:?}");
    assert_eq!(call(&target), 0);
}

#[test]
fn a_command_of_exec_is_refused() {
    require_root!();
    let host = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).unwrap();
    let to = host.local_addr().unwrap();
    let connect = command("tcp", to, 2).unwrap();
    let mut exec = chaos::command("exec --refuse EACCES -- ").unwrap();
    exec.arg(connect.get_program()).args(connect.get_args());
    let text = process::run(exec).unwrap();
    let refused = text.lines().filter(|line| line.starts_with(&format!("{} ", libc::EACCES))).count();
    assert_eq!(refused, 2, "{text}");
}

#[test]
fn a_share_of_the_calls_is_refused_and_exclusions_are_not() {
    require_root!();
    let pair = Pair::new().unwrap();
    let _listeners = listen(&pair.b);
    let chaos = Chaos::inject(&pair.a, &format!("--refuse EHOSTUNREACH,50% --except {B6}")).unwrap();
    let seen = from(&pair.a, "udp", v4(PORT), 1000).unwrap();
    let refused = seen.iter().filter(|attempt| attempt.errno == libc::EHOSTUNREACH).count();
    assert!(seen.iter().all(|attempt| [0, libc::EHOSTUNREACH].contains(&attempt.errno)));
    // Six standard deviations of 16.
    assert!((405..=595).contains(&refused), "{refused} of 1000 at 50 %");
    assert_eq!(errno(&from(&pair.a, "udp", v6(PORT), 100).unwrap()).unwrap(), 0);
    let rules = chaos.stop().unwrap();
    assert_eq!(rules[0].both("matched_packets"), 1000, "{rules:?}");
    assert_eq!(rules[0].both("refused_packets"), refused as u64, "{rules:?}");
}

#[test]
fn limits_and_shadow_hold_and_a_hanging_agent_cannot_prolong_it() {
    require_root!();
    let pair = Pair::new().unwrap();
    let _listeners = listen(&pair.b);
    let chaos = Chaos::inject(&pair.a, "--refuse ECONNREFUSED --max-packets 3").unwrap();
    let seen: Vec<i32> = from(&pair.a, "tcp", v4(PORT), 5).unwrap().iter().map(|call| call.errno).collect();
    assert_eq!(seen, [libc::ECONNREFUSED, libc::ECONNREFUSED, libc::ECONNREFUSED, 0, 0]);
    chaos.stop().unwrap();

    let chaos = Chaos::inject(&pair.a, "--refuse ECONNREFUSED --shadow").unwrap();
    assert_eq!(once(&pair.a, v4(PORT)), 0);
    assert_eq!(chaos.stop().unwrap()[0].both("shadowed_packets"), 1);

    let mut chaos = Chaos::inject(&pair.a, "--refuse ECONNREFUSED --lease 1s").unwrap();
    assert_eq!(once(&pair.a, v4(PORT)), libc::ECONNREFUSED);
    chaos.process().signal(Signal::SIGSTOP).unwrap();
    thread::sleep(Duration::from_millis(1100));
    assert_eq!(once(&pair.a, v4(PORT)), 0, "the lease is over");
    chaos.process().signal(Signal::SIGCONT).unwrap();
    chaos.stop().unwrap();
}

#[test]
fn nothing_is_left_and_no_device_is_touched() {
    require_root!();
    let _alone = alone().unwrap();
    let pair = Pair::new().unwrap();
    let _listeners = listen(&pair.b);
    let namespaces = [&pair.a, &pair.b];
    let before = Snapshot::before(&namespaces).unwrap();
    for killed in [false, true] {
        let chaos = Chaos::inject(&pair.a, "--refuse ECONNREFUSED").unwrap();
        assert_eq!(once(&pair.a, v4(PORT)), libc::ECONNREFUSED);
        let during = Snapshot::take(&namespaces).unwrap().diff(&before).join("\n");
        assert!(!during.contains("va") && !during.contains("chaos-n"), "{during}");
        if killed {
            chaos.kill().unwrap();
        } else {
            chaos.stop().unwrap();
        }
        before.settle(&namespaces, Duration::from_secs(1)).unwrap();
        assert_eq!(once(&pair.a, v4(PORT)), 0);
    }
}

/// What a call cannot know is an error before anything is touched, with what works.
#[test]
fn conditions_that_no_call_can_fulfil_are_refused() {
    require_root!();
    let pair = Pair::new().unwrap();
    for flags in [
        "--interface va",
        "--local-port 80",
        "--tcp-flags syn",
        "--connections established",
        "--direction ingress",
    ] {
        let output =
            chaos::run(&format!("inject netns:{} --refuse EACCES {flags} --for 5s", pair.a.name())).unwrap();
        let text = String::from_utf8_lossy(&output.stderr);
        assert_eq!(output.status.code(), Some(2), "{flags}: {text}");
        assert!(text.contains("--reject or --reset syn"), "{flags}: {text}");
    }
}
