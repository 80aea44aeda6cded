//! What the engine takes and gives.

use std::{fmt, time::Duration};

use chaos_common::{
    abi::{Count, Delays, Tally},
    compile::CompileError,
};
use serde::{Deserialize, Serialize};

use crate::{
    datapath::{AttachMode, DatapathError, DirectionCounters, Sizes},
    guard::Guard,
    net::NetlinkError,
    netns::NetnsError,
    spec::Endpoint,
    targets::TargetError,
};

/// How the engine goes about its work.
#[derive(Clone, Debug, Default)]
pub struct EngineOptions {
    /// How programs are attached.
    pub attach: AttachMode,
    /// Level of the kernel side's log: 0 = off, 1 = error, ... 4 = debug, 5 = trace.
    pub log_level: u8,
    /// The caller's guard, if it has one; the engine starts its own where it needs one.
    pub guard: Option<Guard>,
    /// How long programs and private devices stay where the last rule was taken away, so that the next is quick.
    pub linger: Duration,
    /// How many rules the tables hold.
    pub sizes: Sizes,
    /// What no fault touches, besides what is never touched.
    pub protection: Protection,
}

/// What an administrator wants protected.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Protection {
    /// TCP and UDP ports of the host, and of the namespace we are in.
    pub local_ports: Vec<u16>,
    /// Other ends, whatever the target is; each has an address.
    pub peers: Vec<Endpoint>,
}

impl Protection {
    /// The addresses in words, for `--explain`.
    pub(super) fn told(&self) -> impl Iterator<Item = String> {
        self.peers.iter().map(|peer| format!("by the settings, {peer}"))
    }
}

/// Why the engine could not do what was asked.
#[derive(Debug, thiserror::Error)]
pub enum EngineError {
    /// The kernel side.
    #[error(transparent)]
    Datapath(#[from] DatapathError),
    /// The target.
    #[error(transparent)]
    Target(#[from] TargetError),
    /// The rules do not fit together.
    #[error(transparent)]
    Compile(#[from] CompileError),
    /// It would not do what the user means.
    #[error("{0}")]
    Refused(String),
    /// An abort condition was breached.
    #[error("aborted: {0}")]
    Aborted(String),
    /// `chaos stop --all` ended it.
    #[error("every fault of this machine was ended by `chaos stop --all`")]
    Stopped,
    /// A system call failed.
    #[error("{doing}: {error}")]
    Io {
        /// What was being done.
        doing: &'static str,
        /// What the kernel said.
        error: std::io::Error,
    },
}

impl From<NetnsError> for EngineError {
    fn from(error: NetnsError) -> Self {
        Self::Datapath(error.into())
    }
}

impl From<NetlinkError> for EngineError {
    fn from(error: NetlinkError) -> Self {
        Self::Datapath(error.into())
    }
}

impl EngineError {
    /// 2 usage, 3 refused, 1 other.
    #[must_use]
    pub const fn exit_code(&self) -> u8 {
        match self {
            Self::Refused(_) | Self::Compile(_) | Self::Target(_) | Self::Stopped | Self::Aborted(_) => 3,
            Self::Datapath(_) | Self::Io { .. } => 1,
        }
    }
}

/// What kind of thing happened.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "kebab-case")]
pub enum EventKind {
    /// A target that had restarted or moved was bound again.
    Rebound,
    /// A target is gone.
    Vanished,
    /// A device came or went, or its addresses changed.
    Devices,
    /// Our filter is no longer the first, or gone.
    Displaced,
    /// Connections that carried nothing were ended.
    Ended,
    /// Something could not be done; faults go on without it.
    Warning,
}

/// Something that happened while faults were held.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct Event {
    /// What kind.
    pub kind: EventKind,
    /// What happened, in words.
    pub message: String,
}

impl Event {
    pub(super) fn new(kind: EventKind, message: impl Into<String>) -> Self {
        Self { kind, message: message.into() }
    }
}

impl fmt::Display for Event {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.message)
    }
}

