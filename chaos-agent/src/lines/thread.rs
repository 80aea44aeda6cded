//! The thread that serves all delay lines of this process, as the rest of the agent sees it.

use std::{
    io,
    os::fd::OwnedFd,
    sync::{
        Arc, Mutex, PoisonError,
        mpsc::{self, Receiver, Sender, SyncSender},
    },
    thread::JoinHandle,
    time::Duration,
};

use nix::sys::{
    eventfd::{EfdFlags, EventFd},
    signal::SigSet,
};

use super::{
    scheduling::{self, Scheduling},
    serve::Server,
    stats::{Counters, LineStats},
};

/// What the line's thread asks and tells about rules. Called from that thread, for every packet: it must not
/// block.
pub trait RuleWatch {
    /// The rule in this slot has ended: it is gone, its time or lease is over, or nothing is armed. What it
    /// holds is then written at once.
    fn is_over(&self, slot: u32) -> bool;

    /// So many frames that this slot's rule held have been written or dropped.
    fn released(&self, slot: u32, frames: u64);

    /// Frames that were sent into a line for this slot's rule and that [`Self::released`] has not told yet.
    fn held(&self, slot: u32) -> u64 {
        let _ = slot;
        0
    }

    /// The bytes that the link of this slot's rule sends in [`WINDOW_NS`](super::WINDOW_NS), and its burst. None: it has no link,
    /// or each connection has one of its own.
    fn window_bytes(&self, slot: u32) -> Option<u64> {
        let _ = slot;
        None
    }

    /// The thread lives, `CLOCK_MONOTONIC` in ns. At least every 20 ms while there is a line.
    fn heartbeat(&self, monotonic_ns: u64);
}

/// How the thread works.
#[derive(Clone, Copy, Debug)]
pub struct LineOptions {
    /// Frames beyond so many bytes, buffers and bookkeeping, are dropped and counted.
    pub limit_bytes: usize,
    /// Ask for `SCHED_FIFO`.
    pub real_time: bool,
    /// How long before a release the thread stops to sleep.
    pub spin: Duration,
}

impl Default for LineOptions {
    fn default() -> Self {
        Self { limit_bytes: 256 << 20, real_time: true, spin: Duration::from_micros(50) }
    }
}

/// One device among those the thread serves. Never used twice.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct LineId(pub(super) u64);

/// What the thread is asked to do.
pub(super) enum Command {
    /// Serve this device; answered once it is.
    Add(LineId, OwnedFd, SyncSender<io::Result<()>>),
    /// Write what is held for it and give it back.
    Remove(LineId, SyncSender<Option<OwnedFd>>),
    /// Write everything and end.
    Stop,
}

/// What the thread and its owner share.
#[derive(Debug, Default)]
pub(super) struct Shared {
    pub(super) counters: Counters,
    /// Lines whose device is gone.
    pub(super) broken: Mutex<Vec<LineId>>,
}

/// The running thread. It sleeps while it serves no line; dropping it writes what is held, ends it and
/// closes every line.
#[derive(Debug)]
pub struct LineThread {
    commands: Sender<Command>,
    wake: Arc<EventFd>,
    shared: Arc<Shared>,
    scheduling: Scheduling,
    next: Mutex<u64>,
    thread: Option<JoinHandle<()>>,
}

impl LineThread {
    /// Starts the thread.
    ///
    /// # Errors
    /// No thread or no descriptor is to be had. That real-time scheduling is refused is no error: see
    /// [`Self::scheduling`].
    pub fn start(watch: Arc<dyn RuleWatch + Send + Sync>, options: LineOptions) -> io::Result<Self> {
        let wake = Arc::new(EventFd::from_flags(EfdFlags::EFD_CLOEXEC | EfdFlags::EFD_NONBLOCK)?);
        let shared = Arc::new(Shared::default());
        let (commands, inbox) = mpsc::channel();
        let (tell, told) = mpsc::sync_channel(1);
        let (its_wake, its_shared) = (Arc::clone(&wake), Arc::clone(&shared));
        let thread = std::thread::Builder::new().name("chaos-line".to_owned()).spawn(move || {
            let scheduling = settle(options.real_time);
            let spin_ns = spin_ns(options.spin, scheduling.is_real_time());
            // The other end waits for this.
            let _ = tell.send(scheduling);
            Server::new(watch, its_shared, inbox, its_wake, options.limit_bytes, spin_ns).run();
        })?;
        let scheduling = told.recv().map_err(io::Error::other)?;
        Ok(Self { commands, wake, shared, scheduling, next: Mutex::new(0), thread: Some(thread) })
    }

