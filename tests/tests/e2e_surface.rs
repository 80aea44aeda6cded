//! What the agent tells besides faults: events, flows, what the machine can do; and how it refuses.
#![expect(clippy::unwrap_used, reason = "a failed unwrap in a test is a failed test")]

use std::{
    io::{BufRead as _, BufReader, Read as _, Write as _},
    net::{Ipv4Addr, TcpListener},
    os::unix::net::UnixStream,
    path::Path,
    time::{Duration, Instant},
};

use chaos_tests::{
    api::{Agent, matched},
    lab::{
        alone,
        shapes::{B4, Pair},
    },
    require_root,
    snapshot::Snapshot,
};
use serde_json::{Value, json};

const ANSWER_LIMIT: Duration = Duration::from_secs(20);

/// One who listens to `/v1/events`.
struct Listener(BufReader<UnixStream>);

impl Listener {
    fn new(agent: &Agent, query: &str, header: &str) -> Self {
        let mut stream = UnixStream::connect(agent.socket()).unwrap();
        stream.set_read_timeout(Some(ANSWER_LIMIT)).unwrap();
        write!(stream, "GET /v1/events{query} HTTP/1.1\r\nhost: chaos\r\n{header}\r\n").unwrap();
        let mut listener = Self(BufReader::new(stream));
        assert!(listener.line("HTTP/1.1 ").contains("200 OK"));
        listener.line("\r");
        listener
    }

    /// The rest of the next line that begins so; empty at the end of the stream.
    fn line(&mut self, begin: &str) -> String {
        let mut line = String::new();
        while self.0.read_line(&mut line).unwrap() > 0 {
            if let Some(rest) = line.strip_prefix(begin) {
                return rest.trim().to_owned();
            }
            line.clear();
        }
        line
    }

    /// The next event: its id in the stream, its kind, and what it says.
    fn event(&mut self) -> (String, String, Value) {
        let mut parts = [String::new(), String::new(), String::new()];
        let mut line = String::new();
        while self.0.read_line(&mut line).unwrap() > 0 {
            for (part, begin) in parts.iter_mut().zip(["id: ", "event: ", "data: "]) {
                if let Some(rest) = line.strip_prefix(begin) {
                    rest.trim().clone_into(part);
                }
            }
            if line == "\n" && !parts[2].is_empty() {
                break;
            }
            line.clear();
        }
        let [id, kind, data] = parts;
        (id, kind, serde_json::from_str(&data).unwrap_or_default())
    }
}

/// An answer to a request with headers of its own: status, head and body.
fn raw(socket: &Path, request: &str, headers: &str, body: &str) -> (u16, String, Value) {
    let mut stream = UnixStream::connect(socket).unwrap();
    stream.set_read_timeout(Some(ANSWER_LIMIT)).unwrap();
    let length = if body.is_empty() { String::new() } else { format!("content-length: {}\r\n", body.len()) };
    write!(stream, "{request} HTTP/1.1\r\nhost: chaos\r\nconnection: close\r\n{headers}{length}\r\n{body}")
        .unwrap();
    let mut text = String::new();
    stream.read_to_string(&mut text).unwrap();
    let (head, body) = text.split_once("\r\n\r\n").unwrap();
    let status = head.split(' ').nth(1).unwrap().parse().unwrap();
    (status, head.to_ascii_lowercase(), serde_json::from_str(body).unwrap_or_default())
}

fn loss(pair: &Pair, name: &str) -> Value {
    json!({"name": name, "target": format!("netns:{}", pair.a.name()), "faults": {"loss": "1%"}, "duration": "1m"})
}

