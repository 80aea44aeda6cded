//! The ring buffer: records of packets that rules affected.

use std::{os::fd::AsFd as _, sync::Arc};

use aya::maps::{MapData, RingBuf};
use chaos_common::abi::{Record, control};
use nix::poll::{PollFd, PollFlags, PollTimeout, poll};

use super::memory::Mapped;

/// The reading end. There is one an agent.
pub struct Records {
    pub(super) ring: RingBuf<MapData>,
    pub(super) control: Arc<Mapped<u64>>,
}

impl Records {
    /// Takes what is there.
    pub fn drain(&mut self, mut each: impl FnMut(Record)) {
        while let Some(item) = self.ring.next() {
            if item.len() >= size_of::<Record>() {
                // SAFETY: at least as many bytes as a record has, which is integers only; the kernel puts them
                // at a multiple of eight, and a copy asks for no more than is there.
                each(unsafe { item.as_ptr().cast::<Record>().read_unaligned() });
            }
        }
    }

    /// Asks to be woken for the next record, or does not any more. What was written while nobody waited wakes
    /// nobody: drain once more after asking.
    pub fn wait(&self, waits: bool) {
        self.control.set(control::WAITS as usize, u64::from(waits));
    }

    /// Sleeps until there is a record (if [`Self::wait`] was asked for), `stop` can be read, or the time is over.
    pub fn sleep(&self, stop: &impl std::os::fd::AsFd, timeout: PollTimeout) {
        let mut both =
            [PollFd::new(self.ring.as_fd(), PollFlags::POLLIN), PollFd::new(stop.as_fd(), PollFlags::POLLIN)];
        // A signal ends it early, which does no harm.
        let _ = poll(&mut both, timeout);
    }

    /// Sleeps likewise, whatever is in the ring.
    pub fn rest(&self, stop: &impl std::os::fd::AsFd, timeout: PollTimeout) {
        let _ = poll(&mut [PollFd::new(stop.as_fd(), PollFlags::POLLIN)], timeout);
    }
}
