//! What a held fault waits for: the clock, signals, the Enter key.

use std::{
    io::{self, Read as _},
    os::fd::AsFd,
    time::Duration,
};

use nix::{
    errno::Errno,
    poll::{PollFd, PollFlags, PollTimeout},
    sys::{
        signal::{SigSet, Signal},
        signalfd::{SfdFlags, SignalFd},
    },
    time::{ClockId, clock_gettime},
};

/// Why a wait ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Wake {
    /// The time was over.
    Timeout,
    /// We were asked to end.
    Signal(Signal),
    /// A line was typed.
    Enter,
    /// Nobody can type any more.
    InputClosed,
}

/// The clock and the user, replaceable in tests.
pub(crate) trait World {
    /// Time since some fixed moment; suspend counts, as it does for the rules' own expiry.
    fn now(&self) -> Duration;

    /// Waits until something happens; looks at the input only if `input` is set.
    fn wait(&mut self, timeout: Duration, input: bool) -> io::Result<Wake>;
}

/// The real one. While it lives, the signals that end us are delivered to it and to nobody else.
#[derive(Debug)]
pub(crate) struct Terminal {
    signals: SignalFd,
    mask_before: SigSet,
}

/// The signals that end a fault: Ctrl-C, `kill`, a closed terminal, Ctrl-\.
const ENDING: [Signal; 4] = [Signal::SIGINT, Signal::SIGTERM, Signal::SIGHUP, Signal::SIGQUIT];

impl Terminal {
    /// Takes the ending signals over. To be called before anything is armed and before threads start.
    pub(crate) fn new() -> io::Result<Self> {
        let ending: SigSet = ENDING.into_iter().collect();
        let mask_before = SigSet::thread_get_mask()?;
        ending.thread_block()?;
        let signals = SignalFd::with_flags(&ending, SfdFlags::SFD_NONBLOCK | SfdFlags::SFD_CLOEXEC)?;
        Ok(Self { signals, mask_before })
    }

    fn signal(&self) -> io::Result<Option<Signal>> {
        let Some(info) = self.signals.read_signal()? else { return Ok(None) };
        let number = i32::try_from(info.ssi_signo).map_err(io::Error::other)?;
        Ok(Some(Signal::try_from(number)?))
    }
}

impl Drop for Terminal {
    fn drop(&mut self) {
        // A second Ctrl-C while things are taken down must not end us half-way with a signal's exit code.
        while self.signals.read_signal().is_ok_and(|info| info.is_some()) {}
        let _ = self.mask_before.thread_set_mask();
    }
}

impl World for Terminal {
    fn now(&self) -> Duration {
        clock_gettime(ClockId::CLOCK_BOOTTIME).map_or(Duration::ZERO, Duration::from)
    }

    fn wait(&mut self, timeout: Duration, input: bool) -> io::Result<Wake> {
        let millis = timeout.as_nanos().div_ceil(1_000_000);
        let timeout = PollTimeout::try_from(millis).unwrap_or(PollTimeout::MAX);
        let stdin = io::stdin();
        let mut fds = vec![PollFd::new(self.signals.as_fd(), PollFlags::POLLIN)];
        if input {
            fds.push(PollFd::new(stdin.as_fd(), PollFlags::POLLIN));
        }
        match nix::poll::poll(&mut fds, timeout) {
            Ok(_) | Err(Errno::EINTR) => {}
            Err(error) => return Err(error.into()),
        }
        let typed = fds.get(1).is_some_and(|fd| fd.any() == Some(true));
        if let Some(signal) = self.signal()? {
            return Ok(Wake::Signal(signal));
        }
        if typed {
            let read = stdin.lock().read(&mut [0; 256])?;
            return Ok(if read == 0 { Wake::InputClosed } else { Wake::Enter });
        }
        Ok(Wake::Timeout)
    }
}

#[cfg(test)]
mod tests {
    use nix::sys::signal::raise;

    use super::*;

    #[test]
    fn a_signal_wakes_and_does_not_end_us() {
        let mut terminal = Terminal::new().unwrap();
        // To this thread only: the other threads of the test runner do not block it.
        raise(Signal::SIGTERM).unwrap();
        assert_eq!(terminal.wait(Duration::from_secs(10), false).unwrap(), Wake::Signal(Signal::SIGTERM));
        raise(Signal::SIGINT).unwrap();
        drop(terminal);
        assert!(!SigSet::thread_get_mask().unwrap().contains(Signal::SIGINT), "the mask is as it was");
    }

    #[test]
    fn a_wait_lasts_at_least_its_time() {
        let mut terminal = Terminal::new().unwrap();
        let before = terminal.now();
        assert_eq!(terminal.wait(Duration::from_micros(10_100), false).unwrap(), Wake::Timeout);
        assert!(terminal.now().saturating_sub(before) >= Duration::from_micros(10_100));
    }
}
