//! The protected list, with a real sshd: whoever sits at the other end of the operator's connection keeps it while
//! everything else of the host is cut off. The host is a namespace here, with `chaos` inside it.
#![expect(clippy::unwrap_used, reason = "a failed unwrap in a test is a failed test")]

use std::{
    fs,
    net::{IpAddr, Ipv6Addr, SocketAddr, TcpListener},
    os::{fd::OwnedFd, unix::fs::PermissionsExt as _},
    process::Stdio,
    thread,
    time::Duration,
};

use chaos_tests::{
    chaos::{self, Chaos},
    lab::{
        alone,
        netns::Netns,
        process::{self, Process, wait_until},
        shapes::{A4, A6, B4, Pair},
        ssh::{Keys, Session},
    },
    require_root, require_tools,
};

const SOON: Duration = Duration::from_secs(10);
/// An answer of a connection that is not disturbed; TCP would send again within it, too, if it were only once.
const PROMPT: Duration = Duration::from_secs(5);
/// No answer for so long: the connection is cut.
const SILENT: Duration = Duration::from_secs(2);

/// A listener on `::` that takes IPv4, too, as a socket unit of systemd is, and hands each connection to an sshd.
fn serve_mapped(netns: &Netns, keys: &Keys) -> u16 {
    let any = SocketAddr::new(Ipv6Addr::UNSPECIFIED.into(), 0);
    let listener = netns.enter(|| TcpListener::bind(any).unwrap()).unwrap();
    let port = listener.local_addr().unwrap().port();
    let mut command = netns.inside(keys.sshd(&["-i"]));
    thread::spawn(move || {
        let mut children = Vec::new();
        for stream in listener.incoming().flatten() {
            assert!(matches!(stream.peer_addr().unwrap().ip(), IpAddr::V6(_)), "v4-mapped");
            let socket = OwnedFd::from(stream);
            command.stdin(socket.try_clone().unwrap()).stdout(socket).stderr(Stdio::null());
            children.push(command.spawn().unwrap());
        }
    });
    port
}

/// `chaos` inside the host, cutting all of it off.
fn cut_from_inside(host: &Netns) -> Chaos {
    let words = format!("inject --json netns:{} --partition --for 2m --yes-whole-host", host.name());
    Chaos::start_command(host.inside(chaos::command(&words).unwrap())).unwrap()
}

#[test]
fn every_remote_shell_of_the_host_lives_through_a_cut_of_everything() {
    require_root!();
    require_tools!("/usr/sbin/sshd", "ssh", "ssh-keygen");
    let _alone = alone().unwrap();
    let pair = Pair::new().unwrap();
    let (host, client) = (&pair.a, &pair.b);
    let keys = Keys::new().unwrap();
    let _usual = keys.serve(host, A4, 22).unwrap();
    let _other = keys.serve(host, A4, 2222).unwrap();
    let mapped = serve_mapped(host, &keys);
    let jump = format!(
        "{} -o ProxyCommand='{} -W [::1]:2222 root@{A4}' root@inner",
        keys.client(22),
        keys.client(22)
    );
    // A file, for the words of a command line here know no quotes.
    let script = keys.folder().join("jump");
    fs::write(&script, format!("#!/bin/sh\nexec {jump} \"$@\"\n")).unwrap();
    fs::set_permissions(&script, fs::Permissions::from_mode(0o700)).unwrap();
    let mut sessions: Vec<(&str, Session)> = [
        ("IPv4", format!("{} root@{A4}", keys.client(22))),
        ("IPv6", format!("{} root@{A6}", keys.client(22))),
        ("another port", format!("{} root@{A4}", keys.client(2222))),
        ("IPv4 to a listener on ::", format!("{} root@{A4}", keys.client(mapped))),
        ("through another ssh", script.display().to_string()),
    ]
    .into_iter()
    .map(|(name, line)| (name, Session::open(client, &line).unwrap()))
    .collect();
    assert!(host.reaches(B4));
    let fault = cut_from_inside(host);
    assert!(!host.reaches(B4), "everything else is cut");
    for (name, session) in &mut sessions {
        assert!(session.answers(PROMPT), "{name}");
    }
    // Longer than between two looks at what is protected.
    thread::sleep(Duration::from_secs(3));
    for (name, session) in &mut sessions {
        assert!(session.answers(PROMPT), "{name}, later");
    }
    assert!(!host.reaches(B4));
    fault.stop().unwrap();
    assert!(host.reaches(B4));
}

