//! Loss as the program `ping` sees it.

use std::{net::IpAddr, process::Command, time::Duration};

use anyhow::{Context, Result, bail};

use crate::lab::{netns::Netns, process};

/// What `ping` reported at its end.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct PingResult {
    /// Requests sent.
    pub sent: u64,
    /// Replies received (duplicates not counted).
    pub received: u64,
    /// Replies that came again.
    pub duplicates: u64,
}

impl PingResult {
    /// Requests without a reply.
    #[must_use]
    pub const fn lost(&self) -> u64 {
        self.sent.saturating_sub(self.received)
    }
}

/// The command: `count` requests to `to`, as fast as replies come; `from` sets the source address.
#[must_use]
pub fn command(to: IpAddr, from: Option<IpAddr>, count: u32) -> Command {
    let mut command = Command::new("ping");
    command.args(["-q", "-n", "-f", "-l", "20", "-W", "1", "-c", &count.to_string()]);
    if let Some(from) = from {
        command.args(["-I", &from.to_string()]);
    }
    command.arg(to.to_string());
    command
}

/// Pings inside `netns` and reads the summary.
///
/// # Errors
/// When `ping` does not end in time or prints no summary.
pub fn ping(netns: &Netns, to: IpAddr, from: Option<IpAddr>, count: u32) -> Result<PingResult> {
    run(netns.inside(command(to, from, count)), count)
}

/// Runs a prepared [`command`] and reads the summary.
///
/// # Errors
/// When `ping` does not end in time or prints no summary.
pub fn run(command: Command, count: u32) -> Result<PingResult> {
    let limit = Duration::from_millis(u64::from(count) * 10) + Duration::from_secs(15);
    let output = process::output(command, limit)?;
    let text = String::from_utf8_lossy(&output.stdout);
    // ping exits 1 when no reply came: for us a result, not a failure.
    if !matches!(output.status.code(), Some(0 | 1)) {
        bail!("ping failed: {}{}", text, String::from_utf8_lossy(&output.stderr));
    }
    parse(&text).with_context(|| format!("no summary in what ping printed: {text}"))
}

/// Reads `5000 packets transmitted, 4950 received, +2 duplicates, 1% packet loss, time 10ms`.
fn parse(text: &str) -> Option<PingResult> {
    let line = text.lines().find(|line| line.contains("packets transmitted"))?;
    let before = |word: &str| -> Option<u64> {
        let part = line.split(", ").find(|part| part.contains(word))?;
        part.split_whitespace().next()?.trim_start_matches('+').parse().ok()
    };
    Some(PingResult {
        sent: before("transmitted")?,
        received: before("received")?,
        duplicates: before("duplicates").unwrap_or(0),
    })
}

#[cfg(test)]
mod tests {
    use super::{PingResult, parse};

    #[test]
    fn the_summary_is_read() {
        let text = "--- 10.77.0.2 ping statistics ---\n\
                    5000 packets transmitted, 4950 received, +2 duplicates, 1% packet loss, time 9999ms\n";
        assert_eq!(parse(text), Some(PingResult { sent: 5000, received: 4950, duplicates: 2 }));
        assert_eq!(parse("ping: unknown host"), None);
    }
}
