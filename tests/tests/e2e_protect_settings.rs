//! What the settings protect (`protect.local_ports`, `protect.peers`), and the agent's own port.
#![expect(clippy::unwrap_used, reason = "a failed unwrap in a test is a failed test")]

use std::{
    fs,
    io::Write as _,
    net::{Ipv4Addr, SocketAddr, TcpStream},
    os::unix::fs::PermissionsExt as _,
    path::Path,
    process::{Command, Stdio},
    time::Duration,
};

use chaos_tests::{
    api::{Agent, Answer},
    chaos::{self, Chaos},
    lab::{
        alone,
        netns::Netns,
        process::{self, Process, wait_until},
        shapes::{A4, B4, Pair},
    },
    measure::helper,
    require_root,
};
use nix::sys::signal::Signal;
use serde_json::{Value, json};

const SOON: Duration = Duration::from_secs(10);
/// Another address of the client.
const ELSEWHERE: Ipv4Addr = Ipv4Addr::new(10, 77, 0, 3);
const KEY: &str = "0123456789abcdef0123";

fn joined() -> Pair {
    let pair = Pair::new().unwrap();
    pair.b.run(&format!("ip addr add {ELSEWHERE}/24 dev vb")).unwrap();
    pair
}

fn reaches(from: &Netns, to: Ipv4Addr) -> bool {
    from.run(&format!("ping -c 1 -W 1 -q {to}")).is_ok()
}

fn connects(from: &Netns, to: Ipv4Addr, port: u16) -> bool {
    let soon = Duration::from_secs(1);
    from.enter(|| TcpStream::connect_timeout(&(to, port).into(), soon).is_ok()).unwrap()
}

/// A program that takes connections at this port of every address.
fn listen(netns: &Netns, port: u16) -> Process {
    let mut command = Command::new(helper::path().unwrap());
    // It ends with its input.
    command.args(["answer", &format!("0.0.0.0:{port}")]).stdin(Stdio::piped());
    let server = Process::start(netns.inside(command)).unwrap();
    let at = SocketAddr::from((Ipv4Addr::LOCALHOST, port));
    wait_until("the server", SOON, || netns.enter(|| TcpStream::connect(at).is_ok()).unwrap()).unwrap();
    server
}

fn partition(target: &str) -> Value {
    json!({"target": target, "faults": {"partition": true}, "duration": "1m", "lease": "30s", "confirm": "host"})
}

fn made(agent: &Agent, fault: &Value) {
    let answer = agent.ask("POST", "/v1/faults", fault).unwrap();
    assert_eq!(answer.status, 201, "{answer:?}");
}

fn key_file(folder: &Path) -> String {
    let path = folder.join("key");
    fs::write(&path, KEY).unwrap();
    fs::set_permissions(&path, fs::Permissions::from_mode(0o600)).unwrap();
    path.display().to_string()
}

#[test]
fn ports_of_the_host_and_the_agents_own() {
    require_root!();
    let _alone = alone().unwrap();
    let pair = joined();
    let (host, client) = (&pair.a, &pair.b);
    let folder = tempfile::tempdir().unwrap();
    let _kept = listen(host, 7001);
    let _cut = listen(host, 7002);
    let flags = format!(
        "--protect-local-ports 7001 --listen {A4}:0 --insecure --key-file {}",
        key_file(folder.path())
    );
    let agent = Agent::start_inside(host, "ports", &flags).unwrap();
    let own = agent.tcp().unwrap();
    let target = format!("netns:{}", host.name());
    let list =
        agent.ask("POST", "/v1/faults:explain", &partition(&target)).unwrap().body["protected"].to_string();
    for says in ["by the settings, TCP port 7001", "by the settings, UDP port 7001"] {
        assert!(list.contains(says), "{says} is not in {list}");
    }
    assert!(list.contains(&format!("an agent's port, TCP port {}", own.port())), "{list}");

    made(&agent, &partition(&target));
    assert!(!reaches(client, A4), "everything else is cut");
    assert!(connects(client, A4, 7001) && !connects(client, A4, 7002));
    let stream = client.enter(|| TcpStream::connect_timeout(&own, SOON)).unwrap();
    let mut stream = stream.unwrap();
    stream.set_read_timeout(Some(SOON)).unwrap();
    let close = "content-type: application/json\r\nconnection: close\r\ncontent-length: 0";
    write!(stream, "DELETE /v1/faults HTTP/1.1\r\nhost: {own}\r\nx-chaos-key: {KEY}\r\n{close}\r\n\r\n")
        .unwrap();
    let answer = Answer::read(stream).unwrap();
    assert_eq!(answer.status, 200, "who may end it still can, from afar: {answer:?}");
    wait_until("the heal", SOON, || connects(client, A4, 7002)).unwrap();
    agent.stop().unwrap();
}

