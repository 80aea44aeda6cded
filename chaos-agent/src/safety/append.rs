//! Lines that are appended to a file that may be full: whole ones, and what could not be written is told once.

use std::{
    fs::File,
    io::{self, Write as _},
    path::Path,
};

/// How writing to one file went so far.
#[derive(Debug, Default)]
pub(super) struct Appender {
    failures: u64,
    is_failing: bool,
    /// A part of a line may stand at the end, so the next one begins on a line of its own.
    is_torn: bool,
}

impl Appender {
    /// Appends lines with one `write(2)`, so that those of several processes never mix; returns how many bytes
    /// the file has grown by.
    ///
    /// # Errors
    /// They were not written, or not to their end.
    pub(super) fn append(&mut self, mut file: &File, lines: &[u8]) -> io::Result<usize> {
        let mut bytes = if self.is_torn { vec![b'\n'] } else { Vec::new() };
        bytes.extend(lines);
        let written = file.write(&bytes)?;
        self.is_torn = written > 0 && written < bytes.len();
        if written < bytes.len() {
            return Err(io::Error::new(io::ErrorKind::StorageFull, "a part of the record was written"));
        }
        Ok(written)
    }

    /// Nobody knows how the file ends that comes next.
    pub(super) const fn end_is_unknown(&mut self) {
        self.is_torn = true;
    }

    /// The file is another one now, and whole.
    pub(super) const fn file_is_new(&mut self) {
        self.is_torn = false;
    }

    /// A sentence about `what`, when it failed and the time before it did not. `records` were to be written; if a
    /// part of them was, all count as not written.
    pub(super) fn told(
        &mut self,
        what: &str,
        path: &Path,
        outcome: io::Result<()>,
        records: u64,
    ) -> Option<String> {
        let Err(error) = outcome else {
            self.is_failing = false;
            return None;
        };
        self.failures += records;
        let was_failing = std::mem::replace(&mut self.is_failing, true);
        (!was_failing).then(|| format!("the {what} {} cannot be written: {error}", path.display()))
    }

    /// Records that were not written.
    pub(super) const fn failures(&self) -> u64 {
        self.failures
    }
}
