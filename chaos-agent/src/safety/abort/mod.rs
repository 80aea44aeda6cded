//! Abort conditions: what is watched while a fault is held, and what ends it at once.
//!
//! Each condition has a thread of its own, which looks every so often and remembers the last looks; when too many of
//! them were breaches it says why, and whoever holds the fault ends it. Probes run where we are or, with `in=target`,
//! in the target's network namespace.

mod kernel;
mod parse;
mod probe;
#[cfg(test)]
mod tests;

use std::{
    collections::VecDeque,
    fmt,
    net::SocketAddr,
    sync::{Arc, Condvar, Mutex, PoisonError},
    thread,
    time::Duration,
};

use chaos_common::fault::Faults;

use self::kernel::Watcher;
use super::risk::share_lost;
use crate::{netns::Netns, spec::RuleSpec, targets};

/// One condition.
#[derive(Clone, Debug, PartialEq)]
pub(crate) struct Abort {
    /// What is looked at.
    pub(crate) look: Look,
    /// How often.
    pub(crate) every: Duration,
    /// So many breaches ...
    pub(crate) breaches: usize,
    /// ... of so many looks end the fault.
    pub(crate) of: usize,
    /// From the target's namespace instead of ours.
    pub(crate) in_target: bool,
    /// As it was written.
    pub(crate) text: String,
}

/// What is looked at.
#[derive(Clone, Debug, PartialEq)]
pub(crate) enum Look {
    /// GET of a page.
    Http {
        /// Host and port, to connect to and for the header.
        authority: String,
        /// Path and query.
        path: String,
        /// First and last status that is well.
        status: (u16, u16),
        /// The status line must be there by then.
        within: Duration,
    },
    /// A TCP connection to a host and port.
    Tcp {
        /// Host and port.
        authority: String,
        /// It must be made by then.
        within: Duration,
    },
    /// A command that ends with 0.
    Command {
        /// For `sh -c`.
        command: String,
        /// It must end by then, or it is killed.
        within: Duration,
    },
    /// Handshakes of the target's namespace that fail, as a share of those that begin.
    Handshakes {
        /// More than this is a breach, 0 to 1.
        share: f64,
    },
    /// TCP segments that the target's namespace sends again, as a share of all it sends.
    Retransmits {
        /// More than this beyond the loss that was asked for is a breach, 0 to 1.
        margin: f64,
    },
}

impl Abort {
    /// So many a fault: each is a thread.
    pub(crate) const MOST: usize = 16;

    /// Runs a command of whoever asks, as us.
    pub(crate) const fn is_command(&self) -> bool {
        matches!(self.look, Look::Command { .. })
    }
}

/// What became of a look; the error says what is wrong.
type Seen = Result<(), String>;

/// A condition that is being watched; dropped, it is no more.
#[derive(Debug)]
pub(crate) struct Watch(Arc<Shared>);

#[derive(Default)]
struct Shared {
    state: Mutex<State>,
    wake: Condvar,
}

#[derive(Default)]
struct State {
    is_over: bool,
    why: Option<String>,
}

impl fmt::Debug for Shared {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Shared")
    }
}

impl Drop for Watch {
    fn drop(&mut self) {
        self.0.state.lock().unwrap_or_else(PoisonError::into_inner).is_over = true;
        self.0.wake.notify_all();
    }
}

impl Watch {
    /// Begins to watch.
    ///
    /// # Errors
    /// The target's namespace cannot be found, or its counters cannot be read.
    pub(crate) fn start(abort: &Abort, rules: &[RuleSpec]) -> anyhow::Result<Self> {
        let needs_target =
            abort.in_target || matches!(abort.look, Look::Handshakes { .. } | Look::Retransmits { .. });
        let netns = if needs_target { target(rules)? } else { None };
        let asked = rules.iter().map(|rule| lost(&rule.faults)).fold(0.0, f64::max);
        let mut watcher = Watcher::new(&abort.look, netns.as_ref(), asked)?;
        let shared = Arc::new(Shared::default());
        let (ours, abort) = (Arc::clone(&shared), abort.clone());
        let run = move || {
            let mut recent = Recent::new(abort.breaches, abort.of);
            while ours.rest(abort.every) {
                let seen = watcher.look(&abort.look, netns.as_ref());
                if let Some(why) = recent.add(seen) {
                    ours.tell(format!("{}: {why}", abort.text));
                    return;
                }
            }
        };
        thread::Builder::new().name("chaos-abort".to_owned()).spawn(run)?;
        Ok(Self(shared))
    }

    /// Why the fault has to end.
    pub(crate) fn tripped(&self) -> Option<String> {
        self.0.state.lock().unwrap_or_else(PoisonError::into_inner).why.clone()
    }
}

impl Shared {
    /// False = nobody wants to know any more.
    fn rest(&self, time: Duration) -> bool {
        let state = self.state.lock().unwrap_or_else(PoisonError::into_inner);
        let waited = self.wake.wait_timeout_while(state, time, |state| !state.is_over);
        !waited.unwrap_or_else(PoisonError::into_inner).0.is_over
    }

    fn tell(&self, why: String) {
        self.state.lock().unwrap_or_else(PoisonError::into_inner).why = Some(why);
    }
}

/// The last looks.
#[derive(Debug)]
struct Recent {
    breaches: usize,
    of: usize,
    seen: VecDeque<bool>,
}

impl Recent {
    const fn new(breaches: usize, of: usize) -> Self {
        Self { breaches, of, seen: VecDeque::new() }
    }

    /// Why the fault has to end, if this was one breach too many.
    fn add(&mut self, seen: Seen) -> Option<String> {
        self.seen.push_back(seen.is_err());
        if self.seen.len() > self.of {
            self.seen.pop_front();
        }
        let breaches = self.seen.iter().filter(|is_breach| **is_breach).count();
        let why = seen.err()?;
        (breaches >= self.breaches)
            .then(|| format!("{why} ({breaches} of the last {} looks)", self.seen.len()))
    }
}

/// The namespace of the first target that has one.
fn target(rules: &[RuleSpec]) -> anyhow::Result<Option<Netns>> {
    let Some(rule) = rules.first() else { return Ok(None) };
    let found = targets::resolve(&rule.target)?;
    Ok(found.namespaces.into_iter().next().map(|namespace| namespace.netns))
}

fn lost(faults: &Faults) -> f64 {
    share_lost(faults)
}

/// Where a host and port are.
fn resolve(authority: &str) -> Result<Vec<SocketAddr>, String> {
    use std::net::ToSocketAddrs as _;
    let found = authority.to_socket_addrs().map_err(|error| format!("{authority}: {error}"))?;
    Ok(found.collect())
}
