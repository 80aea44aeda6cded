//! The thread that reads records. It exists only while somebody wants them, and sleeps while there are none.

use std::{
    io,
    sync::Arc,
    thread::{self, JoinHandle},
    time::{Duration, Instant},
};

use chaos_common::abi::Record;
use nix::{
    poll::PollTimeout,
    sys::eventfd::{EfdFlags, EventFd},
};

use crate::datapath::Records;

/// While there are records they are fetched so often: the ring holds 7,000 of them.
const PERIOD_MS: u8 = 10;
/// After so long without any the thread sleeps until it is woken.
const CALM: Duration = Duration::from_millis(100);

/// Takes a batch of records, in the order of the ring; called with none, too, so that it can catch up.
pub type Sink = Box<dyn FnMut(Vec<Record>) + Send>;

/// A running reader.
pub struct Reader {
    stop: Arc<EventFd>,
    thread: Option<JoinHandle<Records>>,
}

impl Reader {
    /// Begins to read.
    pub fn start(records: Records, sink: Sink) -> io::Result<Self> {
        let stop = Arc::new(EventFd::from_flags(EfdFlags::EFD_CLOEXEC | EfdFlags::EFD_NONBLOCK)?);
        let stopped = Arc::clone(&stop);
        let thread = thread::Builder::new()
            .name("chaos-events".to_owned())
            .spawn(move || read(records, sink, &stopped))?;
        Ok(Self { stop, thread: Some(thread) })
    }

    /// Ends it; what was in the ring by now has been handed over. None = the thread failed.
    #[must_use]
    pub fn stop(mut self) -> Option<Records> {
        self.end()
    }

    fn end(&mut self) -> Option<Records> {
        // It fails if the counter is full, and then the thread is told already.
        let _ = self.stop.write(1);
        self.thread.take()?.join().ok()
    }
}

impl Drop for Reader {
    fn drop(&mut self) {
        self.end();
    }
}

fn read(mut records: Records, mut sink: Sink, stop: &EventFd) -> Records {
    let mut last = Instant::now();
    loop {
        let mut batch = Vec::new();
        records.drain(|record| batch.push(record));
        let is_idle = batch.is_empty();
        sink(batch);
        if stop.read().is_ok() {
            break;
        }
        if !is_idle {
            last = Instant::now();
        }
        if last.elapsed() < CALM {
            records.rest(stop, PollTimeout::from(PERIOD_MS));
            continue;
        }
        records.wait(true);
        // One that was begun before we asked to be woken wakes nobody; it is there by then.
        records.sleep(stop, PollTimeout::from(PERIOD_MS));
        let mut late = Vec::new();
        records.drain(|record| late.push(record));
        if late.is_empty() && stop.read().is_err() {
            records.sleep(stop, PollTimeout::NONE);
        } else if late.is_empty() {
            break;
        }
        records.wait(false);
        last = Instant::now();
        sink(late);
    }
    records.wait(false);
    let mut rest = Vec::new();
    records.drain(|record| rest.push(record));
    sink(rest);
    records
}
