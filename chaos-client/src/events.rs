//! What happens at an agent, as it happens: server-sent events (the HTML standard, section 9.2).

use std::io::{BufRead as _, BufReader};

use serde::{Deserialize, Serialize};
use serde_json::Value;
use ureq::BodyReader;

use crate::{Client, Error};

/// One thing that happened.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(default)]
pub struct Event {
    /// Counts from 1 since the agent was started; 0 for what the stream says about itself.
    pub id: u64,
    /// RFC 3339.
    pub time: String,
    /// What kind, such as `started`, `ended`, `target`; `missed`: some were told too fast for us.
    pub kind: String,
    /// The fault it is about.
    pub fault: Option<u64>,
    /// That fault's name.
    pub name: Option<String>,
    /// In words.
    pub message: String,
    /// More of it, as the kind has it.
    #[serde(skip_serializing_if = "Value::is_null")]
    pub data: Value,
}

/// The events of an agent, one after the other. The iterator ends with the agent, and waits as long as nothing happens.
pub struct Events {
    client: Client,
    lines: BufReader<BodyReader<'static>>,
    last_id: Option<String>,
}

impl Events {
    pub(crate) fn new(client: Client, body: BodyReader<'static>) -> Self {
        Self { client, lines: BufReader::new(body), last_id: None }
    }

    /// Where to go on after a break: the `after` of [`Client::events`]. None before the first event.
    #[must_use]
    pub fn last_id(&self) -> Option<&str> {
        self.last_id.as_deref()
    }

    /// One message: lines up to an empty one.
    fn message(&mut self) -> Result<Option<Event>, Error> {
        let (mut kind, mut data) = (String::new(), String::new());
        loop {
            let mut line = String::new();
            let read = self.lines.read_line(&mut line).map_err(|error| self.client.broken(error))?;
            if read == 0 {
                return Ok(None);
            }
            let line = line.trim_end_matches(['\r', '\n']);
            if line.is_empty() && !data.is_empty() {
                return self.event(&kind, &data).map(Some);
            }
            let (field, value) = line.split_once(':').unwrap_or((line, ""));
            let value = value.strip_prefix(' ').unwrap_or(value);
            match field {
                "id" => self.last_id = Some(value.to_owned()),
                "event" => value.clone_into(&mut kind),
                "data" => data.push_str(value),
                // Comments keep the connection alive.
                _ => {}
            }
        }
    }

    fn event(&self, kind: &str, data: &str) -> Result<Event, Error> {
        let garbled = |error: serde_json::Error| Error::Garbled {
            place: self.client.place().clone(),
            what: error.to_string(),
        };
        if kind == "missed" {
            let data: Value = serde_json::from_str(data).map_err(garbled)?;
            let message = format!("{} events were missed", data.get("missed").unwrap_or(&Value::Null));
            return Ok(Event { kind: kind.to_owned(), message, data, ..Event::default() });
        }
        serde_json::from_str(data).map_err(garbled)
    }
}

impl Iterator for Events {
    type Item = Result<Event, Error>;

    fn next(&mut self) -> Option<Self::Item> {
        self.message().transpose()
    }
}

impl std::fmt::Debug for Events {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Events").field("last_id", &self.last_id).finish_non_exhaustive()
    }
}
