//! Before any request is looked at: who asks, with a key or not, how often, and from no page of a browser.

use std::{
    net::IpAddr,
    sync::Arc,
    time::{Duration, Instant},
};

use axum::{
    body::{Body, Bytes, to_bytes},
    extract::{Extension, Request, State},
    http::{HeaderMap, HeaderValue, Method, StatusCode, header, uri::Authority},
    middleware::Next,
    response::{IntoResponse as _, Response},
};

use super::{caller::Door, pace::Pace, problem::Problem};
use crate::{
    config::{Config, Live},
    daemon::Credentials,
    safety::CALLER,
};

/// What whoever watches over us may ask without a key.
const OPEN: [&str; 2] = ["/healthz", "/readyz"];

/// What the gate knows.
#[derive(Debug)]
pub(super) struct Gate {
    pub(super) config: Live,
    pub(super) credentials: Credentials,
    pub(super) pace: Pace,
}

/// Lets a request in, with a [`super::Caller`], or answers it.
pub(super) async fn guard(
    State(gate): State<Arc<Gate>>,
    Extension(door): Extension<Door>,
    request: Request,
    next: Next,
) -> Response {
    match gate.let_in(door, request).await {
        Ok(request) => {
            let caller = request.extensions().get::<super::Caller>().map(super::Caller::for_the_record);
            CALLER.scope(caller.unwrap_or_default(), next.run(request)).await
        }
        Err(refusal) => *refusal.0,
    }
}

/// An answer instead of what was asked for.
struct Refusal(Box<Response>);

impl From<Response> for Refusal {
    fn from(answer: Response) -> Self {
        Self(Box::new(answer))
    }
}

impl Gate {
    async fn let_in(&self, door: Door, request: Request) -> Result<Request, Refusal> {
        let config = self.config.now();
        self.pace
            .take(door.payer(), config.limits_requests_per_second, Instant::now())
            .map_err(|wait| too_many(&config, wait))?;
        our_name(door, &request)?;
        no_page(request.method(), request.headers())?;
        let key = key_of(request.headers());
        let has_key = matches!(door, Door::Tcp { .. }) && self.credentials.fits(key);
        let is_open = OPEN.contains(&request.uri().path());
        if matches!(door, Door::Tcp { .. }) && !has_key && !is_open {
            return Err(unauthorized(key.is_some()));
        }
        let (mut parts, body) = request.into_parts();
        let bytes = whole(body, &config).await?;
        let caller = door.caller(has_key);
        tracing::debug!("{} {} by {} from {}", parts.method, parts.uri.path(), caller.who(), caller.from());
        parts.extensions.insert(caller);
        Ok(Request::from_parts(parts, Body::from(bytes)))
    }
}

/// The whole body, if it is short enough and comes fast enough.
async fn whole(body: Body, config: &Config) -> Result<Bytes, Refusal> {
    let limit = config.limits_body_bytes;
    let read = to_bytes(body, usize::try_from(limit).unwrap_or(usize::MAX));
    let read = tokio::time::timeout(config.limits_idle, read).await.map_err(|_| {
        let what = format!("the body did not come within {}", humantime::format_duration(config.limits_idle));
        refusal(Problem::new(StatusCode::REQUEST_TIMEOUT, what))
    })?;
    read.map_err(|error| {
        let is_long =
            std::error::Error::source(&error).is_some_and(|source| source.to_string().contains("limit"));
        refusal(if is_long {
            let what = format!("the body is longer than {limit} bytes (limits.body_bytes)");
            Problem::new(StatusCode::PAYLOAD_TOO_LARGE, what)
        } else {
            Problem::new(StatusCode::BAD_REQUEST, format!("the body cannot be read: {error}"))
        })
    })
}

/// `Authorization: Bearer KEY`, or `x-chaos-key: KEY`.
fn key_of(headers: &HeaderMap) -> Option<&[u8]> {
    let own = headers.get("x-chaos-key").map(HeaderValue::as_bytes);
    own.or_else(|| {
        let (scheme, key) = headers.get(header::AUTHORIZATION)?.as_bytes().split_at_checked(7)?;
        scheme.eq_ignore_ascii_case(b"bearer ").then(|| key.trim_ascii())
    })
}

/// No page of a browser may change anything; those of other sites may not even look. Browsers always send one of
/// these headers with what a page sends, and pages cannot take them away (Fetch, "forbidden request-header").
fn no_page(method: &Method, headers: &HeaderMap) -> Result<(), Refusal> {
    let site = headers.get("sec-fetch-site").map(HeaderValue::as_bytes);
    let changes = !matches!(*method, Method::GET | Method::HEAD);
    let is_foreign = site.is_some_and(|site| !matches!(site, b"same-origin" | b"none"));
    let is_page = headers.contains_key(header::ORIGIN) || site.is_some();
    if is_foreign || (changes && is_page) {
        let what = "this comes from a page in a browser (Origin, Sec-Fetch-Site), and pages may not do this";
        return Err(refusal(Problem::new(StatusCode::FORBIDDEN, what)));
    }
    Ok(())
}

