//! The agent: faults over its socket, as real programs feel them.
#![expect(clippy::unwrap_used, reason = "a failed unwrap in a test is a failed test")]

use std::{fs, os::unix::fs::PermissionsExt as _, time::Duration};

use chaos_tests::{
    api::{Agent, Answer, matched, partition},
    chaos::{self, FREED},
    lab::{
        alone,
        process::wait_until,
        shapes::{B4, Pair},
    },
    require_root,
    snapshot::Snapshot,
};
use serde_json::{Value, json};

const SOON: Duration = Duration::from_secs(5);

#[track_caller]
fn refused(answer: &Answer, status: u16, pointer: &str) {
    assert_eq!(answer.status, status, "{answer:?}");
    assert!(answer.head.contains("application/problem+json"), "{answer:?}");
    if !pointer.is_empty() {
        assert_eq!(answer.body["errors"][0]["pointer"], pointer, "{answer:?}");
    }
}

#[test]
fn a_fault_begins_with_post_and_ends_with_delete() {
    require_root!();
    let _alone = alone().unwrap();
    let pair = Pair::new().unwrap();
    assert!(pair.a.reaches(B4));
    let before = Snapshot::before(&[&pair.a, &pair.b]).unwrap();
    let agent = Agent::start("").unwrap();
    let made = agent.ask("POST", "/v1/faults", &partition(&pair.a)).unwrap();
    assert_eq!((made.status, &made.body["state"]), (201, &json!("active")), "{made:?}");
    let path = format!("/v1/faults/{}", made.body["id"]);
    assert!(made.head.contains(&format!("location: {path}")), "{made:?}");
    assert!(!pair.a.reaches(B4));

    let shown = agent.ask("GET", &path, &Value::Null).unwrap();
    assert_eq!(shown.status, 200);
    assert!(matched(&shown.body) >= 1 && shown.body["matched"] == true, "{shown:?}");
    // A second one beside it, and its end, leave it alone.
    let other = json!({"target": format!("netns:{}", pair.b.name()), "name": "other",
        "faults": {"loss": "100%"}, "match": {"peer_port": [7]}, "duration": "1m"});
    assert_eq!(agent.ask("POST", "/v1/faults", &other).unwrap().status, 201);
    assert_eq!(agent.ask("POST", "/v1/faults", &other).unwrap().status, 409, "the name is taken");
    assert_eq!(agent.ask("PUT", "/v1/faults/other", &other).unwrap().status, 200);
    assert_eq!(agent.ask("DELETE", "/v1/faults/other", &Value::Null).unwrap().status, 200);
    let kept = agent.ask("GET", &path, &Value::Null).unwrap();
    assert!(matched(&kept.body) >= matched(&shown.body), "its counters stay: {kept:?}");
    assert!(!pair.a.reaches(B4));

    let ended = agent.ask("DELETE", &path, &Value::Null).unwrap();
    assert_eq!((ended.status, &ended.body["state"]), (200, &json!("ended")), "{ended:?}");
    assert!(matched(&ended.body) > matched(&shown.body), "the last counters: {ended:?}");
    assert!(pair.a.reaches(B4));
    let list = agent.ask("GET", "/v1/faults", &Value::Null).unwrap();
    let states: Vec<&Value> =
        list.body["faults"].as_array().unwrap().iter().map(|one| &one["state"]).collect();
    assert!(!states.is_empty() && states.iter().all(|state| **state == json!("ended")), "{list:?}");
    agent.stop().unwrap();
    before.settle(&[&pair.a, &pair.b], SOON).unwrap();
}

/// Programs that were loaded ahead serve namespaces that come later, at the same time and one after the other.
#[test]
fn every_namespace_is_hit() {
    require_root!();
    let _alone = alone().unwrap();
    let agent = Agent::start("").unwrap();
    for _ in 0..3 {
        let pairs = [Pair::new().unwrap(), Pair::new().unwrap()];
        let ids = pairs.each_ref().map(|pair| {
            let made = agent.ask("POST", "/v1/faults", &partition(&pair.a)).unwrap();
            assert_eq!(made.status, 201, "{made:?}");
            assert!(!pair.a.reaches(B4));
            made.body["id"].to_string()
        });
        assert!(!pairs[0].a.reaches(B4), "still");
        for (pair, id) in pairs.iter().zip(ids) {
            agent.ask("DELETE", &format!("/v1/faults/{id}"), &Value::Null).unwrap();
            assert!(pair.a.reaches(B4));
        }
    }
    agent.stop().unwrap();
}

#[test]
fn the_whole_set_changes_at_once_or_not_at_all() {
    require_root!();
    let _alone = alone().unwrap();
    let pair = Pair::new().unwrap();
    assert!(pair.a.reaches(B4));
    let agent = Agent::start("").unwrap();
    let set = json!({"faults": [partition(&pair.a)]});
    let put = agent.ask("PUT", "/v1/faults", &set).unwrap();
    assert_eq!((put.status, put.body["faults"].as_array().unwrap().len()), (200, 1), "{put:?}");
    assert!(!pair.a.reaches(B4));
    let nowhere = json!({"target": "netns:no-such-namespace", "faults": {"loss": "1%"}, "duration": "1s"});
    let wrong = agent.ask("PUT", "/v1/faults", &json!({"faults": [nowhere]})).unwrap();
    refused(&wrong, 409, "");
    assert!(!pair.a.reaches(B4), "the set is what it was");
    let wrong = json!({"faults": [partition(&pair.a), {"target": "netns:x", "faults": {"loss": "x"}}]});
    refused(&agent.ask("PUT", "/v1/faults", &wrong).unwrap(), 422, "/faults/1/faults/loss");
    let named = json!({"target": format!("netns:{}", pair.a.name()), "faults": {"loss": "1%"}, "duration": "1m",
        "name": "twin"});
    let wrong = agent.ask("PUT", "/v1/faults", &json!({"faults": [named, named]})).unwrap();
    refused(&wrong, 422, "/faults/1/name");
    assert_eq!(agent.ask("DELETE", "/v1/faults", &Value::Null).unwrap().body["ended"], 1);
    assert!(pair.a.reaches(B4));
    agent.stop().unwrap();
}

