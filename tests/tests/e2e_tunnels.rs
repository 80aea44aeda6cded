//! The protected list where the operator comes through a tunnel, by mosh, or a machine asks its cloud: with real
//! programs, while everything else of the host is cut off. The host is a namespace here, with `chaos` inside it.
#![expect(clippy::unwrap_used, reason = "a failed unwrap in a test is a failed test")]

use std::{
    io::{BufRead as _, BufReader},
    net::{Ipv4Addr, TcpStream, UdpSocket},
    os::unix::fs::symlink,
    process::{Command, Stdio},
    thread,
    time::Duration,
};

use chaos_tests::{
    chaos::{self, Chaos},
    lab::{
        alone,
        netns::Netns,
        process::{self, Process, wait_until},
        shapes::{A4, B4, Pair},
        ssh::{Keys, Session},
    },
    measure::helper,
    require_root, require_tools, skip,
};

const SOON: Duration = Duration::from_secs(10);
/// An answer of a connection that is not disturbed; TCP would send again within it, too, if it were only once.
const PROMPT: Duration = Duration::from_secs(5);
/// Longer than between two looks at what is protected.
const LATER: Duration = Duration::from_secs(3);
/// Ends of the tunnels.
const INNER_A: Ipv4Addr = Ipv4Addr::new(10, 90, 0, 1);
const INNER_B: Ipv4Addr = Ipv4Addr::new(10, 90, 0, 2);
/// Another address of the client, which is nobody's other end.
const ELSEWHERE: Ipv4Addr = Ipv4Addr::new(10, 77, 0, 3);
const METADATA: Ipv4Addr = Ipv4Addr::new(169, 254, 169, 254);

/// A host and a client, joined by a cable.
fn joined() -> Pair {
    let pair = Pair::new().unwrap();
    pair.b.run(&format!("ip addr add {ELSEWHERE}/24 dev vb")).unwrap();
    pair
}

fn reaches(from: &Netns, to: Ipv4Addr) -> bool {
    from.run(&format!("ping -c 1 -W 1 -q {to}")).is_ok()
}

fn inside(host: &Netns, words: &str) -> Command {
    host.inside(chaos::command(words).unwrap())
}

/// `chaos` inside the host, cutting all of it off.
fn cut(host: &Netns) -> Chaos {
    let words = format!("inject --json netns:{} --partition --for 2m --yes-whole-host", host.name());
    Chaos::start_command(inside(host, &words)).unwrap()
}

/// What `--explain` says.
fn explained(host: &Netns) -> String {
    let words = format!("inject netns:{} --partition --explain", host.name());
    let output = process::output(inside(host, &words), SOON).unwrap();
    assert!(output.status.success(), "{output:?}");
    String::from_utf8(output.stdout).unwrap()
}

/// A remote shell from the client through the tunnel lives on while the host is cut.
fn lives(pair: &Pair, keys: &Keys, says: &str) {
    let mut session = Session::open(&pair.b, &format!("{} root@{INNER_A}", keys.client(22))).unwrap();
    let list = explained(&pair.a);
    assert!(list.contains(says), "{says} is not in {list}");
    assert!(reaches(&pair.a, ELSEWHERE));
    let fault = cut(&pair.a);
    assert!(!reaches(&pair.a, ELSEWHERE), "everything else is cut");
    assert!(session.answers(PROMPT), "at once");
    thread::sleep(LATER);
    assert!(session.answers(PROMPT), "later");
    assert!(!reaches(&pair.a, ELSEWHERE));
    fault.stop().unwrap();
    assert!(reaches(&pair.a, ELSEWHERE));
}

/// Addresses of the tunnel's two devices.
fn addresses(pair: &Pair, device: &str) {
    for (netns, addr) in [(&pair.a, INNER_A), (&pair.b, INNER_B)] {
        netns.run(&format!("ip addr add {addr}/24 dev {device}")).unwrap();
        netns.run(&format!("ip link set {device} up")).unwrap();
    }
}

