//! The fault kinds. Each is one file and one line of the list below; the list order is the
//! order in which faults of one rule act, as in `sch_netem.c`.

pub mod corrupt;
pub mod delay;
pub mod dns;
pub mod duplicate;
#[cfg(feature = "user")]
mod info;
pub mod loss;
pub mod mtu;
pub mod partition;
pub mod rate;
pub mod refuse;
pub mod reject;
pub mod reorder;
pub mod reset;
pub mod rtt;
pub mod stall;

#[cfg(feature = "user")]
pub use self::info::{Check, DefaultDirection, FaultInfo, Need, Value};
use crate::{
    abi::{Direction, FlowMemory, Rule},
    env::{DrawKind, Draws, Env, Prob, Word},
    job::Job,
    verdict::Verdict,
    world::World,
};

/// The contract of a fault's parameters, as they lie in a rule.
///
/// All zero is off. `decide` draws the same number of times whatever it decides, so that one
/// fault's settings never shift another's sequence; it never loops over packet length.
pub trait Fault: Copy + Default {
    /// What it remembers, per rule and direction: a `repr(C)` structure of [`Word`]s, zero at arming.
    type State;

    /// Does nothing to any packet.
    fn is_off(&self) -> bool;

    /// Must see single wire packets: the rule's traffic goes through the normaliser.
    fn needs_wire(&self) -> bool;

    /// Asks for the packet's ordinal in the rule.
    fn needs_ordinal(&self) -> bool {
        false
    }

    /// Makes packets wait: the namespace needs a delay line.
    fn needs_line(&self) -> bool {
        false
    }

    /// Asks for what it remembers about each connection ([`Case::flow`]).
    fn needs_memory(&self) -> bool {
        false
    }

    /// Checksums must be complete, which they are not on the loopback device before the normaliser.
    fn needs_checksum(&self) -> bool {
        false
    }

    /// Without any other condition it takes a whole interface down, ARP and neighbour discovery included.
    fn cuts_link(&self) -> bool {
        false
    }

    /// Lets nothing through, so it acts on packets that were held in the delay line before it began, too.
    fn cuts_held(&self) -> bool {
        false
    }

    /// Connections that exist are ended when it begins, idle ones too.
    fn ends_connections(&self) -> bool {
        false
    }

    /// Connections are ended when they are so old, idle ones too, nanoseconds; 0 = never.
    fn closes_after_ns(&self) -> u64 {
        0
    }

    /// What it cannot see, in sentences, for `--explain`.
    #[cfg(feature = "user")]
    fn blind_spots(&self) -> &'static [&'static str] {
        &[]
    }

    /// Does something to packets.
    fn acts_on_packets(&self) -> bool {
        !self.is_off()
    }

    /// Answers calls of connect(2).
    fn acts_on_connect(&self) -> bool {
        false
    }

    /// The errno with which a call of connect(2) shall fail; 0 = it goes on.
    #[inline(always)]
    fn refuse<E: Env>(&self, _draws: &Draws, _env: &E) -> u32 {
        0
    }

    /// Adds its wish to the verdict.
    fn decide<W: World>(&self, state: &Self::State, case: &Case<'_, W>, verdict: &mut Verdict);
}

/// The state of a fault that remembers nothing.
#[repr(C)]
#[derive(Debug, Default)]
pub struct NoState {}

/// What a fault decides about: one packet of one rule.
pub struct Case<'a, W> {
    /// Clock, randomness, tables.
    pub world: &'a W,
    /// The packet and where it is.
    pub job: &'a Job,
    /// The rule.
    pub rule: &'a Rule,
    /// Its draws.
    pub draws: Draws,
    /// What the rule remembers about the connection; none = it asked for nothing, or there is no room.
    pub flow: Option<&'a FlowMemory>,
}

