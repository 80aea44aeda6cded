//! Whether traffic is whole: every datagram of a burst comes back, once, in order, as it was, and soon.

use std::{
    net::{SocketAddr, UdpSocket},
    sync::{
        Arc,
        atomic::{AtomicBool, Ordering},
    },
    thread::{self, JoinHandle},
    time::{Duration, Instant},
};

use anyhow::{Result, bail};

use super::netns::Netns;

/// Datagrams that must come back.
const BURST: u32 = 20;
/// How late each may be: far less than any fault of the tests adds, far more than a busy machine does.
const SOON: Duration = Duration::from_millis(15);

/// One end asks, the other answers.
#[derive(Debug)]
pub struct Echo {
    asks: UdpSocket,
    is_over: Arc<AtomicBool>,
    answers: Option<JoinHandle<()>>,
    next: u32,
}

impl Echo {
    /// Between two namespaces; `at` is an address of the second.
    ///
    /// # Errors
    /// When the sockets cannot be made.
    pub fn new(from: &Netns, to: &Netns, at: SocketAddr) -> Result<Self> {
        let answering = to.enter(|| UdpSocket::bind(at))??;
        answering.set_read_timeout(Some(Duration::from_millis(100)))?;
        let asks = from.enter(|| UdpSocket::bind(if at.is_ipv4() { "0.0.0.0:0" } else { "[::]:0" }))??;
        asks.connect(at)?;
        let is_over = Arc::new(AtomicBool::new(false));
        let over = Arc::clone(&is_over);
        let answers = thread::spawn(move || {
            let mut room = [0; 2048];
            while !over.load(Ordering::Relaxed) {
                if let Ok((length, who)) = answering.recv_from(&mut room) {
                    // A fault may refuse the answer.
                    let _ = answering.send_to(&room[..length], who);
                }
            }
        });
        Ok(Self { asks, is_over, answers: Some(answers), next: 0 })
    }

    /// Tries until a whole burst comes back, and says how long that took.
    ///
    /// # Errors
    /// When none does within `limit`, with what was wrong last.
    pub fn whole_within(&mut self, limit: Duration) -> Result<Duration> {
        let start = Instant::now();
        loop {
            let begun = start.elapsed();
            let Err(wrong) = self.burst() else { return Ok(begun) };
            if start.elapsed() > limit {
                bail!("traffic is not whole after {limit:?}: {wrong}");
            }
        }
    }

    fn burst(&mut self) -> Result<(), String> {
        self.drain()?;
        for _ in 0..BURST {
            self.next += 1;
            let question = [self.next.to_be_bytes().as_slice(), &[0x5a; 200]].concat();
            self.asks.set_read_timeout(Some(SOON)).map_err(|error| error.to_string())?;
            self.asks.send(&question).map_err(|error| format!("sending: {error}"))?;
            let mut answer = [0; 2048];
            let length = self.asks.recv(&mut answer).map_err(|error| format!("no answer: {error}"))?;
            if answer[..length] != question[..] {
                return Err("another answer than asked for".to_owned());
            }
        }
        Ok(())
    }

    /// What came late, or twice.
    fn drain(&self) -> Result<(), String> {
        self.asks.set_nonblocking(true).map_err(|error| error.to_string())?;
        while self.asks.recv(&mut [0; 2048]).is_ok() {}
        self.asks.set_nonblocking(false).map_err(|error| error.to_string())
    }
}

impl Drop for Echo {
    fn drop(&mut self) {
        self.is_over.store(true, Ordering::Relaxed);
        if let Some(answers) = self.answers.take() {
            let _ = answers.join();
        }
    }
}