#[test]
fn a_fault_ends_by_itself_by_its_lease_and_by_the_lever() {
    require_root!();
    let _alone = alone().unwrap();
    let pair = Pair::new().unwrap();
    assert!(pair.a.reaches(B4));
    let agent = Agent::start("").unwrap();
    let ends = |body: &Value, why: &str| {
        let made = agent.ask("POST", "/v1/faults", body).unwrap();
        assert_eq!(made.status, 201, "{made:?}");
        assert!(!pair.a.reaches(B4));
        let path = format!("/v1/faults/{}", made.body["id"]);
        wait_until("the end", 2 * SOON, || pair.a.reaches(B4)).unwrap();
        wait_until(why, SOON, || {
            let shown = agent.ask("GET", &path, &Value::Null).unwrap();
            shown.body["state"] == "ended" && shown.body["why"].as_str().unwrap().contains(why)
        })
        .unwrap();
    };
    let mut short = partition(&pair.a);
    short["duration"] = "4s".into();
    ends(&short, "its time is over");
    let mut leased = partition(&pair.a);
    leased["lease"] = "4s".into();
    ends(&leased, "its lease");

    let made = agent.ask("POST", "/v1/faults", &partition(&pair.a)).unwrap();
    assert_eq!(made.status, 201);
    let stopped = agent.ask("POST", "/v1/stop", &json!({"reason": "a fire"})).unwrap();
    assert_eq!(stopped.status, 200, "{stopped:?}");
    assert!(pair.a.reaches(B4));
    let again = agent.ask("POST", "/v1/faults", &partition(&pair.a)).unwrap();
    refused(&again, 503, "");
    assert!(again.body["detail"].as_str().unwrap().contains("a fire"), "{again:?}");
    assert_eq!(agent.ask("POST", "/v1/resume", &Value::Null).unwrap().status, 200);
    assert_eq!(agent.ask("POST", "/v1/faults", &partition(&pair.a)).unwrap().status, 201);
    agent.stop().unwrap();
    assert!(pair.a.reaches(B4));
}

#[test]
fn a_killed_agent_leaves_nothing_and_its_successor_starts() {
    require_root!();
    let _alone = alone().unwrap();
    let pair = Pair::new().unwrap();
    assert!(pair.a.reaches(B4));
    let before = Snapshot::before(&[&pair.a, &pair.b]).unwrap();
    let agent = Agent::start("").unwrap();
    let slow = json!({"target": format!("netns:{}", pair.a.name()),
        "faults": {"loss": "10%", "delay": "50ms"}, "duration": "1m"});
    assert_eq!(agent.ask("POST", "/v1/faults", &slow).unwrap().status, 201);
    let socket = agent.socket().clone();
    agent.kill().unwrap();
    std::thread::sleep(FREED);
    before.settle(&[&pair.a, &pair.b], Duration::from_secs(1)).unwrap();
    assert!(socket.exists(), "nobody could remove it");
    let agent = Agent::start("").unwrap();
    let mode = fs::metadata(agent.socket()).unwrap().permissions().mode();
    assert_eq!(mode & 0o007, 0, "others may not ask: {mode:o}");
    let second = chaos::run(&format!("agent --socket {}", socket.display())).unwrap();
    let said = String::from_utf8_lossy(&second.stderr).into_owned();
    assert_eq!(second.status.code(), Some(3), "{said}");
    assert!(said.contains("an agent is there already: process"), "{said}");
    agent.stop().unwrap();
}

#[test]
fn wrong_questions_get_problems() {
    require_root!();
    let _alone = alone().unwrap();
    let agent = Agent::start("").unwrap();
    let raw = |method: &str, path: &str, body: &str| agent.ask_raw(method, path, body).unwrap();
    refused(&raw("POST", "/v1/faults", "{"), 400, "");
    refused(&raw("POST", "/v1/faults", "[]"), 422, "");
    refused(&raw("POST", "/v1/faults", r#"{"target":"netns:x","faults":{"los":"1%"}}"#), 422, "/faults/los");
    refused(&raw("POST", "/v1/faults", r#"{"target":"host","faults":{"loss":"1%"}}"#), 422, "/confirm");
    refused(&raw("POST", "/v1/faults:validate", r#"{"target":"host","faults":{}}"#), 422, "");
    refused(&raw("GET", "/v1/faults/7", ""), 404, "");
    refused(&raw("DELETE", "/v1/faults/none", ""), 404, "");
    refused(&raw("GET", "/v2", ""), 404, "");
    refused(&raw("PATCH", "/v1/stop", ""), 405, "");
    let long = format!(r#"{{"name":"{}"}}"#, "x".repeat(2 << 20));
    assert_eq!(raw("POST", "/v1/faults", &long).status, 413);
    let nowhere = r#"{"target":"netns:no-such-namespace","faults":{"loss":"1%"},"duration":"1s"}"#;
    refused(&raw("POST", "/v1/faults:validate", nowhere), 409, "");
    assert_eq!(raw("GET", "/healthz", "").status, 200);
    assert_eq!(raw("GET", "/v1/status", "").body["faults"], 0);
    agent.stop().unwrap();
}
