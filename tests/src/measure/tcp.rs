//! A bulk transfer over a pair, seen by both instruments, and what a loss rate must look like.

use std::{net::SocketAddr, process::Command};

use anyhow::{Result, ensure};

use super::{
    bulk::{self, Counts, Transfer},
    capture::Capture,
    order::{Transmissions, by_connection},
    stats::{check_rate, check_runs},
};
use crate::lab::netns::Netns;

/// Where the receiver listens.
pub const PORT: u16 = 5201;
/// What a full segment carries on Ethernet with TCP timestamps.
pub const MSS: u32 = 1448;
/// What the issue asks for: fewer segments show nothing.
const SEGMENTS_NEEDED: u64 = 100_000;
/// Segments that the two instruments may count differently: what was lost before the first or
/// after the last arrival of each connection, which only the sockets know.
const EDGE_PER_CONNECTION: u64 = 4;

/// What a transfer showed.
#[derive(Clone, Debug)]
pub struct Measured {
    /// By the sockets' counters.
    pub counts: Counts,
    /// By the order of arrival, connection by connection; empty for IPv6.
    pub order: Vec<Transmissions>,
}

/// Puts a command where it belongs: a cgroup, or nowhere.
pub type Wrap<'a> = &'a dyn Fn(Command) -> Command;

/// Transfers from `from` to `to` at `address`; the programs go through the wraps.
/// `armed` is called when the receiver listens, before the first connection.
///
/// # Errors
/// When the transfer or the capture fails.
pub fn transfer<T>(
    (from, wrap_sender): (&Netns, Wrap<'_>),
    (to, wrap_receiver): (&Netns, Wrap<'_>),
    what: &Transfer,
    armed: impl FnOnce() -> Result<T>,
) -> Result<(Measured, T)> {
    let sink = bulk::sink(to, what.to, wrap_receiver)?;
    let armed = armed()?;
    let capture = what.to.is_ipv4().then(|| Capture::start(to, what.to.port(), MSS)).transpose()?;
    let counts = bulk::transfer(from, sink, what, wrap_sender)?;
    let arrivals = capture.map(Capture::finish).transpose()?.unwrap_or_default();
    let order = by_connection(&arrivals).into_values().collect();
    Ok((Measured { counts, order }, armed))
}

impl Measured {
    /// Checks that each wire segment was lost with probability `p`, independently of the others.
    ///
    /// # Errors
    /// When rate or run lengths say otherwise, or the run was too short.
    pub fn check_loss(&self, what: &str, p: f64) -> Result<()> {
        let (total, lost) = (self.counts.total(), self.counts.lost());
        ensure!(total >= SEGMENTS_NEEDED, "{what}: only {total} segments were sent");
        check_rate(&format!("{what}, by the sockets' counters"), lost, total, p)?;
        if self.order.is_empty() {
            return Ok(());
        }
        let (sent, missing) = self.sent_and_missing();
        check_rate(&format!("{what}, by the order of arrival"), missing, sent, p)?;
        let edge = EDGE_PER_CONNECTION * self.order.len() as u64;
        ensure!(missing.abs_diff(lost) <= edge, "{what}: the instruments differ: {lost} and {missing} lost");
        let losses: Vec<_> = self.order.iter().map(Transmissions::losses).collect();
        check_runs(what, &losses, p)
    }

    /// Checks that nothing was lost, and that less than 0.05 % came late.
    ///
    /// # Errors
    /// With the figures otherwise.
    pub fn check_untouched(&self, what: &str) -> Result<()> {
        let total = self.counts.total();
        ensure!(total >= SEGMENTS_NEEDED, "{what}: only {total} segments were sent");
        ensure!(self.counts.lost() == 0, "{what}: {} of {total} segments were lost", self.counts.lost());
        let (sent, missing) = self.sent_and_missing();
        ensure!(missing == 0, "{what}: {missing} of {sent} segments did not arrive");
        let late: u64 = self.order.iter().map(|connection| connection.late).sum();
        ensure!(late * 2000 < sent, "{what}: {late} of {sent} segments were reordered, 0.05 % or more");
        Ok(())
    }

    fn sent_and_missing(&self) -> (u64, u64) {
        let sent = self.order.iter().map(|connection| connection.arrived.len() as u64).sum();
        (sent, self.order.iter().map(Transmissions::lost).sum())
    }
}

/// The usual transfer to this address: [`Transfer::new`] on [`PORT`].
#[must_use]
pub fn usual(to: impl Into<std::net::IpAddr>) -> Transfer {
    Transfer::new(SocketAddr::new(to.into(), PORT))
}

/// A command that goes nowhere in particular.
#[must_use]
pub fn plain(command: Command) -> Command {
    command
}
