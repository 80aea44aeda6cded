//! Every setting of the agent does something, and a test shows it.
#![expect(clippy::unwrap_used, reason = "a failed unwrap in a test is a failed test")]

use std::{
    fs,
    io::{BufRead as _, BufReader, Write as _},
    net::UdpSocket,
    os::unix::{net::UnixStream, process::CommandExt as _},
    path::{Path, PathBuf},
    process::Command,
    sync::mpsc::{Receiver, channel},
    thread,
    time::{Duration, Instant},
};

use chaos_tests::{
    api::Agent,
    chaos,
    lab::{
        alone,
        process::{self, wait_until},
        shapes::{B4, Pair},
    },
    require_root, require_tools,
};
use nix::sys::{
    signal::Signal,
    stat::{Mode, umask},
};
use serde_json::{Value, json};

const SOON: Duration = Duration::from_secs(10);
/// Longer than a record takes to be told.
const TOLD: Duration = Duration::from_millis(500);

/// Each setting, and the test that shows what it does.
const SHOWN: &[(&str, &str, &str)] = &[
    ("socket", "e2e_access.rs", "sighup_reads_the_configuration_again"),
    ("socket_group", "e2e_settings.rs", "the_group_of_the_socket_may_ask_and_nobody_else"),
    ("listen", "e2e_access_tcp.rs", "tcp_wants_a_key_and_what_others_can_reach_wants_tls"),
    ("key_file", "e2e_access_tcp.rs", "tcp_wants_a_key_and_what_others_can_reach_wants_tls"),
    ("tls_cert", "e2e_access_tcp.rs", "tls_is_spoken_with_the_certificate_that_was_given"),
    ("tls_key", "e2e_access_tcp.rs", "tls_is_spoken_with_the_certificate_that_was_given"),
    ("insecure", "e2e_protect_settings.rs", "ports_of_the_host_and_the_agents_own"),
    ("max_duration", "e2e_settings.rs", "how_long_and_how_far_a_fault_may_go"),
    ("max_faults", "e2e_safety.rs", "no_more_faults_and_no_longer_than_is_allowed"),
    ("max_rules", "e2e_settings.rs", "as_many_rules_as_there_are_places"),
    ("max_targets", "e2e_settings.rs", "how_long_and_how_far_a_fault_may_go"),
    ("state_dir", "e2e_agent_process.rs", "one_agent_keeps_its_state_in_one_place"),
    ("audit_log", "e2e_journal.rs", "after_a_kill_the_next_agent_knows_what_there_was_and_takes_nothing_up"),
    ("abort.commands", "e2e_settings.rs", "commands_of_abort_conditions_are_roots_or_nobodys"),
    ("limits.body_bytes", "e2e_access_tcp.rs", "bodies_requests_and_connections_are_limited"),
    ("limits.requests_per_second", "e2e_access_tcp.rs", "bodies_requests_and_connections_are_limited"),
    ("limits.connections", "e2e_access_tcp.rs", "bodies_requests_and_connections_are_limited"),
    ("limits.idle", "e2e_access_tcp.rs", "bodies_requests_and_connections_are_limited"),
    ("log.level", "e2e_access.rs", "sighup_reads_the_configuration_again"),
    ("log.json", "e2e_access.rs", "sighup_reads_the_configuration_again"),
    ("events.first_per_second", "e2e_settings.rs", "so_many_packets_are_told_of"),
    ("events.one_in", "e2e_settings.rs", "so_many_packets_are_told_of"),
    ("protect.local_ports", "e2e_protect_settings.rs", "ports_of_the_host_and_the_agents_own"),
    ("protect.peers", "e2e_protect_settings.rs", "peers_whatever_the_target_and_from_sighup_on"),
];

fn loss(pair: &Pair, duration: &str) -> Value {
    json!({"target": format!("netns:{}", pair.a.name()), "faults": {"loss": "1%"}, "duration": duration})
}

#[test]
fn every_setting_has_a_test() {
    let printed = chaos::run("agent --print-config --config /dev/null").unwrap();
    let text = String::from_utf8(printed.stdout).unwrap();
    let mut section = String::new();
    let mut settings = Vec::new();
    for line in text.lines().filter(|line| !line.starts_with('#')) {
        if let Some(name) = line.strip_prefix('[') {
            section = name.replace(']', ".");
        } else if let Some((key, _)) = line.split_once(" = ") {
            settings.push(format!("{section}{key}"));
        }
    }
    let names: Vec<&str> = SHOWN.iter().map(|(name, ..)| *name).collect();
    assert_eq!(settings, names, "add the new one here, with the test that shows what it does");
    let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests");
    for (name, file, test) in SHOWN {
        let source = fs::read_to_string(folder.join(file)).unwrap();
        assert!(source.contains(&format!("fn {test}()")), "{name}: no {test} in {file}");
    }
}

