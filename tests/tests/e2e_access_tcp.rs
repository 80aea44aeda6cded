//! Who may ask the agent over TCP and from a browser, and how much.
#![expect(clippy::unwrap_used, reason = "a failed unwrap in a test is a failed test")]

use std::{
    fs,
    io::{Read as _, Write},
    net::{SocketAddr, TcpStream},
    os::unix::{fs::PermissionsExt as _, net::UnixStream},
    path::Path,
    process::Command,
    time::{Duration, Instant},
};

use chaos_tests::{
    api::{Agent, Answer},
    chaos,
    lab::{
        alone,
        process::{self, wait_until},
    },
    require_root, require_tools,
};
use nix::sys::signal::Signal;

const KEY: &str = "0123456789abcdef0123";
const SOON: Duration = Duration::from_secs(10);

/// A file with a key that only we can read.
fn key_file(folder: &Path, key: &str) -> String {
    let path = folder.join("key");
    fs::write(&path, format!("{key}\n")).unwrap();
    fs::set_permissions(&path, fs::Permissions::from_mode(0o600)).unwrap();
    path.display().to_string()
}

/// Sends a request with these header lines.
fn say(mut stream: impl Write, request: &str, headers: &[&str], body: &str) {
    let lines: String = headers.iter().flat_map(|line| [line, "\r\n"]).collect();
    let length = body.len();
    let text =
        format!("{request} HTTP/1.1\r\n{lines}connection: close\r\ncontent-length: {length}\r\n\r\n{body}");
    // Who refuses may have closed already.
    let _ = stream.write_all(text.as_bytes());
}

fn over_tcp(to: SocketAddr, request: &str, headers: &[&str]) -> Answer {
    let stream = TcpStream::connect(to).unwrap();
    stream.set_read_timeout(Some(SOON)).unwrap();
    let host = format!("host: {to}");
    let own = if headers.iter().any(|line| line.starts_with("host:")) { "x-none: 1" } else { &host };
    say(&stream, request, &[&[own], headers].concat(), "");
    Answer::read(stream).unwrap()
}

fn over_unix(agent: &Agent, request: &str, headers: &[&str], body: &str) -> Answer {
    let stream = UnixStream::connect(agent.socket()).unwrap();
    stream.set_read_timeout(Some(SOON)).unwrap();
    say(&stream, request, headers, body);
    Answer::read(stream).unwrap()
}

/// What it says when it does not start.
fn refused(flags: &str) -> String {
    let socket = format!("/run/chaos-test-{}/refused.sock", std::process::id());
    let output = chaos::run(&format!("agent --socket {socket} --state-dir {socket}.d {flags}")).unwrap();
    let said = String::from_utf8_lossy(&output.stderr).into_owned();
    assert_eq!(output.status.code(), Some(3), "{said}");
    said
}

#[test]
fn tcp_wants_a_key_and_what_others_can_reach_wants_tls() {
    require_root!();
    let _alone = alone().unwrap();
    let folder = tempfile::tempdir().unwrap();
    let file = key_file(folder.path(), KEY);
    assert!(refused("--listen 127.0.0.1:0").contains("needs a key"));
    assert!(refused(&format!("--listen 0.0.0.0:0 --key-file {file}")).contains("--insecure"));
    fs::set_permissions(&file, fs::Permissions::from_mode(0o604)).unwrap();
    assert!(refused(&format!("--listen 127.0.0.1:0 --key-file {file}")).contains("chmod o="));
    key_file(folder.path(), KEY);

    let mut agent = Agent::start(&format!("--listen 127.0.0.1:0 --key-file {file}")).unwrap();
    let tcp = agent.tcp().unwrap();
    for headers in [&[][..], &["authorization: Bearer 0123456789abcdef0124"], &["x-chaos-key: "]] {
        let answer = over_tcp(tcp, "GET /v1/status", headers);
        assert_eq!(answer.status, 401, "{answer:?}");
        assert!(answer.head.contains("www-authenticate: bearer"), "{answer:?}");
        assert!(answer.head.contains("application/problem+json"), "{answer:?}");
        assert_eq!(over_tcp(tcp, "DELETE /v1/faults", headers).status, 401);
        assert_eq!(over_tcp(tcp, "GET /nothing", headers).status, 401, "nobody learns what there is");
        assert_eq!(over_tcp(tcp, "GET /healthz", headers).status, 200);
    }
    let (bearer, own) = (format!("authorization: Bearer {KEY}"), format!("x-chaos-key: {KEY}"));
    assert_eq!(over_tcp(tcp, "GET /v1/status", &[&bearer]).status, 200);
    assert_eq!(over_tcp(tcp, "DELETE /v1/faults", &[&own]).status, 200);

    // A new key in the file, from SIGHUP on.
    key_file(folder.path(), "another-key-for-the-agent");
    agent.chaos().process().signal(Signal::SIGHUP).unwrap();
    wait_until("the old key to be refused", SOON, || over_tcp(tcp, "GET /v1/status", &[&own]).status == 401)
        .unwrap();
    let new = ["x-chaos-key: another-key-for-the-agent"];
    assert_eq!(over_tcp(tcp, "GET /v1/status", &new).status, 200);
    agent.stop().unwrap();
}

