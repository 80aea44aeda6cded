//! A real redis-server, and just enough of a client to ask whether it answers.

use std::{
    io::{Read, Write},
    net::{SocketAddr, TcpStream},
    process::Command,
    time::Duration,
};

use anyhow::{Context, Result, ensure};

use crate::lab::{
    netns::Netns,
    process::{self, Process},
};

/// Starts redis-server in `netns` on all addresses; `wrap` may put it into a cgroup.
///
/// # Errors
/// When it does not accept connections at `ready` in time.
pub fn start(netns: &Netns, ready: SocketAddr, wrap: impl FnOnce(Command) -> Command) -> Result<Process> {
    let mut command = Command::new("redis-server");
    command.args(["--port", &ready.port().to_string()]);
    command.args(["--bind", "0.0.0.0", "::", "--protected-mode", "no", "--save", "", "--appendonly", "no"]);
    process::serve_command(netns, netns.inside(wrap(command)), ready)
}

/// One connection to a redis-server.
#[derive(Debug)]
pub struct Client(TcpStream);

impl Client {
    /// Connects from inside `netns`.
    ///
    /// # Errors
    /// When there is no connection within `limit`.
    pub fn connect(netns: &Netns, to: SocketAddr, limit: Duration) -> Result<Self> {
        let stream = netns.enter(|| TcpStream::connect_timeout(&to, limit))??;
        stream.set_nodelay(true)?;
        Ok(Self(stream))
    }

    /// Asks PING and waits for the answer at most `limit`. After a timeout the answer may still
    /// come; [`Self::expect_answers`] waits for it.
    ///
    /// # Errors
    /// When no answer comes in time or the connection broke.
    pub fn ping(&mut self, limit: Duration) -> Result<()> {
        self.0.write_all(b"PING\r\n").context("asking")?;
        self.expect_answers(1, limit)
    }

    /// Waits for the answers to `count` questions asked before.
    ///
    /// # Errors
    /// When they do not come within `limit` each.
    pub fn expect_answers(&mut self, count: usize, limit: Duration) -> Result<()> {
        self.0.set_read_timeout(Some(limit))?;
        let mut answers = vec![0; 7 * count];
        self.0.read_exact(&mut answers).context("waiting for the answer")?;
        ensure!(answers == b"+PONG\r\n".repeat(count), "the answer is {}", answers.escape_ascii());
        Ok(())
    }
}