impl<W: World> Case<'_, W> {
    /// 32 random bits.
    #[inline(always)]
    #[must_use]
    pub fn draw(&self, kind: DrawKind) -> u32 {
        self.draws.next(self.world, kind)
    }

    /// See [`Draws::correlated`].
    #[inline(always)]
    pub fn correlated(&self, kind: DrawKind, rho: Prob, last: &Word) -> u32 {
        self.draws.correlated(self.world, kind, rho, last)
    }

    /// Which way the packet goes.
    #[inline(always)]
    #[must_use]
    pub fn direction(&self) -> Direction {
        self.job.direction()
    }
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

            /// The faults that answer calls of connect(2): bits by their number.
            #[inline(always)]
            #[must_use]
            pub fn connect_kinds(&self) -> u32 {
                0 $( | if self.$field.acts_on_connect() {
                    1u32.wrapping_shl(FaultKind::$Kind.number())
                } else {
                    0
                } )+
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

            /// At least one fault makes packets wait.
            #[must_use]
            pub fn needs_line(&self) -> bool {
                false $( || self.$field.needs_line() )+
            }

            /// At least one fault remembers something about each connection.
            #[must_use]
            pub fn needs_memory(&self) -> bool {
                false $( || self.$field.needs_memory() )+
            }

            /// At least one fault needs complete checksums.
            #[must_use]
            pub fn needs_checksum(&self) -> bool {
                false $( || self.$field.needs_checksum() )+
            }

            /// At least one fault acts on held packets, too.
            #[must_use]
            pub fn cuts_held(&self) -> bool {
                false $( || self.$field.cuts_held() )+
            }

            /// At least one fault ends the connections that exist.
            #[must_use]
            pub fn ends_connections(&self) -> bool {
                false $( || self.$field.ends_connections() )+
            }

            /// The shortest time after which connections are ended, nanoseconds; 0 = they are not.
            #[must_use]
            pub fn closes_after_ns(&self) -> u64 {
                let all = [ $( self.$field.closes_after_ns(), )+ ];
                all.into_iter().filter(|ns| *ns != 0).min().unwrap_or(0)
            }

            /// What the faults that are set cannot see.
            #[cfg(feature = "user")]
            #[must_use]
            pub fn blind_spots(&self) -> Vec<&'static str> {
                [ $( self.$field.blind_spots(), )+ ].concat()
            }

            /// At least one fault does something to packets.
            #[must_use]
            pub fn acts_on_packets(&self) -> bool {
                false $( || self.$field.acts_on_packets() )+
            }

            /// At least one fault answers calls of connect(2).
            #[must_use]
            pub fn acts_on_connect(&self) -> bool {
                false $( || self.$field.acts_on_connect() )+
            }

            /// The errno with which one call of connect(2) shall fail; 0 = it goes on.
            #[inline(always)]
            pub fn refuse<E: Env>(&self, draws: &Draws, env: &E) -> u32 {
                let mut errno = 0;
                $(
                    let wish = self.$field.refuse(draws, env);
                    if errno == 0 {
                        errno = wish;
                    }
                )+
                errno
            }

            /// The kinds that are set: a bit for each, the first to act lowest.
            #[must_use]
            pub fn kinds(&self) -> u32 {
                0 $( | u32::from(!self.$field.is_off()) << FaultKind::$Kind as u32 )+
            }

            /// Those of them that let nothing through.
            #[must_use]
            pub fn cut_kinds(&self) -> u32 {
                0 $( | u32::from(self.$field.cuts_held()) << FaultKind::$Kind as u32 )+
            }

            /// What the fault of one kind ([`FaultKind`] as a number) wants done to one packet.
            ///
            /// One at a time: the kernel's verifier looks at every way through a function, and the ways
            /// through one fault multiply with those through the next.
            #[inline(always)]
            pub fn decide<W: World>(
                &self,
                kind: u32,
                states: &States,
                case: &Case<'_, W>,
                verdict: &mut Verdict,
            ) {
                $(
                    if kind == FaultKind::$Kind as u32 {
                        return self.$field.decide(&states.$field, case, verdict);
                    }
                )+
            }
        }

        /// What the faults of a rule remember in one direction.
        #[repr(C)]
        #[derive(Debug, Default)]
        pub struct States {
            $( $(#[$doc])* pub $field: <$field::$Kind as Fault>::State, )+
        }

        /// Every kind for the host, in the order in which they act.
        #[cfg(feature = "user")]
        pub const FAULTS: &[FaultInfo] = &[ $( $field::INFO, )+ ];
    };
}

faults! {
    /// Packets leave twice. First, because of two that leave one may be lost.
    duplicate: Duplicate,
    /// Packets vanish at random, or every n-th does.
    loss: Loss,
    /// Bits of the payload flip.
    corrupt: Corrupt,
    /// Every packet vanishes, or is answered.
    partition: Partition,
    /// DNS queries fail, wait, vanish or get a chosen address.
    dns: Dns,
    /// Large packets vanish.
    mtu: Mtu,
    /// Connections end with a reset.
    reset: Reset,
    /// Packets are answered with an error.
    reject: Reject,
    /// Calls of connect(2) fail at once; packets are not touched.
    refuse: Refuse,
    /// Data stops.
    stall: Stall,
    /// Packets wait until a link is free. Behind all that makes them vanish: what is lost does not use it.
    rate: Rate,
    /// Packets are late. They are sent over the link first, and are under way then.
    delay: Delay,
    /// Packets are late in both directions.
    rtt: Rtt,
    /// Some of those that are late are not. Last, because it looks at the others' wishes.
    reorder: Reorder,
}
