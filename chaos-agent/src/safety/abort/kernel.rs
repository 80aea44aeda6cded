//! What the kernel itself counts in a namespace (RFC 4022 in /proc/net/snmp, Linux' own in /proc/net/netstat), and
//! what of it happened since the last look.

use std::fs;

use anyhow::Context as _;

use super::{Look, Seen, probe};
use crate::netns::Netns;

/// With fewer segments or handshakes between two looks than this a share says nothing.
const FEW: u64 = 10;

/// Counters of TCP.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(super) struct Tcp {
    /// Connections begun from here.
    pub(super) begun: u64,
    /// Handshakes that failed, from here or to here.
    pub(super) failed: u64,
    /// SYNs sent again: a handshake that hangs has not failed for two minutes.
    pub(super) again: u64,
    /// Segments sent, those sent again included.
    pub(super) sent: u64,
    /// Of them sent again.
    pub(super) resent: u64,
}

impl Tcp {
    /// From the two files.
    pub(super) fn read(snmp: &str, netstat: &str) -> Option<Self> {
        let of = |text: &str, group: &str, name: &str| -> Option<u64> {
            let mut lines = text.lines().filter(|line| line.split(':').next() == Some(group));
            let place = lines.next()?.split(' ').position(|word| word == name)?;
            lines.next()?.split(' ').nth(place)?.parse().ok()
        };
        let resent = of(snmp, "Tcp", "RetransSegs")?;
        Some(Self {
            begun: of(snmp, "Tcp", "ActiveOpens")?,
            failed: of(snmp, "Tcp", "AttemptFails")?,
            again: of(netstat, "TcpExt", "TCPSynRetrans")?,
            sent: of(snmp, "Tcp", "OutSegs")?.saturating_add(resent),
            resent,
        })
    }

    fn since(self, before: Self) -> Self {
        Self {
            begun: self.begun.saturating_sub(before.begun),
            failed: self.failed.saturating_sub(before.failed),
            again: self.again.saturating_sub(before.again),
            sent: self.sent.saturating_sub(before.sent),
            resent: self.resent.saturating_sub(before.resent),
        }
    }

    /// Handshakes that failed or hang, of all that were tried.
    pub(super) fn handshakes(self, limit: f64) -> Seen {
        let bad = self.failed + self.again;
        check(bad, self.begun + self.again, 1, limit, "of the handshakes failed or hang")
    }

    /// Segments sent again, of all.
    pub(super) fn retransmits(self, asked: f64, margin: f64) -> Seen {
        check(self.resent, self.sent, FEW, asked + margin, "of the segments were sent again")
    }
}

#[expect(clippy::cast_precision_loss, reason = "counts of seconds, and a share of them")]
fn check(bad: u64, all: u64, few: u64, limit: f64, what: &str) -> Seen {
    if all < few || all == 0 {
        return Ok(());
    }
    let share = bad as f64 / all as f64;
    if share > limit {
        return Err(format!("{:.1}% {what}, more than {:.1}%", share * 100.0, limit * 100.0));
    }
    Ok(())
}

/// Looks, and remembers what it saw before.
#[derive(Debug)]
pub(super) struct Watcher {
    before: Tcp,
    /// The loss that was asked for, 0 to 1.
    asked: f64,
}

impl Watcher {
    pub(super) fn new(look: &Look, netns: Option<&Netns>, asked: f64) -> anyhow::Result<Self> {
        let counts = matches!(look, Look::Handshakes { .. } | Look::Retransmits { .. });
        let before = if counts { counters(netns)? } else { Tcp::default() };
        Ok(Self { before, asked })
    }

    /// One look. A namespace that is gone is no breach: there is nobody left to hurt.
    pub(super) fn look(&mut self, look: &Look, netns: Option<&Netns>) -> Seen {
        match look {
            Look::Http { authority, path, status, within } => {
                inside(netns, || probe::http(authority, path, *status, *within))
            }
            Look::Tcp { authority, within } => inside(netns, || probe::tcp(authority, *within)),
            Look::Command { command, within } => inside(netns, || probe::command(command, *within)),
            Look::Handshakes { share } => self.counted(netns, |tcp, _| tcp.handshakes(*share)),
            Look::Retransmits { margin } => self.counted(netns, |tcp, asked| tcp.retransmits(asked, *margin)),
        }
    }

    fn counted(&mut self, netns: Option<&Netns>, judge: impl FnOnce(Tcp, f64) -> Seen) -> Seen {
        let Ok(now) = counters(netns) else { return Ok(()) };
        let since = now.since(self.before);
        self.before = now;
        judge(since, self.asked)
    }
}

fn inside(netns: Option<&Netns>, probe: impl FnOnce() -> Seen + Send) -> Seen {
    match netns {
        Some(netns) => netns.run(probe).unwrap_or_else(|error| Err(error.to_string())),
        None => probe(),
    }
}

fn counters(netns: Option<&Netns>) -> anyhow::Result<Tcp> {
    // Of the calling thread: /proc/net is that of the process.
    let read = || -> std::io::Result<(String, String)> {
        let file = |name: &str| fs::read_to_string(format!("/proc/thread-self/net/{name}"));
        Ok((file("snmp")?, file("netstat")?))
    };
    let (snmp, netstat) = match netns {
        Some(netns) => netns.run(read)?,
        None => read(),
    }
    .context("reading the kernel's counters of TCP")?;
    Tcp::read(&snmp, &netstat).context("the kernel's counters of TCP have another form")
}
