//! The only place that writes to stdout and stderr: results go to stdout, progress to stderr.
//!
//! A live line is rewritten in place at the bottom of the terminal; every other line written here
//! first takes it away and then puts it back, so that nothing ends up in its middle.

use std::{
    io::{self, IsTerminal as _, Write},
    sync::{Mutex, MutexGuard, PoisonError},
};

use serde::Serialize;

/// What the live line shows now; none = there is none on the terminal.
static LIVE: Mutex<Option<String>> = Mutex::new(None);

/// Back to the first column, and erase to the end of the line (ECMA-48, EL).
const ERASE: &str = "\r\x1b[K";

fn lock() -> MutexGuard<'static, Option<String>> {
    LIVE.lock().unwrap_or_else(PoisonError::into_inner)
}

/// Where a line goes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Stream {
    /// Results.
    Out,
    /// Progress, warnings, errors.
    Err,
}

/// Writes whole lines.
///
/// # Errors
/// The stream is closed; for stdout that means that nobody reads the results any more.
pub(crate) fn line(stream: Stream, text: &str) -> io::Result<()> {
    write(stream, format!("{text}\n").as_bytes())
}

/// Writes one JSON object as one line.
pub(crate) fn json(stream: Stream, value: &impl Serialize) -> io::Result<()> {
    line(stream, &serde_json::to_string(value)?)
}

/// Writes a line to stderr; if stderr is closed there is nobody left to tell.
pub(crate) fn note(text: &str) {
    let _ = line(Stream::Err, text);
}

/// Writes a warning to stderr.
pub(crate) fn warn(text: &str) {
    let style = anstyle::AnsiColor::Yellow.on_default();
    note(&format!("chaos: {style}warning:{style:#} {text}"));
}

/// Writes bytes as they are: completions, manual pages, lines.
pub(crate) fn write(stream: Stream, bytes: &[u8]) -> io::Result<()> {
    let live = lock();
    if live.is_some() {
        io::stderr().write_all(ERASE.as_bytes())?;
    }
    let result = match stream {
        // The auto streams drop colours for pipes, NO_COLOR and dumb terminals.
        Stream::Out => {
            let mut out = anstream::stdout().lock();
            out.write_all(bytes).and_then(|()| out.flush())
        }
        Stream::Err => anstream::stderr().lock().write_all(bytes),
    };
    draw(live.as_deref());
    result
}

/// Shows `text` as the live line, in place of what it showed before.
pub(crate) fn live(text: &str) {
    let mut live = lock();
    if live.as_deref() != Some(text) {
        *live = Some(text.to_owned());
        draw(live.as_deref());
    }
}

/// Takes the live line away; the terminal is as if it had never been.
pub(crate) fn clear_live() {
    if lock().take().is_some() {
        let _ = io::stderr().write_all(ERASE.as_bytes());
    }
}

/// One write, so that the line does not flicker. Erases behind the text, not before it.
fn draw(text: Option<&str>) {
    if let Some(text) = text {
        let _ = io::stderr().write_all(format!("\r{text}\x1b[K").as_bytes());
    }
}

/// Whether a live line can be shown: stderr is a terminal that knows escape sequences.
pub(crate) fn live_possible() -> bool {
    io::stderr().is_terminal()
        && std::env::var_os("TERM").is_some_and(|term| !term.is_empty() && term != "dumb")
}

/// Whether somebody sits there who can answer a question.
pub(crate) fn interactive() -> bool {
    io::stdin().is_terminal() && io::stderr().is_terminal()
}

/// Columns of the terminal behind stderr; 80 when it does not say.
pub(crate) fn width() -> usize {
    terminal_size::terminal_size_of(io::stderr()).map_or(80, |(width, _)| usize::from(width.0).max(1))
}

/// Lets log lines and the live line share the terminal.
#[derive(Clone, Copy, Debug, Default)]
pub(crate) struct LogWriter;

impl Write for LogWriter {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        write(Stream::Err, bytes).map(|()| bytes.len())
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}
