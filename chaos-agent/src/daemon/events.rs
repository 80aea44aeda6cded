//! What happened: remembered for a while, and told to whoever listens.

use std::{
    collections::{BTreeMap, VecDeque},
    sync::{Arc, Mutex, MutexGuard, PoisonError},
    time::SystemTime,
};

use clap::ValueEnum;
use serde::{Serialize, Serializer};
use serde_json::Value;
use tokio::sync::broadcast::{self, Receiver, Sender};

use crate::engine::{Counters, Sorted};

/// Events that are still told to one who asks for what he missed.
const REMEMBERED: usize = 1024;
/// A listener that is slower than this many events is told how many it missed.
const BEHIND: usize = 4096;

/// What kind of thing happened.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, ValueEnum)]
#[serde(rename_all = "kebab-case")]
pub(crate) enum Kind {
    /// A fault is held.
    Started,
    /// A fault is held in another way.
    Changed,
    /// A fault is over; the message says why.
    Ended,
    /// Something happened to a target or to the programs on it (see [`crate::engine::EventKind`]).
    Target,
    /// The safety lever was pulled.
    Stopped,
    /// The safety lever was let go.
    Resumed,
    /// The configuration was read again; the message says what changed.
    Configured,
    /// Something could not be done.
    Error,
    /// A fault matched nothing for longer than it should have; the message says why that may be.
    Unmatched,
    /// A packet was affected; only told to those who ask for it ([`Hub::packets`]).
    Packet,
}

impl Kind {
    /// As it is written, also as a label of the metrics.
    pub(crate) fn name(self) -> String {
        let written = serde_json::to_value(self).unwrap_or_default();
        written.as_str().unwrap_or_default().to_owned()
    }
}

/// One thing that happened.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub(crate) struct Event {
    /// Counts from 1 since the agent was started.
    pub(crate) id: u64,
    /// RFC 3339, milliseconds.
    pub(crate) time: String,
    pub(crate) kind: Kind,
    /// The fault it is about.
    pub(crate) fault: Option<u64>,
    /// That fault's name, if it has one.
    pub(crate) name: Option<String>,
    /// In words.
    pub(crate) message: String,
    /// More of it, as the kind has it.
    #[serde(skip_serializing_if = "Data::is_null")]
    pub(crate) data: Data,
}

/// What an event says besides its message.
#[derive(Clone, Debug, PartialEq)]
pub(crate) enum Data {
    /// What its kind has.
    Value(Value),
    /// The last counters of a fault, of what left and of what came: thousands may end at once, so they are put into
    /// words only for those who listen.
    Last(Box<[Counters; 2]>),
}

impl Data {
    /// It says nothing.
    fn is_null(&self) -> bool {
        matches!(self, Self::Value(Value::Null))
    }
}

impl From<Value> for Data {
    fn from(value: Value) -> Self {
        Self::Value(value)
    }
}

impl Serialize for Data {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        match self {
            Self::Value(value) => value.serialize(serializer),
            Self::Last(counters) => {
                let [egress, ingress] = &**counters;
                serializer.collect_map([("egress", Sorted(egress)), ("ingress", Sorted(ingress))])
            }
        }
    }
}

/// Where events go, and where they come from.
#[derive(Clone, Debug)]
pub(crate) struct Hub(Arc<Mutex<Inner>>);

#[derive(Debug)]
struct Inner {
    /// When it began, milliseconds of the Unix epoch: tells our events from those of an agent before us.
    began_ms: u128,
    next_id: u64,
    past: VecDeque<Arc<Event>>,
    /// None: it is over.
    sender: Option<Sender<Arc<Event>>>,
    /// Another channel: there are too many of them, and they must not push out the others. None: it is over.
    packets: Option<Sender<Arc<Event>>>,
    /// Published so far, by kind.
    counts: BTreeMap<String, u64>,
    /// Of the faults that are held and have one.
    names: BTreeMap<u64, String>,
}

/// What a listener gets.
#[derive(Debug)]
pub(crate) struct Subscription {
    /// What was missed and is remembered.
    pub(crate) past: Vec<Arc<Event>>,
    /// How many were missed and are forgotten.
    pub(crate) lost: u64,
    /// What comes from now on; it ends when the agent does.
    pub(crate) receiver: Receiver<Arc<Event>>,
}

impl Hub {
    pub(crate) fn new() -> Self {
        let ((sender, _), (packets, _)) = (broadcast::channel(BEHIND), broadcast::channel(BEHIND));
        let began = SystemTime::now().duration_since(SystemTime::UNIX_EPOCH).unwrap_or_default();
        Self(Arc::new(Mutex::new(Inner {
            began_ms: began.as_millis(),
            next_id: 1,
            past: VecDeque::new(),
            sender: Some(sender),
            packets: Some(packets),
            counts: BTreeMap::new(),
            names: BTreeMap::new(),
        })))
    }

    fn lock(&self) -> MutexGuard<'_, Inner> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Says which agent an event's number belongs to.
    pub(crate) fn epoch(&self) -> String {
        format!("{:x}", self.lock().began_ms)
    }

    /// What happens to this fault from now on is told with its name.
    pub(crate) fn name(&self, fault: u64, name: Option<&str>) {
        let mut inner = self.lock();
        match name {
            Some(name) => drop(inner.names.insert(fault, name.to_owned())),
            None => drop(inner.names.remove(&fault)),
        }
    }

