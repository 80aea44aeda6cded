//! What the host says about each kind: help, grammar, words, and what it needs.

use super::{FAULTS, FaultKind, Faults};
use crate::packet::Class;

/// The direction a fault has when the user names none.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum DefaultDirection {
    /// Leaving the target.
    Egress,
    /// Coming to the target.
    Ingress,
    /// Either.
    Both,
}

/// What a fault may need of the machine besides the programs that every fault needs.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Need {
    /// A place where packets wait: a TAP device and a thread. Needed only where [`super::Fault::needs_line`] says so.
    Line,
    /// Single wire packets: a private veth pair. Needed only where [`super::Fault::needs_wire`] says so.
    Normaliser,
    /// A program at `connect(2)` of a cgroup that chooses the errno.
    ConnectHook,
    /// Ending sockets from outside, by `sock_diag`. Needed only where [`super::Fault::ends_connections`]
    /// or [`super::Fault::closes_after_ns`] says so.
    SockDestroy,
}

/// Whether the flag of a fault takes a value, and what the value is called in help.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Value {
    /// `--name`.
    None,
    /// `--name VALUE`.
    Required(&'static str),
    /// `--name` or `--name VALUE`; without one the parser gets an empty text.
    Optional(&'static str),
}

impl FaultInfo {
    /// How the flag is written: `--loss RATE`, `--partition [MODE]`.
    #[must_use]
    pub fn usage(&self) -> String {
        match self.value {
            Value::None => format!("--{}", self.name),
            Value::Required(value) => format!("--{} {value}", self.name),
            Value::Optional(value) => format!("--{} [{value}]", self.name),
        }
    }
}

/// What is wrong with the parameters of a rule's faults, and what would work.
pub type Check = fn(&Faults) -> Result<(), String>;

/// What the host needs to know about a fault kind; help texts, schema and tables come from it.
#[derive(Debug)]
pub struct FaultInfo {
    /// Which kind.
    pub kind: FaultKind,
    /// Its name: the flag `--name`, the JSON key, the metric label.
    pub name: &'static str,
    /// Whether the flag takes a value.
    pub value: Value,
    /// One line of help.
    pub help: &'static str,
    /// Used when no direction is given.
    pub default_direction: DefaultDirection,
    /// Reads the value (empty when none was given) into the faults of a rule; the error says what
    /// was wrong and what is accepted. Where the value is [`Value::Optional`], a word after the flag is the
    /// value if this reads it, so it should not read what else may stand there (`unit:a`).
    pub parse: fn(&str, &mut Faults) -> Result<(), String>,
    /// The fault in plain words; none = off.
    pub describe: fn(&Faults) -> Option<String>,
    /// What is wrong with these parameters, alone or beside the rule's other faults, and what would
    /// work. Asked only when the fault is set; none = the parser has seen all there is to see.
    pub check: Option<Check>,
    /// The protocols it can act on; empty = every one.
    pub protos: &'static [Class],
    /// The ports that it can act on, at the far end of what leaves the target; empty = every one.
    pub ports: &'static [u16],
    /// What it may need of the machine.
    pub needs: &'static [Need],
}

impl Faults {
    /// Whether the faults make sense together.
    ///
    /// # Errors
    /// A sentence that says what does not, and what would.
    pub fn check(&self) -> Result<(), String> {
        let set = FAULTS.iter().filter(|info| (info.describe)(self).is_some());
        set.filter_map(|info| info.check).try_for_each(|check| check(self))
    }
}
