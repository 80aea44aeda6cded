//! The agent as a process: what it may do, whether that is enough, one of them only, and the service manager.
#![expect(clippy::unwrap_used, reason = "a failed unwrap in a test is a failed test")]

use std::{
    collections::BTreeSet,
    fs,
    io::{ErrorKind, Read as _, Write as _},
    net::{Ipv6Addr, SocketAddr, TcpListener, TcpStream, UdpSocket},
    os::unix::net::{UnixDatagram, UnixStream},
    path::{Path, PathBuf},
    thread,
    time::{Duration, Instant},
};

use chaos_tests::{
    api::{Agent, Answer},
    chaos::{self, Chaos, FREED},
    dns::{Resolver, Server, resolving},
    lab::{
        alone,
        cgroup::Cgroup,
        netns::Netns,
        process::{self, wait_until},
        shapes::{B4, Pair},
    },
    measure::connect,
    require_root, require_tools,
    snapshot::Snapshot,
};
use nix::{
    sys::{
        ptrace,
        signal::Signal,
        wait::{WaitPidFlag, waitpid},
    },
    unistd::Pid,
};
use serde_json::{Value, json};

const SOON: Duration = Duration::from_secs(10);
/// The five of the README: `CAP_DAC_READ_SEARCH`, `CAP_NET_ADMIN`, `CAP_SYS_PTRACE`, `CAP_SYS_ADMIN`, `CAP_SYS_NICE`
/// (include/uapi/linux/capability.h).
const KEPT: u64 = 1 << 2 | 1 << 12 | 1 << 19 | 1 << 21 | 1 << 23;

/// Of the process that deletes filters when the agent is gone: `CAP_NET_ADMIN`, `CAP_SYS_ADMIN`.
const KEPT_BY_GUARD: u64 = 1 << 12 | 1 << 21;

/// The value of a line of a `status` file of /proc.
fn of_status(path: &Path, name: &str) -> String {
    let text = fs::read_to_string(path).unwrap();
    let line = text.lines().find_map(|line| line.strip_prefix(name)).unwrap_or_default();
    line.trim_start_matches(':').trim().to_owned()
}

/// Every thread of these processes has just what the agent keeps, or the guard; how many are the guard's.
fn has_only_what_it_needs(pid: i32) -> usize {
    let all = procfs_of_run(pid);
    assert!(!all.is_empty());
    let mut guards = 0;
    for status in all {
        let set = |name: &str| u64::from_str_radix(&of_status(&status, name), 16).unwrap();
        let is_guard = of_status(&status, "Name") == "chaos-guard";
        guards += usize::from(is_guard);
        let kept = if is_guard { KEPT_BY_GUARD } else { KEPT };
        // Of the bounding set nothing can be taken any more; it has no say without a program that could be run.
        for (name, wanted) in
            [("CapPrm", kept), ("CapEff", kept), ("CapBnd", KEPT), ("CapInh", 0), ("CapAmb", 0)]
        {
            assert_eq!(set(name), wanted, "{name} of {}: {:x}", status.display(), set(name));
        }
        assert_eq!(of_status(&status, "NoNewPrivs"), "1", "{}", status.display());
    }
    guards
}

/// The `status` of each thread of the process and of its children.
fn procfs_of_run(pid: i32) -> Vec<PathBuf> {
    let mut files = Vec::new();
    for task in fs::read_dir(format!("/proc/{pid}/task")).unwrap().flatten() {
        let children = fs::read_to_string(task.path().join("children")).unwrap_or_default();
        for child in children.split_whitespace() {
            files.extend(procfs_of_run(child.parse().unwrap()));
        }
        files.push(task.path().join("status"));
    }
    files
}

/// Sets a fault and returns its path.
fn set(agent: &Agent, mut body: Value) -> String {
    body["duration"] = "1m".into();
    format!("/v1/faults/{}", agent.set(&body).unwrap())
}

fn end(agent: &Agent, path: &str) {
    assert_eq!(agent.ask("DELETE", path, &Value::Null).unwrap().status, 200);
}

fn ping(from: &Netns, flags: &str) -> anyhow::Result<String> {
    from.run(&format!("ping -q -W 1 {flags} {B4}"))
}

/// The mean round trip in milliseconds.
fn round_trip(from: &Netns) -> f64 {
    let text = ping(from, "-c 3 -i 0.2").unwrap();
    let numbers = text.lines().last().unwrap().split(" = ").nth(1).unwrap();
    numbers.split('/').nth(1).unwrap().parse().unwrap()
}

