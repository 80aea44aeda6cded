//! What the agent writes down about its faults: the journal for its successor, the audit log for people.

use std::time::{Duration, SystemTime, UNIX_EPOCH};

use serde_json::Value;

use super::{
    audit::{Audit, Deed, Entry},
    caller::Caller,
    journal::{Former, Intent, Journal},
};

/// Both, and who is asking at the moment.
#[derive(Debug)]
pub(crate) struct Records {
    journal: Journal,
    audit: Audit,
    /// Who asked for what is being done.
    pub(crate) caller: Caller,
    /// What could not be written, not told yet.
    troubles: Vec<String>,
}

/// A fault as it is written down.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Written<'a> {
    /// Its number.
    pub(crate) id: u64,
    /// What the user calls it.
    pub(crate) name: Option<&'a str>,
    /// What it does, in words.
    pub(crate) does: &'a str,
    /// Whom to.
    pub(crate) targets: &'a str,
    /// The body it came in.
    pub(crate) request: &'a Value,
    /// Since when.
    pub(crate) started: SystemTime,
    /// How long.
    pub(crate) duration: Duration,
    /// Until when, by the boot clock.
    pub(crate) ends_at: Duration,
    /// Until when, by the wall clock; a change may have put it off.
    pub(crate) until: SystemTime,
}

impl Records {
    pub(crate) fn new(journal: Journal, audit: Audit) -> Self {
        Self { journal, audit, caller: Caller::Agent, troubles: Vec::new() }
    }

    /// The agent begins; what its forerunner held has ended.
    pub(crate) fn begin(&mut self, former: &Former, why: &str) {
        self.log(&Entry::new(Deed::AgentStarted, &Caller::Agent));
        for intent in former.open.values() {
            let entry = Entry {
                fault: Some(intent.id),
                name: intent.name.as_deref(),
                does: &intent.does,
                why: Some(why),
                ..Entry::new(Deed::Ended, &Caller::Agent)
            };
            self.log(&entry);
        }
        let told = self.journal.begin();
        self.troubles.extend(told);
    }

    /// These are about to be made.
    pub(crate) fn intend<'a>(&mut self, faults: impl Iterator<Item = Written<'a>>) {
        let intent = |fault: Written<'_>| Intent {
            id: fault.id,
            name: fault.name.map(str::to_owned),
            does: fault.does.to_owned(),
            targets: fault.targets.to_owned(),
            request: fault.request.clone(),
            who: self.caller.clone(),
            started_ms: millis(fault.started.duration_since(UNIX_EPOCH).unwrap_or_default()),
            duration_ms: millis(fault.duration),
            ends_boot_ns: u64::try_from(fault.ends_at.as_nanos()).unwrap_or(u64::MAX),
        };
        let told = self.journal.intend(faults.map(intent).collect());
        self.troubles.extend(told);
    }

    /// They were not made after all.
    pub(crate) fn forsake(&mut self, ids: Vec<u64>, why: &str) {
        let told = self.journal.ended(ids, why);
        self.troubles.extend(told);
    }

    /// They are in the kernel, and there is this of ours.
    pub(crate) fn made(&mut self, ids: Vec<u64>, things: Vec<String>) {
        let told = self.journal.made(ids, things);
        self.troubles.extend(told);
    }

    /// They are held from now on, or in another way.
    pub(crate) fn started<'a>(&mut self, what: Deed, faults: impl Iterator<Item = Written<'a>>) {
        let entry = |fault: Written<'a>| Entry {
            fault: Some(fault.id),
            name: fault.name,
            does: fault.does,
            request: fault.request,
            until: Some(humantime::format_rfc3339_millis(fault.until).to_string()),
            ..Entry::new(what, &self.caller)
        };
        let told = self.audit.record_all(&faults.map(entry).collect::<Vec<_>>());
        self.troubles.extend(told);
    }

    /// They are over.
    pub(crate) fn ended<'a>(&mut self, faults: impl Iterator<Item = Written<'a>>, why: &'a str) {
        let faults: Vec<Written<'a>> = faults.collect();
        if faults.is_empty() {
            return;
        }
        let told = self.journal.ended(faults.iter().map(|fault| fault.id).collect(), why);
        self.troubles.extend(told);
        let entry = |fault: &Written<'a>| Entry {
            fault: Some(fault.id),
            name: fault.name,
            does: fault.does,
            why: Some(why),
            ..Entry::new(Deed::Ended, &self.caller)
        };
        let told = self.audit.record_all(&faults.iter().map(entry).collect::<Vec<_>>());
        self.troubles.extend(told);
    }

    /// Something that is no fault's.
    pub(crate) fn deed(&mut self, what: Deed, why: Option<&str>) {
        let who = self.caller.clone();
        self.log(&Entry { why, ..Entry::new(what, &who) });
    }

    /// Nothing is left.
    pub(crate) fn close(&mut self) {
        let told = self.journal.close();
        self.troubles.extend(told);
        self.deed(Deed::AgentEnded, None);
    }

    /// What could not be written since this was asked last, each trouble once.
    pub(crate) fn troubles(&mut self) -> Vec<String> {
        std::mem::take(&mut self.troubles)
    }

    /// Records that could not be written: of the audit log, of the journal.
    pub(crate) const fn failures(&self) -> (u64, u64) {
        (self.audit.failures(), self.journal.failures())
    }

    fn log(&mut self, entry: &Entry<'_>) {
        let told = self.audit.record(entry);
        self.troubles.extend(told);
    }
}

fn millis(duration: Duration) -> u64 {
    u64::try_from(duration.as_millis()).unwrap_or(u64::MAX)
}