#[test]
fn events_come_as_they_happen_are_resumed_and_end_with_the_agent() {
    require_root!();
    let _alone = alone().unwrap();
    let pair = Pair::new().unwrap();
    let agent = Agent::start("").unwrap();
    let mut all = Listener::new(&agent, "", "");
    let mut ends = Listener::new(&agent, "?fault=other&kind=ended", "");
    for name in ["one", "other"] {
        assert_eq!(agent.ask("POST", "/v1/faults", &loss(&pair, name)).unwrap().status, 201);
    }
    let (first, kind, started) = all.event();
    assert_eq!((kind.as_str(), &started["name"]), ("started", &json!("one")), "{started}");
    assert_eq!(agent.ask("DELETE", "/v1/faults/one", &Value::Null).unwrap().status, 200);
    assert_eq!(agent.ask("DELETE", "/v1/faults/other", &Value::Null).unwrap().status, 200);
    let (_, kind, ended) = ends.event();
    assert_eq!((kind.as_str(), &ended["name"]), ("ended", &json!("other")), "{ended}");
    assert!(ended["data"]["egress"]["matched_packets"].is_u64(), "{ended}");

    // Whoever comes back hears what was missed, by header or by query, and nothing twice.
    for mut resumed in [
        Listener::new(&agent, "", &format!("last-event-id: {first}\r\n")),
        Listener::new(&agent, "?after=1", ""),
    ] {
        let names: Vec<Value> = (0..3).map(|_| resumed.event().2["name"].clone()).collect();
        assert_eq!(names, [json!("other"), json!("one"), json!("other")]);
    }
    let mut quiet = Listener::new(&agent, "", "");
    assert_eq!(agent.ask("POST", "/v1/faults", &loss(&pair, "last")).unwrap().status, 201);
    let begun = Instant::now();
    agent.stop().unwrap();
    assert!(begun.elapsed() < Duration::from_secs(5), "open streams are no reason to wait");
    let kinds: Vec<String> = (0..3).map(|_| quiet.event().1).collect();
    assert_eq!(kinds, ["started", "ended", ""], "the end of the fault, then the end");
}

#[test]
fn readiness_capabilities_and_flows() {
    require_root!();
    let _alone = alone().unwrap();
    let pair = Pair::new().unwrap();
    let agent = Agent::start("").unwrap();
    let get = |path: &str| agent.ask("GET", path, &Value::Null).unwrap();
    assert_eq!(get("/readyz").body["ready"], true);
    let can = get("/v1/capabilities");
    assert_eq!(can.status, 200, "{can:?}");
    let faults = can.body["faults"].as_array().unwrap();
    assert!(faults.iter().any(|fault| fault["name"] == "loss" && fault["usage"] == "--loss RATE"), "{can:?}");
    assert!(can.body["checks"].as_array().unwrap().len() > 15, "{can:?}");

    let listener = pair.a.enter(|| TcpListener::bind((Ipv4Addr::UNSPECIFIED, 8089))).unwrap().unwrap();
    let flows = get(&format!("/v1/flows?target=netns:{}", pair.a.name()));
    drop(listener);
    assert_eq!(flows.status, 200, "{flows:?}");
    let found = flows.body["conversations"].as_array().unwrap();
    assert!(found.iter().any(|one| one["port"] == 8089 && one["direction"] == "open"), "{flows:?}");

    for (path, status, parameter) in [
        ("/v1/flows", 400, "target"),
        ("/v1/flows?target=nowhere", 400, "target"),
        ("/v1/flows?target=netns:a%00b", 400, "target"),
        ("/v1/flows?target=cgroup:/a%00b", 400, "target"),
        ("/v1/flows?target=netns:no-such-namespace", 409, ""),
        ("/v1/flows?target=host&target=host", 400, "target"),
        ("/v1/events?kind=begun", 400, "kind"),
        ("/v1/events?after=x", 400, "after"),
        ("/v1/faults?all=1", 400, "all"),
    ] {
        let refused = get(path);
        assert_eq!(refused.status, status, "{path}: {refused:?}");
        assert!(refused.head.contains("application/problem+json"), "{path}: {refused:?}");
        if !parameter.is_empty() {
            assert_eq!(refused.body["errors"][0]["parameter"], parameter, "{path}: {refused:?}");
        }
    }
    agent.stop().unwrap();
}

