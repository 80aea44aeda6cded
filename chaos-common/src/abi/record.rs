//! What is told of one packet that a rule affected.

use crate::packet::Addr;

/// One packet, or one call of connect(2), that a rule affected. What is not known is 0.
#[repr(C)]
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Record {
    /// Boot clock, nanoseconds.
    pub time_ns: u64,
    /// When the rule was armed, boot clock: with the slot it says which rule it was.
    pub armed_ns: u64,
    /// `SO_NETNS_COOKIE` of the namespace.
    pub netns: u64,
    /// Inode of the cgroup that owns the local end: leaving, the socket's own; coming, the target's, where a rule
    /// asks for owners; of a call, the cgroup whose hook heard it.
    pub cgroup: u64,
    /// What the rule adds to its way, nanoseconds.
    pub delay_ns: u64,
    /// Bytes of its wire packets, from the MAC header on.
    pub bytes: u64,
    /// Source address, network byte order, mapped if it is IPv4.
    pub source: Addr,
    /// Destination address, likewise.
    pub destination: Addr,
    /// The rule's slot.
    pub slot: u32,
    /// The interface in its namespace.
    pub ifindex: u32,
    /// Wire packets in it.
    pub segments: u32,
    /// What happened: bits of [`super::Count`].
    pub verdicts: u32,
    /// Which faults wanted it: bits by [`crate::fault::FaultKind::number`].
    pub kinds: u32,
    /// See [`super::Direction`].
    pub direction: u32,
    /// The process that called connect(2). Packets have none: what runs while one leaves need not have sent it.
    pub pid: u32,
    /// IP protocol number.
    pub proto: u32,
    /// Source port or echo identifier, host order.
    pub source_port: u16,
    /// Destination port or echo identifier, host order.
    pub destination_port: u16,
    /// TCP flags as in the header.
    pub tcp_flags: u32,
    /// Name of the process, ended by zeros.
    pub command: [u8; 16],
}
