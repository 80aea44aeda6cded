//! `Idempotency-Key`: a POST that is sent again gets the answer of the first one and does nothing
//! (draft-ietf-httpapi-idempotency-key-header-07).

use std::{
    collections::{HashMap, VecDeque},
    sync::{Arc, Mutex, MutexGuard, PoisonError},
    time::{Duration, Instant},
};

use axum::{
    body::{Body, Bytes, to_bytes},
    http::{HeaderMap, StatusCode, response::Parts},
    response::{IntoResponse as _, Response},
};
use serde_json::Value;
use tokio::sync::watch;

use super::{caller::Owner, problem::Problem};
use crate::safety::{CALLER, Caller};

/// The header.
pub(super) const HEADER: &str = "idempotency-key";
/// What it looks like: the key, in quotes or not.
pub(super) const PATTERN: &str = "^(\"[!#-~]{1,255}\"|[!#-~]{1,255})$";
/// An answer is known so long.
const KEPT_FOR: Duration = Duration::from_hours(1);
/// And so many of them.
const KEPT: usize = 1024;
/// And so many bytes of bodies, the client's and ours.
const KEPT_BYTES: usize = 8 << 20;
/// The longest key.
const KEY_LENGTH: usize = 255;

/// A key, and whose it is: others may have thought of the same one.
pub(super) type Key = (Owner, String);

/// The answers that were given.
#[derive(Clone, Debug, Default)]
pub(super) struct Answers(Arc<Mutex<Kept>>);

#[derive(Debug, Default)]
struct Kept {
    by_key: HashMap<Key, Entry>,
    /// The oldest first; a key may be there that is not known any more.
    order: VecDeque<(Instant, Key)>,
    bytes: usize,
}

#[derive(Debug)]
struct Entry {
    since: Instant,
    body: Value,
    bytes: usize,
    answer: watch::Receiver<Option<Answer>>,
}

#[derive(Clone, Debug)]
struct Answer {
    head: Parts,
    body: Bytes,
}

/// The key of a request, if it has one. As the draft writes it, in quotes, or bare.
///
/// # Errors
/// It is empty, too long, or there are several.
pub(super) fn key(headers: &HeaderMap) -> Result<Option<String>, Problem> {
    let mut given = headers.get_all(HEADER).iter();
    let Some(value) = given.next() else { return Ok(None) };
    let wrong = || {
        let what = format!(
            "write one key of 1 to {KEY_LENGTH} visible ASCII characters without quotes, such as a UUID, in quotes"
        );
        Problem::parameter("Idempotency-Key", what)
    };
    let text = value.to_str().map_err(|_| wrong())?.trim();
    let bare = text.strip_prefix('"').and_then(|text| text.strip_suffix('"')).unwrap_or(text);
    let is_key = (1..=KEY_LENGTH).contains(&bare.len())
        && bare.bytes().all(|byte| byte.is_ascii_graphic() && byte != b'"');
    if given.next().is_some() || !is_key {
        return Err(wrong());
    }
    Ok(Some(bare.to_owned()))
}

impl Answers {
    /// The answer to `body` under `key`: that of the first time, waited for if it is still being made, else what
    /// `make` makes. It is made to its end even when whoever asked has gone. Answers of 500 and above are not
    /// kept: nothing was done, and to ask again may help.
    pub(super) async fn of(
        &self,
        key: Key,
        body: &Value,
        make: impl Future<Output = Response> + Send + 'static,
    ) -> Response {
        let mut answer = match self.begin(&key, body) {
            Begun::Other => {
                let what = "was used before for another request; use a new one for every request that is not the same";
                let mut problem = Problem::parameter("Idempotency-Key", what);
                problem.set_status(StatusCode::UNPROCESSABLE_ENTITY);
                return problem.into_response();
            }
            Begun::Known(answer) => answer,
            Begun::New(sender, answer) => {
                let answers = self.clone();
                // Another task, and still the same caller.
                tokio::spawn(CALLER.scope(Caller::current(), async move {
                    let first = whole(make.await).await;
                    answers.done(&key, &first);
                    let _ = sender.send(Some(first));
                }));
                answer
            }
        };
        let Ok(answer) = answer.wait_for(Option::is_some).await.map(|answer| answer.clone()) else {
            return Problem::new(StatusCode::INTERNAL_SERVER_ERROR, "the answer was lost").into_response();
        };
        answer.map_or_else(
            || StatusCode::INTERNAL_SERVER_ERROR.into_response(),
            |answer| Response::from_parts(answer.head, Body::from(answer.body)),
        )
    }

    fn lock(&self) -> MutexGuard<'_, Kept> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn begin(&self, key: &Key, body: &Value) -> Begun {
        let mut kept = self.lock();
        kept.forget();
        if let Some(entry) = kept.by_key.get(key) {
            // Of an answer that was lost nothing remains to wait for.
            let is_lost = entry.answer.has_changed().is_err() && entry.answer.borrow().is_none();
            if !is_lost {
                return if entry.body == *body { Begun::Known(entry.answer.clone()) } else { Begun::Other };
            }
        }
        kept.remove(key);
        let (sender, answer) = watch::channel(None);
        let (since, bytes) = (Instant::now(), body.to_string().len());
        let entry = Entry { since, body: body.clone(), bytes, answer: answer.clone() };
        kept.bytes += bytes;
        kept.by_key.insert(key.clone(), entry);
        kept.order.push_back((since, key.clone()));
        Begun::New(sender, answer)
    }

    fn done(&self, key: &Key, made: &Answer) {
        let mut kept = self.lock();
        if made.head.status.is_server_error() {
            kept.remove(key);
        } else if let Some(entry) = kept.by_key.get_mut(key) {
            entry.bytes += made.body.len();
            kept.bytes += made.body.len();
        }
    }
}

