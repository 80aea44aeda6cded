//! The fault kinds. Each is one file and one line of the list below; the list order is the
//! order in which faults of one rule act, as in `sch_netem.c`.

pub mod loss;
pub mod partition;

#[cfg(feature = "user")]
use crate::packet::Class;
use crate::{
    env::{Draws, Env},
    verdict::Verdict,
};

/// The contract of a fault's parameters, as they lie in a rule.
///
/// All zero is off. `decide` draws the same number of times whatever it decides, so that one
/// fault's settings never shift another's sequence; it never loops over packet length.
pub trait Fault: Copy + Default {
    /// Does nothing to any packet.
    fn is_off(&self) -> bool;

    /// Must see single wire packets: the rule's traffic goes through the normaliser.
    fn needs_wire(&self) -> bool;

    /// Asks for the packet's ordinal in the rule.
    fn needs_ordinal(&self) -> bool {
        false
    }

    /// Without any other condition it takes a whole interface down, ARP and neighbour discovery included.
    fn cuts_link(&self) -> bool {
        false
    }

    /// Adds its wish to the verdict.
    fn decide<E: Env>(&self, draws: &Draws, env: &E, verdict: &mut Verdict);
}

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
#[cfg(feature = "user")]
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Need {
    /// A place where packets wait: a TAP device and a thread.
    Line,
    /// Single wire packets: a private veth pair. Needed only where [`Fault::needs_wire`] says so.
    Normaliser,
    /// A program at `connect(2)` of a cgroup that chooses the errno.
    ConnectHook,
    /// Ending sockets from outside, by `sock_diag`.
    SockDestroy,
}

/// Whether the flag of a fault takes a value, and what the value is called in help.
#[cfg(feature = "user")]
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Value {
    /// `--name`.
    None,
    /// `--name VALUE`.
    Required(&'static str),
    /// `--name` or `--name VALUE`; without one the parser gets an empty text.
    Optional(&'static str),
}

#[cfg(feature = "user")]
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
#[cfg(feature = "user")]
pub type Check = fn(&Faults) -> Result<(), String>;

/// What the host needs to know about a fault kind; help texts, schema and tables come from it.
#[cfg(feature = "user")]
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
    /// was wrong and what is accepted. It must not accept what reads as a target (`host`, `unit:a`):
    /// that is how the word after a flag with an [`Value::Optional`] value is told from its value.
    pub parse: fn(&str, &mut Faults) -> Result<(), String>,
    /// The fault in plain words; none = off.
    pub describe: fn(&Faults) -> Option<String>,
    /// What is wrong with these parameters, alone or beside the rule's other faults, and what would
    /// work. Asked only when the fault is set; none = the parser has seen all there is to see.
    pub check: Option<Check>,
    /// The protocols it can act on; empty = every one.
    pub protos: &'static [Class],
    /// What it may need of the machine.
    pub needs: &'static [Need],
}

macro_rules! faults {
    ($( $(#[$doc:meta])* $field:ident : $Kind:ident ),+ $(,)?) => {
        /// The kinds of fault, in the order in which they act.
        #[repr(u8)]
        #[derive(Clone, Copy, Debug, PartialEq, Eq)]
        pub enum FaultKind {
            $( $(#[$doc])* $Kind, )+
        }

        impl FaultKind {
            /// Every kind, in the order in which they act.
            pub const ALL: &'static [Self] = &[ $( Self::$Kind, )+ ];

            /// Its number in a verdict, from 1.
            #[must_use]
            pub const fn number(self) -> u32 {
                (self as u32).wrapping_add(1)
            }
        }

        /// The parameters of every fault of a rule; a zeroed one is off.
        #[repr(C)]
        #[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
        pub struct Faults {
            $( $(#[$doc])* pub $field: $field::$Kind, )+
        }

        impl Faults {
            /// No fault at all.
            #[must_use]
            pub fn is_off(&self) -> bool {
                true $( && self.$field.is_off() )+
            }

            /// At least one fault must see single wire packets.
            #[must_use]
            pub fn needs_wire(&self) -> bool {
                false $( || self.$field.needs_wire() )+
            }

            /// At least one fault asks for the packet's ordinal.
            #[must_use]
            pub fn needs_ordinal(&self) -> bool {
                false $( || self.$field.needs_ordinal() )+
            }

            /// At least one fault, without any other condition, takes a whole interface down.
            #[must_use]
            pub fn cuts_link(&self) -> bool {
                false $( || self.$field.cuts_link() )+
            }

            /// What all faults together want done to one packet.
            #[inline(always)]
            pub fn decide<E: Env>(&self, draws: &Draws, env: &E) -> Verdict {
                let mut verdict = Verdict::PASS;
                $( self.$field.decide(draws, env, &mut verdict); )+
                verdict
            }
        }

        /// Every kind for the host, in the order in which they act.
        #[cfg(feature = "user")]
        pub const FAULTS: &[FaultInfo] = &[ $( $field::INFO, )+ ];
    };
}

faults! {
    /// Packets vanish at random, or every n-th does.
    loss: Loss,
    /// Every packet vanishes.
    partition: Partition,
}
