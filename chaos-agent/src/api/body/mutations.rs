//! Bodies that are nearly right: whatever is wrong is said, at a place that is there or is missing.

use std::{fs, path::Path};

use proptest::prelude::*;
use serde_json::{Value, json};

use super::{super::json, check::check, understand};

/// Bodies that can be understood; the namespace is nowhere, so no name is looked up.
fn valid() -> Vec<Value> {
    let target = "netns:nowhere-at-all";
    vec![
        json!({"target": target, "faults": {"loss": "10%", "delay": "10ms"}, "duration": "9s", "shadow": true}),
        json!({"target": target, "faults": {"partition": true}, "match": {"peer_port": [1, "2-3"], "peer": "10.0.0.0/8",
            "proto": ["tcp"], "data_only": true}, "duration": "1m", "flap": "1s/1s", "seed": 7, "name": "a", "lease": "9s"}),
        json!({"partition": {"sides": [[target, "netns:b"], "10.0.0.1"], "mode": "reject", "one_way": true},
            "duration": "9s", "max_targets": 3}),
        json!({"target": "host", "faults": {"mtu": 1200}, "confirm": "host", "lease": "9s", "duration": "9s"}),
    ]
}

/// Every place of a document.
fn places(value: &Value, at: &str, all: &mut Vec<String>) {
    all.push(at.to_owned());
    match value {
        Value::Object(fields) => {
            for (key, value) in fields {
                places(value, &format!("{at}/{}", json::token(key)), all);
            }
        }
        Value::Array(list) => {
            for (index, value) in list.iter().enumerate() {
                places(value, &format!("{at}/{index}"), all);
            }
        }
        Value::Null | Value::Bool(_) | Value::Number(_) | Value::String(_) => {}
    }
}

fn any_value() -> impl Strategy<Value = Value> {
    let leaf = prop_oneof![
        Just(Value::Null),
        any::<bool>().prop_map(Value::from),
        any::<i64>().prop_map(Value::from),
        any::<f64>().prop_map(Value::from),
        "[-0-9a-z:/.,%=~{}]{0,12}".prop_map(Value::from),
        "\\PC{0,6}".prop_map(Value::from),
    ];
    leaf.prop_recursive(2, 8, 3, |inner| {
        prop_oneof![
            prop::collection::vec(inner.clone(), 0..3).prop_map(Value::from),
            prop::collection::btree_map("[a-z~/_]{0,5}", inner, 0..3)
                .prop_map(|fields| Value::Object(fields.into_iter().collect())),
        ]
    })
}

#[test]
fn what_is_valid_is_understood() {
    for body in valid() {
        understand(&body).unwrap_or_else(|problem| panic!("{body}: {problem:?}"));
    }
}

proptest! {
    #[test]
    fn a_body_with_one_place_changed_is_understood_or_pointed_at(
        which in 0..4_usize, place in any::<prop::sample::Index>(), value in any_value(), key in "[a-z_~/]{1,8}",
        adds in any::<bool>(),
    ) {
        let mut body = valid().swap_remove(which);
        let mut all = Vec::new();
        places(&body, "", &mut all);
        if let Some(old) = body.pointer_mut(place.get::<String>(&all)) {
            match (adds, &mut *old) {
                (true, Value::Object(fields)) => drop(fields.insert(key, value)),
                _ => *old = value,
            }
        }
        check(body.to_string().as_bytes());
    }
}

/// What fuzzing found worth keeping, and what was wrong once.
#[test]
fn fuzz_replay_body() {
    let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("fuzz/corpus/body");
    let mut paths: Vec<_> = fs::read_dir(&folder).unwrap().map(|entry| entry.unwrap().path()).collect();
    paths.sort();
    for path in &paths {
        let bytes = fs::read(path).unwrap();
        let outcome = std::panic::catch_unwind(|| check(&bytes));
        assert!(outcome.is_ok(), "{} fails; see above", path.display());
    }
    assert!(paths.len() >= 10, "{} has {} files: it was lost", folder.display(), paths.len());
}
