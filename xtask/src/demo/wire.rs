//! What the two halves of the demo, and the client, say to each other: JSON, one message a line.

use std::io::{BufRead as _, BufReader, Read};

use serde::{Deserialize, Serialize, de::DeserializeOwned};
use serde_json::Value;

use super::histogram::Histogram;

/// From the user's half to the root half.
#[derive(Clone, Debug, Serialize, Deserialize)]
#[serde(tag = "order", rename_all = "snake_case")]
pub(crate) enum Order {
    /// Run `chaos` with these arguments.
    Chaos {
        /// Words after the command.
        args: Vec<String>,
    },
    /// Undo everything, look whether anything is left, and end. The end of the pipe means the same.
    Finish,
}

/// From the root half to the user's half.
#[derive(Clone, Debug, Serialize, Deserialize)]
#[serde(tag = "news", rename_all = "snake_case")]
pub(crate) enum News {
    /// Namespaces, servers and client are up.
    Ready {
        /// The namespace of the servers.
        servers: String,
        /// The namespace of the client.
        client: String,
    },
    /// What the client saw.
    Sample(Sample),
    /// A line `chaos --json` printed.
    Chaos {
        /// The line.
        line: Value,
    },
    /// A line `chaos` printed for people.
    ChaosSays {
        /// The line.
        text: String,
    },
    /// `chaos` ended; 128 + signal if a signal ended it.
    ChaosEnded {
        /// Its exit code.
        code: i32,
    },
    /// The last message of a run that finished: what was not there before the demo.
    Finished {
        /// Things left behind, in words; empty = none.
        left: Vec<String>,
    },
    /// The root half cannot go on.
    Failed {
        /// Why.
        why: String,
    },
}

/// What the client saw since its last sample.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub(crate) struct Sample {
    /// One for each server.
    pub(crate) ports: Vec<PortSample>,
}

/// What the client saw of one server.
#[derive(Clone, Debug, Default, Serialize, Deserialize)]
pub(crate) struct PortSample {
    /// The server's port.
    pub(crate) port: u16,
    /// Correct replies.
    pub(crate) replies: u64,
    /// Times a reply did not come within [`super::client::PATIENCE`].
    pub(crate) timeouts: u64,
    /// Wrong replies.
    pub(crate) wrong: u64,
    /// Connections that broke and were made again.
    pub(crate) broken: u64,
    /// From request to reply.
    pub(crate) latency: Histogram,
}

/// Calls `each` with every message of a stream until it ends or `each` wants no more.
pub(crate) fn read<T: DeserializeOwned>(stream: impl Read, mut each: impl FnMut(T) -> bool) {
    for line in BufReader::new(stream).lines() {
        let Ok(line) = line else { return };
        // What is not a message (such as a warning of sudo) is nothing to act on.
        if let Ok(message) = serde_json::from_str(&line)
            && !each(message)
        {
            return;
        }
    }
}
