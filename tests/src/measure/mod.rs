//! Loss, bursts and reordering, measured where the packets arrive.
//!
//! Two independent instruments, so that neither is believed alone:
//! - **Counts** from the two sockets: the sender's `tcpi_data_segs_out` counts every wire segment
//!   it handed down, retransmissions included; the receiver's `tcpi_data_segs_in` every wire
//!   segment that reached TCP. Their difference is exactly what was lost ([`bulk`]). Works for
//!   IPv4 and IPv6. Retransmit counters do not measure loss: reordering raises them too.
//! - **Order** from the IPv4 identification field: Linux numbers the packets of a connected TCP
//!   socket consecutively, also the segments cut from one GSO skb (`ip_select_ident_segs`,
//!   `include/net/ip.h`, and `inet_gso_segment`, `net/ipv4/af_inet.c`, Linux 6.18). What arrives,
//!   ordered by that number, shows each transmission as arrived or lost, whatever TCP did about
//!   it and in whatever order it came ([`order`]).

pub mod bulk;
pub mod calm;
pub mod capture;
pub mod checksums;
pub mod connect;
pub mod datagrams;
pub mod dialogue;
pub mod distribution;
pub mod helper;
pub mod names;
pub mod order;
pub mod ping;
pub mod pour;
pub mod probe;
pub mod stats;
pub mod tcp;
pub mod wait;
