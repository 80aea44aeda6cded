//! `/v1/events`: what happens, as server-sent events (the HTML standard, section 9.2).

use std::{collections::VecDeque, convert::Infallible, sync::Arc};

use axum::{
    extract::State,
    http::HeaderMap,
    response::sse::{Event as Message, KeepAlive, Sse},
};
use clap::ValueEnum as _;
use futures_util::{Stream, stream};
use serde_json::{Value, json};
use tokio::sync::broadcast::{Receiver, error::RecvError};

use super::{
    asked::{self, Words},
    body, openapi,
    problem::Problem,
    routes::Param,
    shape, view,
};
use crate::daemon::{Event, Hub, Kind, Subscription};

/// What may be asked.
pub(super) const PARAMS: &[Param] = &[
    Param {
        name: "after",
        help: "Begin behind this event; the header Last-Event-ID, if it is there, wins",
        required: false,
        shape: place,
    },
    Param {
        name: "fault",
        help: "Only what is about this fault, by its number or name",
        required: false,
        shape: openapi::name_shape,
    },
    Param {
        name: "kind",
        help: "Only these kinds, such as started,ended; packets come only if they are asked for",
        required: false,
        shape: || json!({"type": "array", "minItems": 1, "items": {"type": "string", "enum": known_kinds().collect::<Vec<_>>()}}),
    },
];

/// The header that is read.
pub(super) const HEADERS: &[Param] =
    &[Param { name: "Last-Event-ID", help: "Begin behind this event", required: false, shape: place }];

fn place() -> Value {
    json!({"type": "string", "pattern": "^([0-9a-f]{1,16}-)?[0-9]{1,19}$"})
}

/// What an event looks like.
pub(super) fn shape() -> Value {
    let fields = shape::object([
        ("id", shape::count("Counts from 1 since the agent was started")),
        ("time", view::time("When")),
        ("kind", shape::one_of(known_kinds(), "What kind of thing happened")),
        ("fault", shape::or_null(shape::count("The fault it is about"))),
        ("name", shape::or_null(shape::text("That fault's name"))),
        ("message", shape::text("In words")),
        ("data", json!({"description": "More of it, as the kind has it"})),
    ]);
    shape::without(fields, &["data"])
}

/// What a browser sends when it comes back; anybody else may as well.
const LAST_EVENT_ID: &str = "last-event-id";

pub(super) async fn stream(
    State(hub): State<Hub>,
    words: Words,
    headers: HeaderMap,
) -> Result<Sse<impl Stream<Item = Result<Message, Infallible>>>, Problem> {
    let listener = Listener::new(&hub, after(&hub, &words, &headers)?, Wanted::read(&words)?);
    let messages = stream::unfold(listener, |mut listener| async {
        let message = listener.next().await?;
        Some((Ok(message), listener))
    });
    // Every 15 s a comment, so that whoever is gone is noticed.
    Ok(Sse::new(messages).keep_alive(KeepAlive::default()))
}

/// The number of the last event that was seen; 0 for those of another agent, none when nobody says.
fn after(hub: &Hub, words: &Words, headers: &HeaderMap) -> Result<Option<u64>, Problem> {
    const FORM: &str = "write the id of an event, such as 17, or as the stream has it";
    let header = headers.get(LAST_EVENT_ID).map(|value| (LAST_EVENT_ID, value.to_str().unwrap_or("?")));
    let Some((name, text)) = header.or_else(|| asked::word(words, "after").map(|text| ("after", text)))
    else {
        return Ok(None);
    };
    let (epoch, number) = text.split_once('-').map_or((None, text), |(epoch, number)| (Some(epoch), number));
    let is_hex = |byte: u8| byte.is_ascii_digit() || (b'a'..=b'f').contains(&byte);
    let is_epoch = |epoch: &str| (1..=16).contains(&epoch.len()) && epoch.bytes().all(is_hex);
    let is_number = (1..=19).contains(&number.len()) && number.bytes().all(|byte| byte.is_ascii_digit());
    let is_plain = is_number && epoch.is_none_or(is_epoch);
    let number = number
        .parse()
        .ok()
        .filter(|_| is_plain)
        .ok_or_else(|| Problem::parameter(name, format!("`{text}`: {FORM}")))?;
    Ok(Some(if epoch.is_none_or(|epoch| epoch == hub.epoch()) { number } else { 0 }))
}

/// Which events.
#[derive(Debug, Default)]
struct Wanted {
    fault: Option<String>,
    kinds: Vec<Kind>,
}

impl Wanted {
    fn read(words: &Words) -> Result<Self, Problem> {
        let kinds = asked::word(words, "kind").into_iter().flat_map(|text| text.split(','));
        let kinds: Result<Vec<Kind>, Problem> = kinds
            .map(|text| {
                Kind::from_str(text, false).map_err(|_| {
                    let known: Vec<String> = known_kinds().collect();
                    let what = format!("`{text}` is no kind of event; there are: {}", known.join(", "));
                    Problem::parameter("kind", what)
                })
            })
            .collect();
        let fault = asked::word(words, "fault").map(|text| {
            body::id(text).map_err(|what| Problem::parameter("fault", format!("`{text}`: {what}")))
        });
        Ok(Self { fault: fault.transpose()?, kinds: kinds? })
    }

    fn has(&self, event: &Event) -> bool {
        let is_of = |word: &String| {
            event.name.as_ref() == Some(word) || event.fault.is_some_and(|fault| *word == fault.to_string())
        };
        self.fault.as_ref().is_none_or(is_of) && (self.kinds.is_empty() || self.kinds.contains(&event.kind))
    }

