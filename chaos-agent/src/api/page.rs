//! `/docs`: the same description as a page. It loads nothing, runs nothing, and says so to the browser.

use std::{fmt::Write as _, sync::OnceLock};

use axum::{
    http::header,
    response::{Html, IntoResponse as _, Response},
};
use serde_json::Value;

use super::openapi;

const POLICY: &str = "default-src 'none'; style-src 'unsafe-inline'; base-uri 'none'; form-action 'none'; frame-ancestors 'none'";

const HEAD: &str = "<!doctype html><html lang=\"en\"><meta charset=\"utf-8\"><title>chaos agent: the API</title>\
<meta name=\"viewport\" content=\"width=device-width\">\
<style>body{font:16px/1.5 system-ui,sans-serif;max-width:60rem;margin:2rem auto;padding:0 1rem}\
code,pre{font:14px/1.4 ui-monospace,monospace}pre{background:#8881;padding:.7rem;overflow:auto}\
h2{margin-top:2rem;border-top:1px solid #8884;padding-top:1rem}summary{cursor:pointer}\
table{border-collapse:collapse}td{padding:.1rem 1rem .1rem 0;vertical-align:top}</style>";

pub(super) async fn show() -> Response {
    static PAGE: OnceLock<String> = OnceLock::new();
    let page = PAGE.get_or_init(|| page(openapi::document()));
    let headers = [(header::CONTENT_SECURITY_POLICY, POLICY), (header::X_CONTENT_TYPE_OPTIONS, "nosniff")];
    (headers, Html(page.as_str())).into_response()
}

fn page(document: &Value) -> String {
    let mut text = HEAD.to_owned();
    let _ = write!(
        text,
        "<h1>The API of the chaos agent {}</h1><p>{} The same for programs: <a href=\"/openapi.json\">/openapi.json</a>.</p>",
        escaped(&document["info"]["version"]),
        escaped(&document["info"]["description"])
    );
    for (path, methods) in document["paths"].as_object().into_iter().flatten() {
        for (method, operation) in methods.as_object().into_iter().flatten() {
            one(&mut text, path, method, operation);
        }
    }
    text.push_str("<h1>What the words mean</h1>");
    for (name, schema) in document["components"]["schemas"].as_object().into_iter().flatten() {
        let _ = write!(text, "<h2 id=\"{name}\">{name}</h2>");
        schema_of(&mut text, schema);
    }
    text
}

fn one(text: &mut String, path: &str, method: &str, operation: &Value) {
    let _ = write!(
        text,
        "<h2><code>{} {path}</code></h2><p>{}.</p><table>",
        method.to_ascii_uppercase(),
        escaped(&operation["summary"])
    );
    for param in operation["parameters"].as_array().into_iter().flatten() {
        let _ = write!(
            text,
            "<tr><td><code>{}</code><td>{}<td>{}",
            escaped(&param["name"]),
            escaped(&param["in"]),
            escaped(&param["description"])
        );
    }
    text.push_str("</table>");
    for (kind, content) in operation["requestBody"]["content"].as_object().into_iter().flatten() {
        let _ = write!(text, "<p>Body <code>{kind}</code>: {}</p>", word_of(&content["schema"]));
    }
    text.push_str("<table>");
    for (status, answer) in operation["responses"].as_object().into_iter().flatten() {
        let content = answer["content"].as_object().and_then(|content| content.iter().next());
        let (kind, schema) = content.map_or(("", &Value::Null), |(kind, it)| (kind.as_str(), &it["schema"]));
        let _ = write!(
            text,
            "<tr><td>{status}<td>{}<td><code>{kind}</code><td>{}",
            escaped(&answer["description"]),
            word_of(schema)
        );
    }
    text.push_str("</table>");
}

/// A link to what is described once, else the description itself.
fn word_of(schema: &Value) -> String {
    match schema["$ref"].as_str().and_then(|to| to.rsplit('/').next()) {
        Some(name) => format!("<a href=\"#{name}\">{name}</a>"),
        None if schema.is_object() => {
            let mut text = String::new();
            schema_of(&mut text, schema);
            text
        }
        None => String::new(),
    }
}

fn schema_of(text: &mut String, schema: &Value) {
    let forms = schema["anyOf"].as_array().map_or_else(|| vec![schema], |forms| forms.iter().collect());
    for form in forms {
        text.push_str("<table>");
        for (name, field) in form["properties"].as_object().into_iter().flatten() {
            let _ = write!(text, "<tr><td><code>{name}</code><td>{}", escaped(&field["description"]));
        }
        text.push_str("</table>");
    }
    let json = serde_json::to_string_pretty(schema).unwrap_or_default();
    let _ = write!(
        text,
        "<details><summary>As JSON Schema</summary><pre>{}</pre></details>",
        escaped(&json.into())
    );
}

fn escaped(value: &Value) -> String {
    let text = value.as_str().unwrap_or_default();
    text.replace('&', "&amp;").replace('<', "&lt;").replace('>', "&gt;").replace('"', "&quot;")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_page_shows_every_route_and_loads_nothing() {
        let page = page(openapi::document());
        for path in openapi::document()["paths"].as_object().unwrap().keys() {
            assert!(page.contains(&format!("{path}</code></h2>")), "{path}");
        }
        for outside in ["http://", "https://", "src=", "<script", "@import", "url("] {
            assert!(!page.contains(outside), "{outside}");
        }
    }
}
