//! What is written down, and how it is read again whatever became of the file.

use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};
use serde_json::Value;

use crate::safety::caller::Caller;

/// A fault that is about to be made.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub(crate) struct Intent {
    /// Its number.
    pub(crate) id: u64,
    /// What the user calls it.
    pub(crate) name: Option<String>,
    /// What it does, in words.
    pub(crate) does: String,
    /// Whom to.
    pub(crate) targets: String,
    /// The body it came in.
    pub(crate) request: Value,
    /// Who asked for it.
    pub(crate) who: Caller,
    /// Milliseconds since 1970.
    pub(crate) started_ms: u64,
    /// How long it lasts, milliseconds.
    pub(crate) duration_ms: u64,
    /// When it ends, by the clock of this boot, nanoseconds: it means nothing in another boot.
    pub(crate) ends_boot_ns: u64,
}

/// One record.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case", tag = "record")]
pub(crate) enum Record {
    /// An agent began; what was made before is gone or was removed.
    Begin {
        /// Its process.
        pid: i32,
        /// The boot, from `/proc/sys/kernel/random/boot_id`.
        boot: String,
        /// The number of its first fault.
        next_id: u64,
    },
    /// It is about to be made.
    Intent(Intent),
    /// These are in the kernel.
    Made {
        /// Faults.
        ids: Vec<u64>,
        /// Where: namespaces, devices, filters, links.
        things: Vec<String>,
    },
    /// They are over, or were never made.
    Ended {
        /// Faults.
        ids: Vec<u64>,
        /// Why.
        why: String,
    },
    /// The agent ended by itself and left nothing.
    Close,
}

impl Record {
    /// As a line: a checksum of the rest (CRC-32, hexadecimal), a space, JSON.
    pub(crate) fn line(&self) -> Vec<u8> {
        let json = serde_json::to_vec(self).unwrap_or_default();
        let mut line = format!("{:08x} ", crc32fast::hash(&json)).into_bytes();
        line.extend(json);
        line.push(b'\n');
        line
    }

    /// None = this line was not written by us, or not wholly.
    fn read(line: &[u8]) -> Option<Self> {
        let (sum, json) = line.split_at_checked(9)?;
        let sum = std::str::from_utf8(sum).ok()?.strip_suffix(' ')?;
        (u32::from_str_radix(sum, 16).ok()? == crc32fast::hash(json)).then_some(())?;
        serde_json::from_slice(json).ok()
    }
}

/// What a journal says about the agent that wrote it.
#[derive(Clone, Debug, Default, PartialEq)]
pub(crate) struct Former {
    /// Its process; 0 = unknown.
    pub(crate) pid: i32,
    /// Its boot.
    pub(crate) boot: String,
    /// Faults that did not end before it did.
    pub(crate) open: BTreeMap<u64, Intent>,
    /// What was in the kernel when it last said.
    pub(crate) things: Vec<String>,
    /// The number that no fault had yet; at least 1.
    pub(crate) next_id: u64,
    /// It ended by itself.
    pub(crate) is_closed: bool,
    /// Lines that could not be read.
    pub(crate) damaged: usize,
}

impl Former {
    /// Reads a journal: every line is judged by itself, so that what is damaged costs only itself.
    pub(crate) fn read(bytes: &[u8]) -> Self {
        let mut former = Self { next_id: 1, ..Self::default() };
        // Without its end a line is none, even if the sum should be right.
        let whole = bytes.iter().rposition(|byte| *byte == b'\n').map_or(0, |end| end + 1);
        let (lines, rest) = bytes.split_at(whole);
        former.damaged += usize::from(!rest.is_empty());
        for line in lines.split(|byte| *byte == b'\n').filter(|line| !line.is_empty()) {
            match Record::read(line) {
                Some(record) => former.take(record),
                None => former.damaged += 1,
            }
        }
        former
    }

    fn take(&mut self, record: Record) {
        match record {
            Record::Begin { pid, boot, next_id } => {
                let next_id = next_id.max(self.next_id);
                *self = Self { pid, boot, next_id, damaged: self.damaged, ..Self::default() };
            }
            Record::Intent(intent) => {
                self.next_id = self.next_id.max(intent.id.saturating_add(1));
                self.is_closed = false;
                self.open.insert(intent.id, intent);
            }
            Record::Made { things, .. } => self.things = things,
            Record::Ended { ids, .. } => {
                for id in ids {
                    self.open.remove(&id);
                }
            }
            Record::Close => {
                self.is_closed = true;
                self.open.clear();
                self.things.clear();
            }
        }
    }
}
