//! `/openapi.json`: the API described, `OpenAPI` 3.1, made from the list of routes and the lists that read bodies.

use std::sync::OnceLock;

use axum::response::Json;
use serde_json::{Map, Value, json};

use super::{
    events, fields, idempotency,
    routes::{self, Gives, Param, Payload, Route},
    shape, view,
};

/// The document.
pub(super) fn document() -> &'static Value {
    static DOCUMENT: OnceLock<Value> = OnceLock::new();
    DOCUMENT.get_or_init(make)
}

pub(super) async fn show() -> Json<&'static Value> {
    Json(document())
}

/// The name of an operation: `post_v1_faults_validate`.
pub(super) fn operation_id(route: &Route) -> String {
    let words = route.path.split(|c: char| !c.is_ascii_alphanumeric()).filter(|word| !word.is_empty());
    std::iter::once(route.method.as_str().to_ascii_lowercase().as_str())
        .chain(words)
        .collect::<Vec<_>>()
        .join("_")
}

fn make() -> Value {
    let mut paths: Map<String, Value> = Map::new();
    for route in routes::all() {
        let path = paths.entry(route.path).or_insert_with(|| json!({}));
        if let Some(methods) = path.as_object_mut() {
            methods.insert(route.method.as_str().to_ascii_lowercase(), operation(&route));
        }
    }
    json!({
        "openapi": "3.1.0",
        "info": {
            "title": "chaos agent",
            "version": env!("CARGO_PKG_VERSION"),
            "description": "Faults of the network, in the kernel, for as long as was agreed.",
            "license": {"name": "MIT OR Apache-2.0", "identifier": "MIT OR Apache-2.0"},
        },
        "servers": [{"url": "/"}],
        "paths": paths,
        // Over the Unix socket its mode is the key.
        "security": [{}, {"bearer": []}, {"key": []}],
        "components": {
            "schemas": schemas(),
            "securitySchemes": {
                "bearer": {"type": "http", "scheme": "bearer"},
                "key": {"type": "apiKey", "in": "header", "name": "x-chaos-key"},
            },
        },
    })
}

fn schemas() -> Value {
    json!({
        "NewFault": fields::fault_shape(),
        "Patch": fields::patch_shape(),
        "Fault": view::fault_shape(),
        "Stats": view::stats_shape(),
        "Counters": view::counters_shape(),
        "Event": events::shape(),
        "Problem": problem(),
    })
}

fn problem() -> Value {
    let wrong = shape::object([
        ("pointer", shape::text("JSON pointer (RFC 6901) into the body; empty is the whole of it")),
        ("parameter", shape::text("The word behind the ?, or the header")),
        ("detail", shape::text("What was given and what is accepted")),
    ]);
    let fields = shape::object([
        ("title", shape::text("The status in words")),
        ("status", shape::count("The HTTP status")),
        ("detail", shape::text("What was wrong, where, and what is accepted")),
        ("mend", shape::text("What helps, such as a command")),
        ("errors", shape::list(shape::without(wrong, &["pointer", "parameter"]))),
    ]);
    shape::without(fields, &["mend", "errors"])
}

fn operation(route: &Route) -> Value {
    let mut operation = json!({
        "operationId": operation_id(route),
        "summary": route.help,
        "parameters": parameters(route),
        "responses": responses(route),
    });
    let schema = match route.payload {
        Payload::Nothing => return operation,
        Payload::Fault => shape::named("NewFault"),
        Payload::Patch => shape::named("Patch"),
        Payload::Set => shape::object([("faults", shape::list(shape::named("NewFault")))]),
        Payload::Reason => shape::object([("reason", shape::text("Why; whoever is refused is told"))]),
    };
    let content: Map<String, Value> =
        route.payload.types().iter().map(|kind| ((*kind).to_owned(), json!({"schema": schema}))).collect();
    if let Some(fields) = operation.as_object_mut() {
        let required = route.payload != Payload::Reason;
        fields.insert("requestBody".to_owned(), json!({"required": required, "content": content}));
    }
    operation
}