#[test]
fn a_patch_changes_what_it_names_and_nothing_else() {
    require_root!();
    let _alone = alone().unwrap();
    let pair = Pair::new().unwrap();
    assert!(pair.a.reaches(B4));
    let agent = Agent::start("").unwrap();
    let body = json!({"name": "cut", "target": format!("netns:{}", pair.a.name()),
        "faults": {"partition": true}, "duration": "1m"});
    let made = agent.ask("POST", "/v1/faults", &body).unwrap().body;
    let path = format!("/v1/faults/{}", made["id"]);
    assert!(!pair.a.reaches(B4));
    let change = |changes: &Value| {
        let answer = agent.ask("PATCH", &path, changes).unwrap();
        assert_eq!((answer.status, &answer.body["id"]), (200, &made["id"]), "{answer:?}");
        answer.body
    };
    let elsewhere = change(&json!({"match": {"peer_port": [7]}}));
    assert!(pair.a.reaches(B4), "the rule is for another port now");
    assert!(matched(&elsewhere) >= 1, "what was counted stays: {elsewhere}");
    assert!(elsewhere["remaining_seconds"].as_f64().unwrap() < 60.0, "its end is where it was: {elsewhere}");
    let again = change(&json!({"match": null}));
    assert!(again["request"].get("match").is_none() && !pair.a.reaches(B4), "{again}");

    let counted = agent.ask("GET", &path, &Value::Null).unwrap().body;
    let longer = change(&json!({"duration": "5m", "name": "longer"}));
    assert!(longer["remaining_seconds"].as_f64().unwrap() > 290.0 && longer["name"] == "longer", "{longer}");
    assert!(matched(&longer) >= matched(&counted) && !pair.a.reaches(B4), "the rule goes on: {longer}");
    let shorter = change(&json!({"duration": "2s"}));
    assert!(shorter["remaining_seconds"].as_f64().unwrap() <= 2.0, "{shorter}");

    for (changes, pointer) in [
        (json!({"faults": {"loss": "x"}}), "/faults/loss"),
        (json!({"target": null}), "/target"),
        (json!(7), ""),
    ] {
        let refused = agent.ask("PATCH", &path, &changes).unwrap();
        assert_eq!(
            (refused.status, &refused.body["errors"][0]["pointer"]),
            (422, &json!(pointer)),
            "{refused:?}"
        );
    }
    let kind = "content-type: application/merge-patch+json\r\n";
    assert_eq!(raw(agent.socket(), &format!("PATCH {path}"), kind, r#"{"duration":"1m"}"#).0, 200);
    // By number the whole is replaced under the same number, and there is nobody to replace behind an unknown one.
    let whole =
        json!({"target": format!("netns:{}", pair.a.name()), "faults": {"loss": "0%"}, "duration": "9s"});
    let put = agent.ask("PUT", &path, &whole).unwrap();
    assert_eq!((put.status, &put.body["id"], &put.body["name"]), (200, &made["id"], &Value::Null), "{put:?}");
    assert!(pair.a.reaches(B4));
    assert_eq!(agent.ask("PUT", "/v1/faults/999", &whole).unwrap().status, 404);
    assert_eq!(agent.ask("DELETE", &path, &Value::Null).unwrap().status, 200);
    assert_eq!(agent.ask("PATCH", &path, &json!({})).unwrap().status, 410);
    agent.stop().unwrap();
}

#[test]
fn looking_before_leaping_touches_nothing() {
    require_root!();
    let _alone = alone().unwrap();
    let pair = Pair::new().unwrap();
    let agent = Agent::start("").unwrap();
    agent.prepared().unwrap();
    let before = Snapshot::before(&[&pair.a, &pair.b]).unwrap();
    let explained = agent.ask("POST", "/v1/faults:explain", &loss(&pair, "one")).unwrap();
    assert_eq!(explained.status, 200, "{explained:?}");
    assert!(explained.body["explanations"][0].as_str().unwrap().contains("loss 1%"), "{explained:?}");
    assert!(!explained.body["attachments"].as_array().unwrap().is_empty(), "{explained:?}");
    assert_eq!(agent.ask("POST", "/v1/faults:validate", &loss(&pair, "one")).unwrap().body["valid"], true);
    before.settle(&[&pair.a, &pair.b], Duration::ZERO).unwrap();

    // Whatever refuses a POST refuses its validation.
    let wrong = [
        json!({"target": "netns:no-such-namespace", "faults": {"loss": "1%"}, "duration": "9s"}),
        json!({"target": format!("netns:{}", pair.a.name()), "faults": {"loss": 7}}),
        json!({"target": "host", "faults": {"loss": "1%"}}),
        loss(&pair, "taken"),
    ];
    assert_eq!(agent.ask("POST", "/v1/faults", &loss(&pair, "taken")).unwrap().status, 201);
    for body in wrong {
        let [posted, validated] =
            ["/v1/faults", "/v1/faults:validate"].map(|path| agent.ask("POST", path, &body).unwrap());
        assert!(posted.status >= 400 && posted.status < 500, "{posted:?}");
        assert_eq!((posted.status, posted.body), (validated.status, validated.body));
    }
    agent.stop().unwrap();
}

#[test]
fn a_key_makes_a_post_safe_to_repeat() {
    require_root!();
    let _alone = alone().unwrap();
    let pair = Pair::new().unwrap();
    let agent = Agent::start("").unwrap();
    let headers = "content-type: application/json\r\nidempotency-key: \"8e03978e-40d5-43dd\"\r\n";
    let body = loss(&pair, "once").to_string();
    let socket = agent.socket().clone();
    let post = |body: &str| raw(&socket, "POST /v1/faults", headers, body);
    // At the same time, and again.
    let [first, second] = std::thread::scope(|scope| {
        [scope.spawn(|| post(&body)), scope.spawn(|| post(&body))].map(|thread| thread.join().unwrap())
    });
    let third = post(&body);
    assert_eq!((first.0, &first.2["name"]), (201, &json!("once")), "{first:?}");
    assert_eq!((&first, &first), (&second, &third));
    assert_eq!(agent.ask("GET", "/v1/status", &Value::Null).unwrap().body["faults"], 1);
    let other = post(&loss(&pair, "another").to_string());
    assert_eq!((other.0, &other.2["errors"][0]["parameter"]), (422, &json!("Idempotency-Key")), "{other:?}");
    agent.stop().unwrap();
}

#[test]
fn what_is_not_clear_is_refused() {
    require_root!();
    let _alone = alone().unwrap();
    let agent = Agent::start("").unwrap();
    let json = "content-type: application/json\r\n";
    let deep = format!("{}{}", "[".repeat(5000), "]".repeat(5000));
    for (request, headers, body, status) in [
        ("POST /v1/faults", "", "{}", 415),
        ("POST /v1/faults", "content-type: application/x-www-form-urlencoded\r\n", "{}", 415),
        ("POST /v1/faults", json, r#"{"target":"netns:a","target":"netns:b"}"#, 400),
        ("POST /v1/faults", json, &deep, 400),
        ("POST /v1/faults", json, r#"{"seed":1e999}"#, 400),
        ("POST /v1/faults", json, "", 400),
        ("POST /v1/faults", json, r#"{"target":null}"#, 422),
        ("POST /v1/stop", json, r#"{"reason":"a","why":"b"}"#, 422),
        ("PUT /v1/faults", json, r#"{"faults":[],"more":1}"#, 422),
        ("PUT /v1/faults/a%20b", json, "{}", 404),
        ("GET /v1/faults/%ff", "", "", 400),
    ] {
        let answer = raw(agent.socket(), request, headers, body);
        assert_eq!(answer.0, status, "{request} {headers} {body:.80}: {answer:?}");
        assert!(answer.1.contains("application/problem+json"), "{request} {body:.80}: {answer:?}");
    }
    let wrong = raw(agent.socket(), "TRACE /v1/faults", "", "");
    assert!(wrong.0 == 405 && wrong.1.contains("allow: "), "{wrong:?}");
    let head = raw(agent.socket(), "HEAD /v1/faults", "", "");
    assert!(head.0 == 200 && head.1.contains("content-length: "), "{head:?}");
    agent.stop().unwrap();
}
