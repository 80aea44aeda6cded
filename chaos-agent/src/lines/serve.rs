//! What the line's thread does: release what is due, read what came, wait.

mod release;

use std::{
    io,
    os::fd::{AsRawFd, OwnedFd},
    sync::{Arc, PoisonError, atomic::Ordering::Relaxed, mpsc::Receiver},
    time::Duration,
};

use nix::{
    errno::Errno,
    sys::eventfd::EventFd,
    time::{ClockId, clock_gettime},
    unistd,
};

use super::{
    doze::Doze,
    frame::Ticket,
    heap::{Frame, Heap},
    ledger::Ledger,
    pace::Paces,
    pool::{LARGEST, Pool},
    stats::add,
    thread::{Command, LineId, RuleWatch, Shared, next_command},
};

/// Frames read or released before the other is looked at again.
const BATCH: usize = 64;
/// More frames than a device's queue holds.
const ALL: usize = 16_384;
/// Promised are 20 ms.
const BEAT_NS: u64 = 15_000_000;
/// How often rules that hold frames are asked whether they are over. Promised are 4 ms.
const CHECK_NS: u64 = 3_000_000;
/// Memory of a crowd is given back when the line was empty for so long.
const TRIM_NS: u64 = 1_000_000_000;
/// How long the end may take to write what is held.
const END_NS: u64 = 250_000_000;

struct Line {
    id: LineId,
    fd: OwnedFd,
}

/// The state of the thread.
pub(super) struct Server {
    watch: Arc<dyn RuleWatch + Send + Sync>,
    shared: Arc<Shared>,
    inbox: Receiver<Command>,
    wake: Arc<EventFd>,
    doze: Doze,
    /// A frame names its line by the place in this list; a place is free again once nothing is held for it.
    lines: Vec<Option<Line>>,
    heap: Heap,
    pool: Pool,
    ledger: Ledger,
    paces: Paces,
    scratch: Box<[u8]>,
    /// Last heartbeat.
    beat_ns: u64,
    /// When rules were asked last.
    check_ns: u64,
    /// When the ledger was looked at last.
    look_ns: u64,
    /// When the last frame came.
    busy_ns: u64,
    /// No memory is left over from a crowd.
    trimmed: bool,
}

/// `CLOCK_MONOTONIC` in ns.
pub(super) fn now_ns() -> u64 {
    // It fails for a clock the kernel does not have, which this is not.
    let now = clock_gettime(ClockId::CLOCK_MONOTONIC).map_or(Duration::ZERO, Duration::from);
    u64::try_from(now.as_nanos()).unwrap_or(u64::MAX)
}

impl Server {
    pub(super) fn new(
        watch: Arc<dyn RuleWatch + Send + Sync>,
        shared: Arc<Shared>,
        inbox: Receiver<Command>,
        wake: Arc<EventFd>,
        limit_bytes: usize,
        spin_ns: u64,
    ) -> Self {
        Self {
            watch,
            shared,
            inbox,
            doze: Doze::new(wake.as_raw_fd(), spin_ns),
            wake,
            lines: Vec::new(),
            heap: Heap::new(limit_bytes),
            pool: Pool::default(),
            ledger: Ledger::default(),
            paces: Paces::default(),
            scratch: Box::default(),
            beat_ns: 0,
            check_ns: 0,
            look_ns: 0,
            busy_ns: 0,
            trimmed: true,
        }
    }

    /// Until it is told to stop.
    pub(super) fn run(mut self) {
        while self.obey() {
            if !self.is_idle() {
                let now = now_ns();
                self.beat(now);
                self.check(now);
                self.release(now);
                self.show_held();
            }
            let timeout_ns = self.timeout_ns();
            self.doze.wait(timeout_ns);
            self.account();
            self.read_all();
        }
        self.finish();
    }

    fn is_idle(&self) -> bool {
        self.lines.iter().all(Option::is_none)
    }

    /// Does what was asked. False: stop.
    fn obey(&mut self) -> bool {
        while let Some(command) = next_command(&self.inbox) {
            match command {
                Command::Add(id, fd, answer) => {
                    let added = self.add(id, fd);
                    // Whoever asked may have ended.
                    let _ = answer.send(added);
                }
                Command::Remove(id, answer) => {
                    let _ = answer.send(self.remove(id));
                }
                Command::Stop => return false,
            }
        }
        true
    }

    fn add(&mut self, id: LineId, fd: OwnedFd) -> io::Result<()> {
        let place = self.lines.iter().position(Option::is_none).unwrap_or(self.lines.len());
        u16::try_from(place).map_err(|_| io::Error::other("65,536 delay lines are the most there can be"))?;
        if place == self.lines.len() {
            self.lines.push(None);
        }
        self.doze.watch(place, Some(fd.as_raw_fd()));
        self.lines[place] = Some(Line { id, fd });
        if self.scratch.is_empty() {
            self.scratch = self.pool.take(LARGEST);
        }
        self.beat_ns = 0;
        self.beat(now_ns());
        Ok(())
    }

