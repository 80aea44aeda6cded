//! `traffic hold ADDRESS CHUNK PERIOD_NS`, `traffic accept ADDRESS`: both ends of a connection that is watched.

use std::{
    io::{ErrorKind, Read, Write},
    net::{SocketAddr, TcpListener, TcpStream},
    os::fd::AsFd,
};

use anyhow::{Context, Result};
use chaos_tests::measure::dialogue::Held;
use nix::poll::{PollFd, PollFlags, PollTimeout, poll};

use crate::clock;

/// Connects, waits for a line on standard input, and sends from then on.
pub(crate) fn hold(to: SocketAddr, chunk: usize, period_ns: u64) -> Result<()> {
    let stream = TcpStream::connect(to).with_context(|| format!("connecting to {to}"))?;
    stream.set_nodelay(true)?;
    clock::ready()?;
    Watch::new(stream)?.run(chunk, period_ns)
}

/// Accepts one connection and reads.
pub(crate) fn accept(at: SocketAddr) -> Result<()> {
    let listener = TcpListener::bind(at).with_context(|| format!("listening at {at}"))?;
    clock::ready()?;
    let (stream, _) = listener.accept().context("accepting")?;
    Watch::new(stream)?.run(0, 0)
}

struct Watch {
    stream: TcpStream,
    held: Held,
}

impl Watch {
    fn new(stream: TcpStream) -> Result<Self> {
        stream.set_nonblocking(true)?;
        let held = Held { established_at_ns: clock::now_ns()?, ..Held::default() };
        Ok(Self { stream, held })
    }

    /// Until the connection or standard input ends.
    fn run(mut self, chunk: usize, period_ns: u64) -> Result<()> {
        let bytes = vec![0x5a; chunk];
        let stdin = std::io::stdin();
        let mut next_ns = None;
        while self.held.ended_at_ns.is_none() {
            let now_ns = clock::now_ns()?;
            let due = next_ns.is_some_and(|next_ns| next_ns <= now_ns);
            if due && !bytes.is_empty() {
                self.send(&bytes)?;
                next_ns = Some(now_ns + period_ns);
            }
            let mut events = PollFlags::POLLIN;
            events.set(PollFlags::POLLOUT, next_ns.is_some() && period_ns == 0 && chunk > 0);
            let mut ready =
                [PollFd::new(self.stream.as_fd(), events), PollFd::new(stdin.as_fd(), PollFlags::POLLIN)];
            poll(&mut ready, timeout(next_ns.filter(|_| period_ns > 0), now_ns)).context("waiting")?;
            let (stream_ready, told) = (ready[0].any() == Some(true), ready[1].any() == Some(true));
            if stream_ready {
                self.receive()?;
            }
            if told {
                if stdin.lock().read(&mut [0; 16])? == 0 {
                    break;
                }
                next_ns = Some(clock::now_ns()?);
            }
        }
        crate::print(&self.held)
    }

    fn send(&mut self, bytes: &[u8]) -> Result<()> {
        let before_ns = clock::now_ns()?;
        match self.stream.write(bytes) {
            Ok(length) => {
                self.held.sent += length as u64;
                self.held.last_sent_at_ns = Some(before_ns);
                self.held.first_sent_at_ns.get_or_insert(before_ns);
                Ok(())
            }
            Err(error) => self.end(&error),
        }
    }

    fn receive(&mut self) -> Result<()> {
        let mut buffer = vec![0; 64 << 10];
        match self.stream.read(&mut buffer) {
            Ok(0) => {
                self.held.error = Some(0);
                self.held.ended_at_ns = Some(clock::now_ns()?);
                Ok(())
            }
            Ok(length) => {
                self.held.received += length as u64;
                self.held.last_received_at_ns = Some(clock::now_ns()?);
                Ok(())
            }
            Err(error) => self.end(&error),
        }
    }

    fn end(&mut self, error: &std::io::Error) -> Result<()> {
        if !matches!(error.kind(), ErrorKind::WouldBlock | ErrorKind::Interrupted) {
            self.held.error = Some(clock::errno(error));
            self.held.ended_at_ns = Some(clock::now_ns()?);
        }
        Ok(())
    }
}

/// How long to wait for the next point in time, rounded up so that it is not asked too often.
fn timeout(next_ns: Option<u64>, now_ns: u64) -> PollTimeout {
    let Some(next_ns) = next_ns else { return PollTimeout::NONE };
    let wait_ms = next_ns.saturating_sub(now_ns).div_ceil(1_000_000);
    PollTimeout::try_from(wait_ms).unwrap_or(PollTimeout::MAX)
}
