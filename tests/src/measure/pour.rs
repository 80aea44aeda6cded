//! Many bytes over one TCP connection: how fast, in what portions, and whether they are the same at the other end.

use std::{net::SocketAddr, time::Duration};

use anyhow::{Result, ensure};
use serde::{Deserialize, Serialize};

use super::helper::{self, Beside, End};

/// Width of the windows of [`Drained::windows`].
pub const WINDOW: Duration = Duration::from_millis(10);

/// What the sender noted.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct Poured {
    /// Bytes the kernel took.
    pub bytes: u64,
    /// SHA-256 of them in hexadecimal, when asked for.
    pub sha256: Option<String>,
    /// Wire segments sent again.
    pub retransmitted: u32,
}

/// What the receiver noted.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct Drained {
    /// Bytes read.
    pub bytes: u64,
    /// SHA-256 of them in hexadecimal, when asked for.
    pub sha256: Option<String>,
    /// From the first to the last read.
    pub took_ns: u64,
    /// Bytes read in each [`WINDOW`] after the first read.
    pub windows: Vec<u64>,
    /// How it ended: 0 in order, else the errno.
    pub error: i32,
}

impl Drained {
    /// Bytes a second read between two points in time after the first read.
    #[must_use]
    pub fn bytes_per_second(&self, from: Duration, to: Duration) -> f64 {
        let index = |at: Duration| (at.as_nanos() / WINDOW.as_nanos()) as usize;
        let last = index(to).min(self.windows.len());
        let first = index(from).min(last);
        let bytes: u64 = self.windows[first..last].iter().sum();
        #[expect(clippy::cast_precision_loss, reason = "counts stay far below 2^52")]
        let (bytes, windows) = (bytes as f64, (last - first).max(1) as f64);
        bytes / (WINDOW.as_secs_f64() * windows)
    }
}

/// What is to be sent.
#[derive(Clone, Copy, Debug)]
pub struct Load {
    /// Where the receiver listens.
    pub to: SocketAddr,
    /// Ends after this many bytes ...
    pub bytes: u64,
    /// ... or after this time.
    pub time: Duration,
    /// Whether both ends hash.
    pub hash: bool,
}

/// A transfer on its way.
#[derive(Debug)]
pub struct Pour {
    load: Load,
    sender: Beside,
    receiver: Beside,
}

impl Pour {
    /// Starts it.
    ///
    /// # Errors
    /// When a program does not start or the connection is not made.
    pub fn start(from: End<'_>, to: End<'_>, load: &Load) -> Result<Self> {
        let hash = u8::from(load.hash);
        let receiver = Beside::start(to, &format!("drain {} {hash}", load.to))?;
        let line = format!("pour {} {} {} {hash}", load.to, load.bytes, load.time.as_nanos());
        Ok(Self { load: *load, sender: Beside::start(from, &line)?, receiver })
    }

    /// Waits for the last byte, at most `grace` longer than the load's time.
    ///
    /// # Errors
    /// When it does not come, or a program fails.
    pub fn finish(self, grace: Duration) -> Result<(Poured, Drained)> {
        let limit = self.load.time + grace;
        let poured = helper::record(&self.sender.finish(limit)?)?;
        let drained: Drained = helper::record(&self.receiver.finish(grace)?)?;
        ensure!(drained.error == 0, "the receiver heard errno {}", drained.error);
        Ok((poured, drained))
    }
}

/// Sends and waits, see [`Pour`].
///
/// # Errors
/// As for [`Pour`].
pub fn pour(from: End<'_>, to: End<'_>, load: &Load) -> Result<(Poured, Drained)> {
    Pour::start(from, to, load)?.finish(Duration::from_mins(1))
}