    /// Nothing more will happen: whoever listens hears the rest and then the end.
    pub(crate) fn close(&self) {
        let mut inner = self.lock();
        (inner.sender, inner.packets) = (None, None);
    }

    /// Remembers it and tells everyone who listens.
    pub(crate) fn publish(
        &self,
        kind: Kind,
        fault: Option<u64>,
        message: impl Into<String>,
        data: impl Into<Data>,
    ) {
        let mut inner = self.lock();
        let name = fault.and_then(|fault| inner.names.get(&fault).cloned());
        let event = Arc::new(Event {
            id: inner.next_id,
            time: humantime::format_rfc3339_millis(SystemTime::now()).to_string(),
            kind,
            fault,
            name,
            message: message.into(),
            data: data.into(),
        });
        inner.next_id += 1;
        *inner.counts.entry(kind.name()).or_default() += 1;
        inner.past.push_back(Arc::clone(&event));
        if inner.past.len() > REMEMBERED {
            inner.past.pop_front();
        }
        if let (Kind::Ended, Some(fault)) = (kind, fault) {
            inner.names.remove(&fault);
        }
        if let Some(sender) = &inner.sender {
            // Nobody may be listening.
            let _ = sender.send(event);
        }
    }

    /// How many were published, by kind.
    pub(crate) fn counts(&self) -> BTreeMap<String, u64> {
        let inner = self.lock();
        inner.counts.clone()
    }

    /// Tells those who asked for packets of one; it is not remembered, and its number is 0.
    pub(crate) fn pass(&self, fault: Option<u64>, message: impl Into<String>, data: Value) {
        let inner = self.lock();
        let Some(packets) = &inner.packets else { return };
        let event = Event {
            id: 0,
            time: humantime::format_rfc3339_millis(SystemTime::now()).to_string(),
            kind: Kind::Packet,
            fault,
            name: fault.and_then(|fault| inner.names.get(&fault).cloned()),
            message: message.into(),
            data: data.into(),
        };
        // Nobody may be listening.
        let _ = packets.send(Arc::new(event));
    }

    /// The packets that are affected from now on, as long as the receiver is kept: while somebody has one, a
    /// sample of them is read.
    pub(crate) fn packets(&self) -> Receiver<Arc<Event>> {
        self.lock().packets.as_ref().map_or_else(|| broadcast::channel(1).1, Sender::subscribe)
    }

    /// Whether somebody listens to packets.
    pub(crate) fn wants_packets(&self) -> bool {
        self.lock().packets.as_ref().is_some_and(|packets| packets.receiver_count() > 0)
    }

    /// What came after the event `after` and is still remembered, and all that comes from now on; none = only
    /// that. A number that was not given yet is none of ours: then everything that is remembered.
    pub(crate) fn subscribe(&self, after: Option<u64>) -> Subscription {
        let inner = self.lock();
        let after =
            after.map_or(inner.next_id.saturating_sub(1), |id| if id < inner.next_id { id } else { 0 });
        let past: Vec<_> = inner.past.iter().filter(|event| event.id > after).cloned().collect();
        let first = past.first().map_or(inner.next_id, |event| event.id);
        // A sender that is gone makes a receiver that has ended.
        let receiver = inner.sender.as_ref().map_or_else(|| broadcast::channel(1).1, Sender::subscribe);
        Subscription { past, lost: first.saturating_sub(after).saturating_sub(1), receiver }
    }
}

#[cfg(test)]
mod tests {
    use tokio::sync::broadcast::error::TryRecvError;

    use super::*;

    #[test]
    fn the_last_counters_read_as_a_value_of_them() {
        let of = |matched_packets| Counters { matched_packets, dropped_bytes: 7, ..Counters::default() };
        let last = Data::Last(Box::new([of(1), of(2)]));
        let value = serde_json::json!({"egress": of(1), "ingress": of(2)});
        assert_eq!(serde_json::to_string(&last).unwrap(), serde_json::to_string(&value).unwrap());
        assert!(!last.is_null() && Data::from(Value::Null).is_null());
    }

    #[test]
    fn who_comes_late_hears_what_was_missed_once() {
        let hub = Hub::new();
        hub.name(1, Some("db"));
        hub.publish(Kind::Started, Some(1), "one", Value::Null);
        hub.publish(Kind::Ended, Some(1), "two", Value::Null);
        let Subscription { past, lost, mut receiver } = hub.subscribe(Some(1));
        assert_eq!((past.iter().map(|event| event.id).collect::<Vec<_>>(), lost), (vec![2], 0));
        assert_eq!(past[0].name.as_deref(), Some("db"));
        hub.publish(Kind::Stopped, None, "three", Value::Null);
        assert_eq!(receiver.try_recv().unwrap().id, 3);
        assert!(receiver.try_recv().is_err());
        hub.close();
        assert_eq!(receiver.try_recv(), Err(TryRecvError::Closed));
        assert!(hub.lock().names.is_empty());
    }

    #[test]
    fn what_is_forgotten_is_counted_and_numbers_of_another_agent_are_not_believed() {
        let hub = Hub::new();
        let more = 7;
        for _ in 0..REMEMBERED + more {
            hub.publish(Kind::Target, None, "", Value::Null);
        }
        let late = hub.subscribe(Some(2));
        assert_eq!((late.past.len(), late.lost), (REMEMBERED, more as u64 - 2));
        assert_eq!(hub.subscribe(Some(1_000_000)).past.len(), REMEMBERED);
        let none = hub.subscribe(None);
        assert_eq!((none.past.len(), none.lost), (0, 0));
    }
}