fn parameters(route: &Route) -> Vec<Value> {
    let mut all = Vec::new();
    if route.path.contains("{id}") {
        all.push(json!({
            "name": "id", "in": "path", "required": true, "description": "The fault's number or name",
            "schema": name_shape(),
        }));
    }
    all.extend(route.params.iter().map(|param| one(param, "query")));
    all.extend(route.headers.iter().map(|param| one(param, "header")));
    all
}

fn one(param: &Param, place: &str) -> Value {
    let mut fields = json!({
        "name": param.name, "in": place, "required": param.required, "description": param.help,
        "schema": (param.shape)(),
    });
    if let (Some(fields), true) = (fields.as_object_mut(), (param.shape)().get("items").is_some()) {
        fields.insert("style".to_owned(), "form".into());
        fields.insert("explode".to_owned(), false.into());
    }
    fields
}

/// A fault's number or name.
pub(super) fn name_shape() -> Value {
    json!({"type": "string", "pattern": "^[A-Za-z0-9._-]{1,64}$", "examples": ["1"]})
}

/// The header of a POST that can be repeated.
pub(super) const IDEMPOTENCY: &[Param] = &[Param {
    name: "Idempotency-Key",
    help: "The same key with the same body gives the same answer and does nothing again",
    required: false,
    shape: || json!({"type": "string", "pattern": idempotency::PATTERN}),
}];

fn responses(route: &Route) -> Value {
    let mut all = Map::new();
    let content = match route.gives {
        Gives::Json(shape) => json!({"application/json": {"schema": shape()}}),
        Gives::Text(kind) => json!({kind: {"schema": {"type": "string"}}}),
    };
    for status in route.statuses {
        all.insert(status.to_string(), json!({"description": said(*status), "content": content}));
    }
    let problem = json!({"application/problem+json": {"schema": shape::named("Problem")}});
    let mut statuses = vec![400];
    if route.path.contains("{id}") {
        statuses.extend([404, 410]);
    }
    if route.payload != Payload::Nothing {
        statuses.extend([409, 413, 415, 422]);
    }
    statuses.push(503);
    for status in statuses {
        all.insert(status.to_string(), json!({"description": said(status), "content": problem}));
    }
    all.insert(
        "default".to_owned(),
        json!({"description": "Anything else that is wrong", "content": problem}),
    );
    Value::Object(all)
}

const fn said(status: u16) -> &'static str {
    match status {
        201 => "Made",
        400 => "The request cannot be read",
        404 => "There is no such fault",
        409 => "It cannot be done here, or somebody else's fault is in the way",
        410 => "The fault has ended",
        413 => "The body is too long",
        415 => "The body is said to be something else than JSON",
        422 => "A field is wrong, or the fields make no sense together",
        503 => "The safety lever is engaged, or the agent is ending",
        _ => "Done",
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_described_is_what_there_is() {
        let paths = document()["paths"].as_object().unwrap();
        let described: usize = paths.values().map(|path| path.as_object().unwrap().len()).sum();
        let routes = routes::all();
        assert_eq!(described, routes.len());
        for route in &routes {
            let operation = &paths[route.path][route.method.as_str().to_ascii_lowercase()];
            assert!(operation["responses"]["default"].is_object(), "{} {}", route.method, route.path);
        }
    }

    #[test]
    fn every_reference_leads_somewhere() {
        fn walk(value: &Value, schemas: &Value) {
            match value {
                Value::Object(fields) => {
                    if let Some(Value::String(to)) = fields.get("$ref") {
                        let name = to.strip_prefix("#/components/schemas/").unwrap();
                        assert!(schemas[name].is_object(), "{to}");
                    }
                    fields.values().for_each(|value| walk(value, schemas));
                }
                Value::Array(list) => list.iter().for_each(|value| walk(value, schemas)),
                Value::Null | Value::Bool(_) | Value::Number(_) | Value::String(_) => {}
            }
        }
        walk(document(), &document()["components"]["schemas"]);
    }
}
