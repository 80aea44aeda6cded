//! Abort conditions against real servers: one that turns bad ends the fault at once, one that is well does not.
#![expect(clippy::unwrap_used, reason = "a failed unwrap in a test is a failed test")]

use std::{
    fs,
    io::{Read as _, Write as _},
    net::{IpAddr, SocketAddr, TcpListener},
    sync::{
        Arc,
        atomic::{AtomicBool, AtomicU64, AtomicUsize, Ordering},
    },
    thread,
    time::Duration,
};

use chaos_tests::{
    api::Agent,
    chaos,
    lab::{
        alone,
        netns::Netns,
        process::{Process, wait_until},
        shapes::{B4, Pair},
        unique_name,
    },
    require_root, require_tools,
};
use serde_json::{Value, json};

const SOON: Duration = Duration::from_secs(8);
/// Long enough for a condition that is wrong about a healthy server to show it.
const A_WHILE: Duration = Duration::from_secs(2);

/// A web server of a namespace, as slow and as broken as it is told.
struct Web {
    at: SocketAddr,
    slow_ms: Arc<AtomicU64>,
    is_broken: Arc<AtomicBool>,
    asked: Arc<AtomicUsize>,
}

impl Web {
    fn start(netns: &Netns) -> Self {
        let listener = netns.enter(|| TcpListener::bind((IpAddr::from(B4), 0)).unwrap()).unwrap();
        let web = Self {
            at: listener.local_addr().unwrap(),
            slow_ms: Arc::default(),
            is_broken: Arc::default(),
            asked: Arc::default(),
        };
        let (slow, broken, asked) = (web.slow_ms.clone(), web.is_broken.clone(), web.asked.clone());
        thread::spawn(move || {
            for stream in listener.incoming().flatten() {
                let (slow, broken) = (slow.load(Ordering::SeqCst), broken.load(Ordering::SeqCst));
                asked.fetch_add(1, Ordering::SeqCst);
                thread::spawn(move || {
                    let mut stream = stream;
                    let _ = stream.read(&mut [0; 1024]);
                    thread::sleep(Duration::from_millis(slow));
                    let status = if broken { "500 Internal Server Error" } else { "200 OK" };
                    let _ = write!(stream, "HTTP/1.1 {status}\r\ncontent-length: 0\r\n\r\n");
                });
            }
        });
        web
    }
}

/// A fault that touches nothing the probes see.
fn fault(pair: &Pair, abort: &str) -> Value {
    json!({"target": format!("netns:{}", pair.a.name()), "faults": {"loss": "100%"},
        "match": {"proto": "udp", "peer_port": 9}, "duration": "1m", "abort": [abort]})
}

fn set(agent: &Agent, body: &Value) -> String {
    format!("/v1/faults/{}", agent.set(body).unwrap())
}

fn is_active(agent: &Agent, path: &str) -> bool {
    agent.ask("GET", path, &Value::Null).unwrap().body["state"] == "active"
}

#[track_caller]
fn aborted(agent: &Agent, path: &str, says: &str) {
    wait_until("the abort", SOON, || !is_active(agent, path)).unwrap();
    let why = agent.ask("GET", path, &Value::Null).unwrap().body["why"].clone();
    let why = why.as_str().unwrap();
    assert!(why.starts_with("aborted: ") && why.contains(says), "{why}");
}

#[test]
fn a_page_that_turns_slow_or_bad_ends_the_fault() {
    require_root!();
    let _alone = alone().unwrap();
    let pair = Pair::new().unwrap();
    let web = Web::start(&pair.b);
    let agent = Agent::start("").unwrap();
    let condition = format!("http=http://{}/health,within=500ms,every=100ms,fails=3/5,in=target", web.at);
    let path = set(&agent, &fault(&pair, &condition));
    thread::sleep(A_WHILE);
    assert!(is_active(&agent, &path), "a page that is well ends nothing");
    assert!(web.asked.load(Ordering::SeqCst) > 3);
    web.slow_ms.store(1500, Ordering::SeqCst);
    aborted(&agent, &path, "no answer within 500ms");
    web.slow_ms.store(0, Ordering::SeqCst);
    web.is_broken.store(true, Ordering::SeqCst);
    let path = set(&agent, &fault(&pair, &condition));
    aborted(&agent, &path, "status 500");
    agent.stop().unwrap();
}

