//! What is checked of every request before anybody answers it: the words behind the `?`, and what the body says
//! that it is.

use axum::{
    extract::{Query, Request},
    http::{HeaderMap, StatusCode, header},
    middleware::{self, Next},
    response::IntoResponse as _,
    routing::MethodRouter,
};

use super::{
    App,
    problem::Problem,
    routes::{Param, Payload, Route},
};

/// The words behind the `?`, each known and there once.
pub(super) type Words = Query<Vec<(String, String)>>;

/// The value of a word behind the `?`.
pub(super) fn word<'a>(words: &'a Words, name: &str) -> Option<&'a str> {
    words.0.iter().find(|(key, _)| key == name).map(|(_, value)| value.as_str())
}

/// The route's handler behind its checks.
pub(super) fn checked(route: &Route) -> MethodRouter<App> {
    let (params, payload) = (route.params, route.payload);
    let check = move |words: Words, request: Request, next: Next| async move {
        let checked = unknown_words(&words, params).and_then(|()| is_json(request.headers(), payload));
        match checked {
            Ok(()) => next.run(request).await,
            Err(problem) => problem.into_response(),
        }
    };
    route.handler.clone().route_layer(middleware::from_fn::<_, (Words, Request)>(check))
}

fn unknown_words(words: &Words, params: &[Param]) -> Result<(), Problem> {
    for (index, (name, _)) in words.0.iter().enumerate() {
        if !params.iter().any(|param| param.name == name) {
            let known: Vec<&str> = params.iter().map(|param| param.name).collect();
            let accepted = if known.is_empty() {
                "there are none".to_owned()
            } else {
                format!("there are: {}", known.join(", "))
            };
            return Err(Problem::parameter(name, format!("there is no such parameter; {accepted}")));
        }
        if words.0.iter().take(index).any(|(before, _)| before == name) {
            return Err(Problem::parameter(name, "is there more than once"));
        }
    }
    Ok(())
}

/// A page in a browser can send other types without asking first, so what a body is has to be said.
fn is_json(headers: &HeaderMap, payload: Payload) -> Result<(), Problem> {
    let is_empty = headers.get(header::CONTENT_LENGTH).is_none_or(|length| length == "0")
        && !headers.contains_key(header::TRANSFER_ENCODING);
    if payload == Payload::Nothing || is_empty {
        return Ok(());
    }
    let accepted = payload.types();
    let given = headers.get(header::CONTENT_TYPE).and_then(|value| value.to_str().ok()).unwrap_or_default();
    let kind = given.split(';').next().unwrap_or_default().trim();
    if accepted.iter().any(|accepted| kind.eq_ignore_ascii_case(accepted)) {
        return Ok(());
    }
    let what = format!("the body is said to be `{given}`; say content-type: {}", accepted.join(" or "));
    Err(Problem::new(StatusCode::UNSUPPORTED_MEDIA_TYPE, what)
        .mend(format!("curl -H 'content-type: {}' ...", accepted.first().copied().unwrap_or_default())))
}