macro_rules! counters {
    ($( $count:ident: $packets:ident, $bytes:ident; )+) => {
        /// Exact counters of one rule and direction: wire packets, and bytes of their frames from the MAC
        /// header on. What each is for says [`Count`].
        #[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
        #[serde(default)]
        #[expect(missing_docs, reason = "every field is a `Count` and a unit")]
        pub struct Counters {
            $( pub $packets: u64, pub $bytes: u64, )+
            /// How long packets were made to wait; shown by the metrics.
            #[serde(skip)]
            pub delays: Delays,
        }

        impl From<DirectionCounters> for Counters {
            fn from(counters: DirectionCounters) -> Self {
                Self {
                    $(
                        $packets: counters.of(Count::$count).packets,
                        $bytes: counters.of(Count::$count).bytes,
                    )+
                    delays: counters.delays(),
                }
            }
        }

        impl Counters {
            /// Both together.
            #[must_use]
            pub fn plus(&self, other: &Self) -> Self {
                Self {
                    $(
                        $packets: self.$packets + other.$packets,
                        $bytes: self.$bytes + other.$bytes,
                    )+
                    delays: Delays {
                        sum_ns: self.delays.sum_ns + other.delays.sum_ns,
                        classes: std::array::from_fn(|class| {
                            let of = |delays: &Delays| delays.classes.get(class).copied().unwrap_or(0);
                            of(&self.delays) + of(&other.delays)
                        }),
                    },
                }
            }

            /// Every field but the delays, in the order of the names.
            fn by_name(&self) -> impl Iterator<Item = (&'static str, u64)> {
                let mut all = [$(
                    (stringify!($packets), self.$packets),
                    (stringify!($bytes), self.$bytes),
                )+];
                all.sort_unstable_by_key(|(name, _)| *name);
                all.into_iter()
            }

            /// By reason: packets and bytes.
            #[must_use]
            pub const fn of(&self, count: Count) -> Tally {
                match count {
                    $( Count::$count => Tally { packets: self.$packets, bytes: self.$bytes }, )+
                }
            }
        }
    };
}

counters! {
    Matched: matched_packets, matched_bytes;
    Dropped: dropped_packets, dropped_bytes;
    Shadowed: shadowed_packets, shadowed_bytes;
    Lease: lease_packets, lease_bytes;
    Expired: expired_packets, expired_bytes;
    Limited: limited_packets, limited_bytes;
    Answered: answered_packets, answered_bytes;
    Delayed: delayed_packets, delayed_bytes;
    Duplicated: duplicated_packets, duplicated_bytes;
    Corrupted: corrupted_packets, corrupted_bytes;
    Marked: marked_packets, marked_bytes;
    Reordered: reordered_packets, reordered_bytes;
    Refused: refused_packets, refused_bytes;
    Unheld: unheld_packets, unheld_bytes;
}

/// Counters as an object whose keys are sorted, as those of a [`serde_json::Value`] are, without making one: answers
/// have thousands of them.
#[derive(Debug)]
pub(crate) struct Sorted<'a>(pub(crate) &'a Counters);

impl Serialize for Sorted<'_> {
    fn serialize<S: serde::Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.collect_map(self.0.by_name())
    }
}

/// Exact counters of one rule.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize)]
pub struct RuleStats {
    /// The rule's name.
    pub name: String,
    /// What left the target.
    pub egress: Counters,
    /// What came to it.
    pub ingress: Counters,
}

/// One program on one device.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct PlannedAttachment {
    /// Namespace, and why it is meant.
    pub namespace: String,
    /// Interface.
    pub device: String,
    /// `egress` or `ingress`.
    pub direction: String,
    /// `tcx, first` or `clsact, priority 1`.
    pub how: String,
}

impl fmt::Display for PlannedAttachment {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} {} {} ({})", self.namespace, self.device, self.direction, self.how)
    }
}

/// What would be done; nothing was touched.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Plan {
    /// Programs on devices and private devices.
    pub attachments: Vec<PlannedAttachment>,
    /// The rules in plain words, and what they will not hit.
    pub explanations: Vec<String>,
    /// What no rule touches.
    pub protected: Vec<String>,
}

/// What [`super::stop_all`] ended and removed.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize)]
pub struct StopReport {
    /// Faults and processes.
    pub ended: Vec<String>,
    /// Things of ours that were left.
    pub removed: Vec<String>,
}