    /// Serves a device from now on: a TAP with virtio headers that does not block, see [`crate::net::tap`].
    /// The first heartbeat has happened when this returns.
    pub fn add(&self, fd: OwnedFd) -> io::Result<LineId> {
        let id = self.new_id();
        let (answer, answered) = mpsc::sync_channel(1);
        self.ask(Command::Add(id, fd, answer))?;
        answered.recv().map_err(|_| ended())??;
        Ok(id)
    }

    /// Ends the service: what is held for the device is written first, in order, then it is closed, which
    /// removes it. True if it was there.
    pub fn remove(&self, id: LineId) -> bool {
        let (answer, answered) = mpsc::sync_channel(1);
        if self.ask(Command::Remove(id, answer)).is_err() {
            return false;
        }
        // Closing it takes the kernel some 20 ms: here, not in the thread that others wait for.
        matches!(answered.recv(), Ok(Some(_fd)))
    }

    /// What happened so far, over all devices.
    #[must_use]
    pub fn stats(&self) -> LineStats {
        self.shared.counters.snapshot()
    }

    /// How the thread is scheduled, and if not real-time, why.
    #[must_use]
    pub const fn scheduling(&self) -> &Scheduling {
        &self.scheduling
    }

    /// The device of a line was deleted by somebody: nothing comes through it any more.
    #[must_use]
    pub fn is_broken(&self, id: LineId) -> bool {
        self.shared.broken.lock().unwrap_or_else(PoisonError::into_inner).contains(&id)
    }

    fn new_id(&self) -> LineId {
        let mut next = self.next.lock().unwrap_or_else(PoisonError::into_inner);
        *next += 1;
        LineId(*next)
    }

    fn ask(&self, command: Command) -> io::Result<()> {
        self.commands.send(command).map_err(|_| ended())?;
        self.wake.write(1)?;
        Ok(())
    }
}

impl Drop for LineThread {
    fn drop(&mut self) {
        if self.ask(Command::Stop).is_ok()
            && let Some(thread) = self.thread.take()
            && thread.join().is_err()
        {
            tracing::error!("the delay line's thread had panicked");
        }
    }
}

/// Reads what was asked, if anything.
pub(super) fn next_command(inbox: &Receiver<Command>) -> Option<Command> {
    match inbox.try_recv() {
        Ok(command) => Some(command),
        Err(mpsc::TryRecvError::Empty) => None,
        // The owner is gone without a word.
        Err(mpsc::TryRecvError::Disconnected) => Some(Command::Stop),
    }
}

/// Sets the calling thread up.
fn settle(real_time: bool) -> Scheduling {
    // Signals are for the agent's other threads.
    if let Err(errno) = SigSet::all().thread_block() {
        tracing::debug!("blocking signals: {errno}");
    }
    scheduling::no_timer_slack();
    scheduling::for_line(real_time)
}

/// An ordinary thread on a machine with one processor would only take time from those it waits for.
fn spin_ns(spin: Duration, real_time: bool) -> u64 {
    let alone = std::thread::available_parallelism().is_ok_and(|count| count.get() == 1);
    if alone && !real_time { 0 } else { u64::try_from(spin.as_nanos()).unwrap_or(u64::MAX) }
}

fn ended() -> io::Error {
    io::Error::other("the delay line's thread has ended")
}