#[test]
fn a_port_that_closes_and_a_command_that_fails_end_the_fault() {
    require_root!();
    require_tools!("redis-server");
    let _alone = alone().unwrap();
    let pair = Pair::new().unwrap();
    let at = SocketAddr::new(B4.into(), 6379);
    let redis = chaos_tests::redis::start(&pair.b, at, |command| command).unwrap();
    let agent = Agent::start("").unwrap();
    let path = set(&agent, &fault(&pair, &format!("tcp={at},within=1s,every=100ms,fails=2/3,in=target")));
    thread::sleep(A_WHILE);
    assert!(is_active(&agent, &path), "an open port ends nothing");
    drop(redis);
    aborted(&agent, &path, "connecting to");
    agent.stop().unwrap();

    // Root may have a command run, over the socket, too.
    let agent = Agent::start("").unwrap();
    let path = set(&agent, &fault(&pair, "every=100ms,fails=1,command=exit 3"));
    aborted(&agent, &path, "the command ended");
    agent.stop().unwrap();

    // On the command line, which may always run one.
    let file = std::env::temp_dir().join(unique_name());
    fs::write(&file, "").unwrap();
    let mut command = std::process::Command::new(chaos::binary().unwrap());
    command.args(["--json", "inject", &format!("netns:{}", pair.a.name()), "--loss", "1%", "--for", "1m"]);
    command.args(["--abort", &format!("every=100ms,fails=2,command=test -e {}", file.display())]);
    command.stdout(std::process::Stdio::piped()).stderr(std::process::Stdio::null());
    let mut child = command.spawn().unwrap();
    thread::sleep(A_WHILE);
    assert!(child.try_wait().unwrap().is_none(), "a command that succeeds ends nothing");
    fs::remove_file(&file).unwrap();
    let output = child.wait_with_output().unwrap();
    let said = String::from_utf8_lossy(&output.stdout).into_owned();
    assert_eq!(output.status.code(), Some(3), "{said}");
    assert!(said.contains("aborted: ") && said.contains("the command ended"), "{said}");
}

#[test]
fn retransmits_beyond_what_was_asked_end_the_fault() {
    require_root!();
    require_tools!("iperf3");
    let _alone = alone().unwrap();
    let pair = Pair::new().unwrap();
    let ready = SocketAddr::new(B4.into(), 5201);
    let _server = chaos_tests::lab::process::serve(&pair.b, "iperf3 -s", ready).unwrap();
    let _client = Process::start(pair.a.command(&format!("iperf3 -c {B4} -t 60 -b 20M"))).unwrap();
    thread::sleep(Duration::from_secs(1));
    let agent = Agent::start("").unwrap();
    let target = format!("netns:{}", pair.a.name());
    let asked = json!({"target": target, "faults": {"loss": "3%"}, "match": {"proto": "tcp"}, "duration": "1m",
        "abort": ["retransmits=+10%,every=500ms,fails=2/3"]});
    let path = set(&agent, &asked);
    thread::sleep(A_WHILE * 2);
    assert!(is_active(&agent, &path), "what was asked for ends nothing");
    // What the condition does not know of: another fault beside it.
    let more =
        json!({"target": target, "faults": {"loss": "40%"}, "match": {"proto": "tcp"}, "duration": "1m"});
    let other = set(&agent, &more);
    wait_until("the abort", Duration::from_secs(20), || !is_active(&agent, &path)).unwrap();
    aborted(&agent, &path, "of the segments were sent again");
    assert!(is_active(&agent, &other), "it ends its own fault alone");
    agent.stop().unwrap();
}

#[test]
fn handshakes_that_hang_end_the_fault() {
    require_root!();
    let _alone = alone().unwrap();
    let pair = Pair::new().unwrap();
    let web = Web::start(&pair.b);
    let agent = Agent::start("").unwrap();
    let mut body = fault(&pair, "handshakes=30%,every=500ms,fails=2/3");
    body["match"] = json!({"proto": "tcp", "peer_port": 9});
    let path = set(&agent, &body);
    let connects = |port: u16, times: usize| {
        for _ in 0..times {
            let to = SocketAddr::new(B4.into(), port);
            let _ = pair.a.enter(|| std::net::TcpStream::connect_timeout(&to, Duration::from_millis(100)));
        }
    };
    connects(web.at.port(), 20);
    thread::sleep(A_WHILE);
    assert!(is_active(&agent, &path), "those that succeed end nothing");
    thread::scope(|scope| {
        scope.spawn(|| {
            for _ in 0..8 {
                // Nobody listens there: each is refused at once where the fault does not drop it.
                connects(10, 10);
                thread::sleep(Duration::from_millis(300));
            }
        });
        aborted(&agent, &path, "of the handshakes failed");
    });
    agent.stop().unwrap();
}

#[test]
fn a_condition_that_is_wrong_is_refused() {
    require_root!();
    let _alone = alone().unwrap();
    let pair = Pair::new().unwrap();
    let agent = Agent::start("").unwrap();
    let answer = agent.ask("POST", "/v1/faults", &fault(&pair, "http=https://x/")).unwrap();
    assert_eq!((answer.status, &answer.body["errors"][0]["pointer"]), (422, &json!("/abort")), "{answer:?}");
    agent.stop().unwrap();
}
