//! What happened: remembered for a while, and told to whoever listens.

use std::{
    collections::{BTreeMap, VecDeque},
    sync::{Arc, Mutex, PoisonError},
    time::SystemTime,
};

use serde::Serialize;
use serde_json::Value;
use tokio::sync::broadcast::{self, Receiver, Sender};

/// Events that are still told to one who asks for what he missed.
const REMEMBERED: usize = 1024;
/// A listener that is slower than this many events is told how many it missed.
const BEHIND: usize = 4096;

/// What kind of thing happened.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "kebab-case")]
pub(crate) enum Kind {
    /// A fault is held.
    Started,
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
    #[expect(dead_code, reason = "raised by the alarm, which comes next")]
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
#[derive(Clone, Debug, Serialize)]
pub(crate) struct Event {
    /// Counts from 1 since the agent was started.
    pub(crate) id: u64,
    /// RFC 3339, milliseconds.
    pub(crate) time: String,
    pub(crate) kind: Kind,
    /// The fault it is about.
    pub(crate) fault: Option<u64>,
    /// In words.
    pub(crate) message: String,
    /// More of it, as the kind has it.
    #[serde(skip_serializing_if = "Value::is_null")]
    pub(crate) data: Value,
}

/// Where events go, and where they come from.
#[derive(Clone, Debug)]
pub(crate) struct Hub(Arc<Mutex<Inner>>);

#[derive(Debug)]
struct Inner {
    next_id: u64,
    past: VecDeque<Arc<Event>>,
    sender: Sender<Arc<Event>>,
    /// Another channel: there are too many of them, and they must not push out the others.
    packets: Sender<Arc<Event>>,
    /// Published so far, by kind.
    counts: BTreeMap<String, u64>,
}

impl Hub {
    pub(crate) fn new() -> Self {
        let ((sender, _), (packets, _)) = (broadcast::channel(BEHIND), broadcast::channel(BEHIND));
        let counts = BTreeMap::new();
        Self(Arc::new(Mutex::new(Inner { next_id: 1, past: VecDeque::new(), sender, packets, counts })))
    }

    /// Remembers it and tells everyone who listens.
    pub(crate) fn publish(&self, kind: Kind, fault: Option<u64>, message: impl Into<String>, data: Value) {
        let mut inner = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        let event = Arc::new(Event {
            id: inner.next_id,
            time: humantime::format_rfc3339_millis(SystemTime::now()).to_string(),
            kind,
            fault,
            message: message.into(),
            data,
        });
        inner.next_id += 1;
        *inner.counts.entry(kind.name()).or_default() += 1;
        inner.past.push_back(Arc::clone(&event));
        if inner.past.len() > REMEMBERED {
            inner.past.pop_front();
        }
        // Nobody may be listening.
        let _ = inner.sender.send(event);
    }

    /// How many were published, by kind.
    pub(crate) fn counts(&self) -> BTreeMap<String, u64> {
        let inner = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        inner.counts.clone()
    }

    #[expect(dead_code, reason = "told by the reader of the ring buffer, which comes next")]
    /// Tells those who asked for packets of one; it is not remembered, and its number is 0.
    pub(crate) fn pass(&self, fault: Option<u64>, message: impl Into<String>, data: Value) {
        let inner = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        let event = Event {
            id: 0,
            time: humantime::format_rfc3339_millis(SystemTime::now()).to_string(),
            kind: Kind::Packet,
            fault,
            message: message.into(),
            data,
        };
        // Nobody may be listening.
        let _ = inner.packets.send(Arc::new(event));
    }

    /// The packets that are affected from now on, as long as the receiver is kept: while somebody has one, a
    /// sample of them is read.
    #[expect(dead_code, reason = "read by the event stream, which comes next")]
    pub(crate) fn packets(&self) -> Receiver<Arc<Event>> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner).packets.subscribe()
    }

    /// Whether somebody listens to packets.
    #[expect(dead_code, reason = "asked by the reader of the ring buffer, which comes next")]
    pub(crate) fn wants_packets(&self) -> bool {
        self.0.lock().unwrap_or_else(PoisonError::into_inner).packets.receiver_count() > 0
    }

    #[cfg_attr(not(test), expect(dead_code, reason = "read by the event stream, which comes next"))]
    /// What came after the event `after` and is still remembered, and all that comes from now on.
    pub(crate) fn subscribe(&self, after: u64) -> (Vec<Arc<Event>>, Receiver<Arc<Event>>) {
        let inner = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        let missed = inner.past.iter().filter(|event| event.id > after).cloned().collect();
        (missed, inner.sender.subscribe())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn who_comes_late_hears_what_was_missed_once() {
        let hub = Hub::new();
        hub.publish(Kind::Started, Some(1), "one", Value::Null);
        hub.publish(Kind::Ended, Some(1), "two", Value::Null);
        let (missed, mut receiver) = hub.subscribe(1);
        assert_eq!(missed.iter().map(|event| event.id).collect::<Vec<_>>(), [2]);
        hub.publish(Kind::Stopped, None, "three", Value::Null);
        assert_eq!(receiver.try_recv().unwrap().id, 3);
        assert!(receiver.try_recv().is_err());
    }
}