/// Through a tunnel of the kernel, whose device is made by `ip link add t0 ...`; false = this kernel has none.
fn through(kind: &str, more: &str) -> bool {
    let pair = joined();
    for (netns, local, remote) in [(&pair.a, A4, B4), (&pair.b, B4, A4)] {
        let add = format!("ip link add t0 type {kind} {more} local {local} remote {remote}");
        if let Err(error) = netns.run(&add) {
            assert!(format!("{error:#}").contains("Unknown device type"), "{error:#}");
            return false;
        }
    }
    addresses(&pair, "t0");
    let keys = Keys::new().unwrap();
    let _server = keys.serve(&pair.a, INNER_A, 22).unwrap();
    lives(&pair, &keys, &format!("the other end of the tunnel t0, {B4}"));
    true
}

#[test]
fn through_vxlan() {
    require_root!();
    require_tools!("/usr/sbin/sshd", "ssh", "ssh-keygen");
    let _alone = alone().unwrap();
    if !through("vxlan", "id 7 dstport 4789") {
        skip!("this kernel has no vxlan");
    }
}

#[test]
fn through_gre() {
    require_root!();
    require_tools!("/usr/sbin/sshd", "ssh", "ssh-keygen");
    let _alone = alone().unwrap();
    if !through("gre", "") {
        skip!("this kernel has no gre");
    }
}

#[test]
fn through_ipip() {
    require_root!();
    require_tools!("/usr/sbin/sshd", "ssh", "ssh-keygen");
    let _alone = alone().unwrap();
    if !through("ipip", "") {
        skip!("this kernel has no ipip");
    }
}

#[test]
fn through_wireguard() {
    require_root!();
    require_tools!("/usr/sbin/sshd", "ssh", "ssh-keygen", "wg");
    let _alone = alone().unwrap();
    let pair = joined();
    let keys = Keys::new().unwrap();
    let mut public = Vec::new();
    for (netns, name) in [(&pair.a, "a"), (&pair.b, "b")] {
        if netns.run("ip link add wg0 type wireguard").is_err() {
            skip!("this kernel has no wireguard");
        }
        let file = keys.folder().join(name);
        let shell = format!("umask 77; wg genkey | tee {0} | wg pubkey", file.display());
        let mut command = Command::new("sh");
        command.args(["-c", &shell]);
        public.push(process::run(command).unwrap().trim().to_owned());
        netns.run(&format!("wg set wg0 listen-port 51820 private-key {}", file.display())).unwrap();
    }
    for (netns, peer, inner, outer) in
        [(&pair.a, &public[1], INNER_B, B4), (&pair.b, &public[0], INNER_A, A4)]
    {
        netns.run(&format!("wg set wg0 peer {peer} allowed-ips {inner}/32 endpoint {outer}:51820")).unwrap();
    }
    addresses(&pair, "wg0");
    let _server = keys.serve(&pair.a, INNER_A, 22).unwrap();
    lives(&pair, &keys, "the outer side of the tunnel wg0, UDP port 51820");
}

/// A VPN whose packets a program carries, through a connection of its own: ssh itself, as `ssh -w` here.
#[test]
fn through_a_vpn_that_is_a_program() {
    require_root!();
    require_tools!("/usr/sbin/sshd", "ssh", "ssh-keygen");
    let _alone = alone().unwrap();
    let pair = joined();
    let keys = Keys::new().unwrap();
    let _gateway = keys.serve(&pair.b, B4, 22).unwrap();
    let line = format!("{} -N -w 7:7 root@{B4}", keys.client(22));
    let mut command = pair.a.command(&line);
    command.stdin(Stdio::null());
    let _vpn = Process::start(command).unwrap();
    let is_there = |netns: &Netns| netns.run("ip link show tun7").is_ok();
    wait_until("the VPN", SOON, || is_there(&pair.a) && is_there(&pair.b)).unwrap();
    addresses(&pair, "tun7");
    let _server = keys.serve(&pair.a, INNER_A, 2222).unwrap();
    let mut session = Session::open(&pair.b, &format!("{} root@{INNER_A}", keys.client(2222))).unwrap();
    let list = explained(&pair.a);
    assert!(list.contains("the outer side of the tunnel tun7"), "{list}");
    let fault = cut(&pair.a);
    assert!(!reaches(&pair.a, ELSEWHERE) && !reaches(&pair.a, B4), "everything else is cut");
    thread::sleep(LATER);
    assert!(session.answers(PROMPT));
    fault.stop().unwrap();
}