#[test]
fn pages_in_a_browser_change_nothing() {
    require_root!();
    let _alone = alone().unwrap();
    let folder = tempfile::tempdir().unwrap();
    let file = key_file(folder.path(), KEY);
    let agent = Agent::start(&format!("--listen 127.0.0.1:0 --key-file {file}")).unwrap();
    let tcp = agent.tcp().unwrap();
    let key = format!("x-chaos-key: {KEY}");
    // With the key, as a page would have it that a user pasted it into.
    for page in [
        &["origin: http://evil.example"][..],
        &["origin: null", "sec-fetch-site: cross-site"],
        &["sec-fetch-site: same-site"],
        &["origin: http://127.0.0.1:8473", "sec-fetch-site: same-origin"],
    ] {
        let answer = over_tcp(tcp, "POST /v1/stop", &[&[key.as_str()], page].concat());
        assert_eq!(answer.status, 403, "{page:?} {answer:?}");
        let on_unix = over_unix(&agent, "POST /v1/stop", &[&["host: chaos"], page].concat(), "");
        assert_eq!(on_unix.status, 403, "{page:?} {on_unix:?}");
    }
    assert_eq!(over_tcp(tcp, "GET /v1/status", &[&key, "sec-fetch-site: cross-site"]).status, 403);
    // A name that was made to point here.
    assert_eq!(over_tcp(tcp, "GET /v1/status", &[&key, "host: evil.example:8473"]).status, 403);
    assert_eq!(over_unix(&agent, "GET /v1/status", &["host: evil.example"], "").status, 403);
    assert_eq!(over_tcp(tcp, "GET /v1/status", &[&key, "host: localhost:8473"]).status, 200);
    // What a form can send.
    let form = ["host: chaos", "content-type: text/plain"];
    let answer = over_unix(&agent, "POST /v1/stop", &form, r#"{"reason": "x"}"#);
    assert_eq!(answer.status, 415, "{answer:?}");
    assert_eq!(over_unix(&agent, "POST /v1/stop", &["host: chaos"], "{}").status, 415);
    assert!(agent.ask("GET", "/v1/status", &serde_json::Value::Null).unwrap().body["stopped"].is_null());
    agent.stop().unwrap();
}

#[test]
fn bodies_requests_and_connections_are_limited() {
    require_root!();
    let _alone = alone().unwrap();
    let limits =
        "--limits-body-bytes 100 --limits-requests-per-second 20 --limits-connections 2 --limits-idle 1s";
    let agent = Agent::start(limits).unwrap();
    let json = ["host: chaos", "content-type: application/json"];
    let long = over_unix(&agent, "POST /v1/stop", &json, &"x".repeat(101));
    assert_eq!(long.status, 413, "{long:?}");
    assert_eq!(over_unix(&agent, "POST /v1/stop", &json, &"x".repeat(100)).status, 400);

    // Slow ones: one that says nothing, one that never ends its headers, one that never ends its body.
    for (said, answered) in [
        ("", ""),
        ("GET /v1/status HTTP/1.1\r\nhost: chaos\r\n", ""),
        (
            "POST /v1/stop HTTP/1.1\r\nhost: chaos\r\ncontent-type: application/json\r\ncontent-length: 9\r\n\r\n{",
            "408",
        ),
    ] {
        let mut stream = UnixStream::connect(agent.socket()).unwrap();
        stream.set_read_timeout(Some(SOON)).unwrap();
        stream.write_all(said.as_bytes()).unwrap();
        let begun = Instant::now();
        let mut text = String::new();
        stream.read_to_string(&mut text).unwrap();
        assert!(
            begun.elapsed() < SOON / 2 && text.contains(answered),
            "{said:?}: {text}, {:?}",
            begun.elapsed()
        );
    }
    // The third waits until there is a place again.
    let held = [UnixStream::connect(agent.socket()).unwrap(), UnixStream::connect(agent.socket()).unwrap()];
    std::thread::sleep(Duration::from_millis(200));
    let begun = Instant::now();
    assert_eq!(over_unix(&agent, "GET /healthz", &["host: chaos"], "").status, 200);
    assert!(begun.elapsed() > Duration::from_millis(400), "it had a place: {:?}", begun.elapsed());
    drop(held);

    let answers: Vec<Answer> =
        (0..60).map(|_| over_unix(&agent, "GET /healthz", &["host: chaos"], "")).collect();
    let refused: Vec<&Answer> = answers.iter().filter(|answer| answer.status == 429).collect();
    let last = refused.last().expect("more than 20 requests in a second");
    assert!(last.head.contains("retry-after: 1") && last.head.contains("problem+json"), "{last:?}");
    std::thread::sleep(Duration::from_millis(1100));
    assert_eq!(over_unix(&agent, "GET /healthz", &["host: chaos"], "").status, 200);
    agent.stop().unwrap();
}

#[test]
fn a_stream_of_events_outlives_the_idle_time() {
    require_root!();
    let _alone = alone().unwrap();
    let agent = Agent::start("--limits-idle 1s").unwrap();
    let mut stream = UnixStream::connect(agent.socket()).unwrap();
    stream.set_read_timeout(Some(SOON)).unwrap();
    stream.write_all(b"GET /v1/events HTTP/1.1\r\nhost: chaos\r\n\r\n").unwrap();
    std::thread::sleep(Duration::from_millis(2500));
    let reason = serde_json::json!({"reason": "a test of streams"});
    assert_eq!(agent.ask("POST", "/v1/stop", &reason).unwrap().status, 200);
    let (mut text, mut bytes) = (String::new(), [0; 4096]);
    while !text.contains("a test of streams") {
        let length = stream.read(&mut bytes).unwrap();
        assert!(length > 0, "it ended: {text}");
        text.push_str(&String::from_utf8_lossy(&bytes[..length]));
    }
    agent.stop().unwrap();
}

#[test]
fn tls_is_spoken_with_the_certificate_that_was_given() {
    require_root!();
    require_tools!("openssl", "curl");
    let _alone = alone().unwrap();
    let folder = tempfile::tempdir().unwrap();
    let file = key_file(folder.path(), KEY);
    let (cert, private) = (folder.path().join("cert.pem"), folder.path().join("private.pem"));
    let mut openssl = Command::new("openssl");
    openssl.args(
        "req -x509 -newkey ec -pkeyopt ec_paramgen_curve:prime256v1 -nodes -days 1 -subj /CN=agent"
            .split(' '),
    );
    openssl.args(["-addext", "subjectAltName=IP:127.0.0.1", "-keyout"]).arg(&private).arg("-out").arg(&cert);
    process::run(openssl).unwrap();
    let tls = format!("--tls-cert {} --tls-key {}", cert.display(), private.display());
    // Everybody could reach this one, so it has to be TLS.
    let agent = Agent::start(&format!("--listen 0.0.0.0:0 --key-file {file} {tls}")).unwrap();
    let port = agent.tcp().unwrap().port();
    let curl = |arguments: &str| {
        let mut command = Command::new("curl");
        command.args(["--silent", "--show-error", "--max-time", "10", "--cacert"]).arg(&cert);
        command.args(arguments.split(' ')).arg("--header").arg(format!("x-chaos-key: {KEY}"));
        process::output(command, SOON * 2).unwrap()
    };
    let answer = curl(&format!("https://127.0.0.1:{port}/v1/status"));
    assert!(String::from_utf8_lossy(&answer.stdout).contains("\"version\""), "{answer:?}");
    let plain = curl(&format!("http://127.0.0.1:{port}/v1/status"));
    assert!(!plain.status.success(), "{plain:?}");
    agent.stop().unwrap();
}

#[test]
fn every_request_is_somebodys() {
    require_root!();
    let _alone = alone().unwrap();
    let folder = tempfile::tempdir().unwrap();
    let file = key_file(folder.path(), KEY);
    let log = folder.path().join("log");
    let socket = folder.path().join("agent.sock");
    let arguments = format!(
        "agent --json --log-level debug --socket {} --state-dir {} --listen 127.0.0.1:0 --key-file {file}",
        socket.display(),
        folder.path().display()
    );
    let mut command = chaos::command(&arguments).unwrap();
    let out = folder.path().join("out");
    command.stdout(fs::File::create(&out).unwrap()).stderr(fs::File::create(&log).unwrap());
    let mut agent = process::Process::start(command).unwrap();
    wait_until("the agent", SOON, || fs::read_to_string(&out).unwrap().ends_with('\n')).unwrap();
    let started: serde_json::Value = serde_json::from_str(&fs::read_to_string(&out).unwrap()).unwrap();
    let tcp: SocketAddr = started["listen"].as_str().unwrap().parse().unwrap();

    let stream = UnixStream::connect(&socket).unwrap();
    say(&stream, "GET /v1/status", &["host: chaos"], "");
    Answer::read(stream).unwrap();
    over_tcp(tcp, "GET /v1/faults", &[&format!("x-chaos-key: {KEY}")]);
    over_tcp(tcp, "GET /healthz", &[]);
    let own = format!("GET /v1/status by uid 0 gid 0 from pid {}", std::process::id());
    for says in
        [own.as_str(), "GET /v1/faults by key from 127.0.0.1:", "GET /healthz by nobody from 127.0.0.1:"]
    {
        wait_until(says, SOON, || fs::read_to_string(&log).unwrap().contains(says)).unwrap();
    }
    agent.signal(Signal::SIGTERM).unwrap();
    assert!(agent.wait(SOON).unwrap().success());
}
