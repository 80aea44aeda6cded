//! What a body says, and where it is wrong.

use std::time::Duration;

use super::*;

/// The pointer and the sentence of what is wrong.
fn wrong(body: &Value) -> (String, String) {
    let problem = understand(body).expect_err("it is wrong");
    let text = serde_json::to_value(&problem).unwrap();
    let error = &text["errors"][0];
    let word = |value: &Value| value.as_str().unwrap_or_default().to_owned();
    (word(&error["pointer"]), word(&text["detail"]))
}

fn blue(faults: &Value) -> Value {
    json!({"target": "netns:blue", "faults": faults})
}

#[test]
fn every_field_reaches_its_rule() {
    let body = json!({
        "name": "slow-db", "target": "netns:blue", "lease": "10s", "duration": "30s", "seed": 7,
        "max_packets": 100, "shadow": true, "flap": "100ms/1s",
        "faults": {"loss": "10%", "partition": true},
        "match": {"peer": ["10.0.0.0/8", "::1"], "peer_port": [5432, "8000-8100"], "data_only": true,
            "direction": "both"},
    });
    let fault = understand(&body).unwrap();
    assert_eq!(fault.name.as_deref(), Some("slow-db"));
    assert_eq!((fault.duration, fault.lease), (Duration::from_secs(30), Some(Duration::from_secs(10))));
    let rule = &fault.set.rules[0];
    assert_eq!(rule.name, "loss 10% + partition");
    assert_eq!((rule.matching.peers.len(), rule.matching.peer_ports.len()), (2, 2));
    assert_eq!((rule.seed, rule.limits.max_packets, rule.shadow), (Some(7), Some(100), true));
    assert!(rule.matching.data_only && rule.schedule.flap.is_some());
}

#[test]
fn a_partition_has_sides_that_may_be_groups() {
    let body = json!({"duration": "1m",
        "partition": {"sides": [["netns:a", "netns:b"], "netns:c"], "mode": "reject"}});
    let fault = understand(&body).unwrap();
    assert_eq!(fault.set.rules.len(), 2);
    let body = json!({"duration": "1m",
        "partition": {"sides": ["netns:a,netns:b,netns:c,netns:d"], "ring": true}});
    assert_eq!(understand(&body).unwrap().set.rules.len(), 2);
}

#[test]
fn what_is_wrong_is_pointed_at() {
    for (body, pointer, says) in [
        (json!([]), "", "an object"),
        (json!({"faults": {"loss": "1%"}}), "/target", "is missing"),
        (json!({"target": 7, "faults": {}}), "/target", "a text"),
        (json!({"target": "nowhere:x", "faults": {"loss": "1%"}}), "/target", "nowhere"),
        (blue(&json!({"loss": "ten"})), "/faults/loss", "every=7"),
        (blue(&json!({"los": "10%"})), "/faults/los", "loss, corrupt"),
        (blue(&json!({"delay": "10ms±1ms,distribution=/etc/shadow"})), "/faults/delay", "no file is read"),
        (blue(&json!({"loss": {"rate": 1}})), "/faults/loss", "a text, a number"),
        (
            json!({"target": "netns:a", "faults": {"loss": "1%"}, "match": {"peer_port": [0]}}),
            "/match/peer_port",
            "from 1",
        ),
        (
            json!({"target": "netns:a", "faults": {"loss": "1%"}, "match": {"ports": [1]}}),
            "/match/ports",
            "peer_port",
        ),
        (json!({"target": "netns:a", "faults": {"loss": "1%"}, "duration": "2h"}), "/duration", "1h"),
        (
            json!({"target": "netns:a", "faults": {"loss": "1%"}, "until": "2h"}),
            "/until",
            "duration, start_after",
        ),
        (json!({"target": "netns:a", "faults": {"loss": "1%"}, "name": "a b"}), "/name", "letters"),
        (json!({"target": "netns:a", "faults": {"loss": "1%"}, "lease": "1ms"}), "/lease", "1s"),
        (json!({"target": "host", "faults": {"loss": "1%"}}), "/confirm", "\"confirm\": \"host\""),
        (json!({"target": "host", "faults": {"loss": "1%"}, "confirm": "host"}), "/lease", "renews"),
        (json!({"target": "unit:user.slice", "faults": {"partition": true}}), "/confirm", "every port"),
        (
            json!({"target": "host", "faults": {"loss": "1%"}, "confirm": "host", "lease": "9s"}),
            "/duration",
            "at most 1h",
        ),
        (blue(&json!({"loss": "1%"})), "/duration", "is missing"),
        (json!({"target": "netns:a", "faults": {"loss": "1%"}, "max_targets": 0}), "/max_targets", "from 1"),
    ] {
        let (place, text) = wrong(&body);
        assert_eq!(place, pointer, "{body}: {text}");
        assert!(text.contains(says), "{body}: {text}");
    }
    let nothing = understand(&blue(&json!({}))).expect_err("no fault");
    assert!(serde_json::to_string(&nothing).unwrap().contains("no fault was given"));
}

#[test]
fn a_name_is_a_word_that_a_path_can_end_in() {
    for text in ["a", "slow-db", "7a", "1.5", ".a", "..7", "_", "-", "A.b_c-9"] {
        assert_eq!(name(text).as_deref(), Ok(text));
    }
    for text in ["", "7", ".", "..", "a/b", "a b", "\u{e9}", &"x".repeat(65)] {
        assert!(name(text).is_err(), "{text}");
    }
}
