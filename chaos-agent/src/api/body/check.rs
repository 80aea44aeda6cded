//! What must hold for any body. Used by the fuzz target, and by tests, which replay the corpus.

use serde_json::Value;

use super::{super::json, understand};

/// Reads bytes as a body; nothing may panic, and every pointer leads to a value, or to a field that is missing from
/// an object that is there.
pub(crate) fn check(bytes: &[u8]) {
    let Ok(body) = json::read(bytes) else { return };
    let Err(problem) = understand(&body) else { return };
    let problem = serde_json::to_value(&problem).expect("a problem is JSON");
    assert!(problem["detail"].as_str().is_some_and(|detail| !detail.is_empty()), "{body}");
    for error in problem["errors"].as_array().into_iter().flatten() {
        let pointer = error["pointer"].as_str().expect("a pointer");
        let parent = pointer.rsplit_once('/').map_or("", |(parent, _)| parent);
        let is_missing = body.pointer(parent).is_some_and(Value::is_object);
        assert!(body.pointer(pointer).is_some() || is_missing, "{pointer} of {body}: {error}");
    }
}