#[test]
fn whoever_types_inside_tmux_keeps_the_connection() {
    require_root!();
    require_tools!("/usr/sbin/sshd", "ssh", "ssh-keygen", "tmux");
    let _alone = alone().unwrap();
    let pair = Pair::new().unwrap();
    let keys = Keys::new().unwrap();
    let _server = keys.serve(&pair.a, A4, 22).unwrap();
    let mut session = Session::open(&pair.b, &format!("{} root@{A4}", keys.client(22))).unwrap();
    let words = format!("inject netns:{} --partition --for 2m --yes-whole-host", pair.a.name());
    let binary = chaos::binary().unwrap();
    let socket = keys.folder().join("tmux");
    let tmux = |more: &[&str]| {
        let mut command = pair.a.command("tmux -f /dev/null -S");
        command.arg(&socket).args(more).env("TERM", "xterm");
        process::run(command)
    };
    // Its shell is a child of tmux' server, which is nobody's: no sshd is among the ancestors.
    tmux(&["new-session", "-d", &format!("{} {words}", binary.display())]).unwrap();
    wait_until("the cut", SOON, || !pair.a.reaches(B4)).unwrap();
    assert!(session.answers(PROMPT));
    tmux(&["kill-server"]).unwrap();
    wait_until("the heal", SOON, || pair.a.reaches(B4)).unwrap();
}

#[test]
fn in_a_container_port_22_is_fair_game() {
    require_root!();
    require_tools!("/usr/sbin/sshd", "ssh", "ssh-keygen");
    let _alone = alone().unwrap();
    let pair = Pair::new().unwrap();
    let keys = Keys::new().unwrap();
    let _server = keys.serve(&pair.a, A4, 22).unwrap();
    let mut session = Session::open(&pair.b, &format!("{} root@{A4}", keys.client(22))).unwrap();
    // From outside: the namespace is a target like any other.
    let fault = Chaos::inject(&pair.a, "--partition").unwrap();
    assert!(!session.answers(SILENT), "it is cut");
    fault.stop().unwrap();
    assert!(session.answers(SOON * 2), "and goes on afterwards");
}

#[test]
fn a_host_keeps_its_lease_of_an_address_and_a_container_does_not() {
    require_root!();
    require_tools!("/usr/sbin/dnsmasq", "/usr/sbin/udhcpc");
    let _alone = alone().unwrap();
    let pair = Pair::new().unwrap();
    let server = "/usr/sbin/dnsmasq --no-daemon --conf-file=/dev/null --port=0 --interface=vb \
         --bind-interfaces --dhcp-range=10.77.0.100,10.77.0.150,2m --dhcp-leasefile=/dev/null --user=root";
    let mut server = pair.b.command(server);
    server.stdout(Stdio::null()).stderr(Stdio::null());
    let _server = Process::start(server).unwrap();
    let lease = |tries: &str| {
        pair.a.run(&format!("/usr/sbin/udhcpc -i va -n -q -f -t {tries} -T 1 -s /bin/true")).is_ok()
    };
    wait_until("the server", SOON, || lease("2")).unwrap();
    let fault = cut_from_inside(&pair.a);
    assert!(!pair.a.reaches(B4));
    assert!(lease("3"), "DHCP of the host is protected");
    fault.stop().unwrap();
    let fault = Chaos::inject(&pair.a, "--partition").unwrap();
    assert!(!lease("2"), "that of a namespace is not");
    fault.stop().unwrap();
}