    fn remove(&mut self, id: LineId) -> Option<OwnedFd> {
        let place = self.lines.iter().position(|line| line.as_ref().is_some_and(|line| line.id == id))?;
        self.read(place, ALL);
        let held = self.heap.take(|frame| usize::from(frame.line) == place);
        self.flush(held, u64::MAX);
        self.doze.watch(place, None);
        let line = self.lines[place].take();
        self.shared.broken.lock().unwrap_or_else(PoisonError::into_inner).retain(|&broken| broken != id);
        if self.is_idle() {
            self.trim();
            self.scratch = Box::default();
        }
        self.show_held();
        line.map(|line| line.fd)
    }

    /// Writes what it can in a short time; every device is closed with `self`.
    fn finish(&mut self) {
        let until_ns = now_ns().saturating_add(END_NS);
        for place in 0..self.lines.len() {
            self.read(place, ALL);
        }
        let held = self.heap.take(|_| true);
        self.flush(held, until_ns);
        self.show_held();
    }

    fn beat(&mut self, now_ns: u64) {
        if now_ns.saturating_sub(self.beat_ns) < BEAT_NS {
            return;
        }
        self.watch.heartbeat(now_ns);
        self.beat_ns = now_ns;
        let heap = &self.heap;
        self.paces.forget(now_ns, |slot| heap.holds(slot));
        if self.heap.len() == 0 && !self.trimmed && now_ns.saturating_sub(self.busy_ns) > TRIM_NS {
            self.trim();
        }
    }

    fn trim(&mut self) {
        self.pool.trim();
        self.heap.trim();
        self.trimmed = true;
    }

    /// Until when nothing will happen by itself; none: for ever.
    fn timeout_ns(&self) -> Option<u64> {
        if self.is_idle() {
            return None;
        }
        let now = now_ns();
        let mut until = self.beat_ns.saturating_add(BEAT_NS);
        if let Some(next) = self.next_ns() {
            // Polling without a pause until then is the spinning.
            until = until
                .min(next.saturating_sub(self.doze.spin_ns()))
                .min(self.check_ns.saturating_add(CHECK_NS));
        }
        Some(until.saturating_sub(now))
    }

    /// Counts what the devices dropped, when their queues are empty.
    fn account(&mut self) {
        let now = now_ns();
        if self.doze.is_quiet() && now.saturating_sub(self.look_ns) >= BEAT_NS {
            self.look_ns = now;
            let lost = self.ledger.look(&*self.watch, &self.heap);
            add(&self.shared.counters.unread, lost);
        }
    }

    /// Reads from every device that has something.
    fn read_all(&mut self) {
        if self.doze.is_woken() {
            // Only the number of wake-ups is in it; commands are looked for in any case.
            let _ = self.wake.read();
        }
        for place in 0..self.lines.len() {
            let events = self.doze.events(place);
            if events & (libc::POLLERR | libc::POLLHUP | libc::POLLNVAL) != 0 {
                self.break_off(place);
            } else if events & libc::POLLIN != 0 {
                self.read(place, BATCH);
            }
        }
    }

    /// Reads up to `most` frames from one device: at least one, then only until something is due.
    fn read(&mut self, place: usize, most: usize) {
        for _ in 0..most {
            let Some(Some(line)) = self.lines.get(place) else { return };
            match unistd::read(&line.fd, &mut self.scratch) {
                Ok(length) => self.accept(place, length),
                Err(Errno::EINTR) => {}
                // Read until it is empty.
                Err(Errno::EAGAIN) => return,
                Err(_) => return self.break_off(place),
            }
            if most <= BATCH && self.next_ns().is_some_and(|next| next <= now_ns()) {
                return;
            }
        }
    }

    /// A frame lies in `scratch`: holds it, or writes it on.
    fn accept(&mut self, place: usize, length: usize) {
        add(&self.shared.counters.read, 1);
        let now = now_ns();
        let ticket = self.scratch.get(..length).and_then(|frame| Ticket::read(frame, now));
        let Some(Ticket { release_ns, slot, drain, .. }) = ticket else {
            add(&self.shared.counters.strays, 1);
            return;
        };
        // A rule that holds nothing is asked now: what still comes of one that is over does not wait for the
        // next check.
        let over = drain || (!self.heap.holds(slot) && self.watch.is_over(slot.into()));
        if drain && self.heap.holds(slot) {
            let held = self.heap.take(|frame| frame.slot == slot);
            self.flush(held, u64::MAX);
        }
        self.ledger.note(slot);
        let buffer = self.pool.keep(&mut self.scratch, length);
        (self.busy_ns, self.trimmed) = (now, false);
        let mut frame = Frame { release_ns, slot, line: place as u16, length, buffer };
        if over {
            if drain {
                // Its time says nothing.
                frame.release_ns = now;
            }
            self.hurry(frame, now);
        } else if let Err(frame) = self.heap.push(frame) {
            self.lose(frame, |shared| &shared.counters.overflow);
        }
    }

    /// The device is gone: it is no longer asked, and what is held for it fails when it is due.
    fn break_off(&mut self, place: usize) {
        self.doze.watch(place, None);
        if let Some(Some(line)) = self.lines.get(place) {
            self.shared.broken.lock().unwrap_or_else(PoisonError::into_inner).push(line.id);
        }
    }

    fn show_held(&self) {
        let counters = &self.shared.counters;
        counters.held_frames.store(self.heap.len() as u64, Relaxed);
        counters.held_bytes.store(self.heap.bytes() as u64, Relaxed);
    }
}