#[test]
fn by_mosh() {
    require_root!();
    let _alone = alone().unwrap();
    let pair = joined();
    let folder = tempfile::tempdir().unwrap();
    // What a process is called is what its file is called. This one answers from one UDP port, as mosh-server does.
    let program = folder.path().join("mosh-server");
    symlink(helper::path().unwrap(), &program).unwrap();
    let at = format!("{A4}:60001");
    let mut command = Command::new(&program);
    command.args(["echo", &at]).stdout(Stdio::piped());
    let mut server = Process::start(pair.a.inside(command)).unwrap();
    let mut ready = String::new();
    BufReader::new(server.child().stdout.take().unwrap()).read_line(&mut ready).unwrap();
    let client = pair.b.enter(|| UdpSocket::bind((B4, 0)).unwrap()).unwrap();
    client.set_read_timeout(Some(Duration::from_secs(1))).unwrap();
    let mut said = 0u32;
    let mut answers = || {
        said += 1;
        client.send_to(&said.to_be_bytes(), &at).unwrap();
        client.recv(&mut [0; 16]).is_ok()
    };
    wait_until("the server", SOON, &mut answers).unwrap();
    assert!(explained(&pair.a).contains("remote shell, UDP port 60001"));
    let fault = cut(&pair.a);
    assert!(!reaches(&pair.a, ELSEWHERE), "everything else is cut");
    assert!(answers() && answers());
    // The client roams: another address of it.
    let elsewhere = pair.b.enter(|| UdpSocket::bind((ELSEWHERE, 0)).unwrap()).unwrap();
    elsewhere.set_read_timeout(Some(PROMPT)).unwrap();
    elsewhere.send_to(b"here", &at).unwrap();
    assert!(elsewhere.recv(&mut [0; 16]).is_ok(), "whoever it is");
    fault.stop().unwrap();
    // Which is no other program's.
    drop(server);
    let fault = cut(&pair.a);
    let other = pair.a.enter(|| UdpSocket::bind(&at).unwrap()).unwrap();
    other.set_read_timeout(Some(Duration::from_secs(1))).unwrap();
    client.send_to(b"word", &at).unwrap();
    assert!(other.recv(&mut [0; 16]).is_err(), "the same port of another program is cut");
    fault.stop().unwrap();
}

#[test]
fn the_metadata_service_answers() {
    require_root!();
    require_tools!("/usr/sbin/sshd", "ssh", "ssh-keygen");
    let _alone = alone().unwrap();
    let pair = joined();
    pair.b.run(&format!("ip addr add {METADATA}/32 dev vb")).unwrap();
    pair.a.run(&format!("ip route add {METADATA} dev va")).unwrap();
    let keys = Keys::new().unwrap();
    let _server = keys.serve(&pair.b, METADATA, 80).unwrap();
    let connects = |to: Ipv4Addr| {
        let soon = Duration::from_secs(1);
        pair.a.enter(|| TcpStream::connect_timeout(&(to, 80).into(), soon).is_ok()).unwrap()
    };
    assert!(connects(METADATA) && connects(ELSEWHERE));
    assert!(explained(&pair.a).contains("the metadata service 169.254.169.254"));
    let fault = cut(&pair.a);
    assert!(reaches(&pair.a, METADATA) && connects(METADATA));
    assert!(!reaches(&pair.a, ELSEWHERE) && !connects(ELSEWHERE), "everything else is cut");
    fault.stop().unwrap();
    let refused = format!("inject --json netns:{} --refuse --for 2m --yes-whole-host", pair.a.name());
    let fault = Chaos::start_command(inside(&pair.a, &refused)).unwrap();
    assert!(connects(METADATA) && !connects(ELSEWHERE), "calls of connect(), too");
    fault.stop().unwrap();
}
