//! "Armed, but nothing matched": the alarm, and that it names the right cause.
#![expect(clippy::unwrap_used, reason = "a failed unwrap in a test is a failed test")]

use std::{
    net::{TcpStream, UdpSocket},
    sync::{
        Arc,
        atomic::{AtomicBool, Ordering},
    },
    thread,
    time::{Duration, Instant},
};

use chaos_tests::{
    api::{Agent, both_ways},
    chaos::{self, Chaos},
    lab::{
        alone,
        process::{Process, wait_until},
        shapes::{B4, Pair},
    },
    metrics::Scrape,
    require_root,
};
use serde_json::{Value, json};

const LIMIT: Duration = Duration::from_secs(20);

fn scrape(agent: &Agent) -> Scrape {
    Scrape::parse(agent.ask("GET", "/metrics", &Value::Null).unwrap().body.as_str().unwrap()).unwrap()
}

/// Sets the fault and waits for its alarm: the cause, and the sentence.
fn alarm(agent: &Agent, body: &Value) -> (Value, String, String) {
    let made = agent.ask("POST", "/v1/faults", body).unwrap();
    assert_eq!(made.status, 201, "{made:?}");
    let began = Instant::now();
    let id = made.body["id"].to_string();
    let path = format!("/v1/faults/{id}");
    let mut shown = made.body.clone();
    assert_eq!(shown["unmatched"], Value::Null, "{shown:?}");
    wait_until("the alarm", LIMIT, || {
        shown = agent.ask("GET", &path, &Value::Null).unwrap().body;
        shown["unmatched"] != Value::Null
    })
    .unwrap();
    assert!(began.elapsed() >= Duration::from_secs(4), "too soon: {:?}", began.elapsed());
    let status = agent.ask("GET", "/v1/status", &Value::Null).unwrap().body;
    assert_eq!(status["unmatched"], json!([made.body["id"]]), "{status:?}");
    let seen = scrape(agent);
    assert!(seen.sum("chaos_fault_unmatched", &[("fault", &id)]) > 0.5);
    assert!(seen.sum("chaos_events_total", &[("kind", "unmatched")]) > 0.5);
    let message = shown["unmatched"]["message"].as_str().unwrap().to_owned();
    (shown["unmatched"]["cause"].clone(), message, path)
}

#[test]
fn each_cause_is_named_and_a_match_ends_the_alarm() {
    require_root!();
    let _alone = alone().unwrap();
    let pair = Pair::new().unwrap();
    pair.a.run("ip link add other type veth peer name rehto").unwrap();
    pair.a.run("ip link set other up").unwrap();
    let target = format!("netns:{}", pair.a.name());
    let _pings = Process::start(pair.a.command(&format!("ping -i 0.2 -q {B4}"))).unwrap();
    let agent = Agent::start("").unwrap();

    let elsewhere = json!({"target": target, "faults": {"loss": "100%"}, "duration": "1m",
        "match": {"interface": ["other"], "proto": "icmp"}});
    let (cause, message, path) = alarm(&agent, &elsewhere);
    assert_eq!(cause["cause"], "wrong-interface", "{message}");
    assert_eq!(cause["interface"], "va", "{message}");
    assert_eq!(agent.ask("DELETE", &path, &Value::Null).unwrap().status, 200);

    // Nobody sends from port 7: nothing of the kind in any direction.
    let nothing = json!({"target": target, "faults": {"loss": "100%"}, "duration": "1m",
        "match": {"peer_port": [7], "proto": "tcp"}});
    let (cause, message, path) = alarm(&agent, &nothing);
    assert_eq!(cause["cause"], "no-traffic", "{message}");
    // Now there is, and the alarm ends.
    let refused =
        pair.a.enter(|| TcpStream::connect_timeout(&(B4, 7).into(), Duration::from_millis(500))).unwrap();
    assert!(refused.is_err(), "the fault lets nothing through");
    wait_until("the end of the alarm", LIMIT, || {
        agent.ask("GET", &path, &Value::Null).unwrap().body["unmatched"] == Value::Null
    })
    .unwrap();
    assert!(scrape(&agent).sum("chaos_faults_unmatched", &[]) < 0.5);
    assert_eq!(agent.ask("DELETE", &path, &Value::Null).unwrap().status, 200);
    agent.stop().unwrap();
}

