//! Why a fault ended, in words, and as a label of the metrics: words are many, labels few.

pub(crate) const TIME_OVER: &str = "its time is over";
pub(crate) const LEASE: &str = "its lease was not renewed";
pub(crate) const DELETED: &str = "it was deleted";
pub(crate) const ALL_DELETED: &str = "every fault was deleted";
pub(crate) const REPLACED: &str = "it was replaced";
pub(crate) const AGENT_ENDED: &str = "the agent was ended";
pub(crate) const STOP_ALL: &str = "every fault of this machine was ended by `chaos stop --all`";
/// How the words begin when the agent before was killed.
pub(crate) const KILLED: &str = "the agent (process ";
/// How the words begin when the safety lever was pulled.
pub(crate) const STOPPED: &str = "stopped: ";
/// How they begin when what the fault did went too far.
pub(crate) const ABORTED: &str = "aborted: ";

/// The reasons, as labels.
const LABELS: [(&str, &str); 10] = [
    (TIME_OVER, "expired"),
    (LEASE, "lease"),
    (DELETED, "deleted"),
    (ALL_DELETED, "deleted"),
    (REPLACED, "replaced"),
    (AGENT_ENDED, "agent_ended"),
    (STOP_ALL, "stopped"),
    (KILLED, "agent_killed"),
    (STOPPED, "stopped"),
    (ABORTED, "aborted"),
];
/// Any other reason.
const OTHER: &str = "other";

/// The reason as a label.
pub(super) fn label(why: &str) -> &'static str {
    LABELS.iter().find(|(words, _)| why.starts_with(words)).map_or(OTHER, |(_, label)| label)
}

/// Every label, each once.
pub(super) fn labels() -> Vec<&'static str> {
    let mut all: Vec<&str> = LABELS.iter().map(|(_, label)| *label).chain([OTHER]).collect();
    all.sort_unstable();
    all.dedup();
    all
}
