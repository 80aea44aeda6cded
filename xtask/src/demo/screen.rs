//! The live table on a terminal, plain lines elsewhere.

use std::{
    fmt::Write as _,
    io::{self, IsTerminal as _, Write as _},
};

use super::{
    checks::Check,
    lab::PORTS,
    story::{self, Measured, Phase, Played, Seen},
};

const BARS: [char; 8] = ['▁', '▂', '▃', '▄', '▅', '▆', '▇', '█'];
/// Columns of the little history.
const HISTORY: usize = 24;

const RESET: &str = "\x1b[0m";
const BOLD: &str = "\x1b[1m";
const DIM: &str = "\x1b[2m";
const RED: &str = "\x1b[31m";
const GREEN: &str = "\x1b[32m";
const YELLOW: &str = "\x1b[33m";
const CYAN: &str = "\x1b[36m";

/// Where the demo is shown.
pub(crate) struct Screen {
    live: bool,
    colour: bool,
    /// Lines of the table that stand on the terminal now.
    drawn: usize,
    last_plain: f64,
}

/// What is going on.
pub(crate) struct Now<'a> {
    pub(crate) phase: &'a Phase,
    /// Since the phase began, in seconds; none = the fault is being set.
    pub(crate) since: Option<f64>,
    /// Since the demo began, in seconds.
    pub(crate) at: f64,
    pub(crate) seen: &'a [Seen],
    pub(crate) played: &'a [Played],
    /// Packets matched and dropped as `chaos` last said.
    pub(crate) counters: Option<(u64, u64)>,
}

impl Screen {
    /// A live table if standard output is a terminal that knows escape sequences.
    pub(crate) fn new(plain: bool) -> Self {
        let dumb = std::env::var("TERM").is_ok_and(|term| term == "dumb");
        let terminal = io::stdout().is_terminal() && !dumb;
        let colour = terminal && std::env::var_os("NO_COLOR").is_none_or(|value| value.is_empty());
        Self { live: terminal && !plain, colour, drawn: 0, last_plain: f64::NEG_INFINITY }
    }

    fn paint(&self, style: &str, text: &str) -> String {
        if self.colour { format!("{style}{text}{RESET}") } else { text.to_owned() }
    }

    /// A line that stays.
    pub(crate) fn say(&mut self, text: &str) {
        println!("{text}");
        self.drawn = 0;
    }

    /// Shows how things stand.
    pub(crate) fn show(&mut self, now: &Now) {
        if self.live {
            let table = self.table(now);
            let width = terminal_size::terminal_size().map_or(80, |(width, _)| usize::from(width.0));
            let mut out = String::from("\x1b[?2026h");
            if self.drawn > 0 {
                let _ = write!(out, "\x1b[{}F", self.drawn);
            }
            for line in &table {
                let _ = writeln!(out, "{}\x1b[K", fit(line, width));
            }
            // One write, and every line erased behind its text only: nothing flickers.
            out.push_str("\x1b[J\x1b[?2026l");
            let _ = io::stdout().write_all(out.as_bytes()).and_then(|()| io::stdout().flush());
            self.drawn = table.len();
        } else if now.at - self.last_plain >= 1.0 {
            self.last_plain = now.at;
            let ports: Vec<String> = PORTS.iter().map(|&port| plain(&recent(now, port))).collect();
            println!("{:5.1} s  {:<9}  {}", now.at, now.phase.name, ports.join("   "));
        }
    }

    fn table(&self, now: &Now) -> Vec<String> {
        let mut lines = vec![String::new()];
        let time = match now.since {
            Some(since) => format!("{since:.1} of {:.1} s", now.phase.seconds),
            None => "being set".to_owned(),
        };
        let title = format!("{:<10}", now.phase.name.to_uppercase());
        lines.push(format!(
            "  {} {}  {}",
            self.paint(&style(now.phase.name), &title),
            now.phase.about,
            self.paint(DIM, &time)
        ));
        let command = if now.phase.fault.is_empty() {
            String::new()
        } else {
            format!("$ sudo {}", now.phase.command())
        };
        lines.push(format!("  {}", self.paint(DIM, &command)));
        lines.push(String::new());
        let head = format!(
            "  {:<17}{:<26}{:>11}{:>10}{:>10}{:>10}",
            "redis on port", "", "requests/s", "errors/s", "p50 ms", "p99 ms"
        );
        lines.push(self.paint(DIM, &head));
        for (port, role) in PORTS.into_iter().zip(["target", "control"]) {
            lines.push(self.row(now, port, role));
        }
        lines.push(String::new());
        let counters = now.counters.map_or_else(String::new, |(matched, dropped)| {
            format!("  in the kernel: {matched} packets matched, {dropped} dropped")
        });
        lines.push(self.paint(YELLOW, &counters));
        lines.push(String::new());
        for played in now.played {
            let rates: Vec<String> = played.ports.iter().map(brief).collect();
            lines.push(self.paint(DIM, &format!("  {:<10} {}", played.name, rates.join("     "))));
        }
        lines
    }

