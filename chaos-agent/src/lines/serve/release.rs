//! Writing: what is due, in time or when its link has room; what rules hold that are over, at once.

use std::sync::atomic::AtomicU64;

use nix::{errno::Errno, unistd};

use super::{BATCH, CHECK_NS, Server, now_ns};
use crate::{
    lines::{frame::Ticket, heap::Frame, pace::Pace, stats::add, thread::Shared},
    net::tap::VNET_HEADER_BYTES,
};

/// What is more overdue than this is of no use to anybody, or had no room in its link for so long.
const TOO_LATE_NS: u64 = 100_000_000;
/// A frame the kernel has no memory for is tried so often.
const TRIES: u32 = 3;

impl Server {
    /// Writes what rules hold that are over.
    pub(super) fn check(&mut self, now_ns: u64) {
        if self.heap.len() == 0 || now_ns.saturating_sub(self.check_ns) < CHECK_NS {
            return;
        }
        self.check_ns = now_ns;
        let watch = &self.watch;
        let over: Vec<u16> =
            self.heap.slots().iter().copied().filter(|&slot| watch.is_over(slot.into())).collect();
        if !over.is_empty() {
            let held = self.heap.take(|frame| over.contains(&frame.slot));
            self.flush(held, u64::MAX);
        }
    }

    pub(super) fn release(&mut self, mut now: u64) {
        for _ in 0..BATCH {
            let free = self.heap.queues().find(|pace| self.paces.free_ns(*pace) <= now);
            if let Some(pace) = free {
                self.release_queued(pace, now);
            } else if let Some(frame) = self.heap.pop_due(now) {
                self.release_one(frame, now);
            } else {
                return;
            }
            now = now_ns();
        }
    }

    /// When something can be written next.
    pub(super) fn next_ns(&self) -> Option<u64> {
        let queued = self.heap.queues().map(|pace| self.paces.free_ns(pace)).min();
        self.heap.next_ns().into_iter().chain(queued).min()
    }

    /// Writes a frame whose time has come, or lets it wait until its link has room.
    fn release_one(&mut self, frame: Frame, now: u64) {
        let paced = Ticket::read(frame.bytes(), now).filter(|ticket| ticket.paced);
        let link = paced.and_then(|ticket| Some((ticket, self.watch.window_bytes(frame.slot.into())?)));
        let Some((ticket, most_bytes)) = link else {
            let _ = self.write_due(frame, now);
            return;
        };
        let pace = (frame.line, frame.slot, ticket.ingress);
        if self.heap.has_queue(pace) || self.paces.free_ns(pace) > now {
            self.heap.queue(pace, frame);
        } else {
            self.write_paced(pace, frame, now, most_bytes);
        }
    }

    /// Writes the first of those that wait for a link, which has room now.
    fn release_queued(&mut self, pace: Pace, now: u64) {
        let Some(frame) = self.heap.pop_queue(pace) else { return };
        // A rule that is gone paces nothing; its frames are about to be flushed.
        let most_bytes = self.watch.window_bytes(frame.slot.into()).unwrap_or(u64::MAX);
        self.write_paced(pace, frame, now, most_bytes);
    }

    fn write_paced(&mut self, pace: Pace, frame: Frame, now: u64, most_bytes: u64) {
        let bytes = frame.length.saturating_sub(VNET_HEADER_BYTES) as u64;
        if self.write_due(frame, now) {
            self.paces.wrote(pace, (now_ns(), bytes), most_bytes);
        }
    }

    fn write_due(&mut self, frame: Frame, now: u64) -> bool {
        let late_ns = now.saturating_sub(frame.release_ns);
        let is_written = self.deliver(frame, now);
        if is_written {
            self.shared.counters.released(late_ns);
        }
        is_written
    }

    /// Writes frames before their time, in the order given; those that are left after `until_ns` are dropped.
    pub(super) fn flush(&mut self, frames: Vec<Frame>, until_ns: u64) {
        for frame in frames {
            let now = now_ns();
            // There may be many: nobody else's frames wait for them.
            self.beat(now);
            self.release(now);
            if now > until_ns {
                self.lose(frame, |shared| &shared.counters.write_errors);
            } else {
                self.hurry(frame, now);
            }
        }
    }

    pub(super) fn hurry(&mut self, frame: Frame, now_ns: u64) {
        if self.deliver(frame, now_ns) {
            add(&self.shared.counters.flushed, 1);
        }
    }

    /// Writes a frame, unless it is of no use any more. True if it was written.
    fn deliver(&mut self, frame: Frame, now_ns: u64) -> bool {
        if now_ns.saturating_sub(frame.release_ns) > TOO_LATE_NS {
            self.lose(frame, |shared| &shared.counters.late);
            return false;
        }
        let written = self.write(usize::from(frame.line), frame.bytes());
        let counters = &self.shared.counters;
        add(if written { &counters.written } else { &counters.write_errors }, 1);
        self.watch.released(frame.slot.into(), 1);
        self.pool.give(frame.buffer);
        written
    }

    pub(super) fn lose(&mut self, frame: Frame, counter: impl Fn(&Shared) -> &AtomicU64) {
        add(counter(&self.shared), 1);
        self.watch.released(frame.slot.into(), 1);
        self.pool.give(frame.buffer);
    }

    fn write(&self, place: usize, frame: &[u8]) -> bool {
        let Some(Some(line)) = self.lines.get(place) else { return false };
        for _ in 0..TRIES {
            match unistd::write(&line.fd, frame) {
                Ok(_) => return true,
                // No memory at this moment (or a signal): the next try may find some. Waiting longer would
                // make everything else late.
                Err(Errno::EINTR | Errno::EAGAIN | Errno::ENOBUFS | Errno::ENOMEM) => {}
                Err(_) => return false,
            }
        }
        false
    }
}