#[test]
fn peers_whatever_the_target_and_from_sighup_on() {
    require_root!();
    let _alone = alone().unwrap();
    let pair = joined();
    let (target, client) = (&pair.a, &pair.b);
    let _server = listen(client, 7001);
    let _other = listen(client, 7002);
    let folder = tempfile::tempdir().unwrap();
    let file = folder.path().join("agent.toml");
    fs::write(&file, format!("[protect]\npeers = [\"{ELSEWHERE}/32\", \"{B4}:7001\"]\n")).unwrap();
    let mut agent = Agent::start(&format!("--config {}", file.display())).unwrap();
    let fault = partition(&format!("netns:{}", target.name()));
    let explained = agent.ask("POST", "/v1/faults:explain", &fault).unwrap();
    let list = explained.body["protected"].clone();
    assert_eq!(
        list,
        json!([format!("by the settings, {ELSEWHERE}/32"), format!("by the settings, {B4}/32 port 7001")])
    );

    made(&agent, &fault);
    assert!(reaches(target, ELSEWHERE) && connects(target, ELSEWHERE, 7002), "an address, wholly");
    assert!(connects(target, B4, 7001), "one port of another");
    assert!(!connects(target, B4, 7002) && !reaches(target, B4), "and nothing else of it");

    fs::write(&file, "[protect]\npeers = [\"10.77.0.2/31\"]\n").unwrap();
    agent.chaos().process().signal(Signal::SIGHUP).unwrap();
    wait_until("the new list", SOON, || connects(target, B4, 7002)).unwrap();
    assert!(reaches(target, ELSEWHERE), "in the same network");
    fs::write(&file, "").unwrap();
    agent.chaos().process().signal(Signal::SIGHUP).unwrap();
    wait_until("the empty list", SOON, || !reaches(target, ELSEWHERE)).unwrap();
    assert!(!connects(target, B4, 7001));
    let held = agent.ask("GET", "/v1/faults", &Value::Null).unwrap();
    assert_eq!(held.body["faults"][0]["state"], "active", "it was the same fault all the time");
    agent.stop().unwrap();
}

#[test]
fn a_command_that_works_alone_keeps_to_them() {
    require_root!();
    let _alone = alone().unwrap();
    let pair = joined();
    let words = format!("inject --json netns:{} --partition --for 1m", pair.a.name());
    let with = |words: &str, peers: &str| {
        let mut command = chaos::command(words).unwrap();
        command.env("CHAOS_PROTECT_PEERS", peers);
        command
    };
    let told = process::output(with(&format!("{words} --explain"), "10.77.0.3"), SOON).unwrap();
    let told = String::from_utf8(told.stdout).unwrap();
    assert!(told.contains("by the settings, 10.77.0.3/32"), "{told}");
    let fault = Chaos::start_command(with(&words, "10.77.0.3")).unwrap();
    assert!(reaches(&pair.a, ELSEWHERE) && !reaches(&pair.a, B4));
    fault.stop().unwrap();
    let refused = process::output(with(&words, "10.77.0.300"), SOON).unwrap();
    let told = String::from_utf8(refused.stderr).unwrap();
    assert!(refused.status.code() == Some(3) && told.contains("CHAOS_PROTECT_PEERS"), "{told}");
}

#[test]
fn an_interface_that_is_cut_wholly_spares_what_is_protected() {
    require_root!();
    let _alone = alone().unwrap();
    let pair = joined();
    let words = format!("inject --json netns:{} --partition --interface va --for 1m", pair.a.name());
    let mut command = chaos::command(&words).unwrap();
    command.env("CHAOS_PROTECT_PEERS", "10.77.0.3");
    let fault = Chaos::start_command(command).unwrap();
    // Whoever is protected has to be found first.
    pair.a.run("ip neigh flush dev va").unwrap();
    assert!(reaches(&pair.a, ELSEWHERE) && !reaches(&pair.a, B4));
    fault.stop().unwrap();
    let fault = Chaos::start(&words.replace("--json ", "")).unwrap();
    pair.a.run("ip neigh flush dev va").unwrap();
    assert!(!reaches(&pair.a, ELSEWHERE), "else it is as if the cable were gone");
    fault.stop().unwrap();
}
