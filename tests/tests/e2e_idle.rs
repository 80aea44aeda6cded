//! Idle connections of rules that end connections: their sockets are ended before the rule is there,
//! so that both ends hear of it; and only theirs.
#![expect(clippy::unwrap_used, reason = "a failed unwrap in a test is a failed test")]

use std::{
    io::{ErrorKind, Read, Write},
    net::{Ipv4Addr, Ipv6Addr, SocketAddr, TcpListener, TcpStream, UdpSocket},
    thread,
    time::{Duration, Instant},
};

use chaos_tests::{
    chaos::Chaos,
    lab::{
        cgroup::Cgroup,
        netns::Netns,
        shapes::{A4, B4, B6, Pair},
    },
    measure::connect::Holder,
    require_root,
};

const FAULT: &str = "--reset";
const AFTER_2_S: &str = "--reset after=2s";
const PORT: u16 = 7100;
const OTHER_PORT: u16 = 7101;
/// Both ends hear of it within this after the rule has been armed.
const SOON: Duration = Duration::from_millis(500);

fn listen(netns: &Netns, port: u16) -> TcpListener {
    netns.enter(|| TcpListener::bind((Ipv6Addr::UNSPECIFIED, port))).unwrap().unwrap()
}

/// Both ends of an idle connection: the target's, the peer's.
fn connection(from: &Netns, listener: &TcpListener, to: SocketAddr) -> (TcpStream, TcpStream) {
    let near = from.enter(|| TcpStream::connect(to)).unwrap().unwrap();
    let (far, _) = listener.accept().unwrap();
    for end in [&near, &far] {
        end.set_read_timeout(Some(SOON)).unwrap();
    }
    (near, far)
}

/// What reading from an idle connection says; 0 = nothing has happened.
fn errno(stream: &mut TcpStream) -> i32 {
    match stream.read(&mut [0]) {
        Ok(read) => panic!("{read} bytes of an idle connection"),
        Err(error) if error.kind() == ErrorKind::WouldBlock => 0,
        Err(error) => error.raw_os_error().unwrap(),
    }
}

/// A byte gets through, there and back.
fn works(near: &mut TcpStream, far: &mut TcpStream) {
    near.set_read_timeout(Some(Duration::from_secs(5))).unwrap();
    far.set_read_timeout(Some(Duration::from_secs(5))).unwrap();
    near.write_all(b"x").unwrap();
    far.read_exact(&mut [0]).unwrap();
    far.write_all(b"x").unwrap();
    near.read_exact(&mut [0]).unwrap();
}

#[test]
fn both_ends_of_an_idle_connection_hear_of_it_in_both_families() {
    require_root!();
    let pair = Pair::new().unwrap();
    let listener = listen(&pair.b, PORT);
    for direction in ["both", "egress", "ingress"] {
        for to in [(B4, PORT).into(), (B6, PORT).into(), (B4.to_ipv6_mapped(), PORT).into()] {
            let (mut near, mut far) = connection(&pair.a, &listener, to);
            let flags = format!("{FAULT} --direction {direction} --proto tcp");
            let chaos = Chaos::inject(&pair.a, &flags).unwrap();
            let begin = Instant::now();
            assert_eq!(errno(&mut near), libc::ECONNABORTED, "{to} {direction}, the target's end");
            assert_eq!(errno(&mut far), libc::ECONNRESET, "{to} {direction}, the peer's end");
            assert!(begin.elapsed() < SOON);
            chaos.stop().unwrap();
        }
    }
}

#[test]
fn a_coming_connection_is_ended_and_its_listener_is_not() {
    require_root!();
    let pair = Pair::new().unwrap();
    let listener = listen(&pair.a, PORT);
    let udp = pair.a.enter(|| UdpSocket::bind((A4, PORT))).unwrap().unwrap();
    let far_udp = pair.b.enter(|| UdpSocket::bind((B4, 0))).unwrap().unwrap();
    far_udp.connect((A4, PORT)).unwrap();
    udp.connect(far_udp.local_addr().unwrap()).unwrap();
    let (mut far, mut near) = connection(&pair.b, &listener, (A4, PORT).into());
    let chaos = Chaos::inject(&pair.a, FAULT).unwrap();
    assert_eq!(errno(&mut near), libc::ECONNABORTED);
    assert_eq!(errno(&mut far), libc::ECONNRESET);
    chaos.stop().unwrap();
    let (mut far, mut near) = connection(&pair.b, &listener, (A4, PORT).into());
    works(&mut near, &mut far);
    far_udp.send(b"x").unwrap();
    udp.set_read_timeout(Some(Duration::from_secs(5))).unwrap();
    assert_eq!(udp.recv(&mut [0; 8]).unwrap(), 1, "the UDP socket lives");
}

