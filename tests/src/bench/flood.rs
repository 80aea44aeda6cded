//! Small datagrams as fast as one CPU can send them: where a packet's cost shows.

use std::{
    io::IoSlice,
    net::{SocketAddr, UdpSocket},
    os::fd::AsRawFd as _,
    sync::{
        Arc,
        atomic::{AtomicBool, Ordering},
    },
    thread::{self, JoinHandle},
    time::{Duration, Instant},
};

use anyhow::{Context, Result};
use nix::{
    errno::Errno,
    sched::{CpuSet, sched_setaffinity},
    sys::socket::{MsgFlags, MultiHeaders, SockaddrStorage, sendmmsg, setsockopt, sockopt},
    time::{ClockId, clock_gettime},
    unistd::Pid,
};

use crate::lab::netns::Netns;

/// Datagrams in one system call, where it is not told how many: the cheapest there are.
pub const BATCH: usize = 64;
/// Bytes of one: some 60 with UDP and IPv4 headers, as small as packets are.
const PAYLOAD: [u8; 32] = [0x5a; 32];
/// What a receiver may be behind, bytes of its buffer.
const BUFFER: usize = 8 << 20;
/// Time is looked at after so many datagrams.
const UNTIMED: usize = 1024;

/// How many datagrams went in which time.
#[derive(Clone, Copy, Debug)]
pub struct Sent {
    /// Those that the kernel took.
    pub datagrams: u64,
    /// From the first to the last.
    pub took: Duration,
    /// Of it, what the sender ran: other programs on its CPU are no part of it.
    pub busy: Duration,
}

impl Sent {
    /// What one took of the sender's time, nanoseconds.
    #[must_use]
    #[expect(clippy::cast_precision_loss, reason = "counts stay far below 2^52")]
    pub fn nanos(&self) -> f64 {
        self.busy.as_nanos() as f64 / self.datagrams.max(1) as f64
    }
}

/// Sends from `netns` to `to` for so long, on the first CPU.
///
/// # Errors
/// When the kernel refuses to send.
pub fn send(netns: &Netns, from: SocketAddr, to: SocketAddr, time: Duration) -> Result<Sent> {
    send_by(netns, from, to, time, BATCH)
}

/// The same with so many datagrams in one system call.
///
/// # Errors
/// As [`send`].
pub fn send_by(
    netns: &Netns,
    from: SocketAddr,
    to: SocketAddr,
    time: Duration,
    batch: usize,
) -> Result<Sent> {
    netns.enter(|| {
        on_cpu(0)?;
        let socket = UdpSocket::bind(from).with_context(|| format!("binding {from}"))?;
        socket.connect(to).with_context(|| format!("connecting to {to}"))?;
        pour(&socket, time, batch.clamp(1, BATCH))
    })?
}

fn pour(socket: &UdpSocket, time: Duration, batch: usize) -> Result<Sent> {
    let mut headers = MultiHeaders::<SockaddrStorage>::preallocate(batch, None);
    let payloads = vec![[IoSlice::new(&PAYLOAD)]; batch];
    let nowhere = vec![None::<SockaddrStorage>; batch];
    let (begun, ran) = (Instant::now(), own_time()?);
    let mut datagrams = 0;
    while begun.elapsed() < time {
        for _ in 0..UNTIMED / batch {
            let sent = sendmmsg(socket.as_raw_fd(), &mut headers, &payloads, &nowhere, [], MsgFlags::empty());
            match sent {
                Ok(results) => datagrams += results.count() as u64,
                // Nobody listens there, the router says.
                Err(Errno::ECONNREFUSED | Errno::ENOBUFS) => {}
                Err(errno) => return Err(errno).context("sending"),
            }
        }
    }
    Ok(Sent { datagrams, took: begun.elapsed(), busy: own_time()?.saturating_sub(ran) })
}

/// How long this thread has run.
fn own_time() -> Result<Duration> {
    let time = clock_gettime(ClockId::CLOCK_THREAD_CPUTIME_ID).context("the time of this thread")?;
    Ok(time.into())
}

/// Counts what comes, on the last CPU, until it is asked.
#[derive(Debug)]
pub struct Receiver {
    thread: JoinHandle<u64>,
    over: Arc<AtomicBool>,
}

impl Receiver {
    /// Listens.
    ///
    /// # Errors
    /// When the address is taken.
    pub fn start(netns: &Netns, at: SocketAddr) -> Result<Self> {
        let socket = netns.enter(|| UdpSocket::bind(at))?.with_context(|| format!("binding {at}"))?;
        // It never sleeps: to wake it would be the sender's work, and dear in a virtual machine.
        socket.set_nonblocking(true)?;
        setsockopt(&socket, sockopt::RcvBufForce, &BUFFER)?;
        let over = Arc::<AtomicBool>::default();
        let seen = Arc::clone(&over);
        Ok(Self { thread: thread::spawn(move || count(&socket, &seen)), over })
    }

    /// How many came.
    ///
    /// # Errors
    /// When the counting thread panicked.
    pub fn finish(self) -> Result<u64> {
        self.over.store(true, Ordering::Release);
        self.thread.join().map_err(|_| anyhow::anyhow!("the receiver panicked"))
    }
}

fn count(socket: &UdpSocket, over: &AtomicBool) -> u64 {
    let last = thread::available_parallelism().map_or(0, |cpus| usize::from(cpus) - 1);
    // Elsewhere it counts as well.
    let _ = on_cpu(last);
    let mut datagrams = 0;
    let mut bytes = [0; PAYLOAD.len()];
    // What waits when it is over still counts.
    loop {
        match socket.recv(&mut bytes) {
            Ok(_) => datagrams += 1,
            Err(_) if over.load(Ordering::Acquire) => return datagrams,
            Err(_) => std::hint::spin_loop(),
        }
    }
}

fn on_cpu(number: usize) -> Result<()> {
    let mut cpus = CpuSet::new();
    cpus.set(number)?;
    sched_setaffinity(Pid::from_raw(0), &cpus).with_context(|| format!("going to CPU {number}"))
}