    fn row(&self, now: &Now, port: u16, role: &str) -> String {
        let recent = recent(now, port);
        let slow = recent.p99_ms.is_some_and(|p99| p99 > 50.0);
        let colour = if recent.replies == 0 {
            RED
        } else if slow {
            YELLOW
        } else {
            GREEN
        };
        let errors = format!("{:>10}", recent.errors);
        format!(
            "  {}{} {}{}{:>10}{}",
            self.paint(BOLD, &format!("{port:<6}")),
            self.paint(DIM, &format!("{role:<10}")),
            self.paint(colour, &history(now.seen, port)),
            self.paint(colour, &format!("  {:>11.0}", recent.rate)),
            if recent.errors > 0 { self.paint(RED, &errors) } else { errors },
            format!("{:>10}", ms(recent.p50_ms))
                + &self.paint(if slow { YELLOW } else { "" }, &format!("{:>10}", ms(recent.p99_ms))),
        )
    }

    /// The end of the demo.
    pub(crate) fn finish(&mut self, played: &[Played], checks: &[Check]) {
        println!("\n  {:<10} {:>24} {:>36}", "", "port 6379 (target)", "port 6380 (control)");
        let head = format!("{:>9} {:>7} {:>8} {:>8}", "req/s", "errors", "p50 ms", "p99 ms");
        println!("  {}", self.paint(DIM, &format!("{:<10} {head}  {head}", "phase")));
        for phase in played {
            let cells = phase.ports.iter().map(|port| {
                format!("{:>9.0} {:>7} {:>8} {:>8}", port.rate, port.errors, ms(port.p50_ms), ms(port.p99_ms))
            });
            let name = self.paint(&style(phase.name), &format!("{:<10}", phase.name));
            println!("  {name} {}", cells.collect::<Vec<_>>().join("  "));
        }
        println!();
        for check in checks {
            let mark = if check.ok { self.paint(GREEN, "ok    ") } else { self.paint(RED, "FAILED") };
            println!("  {mark}  {:<10} {}", check.phase, check.what);
        }
    }
}

/// The last second.
fn recent(now: &Now, port: u16) -> Measured {
    story::measure(now.seen, port, now.at - 1.0, now.at)
}

fn style(phase: &str) -> String {
    let colour = match phase {
        "loss" => YELLOW,
        "partition" => RED,
        "heal" => GREEN,
        _ => CYAN,
    };
    format!("{BOLD}{colour}")
}

/// Replies over the last seconds as bars, scaled to the best of the demo.
#[expect(
    clippy::cast_precision_loss,
    clippy::cast_possible_truncation,
    clippy::cast_sign_loss,
    reason = "a small share of a small count"
)]
fn history(seen: &[Seen], port: u16) -> String {
    let all: Vec<u64> = story::samples(seen, port).map(|(_, sample)| sample.replies).collect();
    let best = all.iter().copied().max().unwrap_or(0).max(1) as f64;
    let last = all.iter().rev().take(HISTORY).rev();
    let bars = last.map(|&replies| match (replies as f64 / best * BARS.len() as f64).ceil() as usize {
        0 => '·',
        n => BARS.get(n - 1).copied().unwrap_or('█'),
    });
    format!("{:>HISTORY$}", bars.collect::<String>())
}

/// Milliseconds in three digits or so.
pub(crate) fn ms(value: Option<f64>) -> String {
    match value {
        None => "-".to_owned(),
        Some(value) if value < 10.0 => format!("{value:.2}"),
        Some(value) => format!("{value:.0}"),
    }
}

/// Half a line.
fn brief(port: &Measured) -> String {
    format!("{}: {:>5.0}/s, p99 {:>5} ms", port.port, port.rate, ms(port.p99_ms))
}

/// As much of a line as fits on the terminal: a line that wraps would shift the table. What is cut off
/// is text only, escape sequences take no room and stay.
fn fit(line: &str, width: usize) -> String {
    let (mut out, mut used, mut escape) = (String::with_capacity(line.len()), 0, false);
    for c in line.chars() {
        if escape || c == '\x1b' {
            escape = !c.is_ascii_alphabetic();
            out.push(c);
        } else if used < width {
            used += 1;
            out.push(c);
        }
    }
    out
}

fn plain(port: &Measured) -> String {
    format!(
        "{}: {:>5.0}/s p50 {:>5} p99 {:>5} ms, {} errors",
        port.port,
        port.rate,
        ms(port.p50_ms),
        ms(port.p99_ms),
        port.errors
    )
}

#[cfg(test)]
mod tests {
    use super::{BOLD, RESET, fit};

    #[test]
    fn long_lines_are_cut_and_colours_stay() {
        assert_eq!(fit(&format!("{BOLD}ab{RESET}cd"), 3), format!("{BOLD}ab{RESET}c"));
        assert_eq!(fit("ab", 3), "ab");
    }
}