enum Begun {
    New(watch::Sender<Option<Answer>>, watch::Receiver<Option<Answer>>),
    Known(watch::Receiver<Option<Answer>>),
    Other,
}

impl Kept {
    fn remove(&mut self, key: &Key) {
        if let Some(entry) = self.by_key.remove(key) {
            self.bytes = self.bytes.saturating_sub(entry.bytes);
        }
    }

    /// What is too old or too much.
    fn forget(&mut self) {
        while let Some((since, key)) = self.order.front().cloned() {
            let is_current = self.by_key.get(&key).is_some_and(|entry| entry.since == since);
            let is_enough =
                since.elapsed() <= KEPT_FOR && self.by_key.len() < KEPT && self.bytes <= KEPT_BYTES;
            if is_current && is_enough {
                return;
            }
            if is_current {
                self.remove(&key);
            }
            self.order.pop_front();
        }
    }
}

async fn whole(response: Response) -> Answer {
    let (head, body) = response.into_parts();
    // Ours are made of bytes that are there already.
    Answer { head, body: to_bytes(body, usize::MAX).await.unwrap_or_default() }
}

#[cfg(test)]
mod tests {
    use std::sync::atomic::{AtomicUsize, Ordering};

    use serde_json::json;

    use super::*;

    async fn text(response: Response) -> (StatusCode, String) {
        let (head, body) = response.into_parts();
        let bytes = to_bytes(body, usize::MAX).await.unwrap();
        (head.status, String::from_utf8(bytes.to_vec()).unwrap())
    }

    fn own(key: &str) -> Key {
        (Owner::User(0), key.to_owned())
    }

    fn count(made: &Arc<AtomicUsize>, status: StatusCode) -> impl Future<Output = Response> + Send + use<> {
        let made = Arc::clone(made);
        async move {
            tokio::task::yield_now().await;
            (status, made.fetch_add(1, Ordering::Relaxed).to_string()).into_response()
        }
    }

    #[tokio::test]
    async fn the_same_answer_also_while_it_is_made() {
        let (answers, made) = (Answers::default(), Arc::new(AtomicUsize::new(0)));
        let body = json!({"a": 1});
        let ask = || answers.of(own("key"), &body, count(&made, StatusCode::CREATED));
        let (first, second) = tokio::join!(ask(), ask());
        let (first, second, third) = (text(first).await, text(second).await, text(ask().await).await);
        assert_eq!((&first, &second), (&(StatusCode::CREATED, "0".to_owned()), &third));
        assert_eq!(made.load(Ordering::Relaxed), 1);
        let other = answers.of(own("key"), &json!({}), count(&made, StatusCode::CREATED)).await;
        assert_eq!(other.status(), StatusCode::UNPROCESSABLE_ENTITY);
    }

    #[tokio::test]
    async fn a_key_is_its_callers() {
        let (answers, made) = (Answers::default(), Arc::new(AtomicUsize::new(0)));
        let at = |text: &str| Owner::Address(text.parse().unwrap());
        for owner in [Owner::User(0), Owner::User(1000), at("10.0.0.1"), at("10.0.0.2"), at("fd00::1")] {
            let ask =
                || answers.of((owner, "key".to_owned()), &Value::Null, count(&made, StatusCode::CREATED));
            let before = made.load(Ordering::Relaxed).to_string();
            assert_eq!((text(ask().await).await.1, text(ask().await).await.1), (before.clone(), before));
        }
    }

    #[tokio::test]
    async fn what_failed_is_tried_again_and_little_is_kept() {
        let (answers, made) = (Answers::default(), Arc::new(AtomicUsize::new(0)));
        for expected in 0..3 {
            let again = answers.of(own("key"), &Value::Null, count(&made, StatusCode::SERVICE_UNAVAILABLE));
            assert_eq!(text(again.await).await.1, expected.to_string());
        }
        for number in 0..2 * KEPT {
            answers.of(own(&number.to_string()), &Value::Null, count(&made, StatusCode::OK)).await;
        }
        let large = Value::from("x".repeat(KEPT_BYTES / 4));
        for number in 0..10 {
            answers.of(own(&format!("large {number}")), &large, count(&made, StatusCode::OK)).await;
        }
        let kept = answers.lock();
        assert!(kept.by_key.len() <= KEPT && kept.order.len() <= KEPT + 1, "{}", kept.by_key.len());
        assert!(kept.bytes <= KEPT_BYTES + KEPT_BYTES / 2, "{}", kept.bytes);
    }

    #[test]
    fn keys() {
        let of = |text: &'static str| {
            key(&HeaderMap::from_iter([(HEADER.parse().unwrap(), text.parse().unwrap())]))
        };
        assert_eq!(of("\"8e03978e\"").unwrap().as_deref(), Some("8e03978e"));
        assert_eq!(of("8e03978e").unwrap().as_deref(), Some("8e03978e"));
        assert!(of("\"\"").is_err() && of("").is_err());
        assert_eq!(key(&HeaderMap::new()).unwrap(), None);
    }
}