#[test]
fn the_group_of_the_socket_may_ask_and_nobody_else() {
    require_root!();
    require_tools!("curl");
    let _alone = alone().unwrap();
    // As careful as some administrators are.
    let before = umask(Mode::S_IRWXG | Mode::S_IRWXO);
    let started = Agent::start("--socket-group daemon");
    umask(before);
    let agent = started.unwrap();
    let group = nix::unistd::Group::from_name("daemon").unwrap().unwrap().gid.as_raw();
    let status = |gid: u32| {
        let mut curl = Command::new("curl");
        curl.args(["--silent", "--max-time", "10", "http://chaos/v1/status", "--unix-socket"])
            .arg(agent.socket());
        // Without the groups of root, which this sets aside.
        curl.uid(65_534).gid(gid);
        String::from_utf8(process::output(curl, SOON * 2).unwrap().stdout).unwrap()
    };
    assert!(status(group).contains("\"version\""), "{}", status(group));
    assert_eq!(status(65_534), "", "nobody is in no group");
    agent.stop().unwrap();
}

#[test]
fn how_long_and_how_far_a_fault_may_go() {
    require_root!();
    let _alone = alone().unwrap();
    let pair = Pair::new().unwrap();
    let folder = tempfile::tempdir().unwrap();
    let file = folder.path().join("agent.toml");
    fs::write(&file, "max_duration = \"10s\"\nmax_targets = 1\n").unwrap();
    let mut agent = Agent::start(&format!("--config {}", file.display())).unwrap();
    let posted = |agent: &Agent, body: &Value| agent.ask("POST", "/v1/faults", body).unwrap();
    let long = posted(&agent, &loss(&pair, "11s"));
    assert_eq!((long.status, &long.body["errors"][0]["pointer"]), (422, &json!("/duration")), "{long:?}");
    let wide = posted(&agent, &loss(&pair, "10s"));
    assert!(wide.status == 409 && wide.body.to_string().contains("2 devices"), "{wide:?}");
    let mut own = loss(&pair, "10s");
    own["max_targets"] = 2.into();
    assert_eq!(posted(&agent, &own).status, 201, "unless it names its own");
    fs::write(&file, "max_duration = \"20s\"\n").unwrap();
    agent.chaos().process().signal(Signal::SIGHUP).unwrap();
    wait_until("the new limits", SOON, || posted(&agent, &loss(&pair, "20s")).status == 201).unwrap();
    agent.stop().unwrap();
}

#[test]
fn as_many_rules_as_there_are_places() {
    require_root!();
    let _alone = alone().unwrap();
    let pair = Pair::new().unwrap();
    let put = |agent: &Agent, count: usize| {
        let fault = |port: usize| {
            let mut body = loss(&pair, "1m");
            body["match"] = json!({"peer_port": 1000 + port});
            body
        };
        let body = json!({"faults": (0..count).map(fault).collect::<Vec<_>>()});
        agent.ask("PUT", "/v1/faults", &body).unwrap()
    };
    let agent = Agent::start("--max-faults 4096").unwrap();
    let few = put(&agent, 257);
    assert!(few.status == 409 && few.body.to_string().contains("max_rules"), "{few:?}");
    agent.stop().unwrap();
    let agent = Agent::start("--max-faults 4096 --max-rules 300").unwrap();
    assert_eq!(put(&agent, 257).status, 200);
    agent.stop().unwrap();
}