    fn packets(&self) -> bool {
        self.kinds.contains(&Kind::Packet)
    }
}

/// The words for the kinds of events.
pub(super) fn known_kinds() -> impl Iterator<Item = String> {
    let words = Kind::value_variants().iter().filter_map(Kind::to_possible_value);
    words.map(|word| word.get_name().to_owned())
}

/// One who listens.
struct Listener {
    epoch: String,
    wanted: Wanted,
    lost: u64,
    past: VecDeque<Arc<Event>>,
    receiver: Receiver<Arc<Event>>,
    /// Only when they are asked for: to have it makes the agent read them.
    packets: Option<Receiver<Arc<Event>>>,
}

impl Listener {
    fn new(hub: &Hub, after: Option<u64>, wanted: Wanted) -> Self {
        let Subscription { past, lost, receiver } = hub.subscribe(after);
        let packets = wanted.packets().then(|| hub.packets());
        Self { epoch: hub.epoch(), wanted, lost, past: past.into(), receiver, packets }
    }

    /// None: the agent ends.
    async fn next(&mut self) -> Option<Message> {
        loop {
            if self.lost > 0 {
                let missed = json!({"missed": std::mem::take(&mut self.lost)});
                return Some(Message::default().event("missed").data(missed.to_string()));
            }
            let event = match self.past.pop_front() {
                Some(event) => event,
                None => match self.recv().await {
                    Ok(event) => event,
                    Err(RecvError::Lagged(count)) => {
                        self.lost = count;
                        continue;
                    }
                    Err(RecvError::Closed) => return None,
                },
            };
            if self.wanted.has(&event) {
                return Some(self.message(&event));
            }
        }
    }

    async fn recv(&mut self) -> Result<Arc<Event>, RecvError> {
        let Some(packets) = &mut self.packets else { return self.receiver.recv().await };
        tokio::select! {
            biased;
            event = self.receiver.recv() => event,
            packet = packets.recv() => packet,
        }
    }

    fn message(&self, event: &Event) -> Message {
        let kind = event.kind.to_possible_value().map_or_else(String::new, |word| word.get_name().to_owned());
        let data = serde_json::to_string(event).unwrap_or_default();
        let message = Message::default().event(kind).data(data);
        // A packet has no number: nobody can come back for it.
        if event.kind == Kind::Packet { message } else { message.id(format!("{}-{}", self.epoch, event.id)) }
    }
}

#[cfg(test)]
mod tests {
    use axum::extract::Query;

    use super::*;

    fn words(list: &[(&str, &str)]) -> Words {
        Query(list.iter().map(|(name, value)| ((*name).to_owned(), (*value).to_owned())).collect())
    }

    fn text(message: &Message) -> String {
        format!("{message:?}")
    }

    #[tokio::test]
    async fn a_slow_listener_is_told_how_many_it_missed_and_all_hear_the_end() {
        let hub = Hub::new();
        let mut listener = Listener::new(&hub, Some(0), Wanted::default());
        for _ in 0..10_000 {
            hub.publish(Kind::Target, None, "moved", Value::Null);
        }
        hub.close();
        let first = text(&listener.next().await.unwrap());
        let told: u64 = 10_000 - 4096;
        assert!(first.contains("missed") && first.contains(&told.to_string()), "{first}");
        let mut rest = 0;
        while listener.next().await.is_some() {
            rest += 1;
        }
        assert_eq!(rest, 4096);
    }

    #[tokio::test]
    async fn only_what_was_asked_for() {
        let hub = Hub::new();
        hub.name(1, Some("db"));
        hub.publish(Kind::Started, Some(1), "one", Value::Null);
        hub.publish(Kind::Started, Some(2), "other", Value::Null);
        hub.publish(Kind::Target, Some(1), "moved", Value::Null);
        hub.publish(Kind::Ended, Some(1), "two", Value::Null);
        hub.close();
        for (list, expected) in [
            (&[("fault", "db")][..], 3),
            (&[("fault", "1")], 3),
            (&[("fault", "2")], 1),
            (&[("kind", "started,ended")], 3),
            (&[("kind", "ended"), ("fault", "2")], 0),
            (&[], 4),
        ] {
            let mut listener = Listener::new(&hub, Some(0), Wanted::read(&words(list)).unwrap());
            let mut count = 0;
            while listener.next().await.is_some() {
                count += 1;
            }
            assert_eq!(count, expected, "{list:?}");
        }
        assert!(Wanted::read(&words(&[("kind", "begun")])).is_err());
    }

    #[test]
    fn where_to_begin() {
        let hub = Hub::new();
        let none = HeaderMap::new();
        let at = |list: &[(&str, &str)], headers: &HeaderMap| after(&hub, &words(list), headers).ok();
        assert_eq!(at(&[], &none), Some(None));
        assert_eq!(at(&[("after", "7")], &none), Some(Some(7)));
        assert_eq!(at(&[("after", &format!("{}-7", hub.epoch()))], &none), Some(Some(7)));
        assert_eq!(at(&[("after", "0abc-7")], &none), Some(Some(0)), "another agent's");
        assert_eq!((at(&[("after", "-1")], &none), at(&[("after", "x")], &none)), (None, None));
        let headers = HeaderMap::from_iter([(LAST_EVENT_ID.parse().unwrap(), "9".parse().unwrap())]);
        assert_eq!(at(&[("after", "7")], &headers), Some(Some(9)));
    }
}
