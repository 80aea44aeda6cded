//! What an agent does about the one before it that was killed: removes what is left, says what has ended.
//!
//! No fault is taken up again, whatever time it had left: who asked for it has lost the answer and the lease, and
//! a target may have been made anew under the same name. What time was left is said.

use std::time::Duration;

use super::journal::{Former, Intent};
use crate::{daemon::why::KILLED, engine};

/// What became of the agent before.
#[derive(Debug, Default)]
pub(crate) struct Recovered {
    /// Why its faults have ended.
    pub(crate) why: String,
    /// What was removed, and what else there is to say.
    pub(crate) notes: Vec<String>,
    /// Its faults, all of them over.
    pub(crate) ended: Vec<Intent>,
    /// The number of the next fault: none is given twice.
    pub(crate) next_id: u64,
}

/// Removes what is left of agents that are dead.
pub(crate) fn recover(former: &Former, boot: &str) -> Recovered {
    let mut notes: Vec<String> = engine::sweep().into_iter().map(|what| format!("removed {what}")).collect();
    if former.damaged > 0 {
        notes.push(format!("{} lines of the journal could not be read", former.damaged));
    }
    if former.open.is_empty() {
        return Recovered { notes, ..Recovered::default() };
    }
    let was_here = former.boot == boot;
    let how = if was_here { "was killed" } else { "went down with the machine" };
    let why = format!("{KILLED}{}) {how}", former.pid);
    if was_here && !former.things.is_empty() {
        notes.push(format!("{why} while it had {}", former.things.join(", ")));
    }
    let now_ns = u64::try_from(crate::daemon::now().as_nanos()).unwrap_or(u64::MAX);
    for intent in former.open.values() {
        let left = Duration::from_nanos(intent.ends_boot_ns.saturating_sub(now_ns));
        let left = Duration::from_secs(left.as_secs());
        if was_here && !left.is_zero() {
            let left = humantime::format_duration(left);
            notes.push(format!("fault {} is not taken up again; it had {left} left", intent.id));
        }
    }
    Recovered { why, notes, ended: former.open.values().cloned().collect(), next_id: former.next_id }
}

#[cfg(test)]
mod tests {
    use serde_json::Value;

    use super::*;
    use crate::safety::caller::Caller;

    #[test]
    fn another_boot_is_told_from_a_kill() {
        let intent = Intent {
            id: 7,
            name: None,
            does: "loss 10%".to_owned(),
            targets: "netns:blue".to_owned(),
            request: Value::Null,
            who: Caller::Agent,
            started_ms: 0,
            duration_ms: 1,
            ends_boot_ns: u64::MAX,
        };
        let open = [(7, intent)].into();
        let former = Former { pid: 42, boot: "one".to_owned(), open, ..Former::default() };
        let killed = recover(&former, "one");
        assert!(killed.why.contains("was killed") && killed.ended.len() == 1, "{killed:?}");
        assert!(killed.notes.iter().any(|note| note.contains("not taken up again")), "{killed:?}");
        let lost = recover(&former, "two");
        assert!(lost.why.contains("with the machine") && lost.ended.len() == 1, "{lost:?}");
        assert!(!lost.notes.iter().any(|note| note.contains("left")), "the clock was another");
        assert!(recover(&Former::default(), "one").ended.is_empty());
    }
}