#[test]
fn commands_of_abort_conditions_are_roots_or_nobodys() {
    require_root!();
    let _alone = alone().unwrap();
    let pair = Pair::new().unwrap();
    let folder = tempfile::tempdir().unwrap();
    let file = folder.path().join("agent.toml");
    fs::write(&file, "[abort]\ncommands = \"nobody\"\n").unwrap();
    let mut agent = Agent::start(&format!("--config {}", file.display())).unwrap();
    let mut body = loss(&pair, "1m");
    body["abort"] = json!(["command=true"]);
    let posted = |agent: &Agent, body: &Value| agent.ask("POST", "/v1/faults", body).unwrap();
    let refused = posted(&agent, &body);
    assert!(refused.status == 403 && refused.body.to_string().contains("abort.commands"), "{refused:?}");
    let mut other = body.clone();
    other["abort"] = json!(["retransmits=+50%"]);
    assert_eq!(posted(&agent, &other).status, 201, "conditions that run nothing are everybody's");
    fs::write(&file, "").unwrap();
    agent.chaos().process().signal(Signal::SIGHUP).unwrap();
    wait_until("root may again", SOON, || posted(&agent, &body).status == 201).unwrap();
    agent.stop().unwrap();
}

/// Lines of `/v1/events?kind=packet` as they come.
fn packets(socket: &PathBuf) -> Receiver<String> {
    let mut stream = UnixStream::connect(socket).unwrap();
    stream.write_all(b"GET /v1/events?kind=packet HTTP/1.1\r\nhost: chaos\r\n\r\n").unwrap();
    let (sender, lines) = channel();
    thread::spawn(move || {
        let data =
            BufReader::new(stream).lines().map_while(Result::ok).filter(|line| line.starts_with("data:"));
        data.map(|line| sender.send(line)).find(Result::is_err);
    });
    lines
}

#[test]
fn so_many_packets_are_told_of() {
    require_root!();
    let _alone = alone().unwrap();
    let pair = Pair::new().unwrap();
    let folder = tempfile::tempdir().unwrap();
    let file = folder.path().join("agent.toml");
    fs::write(&file, "[events]\nfirst_per_second = 5\none_in = 0\n").unwrap();
    let mut agent = Agent::start(&format!("--config {}", file.display())).unwrap();
    let mut body = loss(&pair, "1m");
    body["faults"] = json!({"partition": true});
    body["match"] = json!({"peer_port": 7010});
    assert_eq!(agent.ask("POST", "/v1/faults", &body).unwrap().status, 201);
    let told = packets(agent.socket());
    let sender = pair.a.enter(|| UdpSocket::bind("0.0.0.0:0")).unwrap().unwrap();
    let send = |count: usize| (0..count).for_each(|_| drop(sender.send_to(b"x", (B4, 7010))));
    // The stream may not be there yet, and a second may pass in between.
    let seen = || {
        while told.try_recv().is_ok() {}
        let begun = Instant::now();
        send(300);
        let seconds = usize::try_from(begun.elapsed().as_secs()).unwrap() + 2;
        thread::sleep(TOLD);
        (told.try_iter().count(), seconds)
    };
    wait_until("a record", SOON, || seen().0 > 0).unwrap();
    let (count, seconds) = seen();
    assert!(count <= 5 * seconds, "{count} in {seconds} s");
    for (text, least) in
        [("first_per_second = 5\none_in = 10\n", 29), ("first_per_second = 200\none_in = 0\n", 200)]
    {
        fs::write(&file, format!("[events]\n{text}")).unwrap();
        agent.chaos().process().signal(Signal::SIGHUP).unwrap();
        // Also for who listens already.
        wait_until(text, SOON, || {
            let (count, seconds) = seen();
            (least..=least * seconds + 40).contains(&count)
        })
        .unwrap();
    }
    agent.stop().unwrap();
}

#[test]
fn a_key_of_somebody_else_is_another_key() {
    require_root!();
    require_tools!("curl");
    let _alone = alone().unwrap();
    let pair = Pair::new().unwrap();
    let agent = Agent::start("--socket-group daemon").unwrap();
    let group = nix::unistd::Group::from_name("daemon").unwrap().unwrap().gid.as_raw();
    let body = loss(&pair, "1m").to_string();
    let id = |uid: u32| {
        let mut curl = Command::new("curl");
        curl.args(["--silent", "--max-time", "10", "http://chaos/v1/faults", "--unix-socket"])
            .arg(agent.socket());
        curl.args(["-H", "content-type: application/json", "-H", "idempotency-key: once", "-d", &body]);
        curl.uid(uid).gid(group);
        let output = process::output(curl, SOON * 2).unwrap();
        serde_json::from_slice::<Value>(&output.stdout).unwrap()["id"].as_u64().unwrap()
    };
    let (root, other) = (id(0), id(65_534));
    assert_ne!(root, other, "each made its own");
    assert_eq!((id(0), id(65_534)), (root, other), "once");
    agent.stop().unwrap();
}