fn faults_of_every_line(agent: &Agent, pair: &Pair) {
    let target = format!("netns:{}", pair.a.name());
    // In the kernel alone.
    let cut = set(
        agent,
        json!({"target": target, "faults": {"partition": true}, "match": {"peer": ["10.0.0.0/8", "192.0.0.0/4"]}}),
    );
    assert!(ping(&pair.a, "-c 1").is_err(), "partition");
    end(agent, &cut);
    assert!(ping(&pair.a, "-c 1").is_ok(), "it heals");
    // Through the normaliser.
    let loss = set(agent, json!({"target": target, "faults": {"loss": "every=2"}}));
    let said = ping(&pair.a, "-c 10 -i 0.05").unwrap();
    assert!(said.contains(" 50% packet loss"), "{said}");
    end(agent, &loss);
    // Through the delay line, whose thread is a real-time one.
    let delay = set(agent, json!({"target": target, "faults": {"delay": "60ms"}}));
    let mean = round_trip(&pair.a);
    assert!((55.0..300.0).contains(&mean), "{mean} ms");
    end(agent, &delay);
}

/// By `SOCK_DESTROY`.
fn an_idle_connection_is_reset(agent: &Agent, pair: &Pair) {
    let listener = pair.b.enter(|| TcpListener::bind((Ipv6Addr::UNSPECIFIED, 7200))).unwrap().unwrap();
    let near = pair.a.enter(|| TcpStream::connect((B4, 7200))).unwrap().unwrap();
    let (mut far, _) = listener.accept().unwrap();
    far.set_read_timeout(Some(SOON)).unwrap();
    let body = json!({"target": format!("netns:{}", pair.a.name()), "faults": {"reset": true}, "match": {"peer_port": [7200]}});
    let reset = set(agent, body);
    let error = far.read(&mut [0]).unwrap_err();
    assert_eq!(error.kind(), ErrorKind::ConnectionReset, "{error}");
    drop(near);
    end(agent, &reset);
}

fn names_do_not_resolve(agent: &Agent, pair: &Pair) {
    let at: SocketAddr = (B4, 53).into();
    let server = Server::start(&pair.b, at).unwrap();
    let resolver = Resolver::new(&pair.a, B4.into()).unwrap();
    assert_eq!(resolver.ask("api.faulty").unwrap().code, 0);
    let target = format!("netns:{}", pair.a.name());
    let dns = set(agent, json!({"target": target, "faults": {"dns": "nxdomain:*.faulty"}}));
    assert_eq!(resolver.ask("api.faulty").unwrap().code, libc::EAI_NONAME);
    end(agent, &dns);
    drop(server);
}

/// The hooks of a cgroup, and a process of another user whose namespace is the target.
fn a_cgroup_and_somebody_elses_process(agent: &Agent, pair: &Pair) {
    let cgroup = Cgroup::new().unwrap();
    let _listener = pair.b.enter(|| TcpListener::bind((B4, 7201))).unwrap().unwrap();
    let calls = || {
        let command = connect::command("tcp", (B4, 7201).into(), 1).unwrap();
        process::run(cgroup.inside(pair.a.inside(command))).unwrap()
    };
    let before = calls();
    assert!(before.starts_with("0 "), "{before}");
    // A process of another user inside, so that the cgroup's namespace is found through it.
    let mut sleeper = std::process::Command::new("setpriv");
    sleeper.args(["--reuid=65534", "--regid=65534", "--clear-groups", "sleep", "60"]);
    let somebody = process::Process::start(cgroup.inside(pair.a.inside(sleeper))).unwrap();
    wait_until("the other user", SOON, || {
        of_status(Path::new(&format!("/proc/{}/status", somebody.pid())), "Uid").starts_with("65534")
    })
    .unwrap();
    let refuse = set(
        agent,
        json!({"target": format!("cgroup:{}", cgroup.name()), "faults": {"refuse": "EHOSTUNREACH"}}),
    );
    let refused = calls();
    assert!(refused.starts_with(&format!("{} ", libc::EHOSTUNREACH)), "{refused}");
    end(agent, &refuse);
    let pid = set(agent, json!({"target": format!("pid:{}", somebody.pid()), "faults": {"loss": "every=2"}}));
    let said = ping(&pair.a, "-c 4 -i 0.05").unwrap();
    assert!(said.contains(" 50% packet loss"), "{said}");
    end(agent, &pid);
    drop(somebody);
}

#[test]
fn with_only_what_it_needs_every_kind_of_fault_works() {
    require_root!();
    let _alone = alone().unwrap();
    let pair = Pair::new().unwrap();
    assert!(ping(&pair.a, "-c 1").is_ok());
    for attach in ["tcx", "clsact"] {
        let before = Snapshot::before(&[&pair.a, &pair.b]).unwrap();
        let mut agent = Agent::start(&format!("--attach {attach}")).unwrap();
        let pid = agent.chaos().process().pid().as_raw();
        has_only_what_it_needs(pid);
        faults_of_every_line(&agent, &pair);
        an_idle_connection_is_reset(&agent, &pair);
        names_do_not_resolve(&agent, &pair);
        a_cgroup_and_somebody_elses_process(&agent, &pair);
        // Also the threads that were started since, and the guard.
        assert_eq!(has_only_what_it_needs(pid), usize::from(attach == "clsact"), "{attach}");
        agent.stop().unwrap();
        thread::sleep(FREED);
        before.settle(&[&pair.a, &pair.b], SOON).unwrap();
    }
}