#[test]
fn the_wrong_direction_is_named_and_nothing_was_touched() {
    require_root!();
    let _alone = alone().unwrap();
    let pair = Pair::new().unwrap();
    pair.a.run(&format!("ping -c 1 -W 2 -q {B4}")).unwrap();
    let target = format!("netns:{}", pair.b.name());
    // What A sends to port 7010 comes to B: it never leaves it.
    let socket = pair.a.enter(|| UdpSocket::bind("0.0.0.0:0")).unwrap().unwrap();
    let done = Arc::new(AtomicBool::new(false));
    let ended = Arc::clone(&done);
    let sender = thread::spawn(move || {
        while !ended.load(Ordering::Relaxed) {
            // Nobody listens there, which an ICMP error may say.
            let _ = socket.send_to(b"x", (B4, 7010));
            thread::sleep(Duration::from_millis(50));
        }
    });
    let agent = Agent::start("").unwrap();
    let body = json!({"target": target, "faults": {"loss": "100%"}, "duration": "1m",
        "match": {"local_port": [7010], "proto": "udp", "direction": "egress"}});
    let (cause, message, path) = alarm(&agent, &body);
    assert_eq!(
        (&cause["cause"], &cause["direction"]),
        (&json!("wrong-direction"), &json!("ingress")),
        "{message}"
    );
    assert!(cause["packets"].as_u64().unwrap() >= 1, "{message}");
    let shown = agent.ask("GET", &path, &Value::Null).unwrap().body;
    assert_eq!(shown["ingress"]["dropped_packets"], 0, "looking touches nothing: {shown:?}");
    done.store(true, Ordering::Relaxed);
    sender.join().unwrap();
    agent.stop().unwrap();
}

#[test]
fn a_command_says_why_by_itself_and_with_an_agent() {
    require_root!();
    let _alone = alone().unwrap();
    both_ways(|| {
        let pair = Pair::new().unwrap();
        pair.a.run("ip link add other type veth peer name rehto").unwrap();
        pair.a.run("ip link set other up").unwrap();
        let _pings = Process::start(pair.a.command(&format!("ping -i 0.2 -q {B4}"))).unwrap();
        let mut elsewhere = Chaos::inject(&pair.a, "--loss 100% --interface other --proto icmp").unwrap();
        let note = elsewhere.wait_for("note", LIMIT).unwrap().to_string();
        assert!(note.contains("wrong interface") && note.contains("`va`"), "{note}");
        assert!(note.contains("chaos flows"), "and what mends it: {note}");
        let rules = elsewhere.stop().unwrap();
        assert_eq!(
            (rules.len(), rules[0].both("matched_packets")),
            (1, 0),
            "looking is no matching: {rules:?}"
        );
        // One that matches needs no note.
        let mut hit = Chaos::inject(&pair.a, "--delay 1ms --proto icmp").unwrap();
        thread::sleep(Duration::from_secs(7));
        let _ = hit.wait_for("tick", LIMIT).unwrap();
        let notes = hit.seen().iter().filter(|line| chaos::kind(line) == Some("note")).count();
        assert_eq!(notes, 0, "{:?}", hit.seen());
        assert!(hit.stop().unwrap()[0].both("matched_packets") > 10);
    })
    .unwrap();
}

#[test]
fn a_command_tells_of_packets_by_itself_and_with_an_agent() {
    require_root!();
    let _alone = alone().unwrap();
    both_ways(|| {
        let pair = Pair::new().unwrap();
        let mut cut = Chaos::inject(&pair.a, "--partition --peer-port 7010 --proto udp --events").unwrap();
        let socket = pair.a.enter(|| UdpSocket::bind("0.0.0.0:0")).unwrap().unwrap();
        let port = socket.local_addr().unwrap().port();
        let done = Arc::new(AtomicBool::new(false));
        let ended = Arc::clone(&done);
        let sender = thread::spawn(move || {
            while !ended.load(Ordering::Relaxed) {
                let _ = socket.send_to(b"x", (B4, 7010));
                thread::sleep(Duration::from_millis(50));
            }
        });
        let packet = cut.wait_for("packet", LIMIT).unwrap();
        done.store(true, Ordering::Relaxed);
        sender.join().unwrap();
        let ends = (&packet["source_port"], &packet["destination_port"], &packet["interface"]);
        assert_eq!(ends, (&json!(port), &json!(7010), &json!("va")), "{packet}");
        assert_eq!(
            (&packet["direction"], &packet["protocol"]),
            (&json!("egress"), &json!("udp")),
            "{packet}"
        );
        assert!(packet["verdicts"].to_string().contains("dropped"), "{packet}");
        cut.stop().unwrap();
    })
    .unwrap();
}
