//! Sixty-four clients change faults for a minute while iperf3 and redis run: every answer is right, the counters are
//! what the traffic saw, and the agent has no more of anything afterwards than before.
#![expect(clippy::unwrap_used, reason = "a failed unwrap in a test is a failed test")]

use std::{
    fs,
    net::{SocketAddr, UdpSocket},
    path::PathBuf,
    process::Stdio,
    thread,
    time::{Duration, Instant},
};

use chaos_tests::{
    api::{Agent, Asker},
    lab::{
        alone,
        netns::Netns,
        process::{Process, serve},
        shapes::{B4, Pair},
    },
    redis::{self, Client},
    require_root, require_tools,
    snapshot::Snapshot,
};
use serde_json::{Value, json};

const CLIENTS: u16 = 64;
const FOR: Duration = Duration::from_mins(1);
const WARM_UP: Duration = Duration::from_secs(15);
/// A client's datagrams under one fault.
const DATAGRAMS: u64 = 40;
const FIRST_PORT: u16 = 6000;
const REDIS: u16 = 5379;
const IPERF: u16 = 5201;

/// What a client has done.
#[derive(Default)]
struct Done {
    changes: u64,
    dropped: u64,
}

/// One client: a port of its own, and faults on that port only.
struct Worker {
    asks: Asker,
    target: String,
    port: u16,
    sends: UdpSocket,
    receives: UdpSocket,
}

impl Worker {
    fn new(agent: &Agent, pair: &Pair, number: u16) -> Self {
        let port = FIRST_PORT + number;
        let to = SocketAddr::new(B4.into(), port);
        let receives = pair.b.enter(|| UdpSocket::bind(to)).unwrap().unwrap();
        let sends = pair.a.enter(|| UdpSocket::bind("0.0.0.0:0")).unwrap().unwrap();
        sends.connect(to).unwrap();
        Self { asks: agent.asker(), target: format!("netns:{}", pair.a.name()), port, sends, receives }
    }

    fn fault(&self, loss: &str) -> Value {
        json!({"target": self.target, "faults": {"loss": loss}, "duration": "2m",
            "match": {"peer_port": [self.port], "proto": "udp", "direction": "egress"}})
    }

    /// Sends, and returns how many came.
    fn send(&self) -> u64 {
        for _ in 0..DATAGRAMS {
            self.sends.send(&[7; 100]).unwrap();
        }
        // What goes through the normaliser takes a softirq or two more.
        let mut came = 0;
        self.receives.set_read_timeout(Some(Duration::from_millis(150))).unwrap();
        while came < DATAGRAMS && self.receives.recv(&mut [0; 200]).is_ok() {
            came += 1;
        }
        came
    }

    fn change(&self, method: &str, path: &str, body: &Value, status: u16) -> Value {
        let answer = self.asks.ask(method, path, body).unwrap();
        assert_eq!(answer.status, status, "{method} {path} {body}: {answer:?}");
        answer.body
    }

    /// A fault's counters and what the traffic saw.
    fn agrees(fault: &Value, came: u64) -> u64 {
        let counted = |name: &str| fault["egress"][name].as_u64().unwrap();
        assert_eq!(counted("matched_packets"), DATAGRAMS, "{fault}");
        assert_eq!(counted("dropped_packets"), DATAGRAMS - came, "{came} came: {fault}");
        DATAGRAMS - came
    }

    fn run(&self, until: Instant) -> Done {
        let mut done = Done::default();
        let by_name = format!("/v1/faults/soak-{}", self.port);
        while Instant::now() < until {
            assert_eq!(self.send(), DATAGRAMS, "no fault");
            let made = self.change("POST", "/v1/faults", &self.fault("100%"), 201);
            let came = self.send();
            assert_eq!(came, 0, "{made}");
            let ended = self.change("DELETE", &format!("/v1/faults/{}", made["id"]), &Value::Null, 200);
            done.dropped += Self::agrees(&ended, came);

            self.change("PUT", &by_name, &self.fault("50%"), 201);
            let came = self.send();
            let shown = self.change("GET", &by_name, &Value::Null, 200);
            done.dropped += Self::agrees(&shown, came);
            self.change("PUT", &by_name, &self.fault("every=4"), 200);
            let came = self.send();
            assert_eq!(came, DATAGRAMS - DATAGRAMS / 4);
            let ended = self.change("DELETE", &by_name, &Value::Null, 200);
            done.dropped += Self::agrees(&ended, came);
            done.changes += 5;
        }
        done
    }
}

/// What the agent's process has.
#[derive(Debug)]
struct Held {
    descriptors: usize,
    threads: usize,
    resident_kib: u64,
}