/// A page whose name was made to point to this machine (DNS rebinding) is of the same origin for the browser, but
/// asks for its own name. On other addresses the key keeps it out.
fn our_name(door: Door, request: &Request) -> Result<(), Refusal> {
    let is_unix = match door {
        Door::Unix { .. } => true,
        Door::Tcp { is_loopback: true, .. } => false,
        Door::Tcp { is_loopback: false, .. } => return Ok(()),
    };
    let header = request.headers().get(header::HOST).map(|host| host.to_str().unwrap_or("?"));
    let asked = [header, request.uri().authority().map(Authority::as_str)];
    for host in asked.into_iter().flatten() {
        if !is_ours(host, is_unix) {
            let what = format!("`{host}` is not this agent's name: ask for localhost, or the address");
            return Err(refusal(Problem::new(StatusCode::FORBIDDEN, what)));
        }
    }
    Ok(())
}

fn is_ours(host: &str, is_unix: bool) -> bool {
    let Ok(authority) = host.parse::<Authority>() else { return host.is_empty() };
    let name = authority.host().trim_start_matches('[').trim_end_matches(']').to_ascii_lowercase();
    if let Ok(ip) = name.parse::<IpAddr>() {
        return ip.to_canonical().is_loopback();
    }
    // Clients of a Unix socket invent a name; what a browser resolved in public has a dot.
    name == "localhost" || name.ends_with(".localhost") || (is_unix && !name.contains('.'))
}

fn refusal(problem: Problem) -> Refusal {
    problem.into_response().into()
}

fn unauthorized(has_another: bool) -> Refusal {
    let what = if has_another {
        "the key that was given is not the agent's (its key_file, or CHAOS_KEY)"
    } else {
        "over TCP a key is needed: `Authorization: Bearer KEY` or `x-chaos-key: KEY`"
    };
    let mut answer = Problem::new(StatusCode::UNAUTHORIZED, what).into_response();
    let headers = answer.headers_mut();
    headers.insert(header::WWW_AUTHENTICATE, HeaderValue::from_static("Bearer realm=\"chaos\""));
    // Its place is for somebody with a key.
    headers.insert(header::CONNECTION, HeaderValue::from_static("close"));
    answer.into()
}

fn too_many(config: &Config, wait: Duration) -> Refusal {
    let most = config.limits_requests_per_second;
    let what = format!("more than {most} requests a second (limits.requests_per_second)");
    let mut answer = Problem::new(StatusCode::TOO_MANY_REQUESTS, what).into_response();
    answer.headers_mut().insert(header::RETRY_AFTER, HeaderValue::from(wait.as_secs() + 1));
    answer.into()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn headers(list: &[(&'static str, &'static str)]) -> HeaderMap {
        list.iter().map(|(name, value)| (name.parse().unwrap(), HeaderValue::from_static(value))).collect()
    }

    #[test]
    fn keys_come_in_two_headers() {
        assert_eq!(key_of(&headers(&[("authorization", "Bearer abc")])), Some(&b"abc"[..]));
        assert_eq!(key_of(&headers(&[("authorization", "bearer  abc ")])), Some(&b"abc"[..]));
        assert_eq!(key_of(&headers(&[("x-chaos-key", "abc")])), Some(&b"abc"[..]));
        assert_eq!(key_of(&headers(&[("authorization", "Basic abc")])), None);
        assert_eq!(key_of(&headers(&[("authorization", "Bear")])), None);
    }

    #[test]
    fn pages_change_nothing() {
        let may =
            |method: Method, list: &[(&'static str, &'static str)]| no_page(&method, &headers(list)).is_ok();
        assert!(may(Method::POST, &[]) && may(Method::GET, &[("sec-fetch-site", "same-origin")]));
        assert!(may(Method::GET, &[("sec-fetch-site", "none")]));
        for site in ["same-origin", "none", "same-site", "cross-site"] {
            assert!(!may(Method::DELETE, &[("sec-fetch-site", site)]), "{site}");
        }
        assert!(!may(Method::POST, &[("origin", "http://localhost:8473")]));
        assert!(!may(Method::POST, &[("origin", "null")]));
        assert!(!may(Method::OPTIONS, &[("origin", "http://evil.example")]));
        assert!(!may(Method::GET, &[("sec-fetch-site", "cross-site")]));
    }

    #[test]
    fn names_that_point_here_only_because_somebody_says_so_are_not_ours() {
        for host in ["localhost:8473", "127.0.0.1:8473", "[::1]:8473", "LOCALHOST", "a.localhost", ""] {
            assert!(is_ours(host, false) && is_ours(host, true), "{host}");
        }
        for host in ["evil.example:8473", "10.0.0.1", "[fd00::1]:1", "localhost.evil.example", "?", "a b"] {
            assert!(!is_ours(host, false) && !is_ours(host, true), "{host}");
        }
        assert!(is_ours("chaos", true) && !is_ours("chaos", false));
    }
}
