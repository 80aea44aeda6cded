//! What JSON looks like, in the words of JSON Schema 2020-12.

use serde_json::{Map, Value, json};

/// A text.
pub(super) fn text(help: &str) -> Value {
    json!({"type": "string", "description": help})
}

/// A whole number from 0.
pub(super) fn count(help: &str) -> Value {
    json!({"type": "integer", "minimum": 0, "description": help})
}

/// Seconds.
pub(super) fn seconds(help: &str) -> Value {
    json!({"type": "number", "minimum": 0, "description": help})
}

/// True or false.
pub(super) fn flag(help: &str) -> Value {
    json!({"type": "boolean", "description": help})
}

/// One of these words.
pub(super) fn one_of<T: Into<Value>>(words: impl IntoIterator<Item = T>, help: &str) -> Value {
    let words: Vec<Value> = words.into_iter().map(Into::into).collect();
    json!({"type": "string", "enum": words, "description": help})
}

/// The same, or null.
pub(super) fn or_null(shape: Value) -> Value {
    let Value::Object(mut fields) = shape else { return shape };
    match fields.remove("description") {
        Some(help) => json!({"anyOf": [fields, {"type": "null"}], "description": help}),
        None => json!({"anyOf": [fields, {"type": "null"}]}),
    }
}

/// Any number of the same.
pub(super) fn list(of: Value) -> Value {
    Map::from_iter([("type".to_owned(), "array".into()), ("items".to_owned(), of)]).into()
}

/// An object with these fields, all of them, and no others.
pub(super) fn object<'a>(fields: impl IntoIterator<Item = (&'a str, Value)>) -> Value {
    let properties: Map<String, Value> =
        fields.into_iter().map(|(name, shape)| (name.to_owned(), shape)).collect();
    let required: Vec<&String> = properties.keys().collect();
    json!({"type": "object", "required": required, "properties": properties, "additionalProperties": false})
}

/// An object of which these fields may be absent.
pub(super) fn without(mut object: Value, optional: &[&str]) -> Value {
    if let Some(required) = object.get_mut("required").and_then(Value::as_array_mut) {
        required.retain(|name| !name.as_str().is_some_and(|name| optional.contains(&name)));
    }
    object
}

/// Something that is described once for all.
pub(super) fn named(name: &str) -> Value {
    json!({"$ref": format!("#/components/schemas/{name}")})
}
