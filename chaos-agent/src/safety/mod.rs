//! What keeps a fault from hurting more, or longer, than was agreed, and what remembers it.
//!
//! `limits` is what an administrator allows at most, `risk` decides which faults can take the machine itself away.
//! `journal` is for the agent that comes after one that was killed, `recover` what that one does; `audit` is for
//! people, `abort` watches what a fault must not do, `caller` who asks. `records` is all of it as the keeper uses it, `command` as a command does.

mod abort;
mod append;
mod audit;
mod caller;
mod command;
mod journal;
mod limits;
mod records;
mod recover;
mod risk;

use std::path::Path;

pub(crate) use self::{
    abort::{Abort, Watch},
    audit::Deed,
    caller::{CALLER, Caller},
    command::CommandLog,
    journal::Intent,
    limits::{Limits, limits},
    records::{Records, Written},
    recover::Recovered,
    risk::{Risk, risk},
};

/// Ends what an agent before that was killed has left. The folder of the state is ours alone.
pub(crate) fn begin(state_dir: &Path, audit_log: Option<&Path>) -> (Records, Recovered) {
    let (journal, former, told) = journal::Journal::open(state_dir);
    let mut recovered = recover::recover(&former, journal.boot());
    recovered.next_id = former.next_id;
    recovered.notes.extend(told);
    let mut records = Records::new(journal, audit::Audit::new(audit_log, state_dir));
    records.begin(&former, &recovered.why);
    (records, recovered)
}
