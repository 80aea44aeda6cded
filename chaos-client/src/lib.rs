//! Network faults from a test: asks a running `chaos agent`, over its Unix socket or over TCP.
//!
//! A [`Fault`] is held as long as its handle lives. Dropping the handle heals it, also when a panic unwinds;
//! when the process aborts or is killed, its lease runs out and the agent ends it.
//!
//! ```no_run
//! use chaos_client::{Client, NewFault};
//!
//! # fn main() -> Result<(), chaos_client::Error> {
//! let client = Client::from_env()?;
//! let fault = client.hold(NewFault::on("unit:api.service").fault("loss", "10%").matching("peer_port", 5432))?;
//! // ... what is tested runs here, with every tenth packet to its database gone ...
//! println!("{} packets are lost", fault.stats()?.both("dropped_packets"));
//! fault.heal()?;
//! # Ok(())
//! # }
//! ```
//!
//! Every call waits for its answer, at most [`Client::with_limit`]; nothing here needs an async runtime.
#![forbid(unsafe_code)]
#![cfg_attr(test, expect(clippy::unwrap_used, reason = "a failed unwrap in a test is a failed test"))]

mod answer;
mod client;
mod error;
mod events;
mod fault;
mod place;
mod request;
#[cfg(feature = "tls")]
mod tls;
mod transport;

pub use self::{
    answer::{Counters, FaultView, Removed, State, Stats, Status},
    client::Client,
    error::{Error, Problem, Wrong},
    events::{Event, Events},
    fault::{Condition, Fault},
    place::{DEFAULT_SOCKET, Place},
    request::NewFault,
};
