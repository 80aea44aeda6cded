//! What the agent has made, written down before it is made and struck out afterwards, for the agent that comes after
//! one that was killed.
//!
//! Records are appended, each a line with a checksum. They are handed to the kernel before the fault is armed, so that
//! a SIGKILL or the OOM killer loses none; to the disk they go in the background, for a power cut takes what was made
//! with it, and an armed fault need not wait for a disk. A new file is written beside the old one, synced, and renamed.
//! Nothing that ends a fault hangs on the journal: where it cannot be written, that is counted and said.

mod record;
#[cfg(test)]
mod tests;

use std::{
    collections::BTreeMap,
    fs::{self, File, OpenOptions},
    io::{self, Read as _, Write as _},
    os::unix::fs::OpenOptionsExt as _,
    path::{Path, PathBuf},
    sync::mpsc::{self, SyncSender},
    thread,
};

use super::append::Appender;

pub(crate) use self::record::{Former, Intent, Record};

const NAME: &str = "journal";
/// It is written anew when it is longer than this, bytes, and twice as long as when it was written anew.
const LONG: u64 = 1 << 20;

/// The journal of this agent.
#[derive(Debug)]
pub(crate) struct Journal {
    path: PathBuf,
    boot: String,
    file: Option<File>,
    disk: Option<SyncSender<File>>,
    open: BTreeMap<u64, Intent>,
    next_id: u64,
    length: u64,
    /// Its length when it was written anew: what was open alone may be longer than [`LONG`].
    least: u64,
    appender: Appender,
}

impl Journal {
    /// Reads what the agent before has left in the folder, which is ours alone (`daemon::only`). What cannot be read
    /// counts as not there; the sentence says what.
    pub(crate) fn open(folder: &Path) -> (Self, Former, Option<String>) {
        let path = folder.join(NAME);
        let mut trouble = None;
        let mut bytes = Vec::new();
        if let Err(error) = File::open(&path).and_then(|mut file| file.read_to_end(&mut bytes))
            && error.kind() != io::ErrorKind::NotFound
        {
            trouble = Some(error);
        }
        let former = Former::read(&bytes);
        let journal = Self {
            path,
            boot: boot_id(),
            file: None,
            disk: syncer(),
            open: BTreeMap::new(),
            next_id: former.next_id,
            length: 0,
            least: 0,
            appender: Appender::default(),
        };
        let told = trouble.map(|error| format!("the state in {} cannot be kept: {error}", folder.display()));
        (journal, former, told)
    }

    /// Which boot this is.
    pub(crate) fn boot(&self) -> &str {
        &self.boot
    }

    /// Begins anew: what the agent before had made is gone.
    pub(crate) fn begin(&mut self) -> Option<String> {
        let begun = self.rewrite();
        if begun.is_err() && self.file.is_none() {
            // Better a longer file than none.
            self.file = OpenOptions::new().append(true).create(true).mode(0o640).open(&self.path).ok();
            self.appender.end_is_unknown();
        }
        self.told(begun)
    }

    /// These are about to be made.
    pub(crate) fn intend(&mut self, intents: Vec<Intent>) -> Option<String> {
        let mut bytes = Vec::new();
        for intent in intents {
            self.next_id = self.next_id.max(intent.id.saturating_add(1));
            self.open.insert(intent.id, intent.clone());
            bytes.extend(Record::Intent(intent).line());
        }
        let written = self.append(&bytes);
        self.told(written)
    }

    /// They are in the kernel now.
    pub(crate) fn made(&mut self, ids: Vec<u64>, things: Vec<String>) -> Option<String> {
        let written = self.append(&Record::Made { ids, things }.line());
        self.told(written)
    }

    /// They are over, or were not made after all.
    pub(crate) fn ended(&mut self, ids: Vec<u64>, why: &str) -> Option<String> {
        for id in &ids {
            self.open.remove(id);
        }
        let written = self.append(&Record::Ended { ids, why: why.to_owned() }.line());
        let is_long = self.length > LONG.max(2 * self.least);
        let written = if is_long { written.and_then(|()| self.rewrite()) } else { written };
        self.told(written)
    }

    /// Nothing is left.
    pub(crate) fn close(&mut self) -> Option<String> {
        let written = self.append(&Record::Close.line());
        let synced = written.and_then(|()| self.file.as_ref().map_or(Ok(()), File::sync_data));
        self.told(synced)
    }

    /// Records that could not be written.
    pub(crate) const fn failures(&self) -> u64 {
        self.appender.failures()
    }

    fn append(&mut self, bytes: &[u8]) -> io::Result<()> {
        let Some(file) = &self.file else {
            // It could not be made; perhaps now.
            return self.rewrite();
        };
        self.length += self.appender.append(file, bytes)? as u64;
        if let (Some(disk), Ok(file)) = (&self.disk, file.try_clone()) {
            // One that waits already will sync ours, too.
            let _ = disk.try_send(file);
        }
        Ok(())
    }

    /// A whole new file: who we are, and what is open.
    fn rewrite(&mut self) -> io::Result<()> {
        let pid = i32::try_from(std::process::id()).unwrap_or(0);
        let mut bytes = Record::Begin { pid, boot: self.boot.clone(), next_id: self.next_id }.line();
        for intent in self.open.values() {
            bytes.extend(Record::Intent(intent.clone()).line());
        }
        let beside = self.path.with_extension("new");
        let written =
            OpenOptions::new().write(true).create(true).truncate(true).mode(0o640).open(&beside).and_then(
                |mut file| {
                    file.write_all(&bytes)?;
                    file.sync_all()
                },
            );
        let renamed = written.and_then(|()| fs::rename(&beside, &self.path));
        if let Err(error) = renamed {
            let _ = fs::remove_file(&beside);
            return Err(error);
        }
        if let Some(folder) = self.path.parent() {
            File::open(folder)?.sync_all()?;
        }
        self.file = Some(OpenOptions::new().append(true).open(&self.path)?);
        self.length = bytes.len() as u64;
        self.least = self.length;
        self.appender.file_is_new();
        Ok(())
    }

    /// A sentence when something failed, and the time before it did not.
    fn told(&mut self, written: io::Result<()>) -> Option<String> {
        self.appender.told("journal", &self.path, written, 1)
    }
}

/// A thread that waits for the disk, so that nobody else must.
fn syncer() -> Option<SyncSender<File>> {
    let (sender, inbox) = mpsc::sync_channel::<File>(1);
    let run = move || {
        for file in inbox {
            if let Err(error) = file.sync_data() {
                tracing::warn!("the journal is not on the disk: {error}");
            }
        }
    };
    thread::Builder::new().name("chaos-journal".to_owned()).spawn(run).ok().map(|_| sender)
}

fn boot_id() -> String {
    fs::read_to_string("/proc/sys/kernel/random/boot_id").unwrap_or_default().trim().to_owned()
}
