//! TCP as programs see it: how long a request takes, what an error is called and when each end hears of it.

use std::{net::SocketAddr, time::Duration};

use anyhow::Result;
use serde::{Deserialize, Serialize};

use super::helper::{self, Beside, End};

/// Bytes of a request; the first four say how many bytes the answer has.
pub const REQUEST: usize = 100;

/// How requests follow each other.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Connections {
    /// Each makes its own connection, and ends it.
    Fresh,
    /// All go over one; after an error the next one makes a new one.
    Kept,
}

/// What is to be asked.
#[derive(Clone, Copy, Debug)]
pub struct Questions {
    /// Where the server listens.
    pub to: SocketAddr,
    /// How many.
    pub count: u32,
    /// Rest between an answer and the next request.
    pub rest: Duration,
    /// Bytes of each answer.
    pub answer: u32,
    /// One connection or many.
    pub connections: Connections,
    /// A request that takes longer is given up, with `ETIMEDOUT`.
    pub limit: Duration,
}

impl Questions {
    /// `count` requests with answers of 100 bytes, 1 ms of rest, given up after 5 s.
    #[must_use]
    pub const fn new(to: SocketAddr, count: u32, connections: Connections) -> Self {
        let (rest, limit) = (Duration::from_millis(1), Duration::from_secs(5));
        Self { to, count, rest, answer: 100, connections, limit }
    }
}

/// Where a request failed.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum Step {
    /// The connection was not made.
    Connect,
    /// The request was not taken, or the answer did not come.
    Talk,
}

/// One request.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Answer {
    /// From its beginning (a fresh connection included) to the last byte of the answer, or to the error.
    pub took_ns: u64,
    /// Of it, the time until the connection was there; none over a kept one.
    pub connect_ns: Option<u64>,
    /// What went wrong: where, and the errno (0: the server ended the connection in order).
    pub error: Option<(Step, i32)>,
}

/// Asks from one end a server at the other.
///
/// # Errors
/// When a program fails; a request that fails is a result.
pub fn ask(from: End<'_>, to: End<'_>, questions: &Questions) -> Result<Vec<Answer>> {
    let server = Beside::start(to, &format!("answer {}", questions.to))?;
    let answers = ask_only(from, questions)?;
    server.finish(Duration::from_secs(5))?;
    Ok(answers)
}

/// Asks whoever listens there, if anyone does.
///
/// # Errors
/// When the program fails.
pub fn ask_only(from: End<'_>, questions: &Questions) -> Result<Vec<Answer>> {
    let Questions { to, count, rest, answer, connections, limit } = questions;
    let how = match connections {
        Connections::Fresh => "fresh",
        Connections::Kept => "kept",
    };
    let line = format!("ask {to} {count} {} {answer} {how} {}", rest.as_nanos(), limit.as_nanos());
    helper::records(&helper::run(from, &line, (*limit + *rest) * *count + Duration::from_secs(10))?)
}

/// What one end of a connection saw; times are `CLOCK_MONOTONIC` in nanoseconds.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Held {
    /// When the connection was there.
    pub established_at_ns: u64,
    /// When it sent its first byte.
    pub first_sent_at_ns: Option<u64>,
    /// When it sent its last.
    pub last_sent_at_ns: Option<u64>,
    /// Bytes the kernel took.
    pub sent: u64,
    /// Bytes that came.
    pub received: u64,
    /// When the last of them came.
    pub last_received_at_ns: Option<u64>,
    /// When the connection ended.
    pub ended_at_ns: Option<u64>,
    /// How it ended: the errno, 0 for an orderly end; none when it still was there.
    pub error: Option<i32>,
}

/// A connection between two ends, held open.
#[derive(Debug)]
pub struct Connection {
    near: Beside,
    far: Beside,
}

impl Connection {
    /// Connects `near` to `far`; nothing is sent before [`Self::go`]. Then `near` sends `chunk` bytes every
    /// `period` (as fast as they are taken when it is zero); with `chunk` 0 it stays idle.
    ///
    /// # Errors
    /// When it is not made.
    pub fn new(near: End<'_>, far: End<'_>, at: SocketAddr, chunk: u32, period: Duration) -> Result<Self> {
        let far = Beside::start(far, &format!("accept {at}"))?;
        let near = Beside::start(near, &format!("hold {at} {chunk} {}", period.as_nanos()))?;
        Ok(Self { near, far })
    }

    /// Lets the near end speak.
    ///
    /// # Errors
    /// When it is gone.
    pub fn go(&mut self) -> Result<()> {
        self.near.go()
    }

    /// Waits until both ends heard that it is over, `limit` at the longest.
    pub fn wait(&mut self, limit: Duration) {
        let over = || !self.near.is_running() && !self.far.is_running();
        let _ = crate::lab::process::wait_until("the end of a connection", limit, over);
    }

    /// Waits until both ends heard that it is over, `limit` at the longest, and returns what near and far saw.
    ///
    /// # Errors
    /// When a program fails.
    pub fn finish(mut self, limit: Duration) -> Result<(Held, Held)> {
        self.wait(limit);
        let second = Duration::from_secs(1);
        Ok((helper::record(&self.near.finish(second)?)?, helper::record(&self.far.finish(second)?)?))
    }
}

/// What a connected UDP socket heard after one datagram.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Poked {
    /// From sending to hearing.
    pub took_ns: u64,
    /// The errno; `EAGAIN` when nothing came for 500 ms, 0 for an answer.
    pub error: i32,
}

/// Sends `count` datagrams of `size` bytes from a connected socket that must not fragment them, and listens
/// after each.
///
/// # Errors
/// When the program fails.
pub fn poke(from: End<'_>, to: SocketAddr, count: u32, size: u32) -> Result<Vec<Poked>> {
    let limit = Duration::from_millis(600) * count + Duration::from_secs(10);
    helper::records(&helper::run(from, &format!("poke {to} {count} {size}"), limit)?)
}