/// Another port, another namespace, an excluded peer, shadow, packets with a limit: not meant.
#[test]
fn connections_that_the_rule_does_not_mean_go_on() {
    require_root!();
    let pair = Pair::new().unwrap();
    let (listener, other) = (listen(&pair.b, PORT), listen(&pair.b, OTHER_PORT));
    let (mut spared, mut spared_far) = connection(&pair.a, &other, (B4, OTHER_PORT).into());
    let (mut near, mut far) = connection(&pair.a, &listener, (B4, PORT).into());
    for flags in [
        "--peer-port 7999".to_owned(),
        format!("--except {B4}"),
        "--local-port 1".to_owned(),
        "--connections new --proto tcp".to_owned(),
        "--tcp-flags syn".to_owned(),
        "--data-only --proto tcp".to_owned(),
        "--shadow".to_owned(),
        "--start-after 1m".to_owned(),
    ] {
        let chaos = Chaos::inject(&pair.a, &format!("{FAULT} {flags}")).unwrap();
        thread::sleep(Duration::from_millis(100));
        chaos.stop().unwrap();
        works(&mut near, &mut far);
    }
    let chaos = Chaos::inject(&pair.a, &format!("{FAULT} --peer-port {PORT}")).unwrap();
    near.set_read_timeout(Some(SOON)).unwrap();
    assert_eq!(errno(&mut near), libc::ECONNABORTED);
    works(&mut spared, &mut spared_far);
    chaos.stop().unwrap();
}

/// By loopback both ends are the target's.
#[test]
fn loopback_connections_end_at_both_ends() {
    require_root!();
    let netns = Netns::new().unwrap();
    netns.run("ip link set lo up").unwrap();
    let listener = listen(&netns, PORT);
    let (mut near, mut far) = connection(&netns, &listener, (Ipv4Addr::LOCALHOST, PORT).into());
    let chaos = Chaos::inject(&netns, FAULT).unwrap();
    let ended = [libc::ECONNABORTED, libc::ECONNRESET];
    assert!(ended.contains(&errno(&mut near)) && ended.contains(&errno(&mut far)));
    chaos.stop().unwrap();
}

#[test]
fn only_connections_of_the_cgroup_are_ended() {
    require_root!();
    let pair = Pair::new().unwrap();
    let _listener = listen(&pair.b, PORT);
    let (target, other) = (Cgroup::new().unwrap(), Cgroup::new().unwrap());
    let below = target.child("below").unwrap();
    let hold = |cgroup: &Cgroup| {
        Holder::start((B4, PORT).into(), |command| cgroup.inside(pair.a.inside(command))).unwrap()
    };
    let (hit, deep, mut spared) = (hold(&target), hold(&below), hold(&other));
    let flags = format!("inject cgroup:{} {FAULT} --for 1m", target.name());
    let chaos = Chaos::start(&flags).unwrap();
    assert_eq!(hit.errno(SOON).unwrap(), libc::ECONNABORTED);
    assert_eq!(deep.errno(SOON).unwrap(), libc::ECONNABORTED);
    assert!(spared.holds(), "another cgroup's connection");
    chaos.stop().unwrap();
    assert!(spared.holds());
}

/// A rule that begins later ends what is idle when it begins.
#[test]
fn a_rule_that_waits_ends_them_when_it_begins() {
    require_root!();
    let pair = Pair::new().unwrap();
    let listener = listen(&pair.b, PORT);
    let (mut near, _far) = connection(&pair.a, &listener, (B4, PORT).into());
    let chaos = Chaos::inject(&pair.a, &format!("{FAULT} --start-after 1s")).unwrap();
    assert_eq!(errno(&mut near), 0, "half a second later");
    near.set_read_timeout(Some(Duration::from_secs(3))).unwrap();
    assert_eq!(errno(&mut near), libc::ECONNABORTED);
    chaos.stop().unwrap();
}

/// With a time each connection lives for it: one that was there from arming, a later one from its beginning.
#[test]
fn with_a_time_idle_connections_end_when_it_is_over() {
    require_root!();
    let pair = Pair::new().unwrap();
    let listener = listen(&pair.b, PORT);
    let (mut older, _older_far) = connection(&pair.a, &listener, (B4, PORT).into());
    let chaos = Chaos::inject(&pair.a, AFTER_2_S).unwrap();
    let armed = Instant::now();
    thread::sleep(Duration::from_secs(1));
    let (mut later, _later_far) = connection(&pair.a, &listener, (B4, PORT).into());
    for (stream, age) in [(&mut older, armed.elapsed()), (&mut later, Duration::ZERO)] {
        stream.set_read_timeout(Some(Duration::from_secs(5))).unwrap();
        assert_eq!(errno(stream), libc::ECONNABORTED);
        let lived = armed.elapsed().saturating_sub(Duration::from_secs(1)) + age;
        // Connections are looked at once a second.
        assert!((1900..4200).contains(&lived.as_millis()), "{lived:?}");
    }
    chaos.stop().unwrap();
}