#[test]
fn one_agent_keeps_its_state_in_one_place() {
    require_root!();
    let _alone = alone().unwrap();
    let folder = tempfile::tempdir().unwrap();
    let other = folder.path().join("other.sock");
    let mut first = Agent::start("").unwrap();
    let state = first.socket().with_file_name("agent-state");
    let pid = first.chaos().process().pid();
    let second =
        chaos::run(&format!("agent --socket {} --state-dir {}", other.display(), state.display())).unwrap();
    let said = String::from_utf8_lossy(&second.stderr).into_owned();
    assert_eq!(second.status.code(), Some(3), "{said}");
    assert!(said.contains(&format!("an agent is there already: process {pid} keeps its state in")), "{said}");
    assert!(!other.exists(), "and leaves no socket");
    first.stop().unwrap();
    // Killed, it names nobody any more.
    let killed = Agent::start("").unwrap();
    killed.kill().unwrap();
    assert!(state.join("agent.lock").exists(), "nobody could remove it");
    Agent::start("").unwrap().stop().unwrap();
    assert!(!state.join("agent.lock").exists(), "the lock is left");
}

/// Somebody's question to a name server that is silent keeps neither others nor the end waiting.
#[test]
fn a_silent_name_server_keeps_nobody_waiting() {
    require_root!();
    require_tools!("unshare");
    let _alone = alone().unwrap();
    let pair = Pair::new().unwrap();
    let _silent = pair.a.enter(|| UdpSocket::bind("127.0.0.1:53").unwrap()).unwrap();
    let folder = tempfile::tempdir().unwrap();
    let file = |name: &str, text: &str| fs::write(folder.path().join(name), text).unwrap();
    file("resolv.conf", "nameserver 127.0.0.1\noptions timeout:10 attempts:3\n");
    file("nsswitch.conf", "hosts: dns\n");
    let socket = folder.path().join("agent.sock");
    let arguments =
        format!("agent --json --socket {} --state-dir {}", socket.display(), folder.path().display());
    let mut command = resolving(folder.path());
    command.arg(chaos::binary().unwrap()).args(arguments.split(' '));
    let mut agent = Chaos::start_command(command).unwrap();
    let ask = |path: &str, body: &str| {
        let mut stream = UnixStream::connect(&socket).unwrap();
        let length = body.len();
        write!(stream, "POST {path} HTTP/1.1\r\nhost: chaos\r\nconnection: close\r\ncontent-type: application/json\r\ncontent-length: {length}\r\n\r\n{body}").unwrap();
        stream
    };
    let body = json!({"target": format!("netns:{}", pair.a.name()), "faults": {"loss": "1%"}, "duration": "1m",
        "match": {"peer": "a.silent"}});
    // More than there are threads for such work.
    let asked: Vec<UnixStream> = (0..12).map(|_| ask("/v1/faults:validate", &body.to_string())).collect();
    thread::sleep(Duration::from_millis(500));
    assert_eq!(Answer::read(ask("/v1/stop", "{\"reason\":\"a fire\"}")).unwrap().status, 200);
    let process = agent.process();
    process.signal(Signal::SIGTERM).unwrap();
    let began = Instant::now();
    assert!(process.wait(Duration::from_mins(1)).unwrap().success());
    assert!(began.elapsed() < Duration::from_secs(8), "it waited for the name server: {:?}", began.elapsed());
    drop(asked);
}

/// A thread of a process that stands still; the others go on. It goes on when this is dropped.
struct Hung(Pid);

impl Hung {
    /// The thread of this name.
    fn stop(pid: Pid, name: &str) -> Self {
        let tasks = fs::read_dir(format!("/proc/{pid}/task")).unwrap().flatten();
        let is_it = |task: &fs::DirEntry| of_status(&task.path().join("status"), "Name") == name;
        let task = tasks.filter(is_it).map(|task| task.file_name().into_string().unwrap()).next().unwrap();
        let task = Pid::from_raw(task.parse().unwrap());
        ptrace::seize(task, ptrace::Options::empty()).unwrap();
        ptrace::interrupt(task).unwrap();
        waitpid(task, Some(WaitPidFlag::__WALL)).unwrap();
        Self(task)
    }
}