impl Held {
    fn by(pid: i32) -> Self {
        let proc = PathBuf::from(format!("/proc/{pid}"));
        let status = fs::read_to_string(proc.join("status")).unwrap();
        let resident = status.lines().find_map(|line| line.strip_prefix("VmRSS:")).unwrap();
        Self {
            descriptors: fs::read_dir(proc.join("fd")).unwrap().count(),
            threads: fs::read_dir(proc.join("task")).unwrap().count(),
            resident_kib: resident.trim().trim_end_matches(" kB").parse().unwrap(),
        }
    }
}

/// What it has once threads that only wait for work are gone: tokio ends them after ten seconds, and more of them than
/// before may have been needed at once in the meantime.
fn at_rest(pid: i32, threads: usize) -> Held {
    let until = Instant::now() + Duration::from_secs(15);
    loop {
        let held = Held::by(pid);
        if held.threads <= threads || Instant::now() >= until {
            return held;
        }
        thread::sleep(Duration::from_millis(100));
    }
}

/// iperf3 and redis have nothing to do with the faults, and must not notice.
fn bystanders(pair: &Pair, until: Instant) -> (Process, Process, Process) {
    let at = |port| SocketAddr::new(B4.into(), port);
    let redis = redis::start(&pair.b, at(REDIS), |command| command).unwrap();
    let server = serve(&pair.b, &format!("iperf3 -s -p {IPERF}"), at(IPERF)).unwrap();
    let seconds = until.saturating_duration_since(Instant::now()).as_secs();
    let mut client = pair.a.command(&format!("iperf3 -c {B4} -p {IPERF} -t {seconds} -b 200M"));
    client.stdout(Stdio::null());
    (redis, server, Process::start(client).unwrap())
}

fn redis_answers(netns: &Netns, until: Instant) -> u64 {
    let to = SocketAddr::new(B4.into(), REDIS);
    let mut client = Client::connect(netns, to, Duration::from_secs(2)).unwrap();
    let mut answers = 0;
    while Instant::now() < until {
        client.ping(Duration::from_secs(5)).unwrap();
        answers += 1;
        thread::sleep(Duration::from_millis(5));
    }
    answers
}

#[test]
fn sixty_four_clients_for_a_minute() {
    require_root!();
    require_tools!("iperf3", "redis-server");
    let _alone = alone().unwrap();
    let pair = Pair::new().unwrap();
    pair.a.run(&format!("ping -c 1 -W 2 -q {B4}")).unwrap();
    let before = Snapshot::before(&[&pair.a, &pair.b]).unwrap();
    let mut agent = Agent::start("").unwrap();
    let pid = agent.chaos().process().pid().as_raw();
    let workers: Vec<Worker> = (0..CLIENTS).map(|number| Worker::new(&agent, &pair, number)).collect();
    // After some turns of all the agent has what it needs for so many.
    turn(&workers, Instant::now() + WARM_UP);
    let held = Held::by(pid);

    let until = Instant::now() + FOR;
    let (redis, server, mut iperf) = bystanders(&pair, until);
    let (done, answers) = thread::scope(|scope| {
        let redis = scope.spawn(|| redis_answers(&pair.a, until));
        (turn(&workers, until), redis.join().unwrap())
    });
    assert!(iperf.wait(Duration::from_secs(20)).unwrap().success(), "iperf3 failed");
    let after = at_rest(pid, held.threads + 1);
    println!(
        "{} changes, {} datagrams dropped and counted, redis answered {answers} times",
        done.changes, done.dropped
    );
    println!("before: {held:?}\nafter:  {after:?}");
    assert!(done.changes > u64::from(CLIENTS) * 5 && answers > 100);
    assert!(after.descriptors <= held.descriptors + 4, "{held:?} {after:?}");
    assert!(after.threads <= held.threads + 1, "{held:?} {after:?}");
    assert!(after.resident_kib <= held.resident_kib + held.resident_kib / 10, "{held:?} {after:?}");
    agent.stop().unwrap();
    drop((redis, server, iperf));
    before.settle(&[&pair.a, &pair.b], Duration::from_secs(5)).unwrap();
}

/// All clients at once, until then.
fn turn(workers: &[Worker], until: Instant) -> Done {
    thread::scope(|scope| {
        let running: Vec<_> = workers.iter().map(|worker| scope.spawn(move || worker.run(until))).collect();
        running.into_iter().fold(Done::default(), |sum, one| {
            let one = one.join().unwrap();
            Done { changes: sum.changes + one.changes, dropped: sum.dropped + one.dropped }
        })
    })
}
