//! Tables from files in the format of netem (`tc-netem(8)`, `/usr/lib/tc/*.dist`).

use std::{fs::File, io::Read, path::Path};

use super::ENTRIES_MAX;

/// No table of [`ENTRIES_MAX`] numbers needs more bytes, comments included.
const FILE_MAX: u64 = 1 << 20;

/// Reads a table: whole numbers from -32768 to 32767 (8192 = one jitter) between white space, at
/// most 16384 of them; `#` begins a comment.
///
/// # Errors
/// The line and what is wrong there, or that there is no number, or that there are too many.
pub fn parse_dist(text: &str) -> Result<Vec<i16>, String> {
    let mut table = Vec::new();
    for (line, number) in text.lines().zip(1u32..) {
        let line = line.split_once('#').map_or(line, |(before, _)| before);
        for word in line.split_whitespace() {
            let sample = word.parse().map_err(|_| {
                // Of a file that is something else altogether not much shall be shown.
                let word: String = word.chars().take(16).collect();
                format!("line {number}: `{word}` is not a whole number from {} to {}", i16::MIN, i16::MAX)
            })?;
            if table.len() == ENTRIES_MAX {
                return Err(format!("line {number}: more than {ENTRIES_MAX} numbers, the most netem takes"));
            }
            table.push(sample);
        }
    }
    if table.is_empty() {
        return Err("no numbers in it: a distribution is a list of samples, 8192 = one jitter".to_owned());
    }
    Ok(table)
}

/// Reads a table from a file.
///
/// # Errors
/// The path and what is wrong: it cannot be read, is no ordinary file, is above 1 MiB, or
/// [`parse_dist`] refuses it.
pub fn read_dist(path: &Path) -> Result<Vec<i16>, String> {
    let wrong = |why: String| format!("distribution file `{}`: {why}", path.display());
    // Asked before it is opened: opening a pipe would wait for its writer.
    let meta = std::fs::metadata(path).map_err(|error| wrong(error.to_string()))?;
    if !meta.is_file() {
        return Err(wrong("not a regular file".to_owned()));
    }
    let file = File::open(path).map_err(|error| wrong(error.to_string()))?;
    let mut text = Vec::new();
    file.take(FILE_MAX.saturating_add(1)).read_to_end(&mut text).map_err(|error| wrong(error.to_string()))?;
    if text.len() as u64 > FILE_MAX {
        return Err(wrong("larger than 1 MiB: not a distribution table".to_owned()));
    }
    let text = String::from_utf8(text).map_err(|_| wrong("not text".to_owned()))?;
    parse_dist(&text).map_err(wrong)
}