impl Drop for Hung {
    fn drop(&mut self) {
        let _ = ptrace::detach(self.0, None);
    }
}

/// A service manager: hears until `wanted` comes; all that it heard.
fn hear(manager: &UnixDatagram, wanted: &str) -> String {
    let (mut heard, mut bytes) = (String::new(), [0; 4096]);
    let until = Instant::now() + SOON;
    while Instant::now() < until {
        if let Ok(length) = manager.recv(&mut bytes) {
            heard.push_str(&String::from_utf8_lossy(&bytes[..length]));
            heard.push('\n');
            if heard.lines().any(|line| line == wanted) {
                return heard;
            }
        }
    }
    panic!("no {wanted} in {heard}");
}

#[test]
fn the_service_manager_hears_of_it_and_the_watchdog_of_a_keeper_that_works() {
    require_root!();
    let _alone = alone().unwrap();
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("notify");
    let manager = UnixDatagram::bind(&path).unwrap();
    manager.set_read_timeout(Some(Duration::from_millis(100))).unwrap();
    let (socket, state) = (folder.path().join("agent.sock"), folder.path().join("state"));
    let arguments = format!("agent --json --socket {} --state-dir {}", socket.display(), state.display());
    let start = |watchdog: Option<Duration>| {
        let mut command = chaos::command(&arguments).unwrap();
        command.env("NOTIFY_SOCKET", &path);
        if let Some(interval) = watchdog {
            command.env("WATCHDOG_USEC", interval.as_micros().to_string());
        }
        let agent = Chaos::start_command(command).unwrap();
        let heard = hear(&manager, "READY=1");
        (agent, heard)
    };
    let (mut agent, _) = start(Some(Duration::from_millis(600)));
    let begun = Instant::now();
    for _ in 0..4 {
        hear(&manager, "WATCHDOG=1");
    }
    assert!(begun.elapsed() > Duration::from_millis(400), "three times in its time: {:?}", begun.elapsed());
    {
        let _hung = Hung::stop(agent.process().pid(), "chaos-keeper");
        // One that was on its way.
        thread::sleep(Duration::from_millis(300));
        while manager.recv(&mut [0; 64]).is_ok() {}
        // The rest of the agent works, and says nothing for longer than the manager would wait.
        let until = Instant::now() + Duration::from_millis(1500);
        while Instant::now() < until {
            assert!(manager.recv(&mut [0; 64]).is_err(), "a keeper that hangs is said to work");
        }
    }
    hear(&manager, "WATCHDOG=1");
    agent.process().signal(Signal::SIGHUP).unwrap();
    let heard = hear(&manager, "READY=1");
    assert!(heard.contains("RELOADING=1") && heard.contains("MONOTONIC_USEC="), "{heard}");
    agent.process().signal(Signal::SIGTERM).unwrap();
    hear(&manager, "STOPPING=1");
    assert!(agent.process().wait(SOON).unwrap().success());

    // Nothing wakes one whose watchdog is not wanted.
    let (mut agent, _) = start(None);
    let switches = |pid: i32| -> u64 {
        let of = |status: &Path| of_status(status, "voluntary_ctxt_switches").parse::<u64>().unwrap();
        procfs_of_run(pid).iter().map(|status| of(status)).sum()
    };
    let pid = agent.process().pid().as_raw();
    // What it makes ready after its start takes a while.
    wait_until("two seconds without a wake-up", 3 * SOON, || {
        let before = switches(pid);
        thread::sleep(Duration::from_secs(2));
        switches(pid) == before
    })
    .unwrap();
    assert!(manager.recv(&mut [0; 64]).is_err(), "and nobody is told anything");
    agent.process().signal(Signal::SIGTERM).unwrap();
    assert!(agent.process().wait(SOON).unwrap().success());
}

#[test]
fn ending_while_the_next_fault_is_prepared_leaves_nothing() {
    require_root!();
    let _alone = alone().unwrap();
    let registered = || -> BTreeSet<PathBuf> {
        let files = fs::read_dir("/run/chaos").into_iter().flatten().flatten().map(|entry| entry.path());
        files.filter(|path| path.extension().is_some_and(|end| end == "json")).collect()
    };
    let pair = Pair::new().unwrap();
    let before = registered();
    for _ in 0..3 {
        let agent = Agent::start("").unwrap();
        set(&agent, json!({"target": format!("netns:{}", pair.a.name()), "faults": {"loss": "1%"}}));
        // The safety lever ends the engine, and so another one is prepared: some 200 ms.
        assert_eq!(agent.ask("POST", "/v1/stop", &json!({"reason": "a test"})).unwrap().status, 200);
        agent.stop().unwrap();
        let left: Vec<PathBuf> = registered().difference(&before).cloned().collect();
        assert!(left.is_empty(), "left: {left:?}");
    }
}
