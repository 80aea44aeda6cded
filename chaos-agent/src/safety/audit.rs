//! The audit log: who did what, from where, until when, and why it ended. One JSON object a line, only appended to.
//!
//! A record is one `write(2)` to a file opened with `O_APPEND`, so that the lines of several processes never mix, and
//! it is written before the answer is given. It is not synced: it survives the end of the agent in whatever way, and a
//! power cut may take the last seconds of it. The file is opened for each record, so that it may be rotated at any time.

use std::{
    fs::OpenOptions,
    io,
    os::unix::fs::OpenOptionsExt as _,
    path::{Path, PathBuf},
    time::SystemTime,
};

use serde::Serialize;
use serde_json::Value;

use super::{append::Appender, caller::Caller};
use crate::folder;

/// The folder of the log and of the journal, unless told otherwise.
const STATE_DIR: &str = "/var/lib/chaos";
/// Its file there.
const NAME: &str = "audit.jsonl";
/// Who may read it: root and its group.
const MODE: u32 = 0o640;

/// What was done.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "kebab-case")]
pub(crate) enum Deed {
    /// A fault is held.
    Started,
    /// A fault is held in another way.
    Changed,
    /// A fault is over.
    Ended,
    /// Every fault was ended, and new ones are refused.
    Stopped,
    /// New ones are accepted again.
    Resumed,
    /// The agent begins.
    AgentStarted,
    /// The agent ends.
    AgentEnded,
}

/// One line.
#[derive(Clone, Debug, Serialize)]
pub(crate) struct Entry<'a> {
    /// What was done.
    pub(crate) what: Deed,
    /// Who did it, from where.
    pub(crate) who: &'a Caller,
    /// The fault's number; a command that works alone has none.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(crate) fault: Option<u64>,
    /// The fault's name.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(crate) name: Option<&'a str>,
    /// What the fault does, in words.
    #[serde(skip_serializing_if = "str::is_empty")]
    pub(crate) does: &'a str,
    /// The body, or the words of the command line, as they came.
    #[serde(skip_serializing_if = "Value::is_null")]
    pub(crate) request: &'a Value,
    /// When it ends at the latest, RFC 3339.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(crate) until: Option<String>,
    /// Why it ended, or was done.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(crate) why: Option<&'a str>,
}

impl<'a> Entry<'a> {
    /// A line about no fault.
    pub(crate) const fn new(what: Deed, who: &'a Caller) -> Self {
        Self { what, who, fault: None, name: None, does: "", request: &Value::Null, until: None, why: None }
    }
}

#[derive(Serialize)]
struct Line<'a> {
    time: &'a str,
    /// The process that writes.
    pid: u32,
    #[serde(flatten)]
    entry: &'a Entry<'a>,
}

/// The log.
#[derive(Debug)]
pub(crate) struct Audit {
    path: PathBuf,
    appender: Appender,
}

impl Audit {
    /// The log of this file, or the usual one in the folder of the state.
    pub(crate) fn new(file: Option<&Path>, state_dir: &Path) -> Self {
        let path = file.map_or_else(|| state_dir.join(NAME), Path::to_owned);
        Self { path, appender: Appender::default() }
    }

    /// The one that a command writes to, as the environment says.
    pub(crate) fn of_command() -> Self {
        let variable = |name| std::env::var_os(name).filter(|text| !text.is_empty()).map(PathBuf::from);
        let state_dir = variable("CHAOS_STATE_DIR").unwrap_or_else(|| STATE_DIR.into());
        Self::new(variable("CHAOS_AUDIT_LOG").as_deref(), &state_dir)
    }

    /// Appends a line. A sentence when it could not, and the one before could: the fault goes on or ends all the
    /// same, for a log that is full must not keep anybody from ending a fault.
    pub(crate) fn record(&mut self, entry: &Entry<'_>) -> Option<String> {
        self.record_all(std::slice::from_ref(entry))
    }

    /// The same with a line for each of these, in one `write(2)`: a set may have thousands of faults.
    pub(crate) fn record_all(&mut self, entries: &[Entry<'_>]) -> Option<String> {
        if entries.is_empty() {
            return None;
        }
        let written = self.append(entries);
        self.appender.told("audit log", &self.path, written, entries.len() as u64)
    }

    /// Records that could not be written.
    pub(crate) const fn failures(&self) -> u64 {
        self.appender.failures()
    }

    fn append(&mut self, entries: &[Entry<'_>]) -> io::Result<()> {
        let (time, pid) =
            (humantime::format_rfc3339_millis(SystemTime::now()).to_string(), std::process::id());
        let mut lines = Vec::new();
        for entry in entries {
            serde_json::to_writer(&mut lines, &Line { time: &time, pid, entry })?;
            lines.push(b'\n');
        }
        let open = || OpenOptions::new().append(true).create(true).mode(MODE).open(&self.path);
        let file = match (open(), self.path.parent()) {
            (Err(error), Some(folder)) if error.kind() == io::ErrorKind::NotFound => {
                folder::make(folder, folder::PRIVATE)?;
                open()?
            }
            (opened, _) => opened?,
        };
        self.appender.append(&file, &lines).map(drop)
    }
}

#[cfg(test)]
mod tests {
    use std::{fs, os::unix::fs::PermissionsExt as _};

    use serde_json::json;

    use super::*;

    #[test]
    fn lines_are_appended_and_a_failure_is_told_once_and_counted() {
        let folder = std::env::temp_dir().join(format!("chaos-audit-{}", std::process::id()));
        let mut audit = Audit::new(None, &folder.join("deep"));
        let who = Caller::Unix { uid: 1000, pid: Some(7) };
        let request = json!({"target": "netns:blue"});
        let entry = Entry { fault: Some(3), request: &request, ..Entry::new(Deed::Started, &who) };
        assert_eq!(audit.record(&entry), None);
        assert_eq!(audit.record(&Entry::new(Deed::Stopped, &Caller::Agent)), None);
        let path = folder.join("deep/audit.jsonl");
        let text = fs::read_to_string(&path).unwrap();
        let lines: Vec<Value> = text.lines().map(|line| serde_json::from_str(line).unwrap()).collect();
        assert_eq!(lines.len(), 2);
        assert_eq!((&lines[0]["who"]["uid"], &lines[0]["request"]), (&json!(1000), &request));
        assert_eq!((&lines[1]["what"], &lines[1]["who"]["via"]), (&json!("stopped"), &json!("agent")));
        assert_eq!(fs::metadata(&path).unwrap().permissions().mode() & 0o777 & !0o640, 0);
        fs::remove_file(&path).unwrap();
        fs::create_dir(&path).unwrap();
        assert!(audit.record(&entry).is_some_and(|what| what.contains("audit.jsonl")));
        assert_eq!((audit.record(&entry), audit.failures()), (None, 2), "told once");
        fs::remove_dir(&path).unwrap();
        let two = [entry.clone(), Entry::new(Deed::Resumed, &who)];
        assert_eq!(audit.record_all(&two), None);
        let text = fs::read_to_string(&path).unwrap();
        let whats: Vec<Value> =
            text.lines().map(|line| serde_json::from_str::<Value>(line).unwrap()["what"].clone()).collect();
        assert_eq!(whats, [json!("started"), json!("resumed")]);
        fs::remove_file(&path).unwrap();
        fs::create_dir(&path).unwrap();
        assert!(audit.record_all(&two).is_some());
        assert_eq!(audit.failures(), 4, "each counts");
        fs::remove_dir_all(&folder).unwrap();
    }
}
