//! Which packets: the match flags, and what they become in a rule.

use std::net::IpAddr;

use clap::{Args, ValueEnum, builder::PossibleValue};
use ipnet::IpNet;

use super::{
    failure::Failure,
    peer::{self, Peer, PeerHost},
    units,
};
use crate::spec::{Connections, Direction, Endpoint, MatchSpec, PortRange, Proto, TcpFlags};

/// Which packets of the target; different flags must all hold, the values of one are alternatives.
#[derive(Args, Clone, Debug, Default)]
#[command(next_help_heading = "Which packets (all flags must hold; the values of one flag are alternatives)")]
pub(crate) struct MatchArgs {
    /// Way of the packets, as the target sees it [default: the fault's own]
    #[arg(long, value_name = "WAY")]
    pub(crate) direction: Option<Direction>,
    /// The other end; several with commas
    #[arg(
        help = "The other end: address, CIDR, name, or one with a port (redis:6379, [::1]:80); several with commas",
        long,
        visible_alias = "to",
        value_name = "PEER",
        value_delimiter = ',',
        allow_hyphen_values = true
    )]
    pub(crate) peer: Vec<Peer>,
    /// The other end's port or range of ports
    #[arg(long, value_name = "PORT", value_delimiter = ',', value_parser = units::ports, allow_hyphen_values = true)]
    pub(crate) peer_port: Vec<PortRange>,
    /// The target's own address or CIDR
    #[arg(long, value_name = "ADDR", value_delimiter = ',', value_parser = peer::net)]
    pub(crate) local: Vec<IpNet>,
    /// The target's own port or range of ports
    #[arg(long, value_name = "PORT", value_delimiter = ',', value_parser = units::ports, allow_hyphen_values = true)]
    pub(crate) local_port: Vec<PortRange>,
    /// Protocol
    #[arg(long, value_name = "PROTO", value_delimiter = ',', ignore_case = true)]
    pub(crate) proto: Vec<Proto>,
    /// Interface in the target's network namespace
    #[arg(long, value_name = "NAME", value_delimiter = ',', value_parser = interface)]
    pub(crate) interface: Vec<String>,
    /// Peers never hit, written as for --peer; wins over everything else
    #[arg(long, value_name = "PEER", value_delimiter = ',', allow_hyphen_values = true)]
    pub(crate) except: Vec<Peer>,
    /// Only TCP packets with one of these flags
    #[arg(long, value_name = "FLAG", value_delimiter = ',', ignore_case = true)]
    pub(crate) tcp_flags: Vec<TcpFlag>,
    /// Only packets that carry data
    #[arg(long)]
    pub(crate) data_only: bool,
    /// Only this share of the flows (25% or 0.25), always the same ones with the same --seed
    #[arg(long, value_name = "SHARE", value_parser = units::share, allow_hyphen_values = true)]
    pub(crate) share: Option<f64>,
    /// Which connections: all, those made since the fault began, or those that were there before
    #[arg(long, value_name = "WHICH", default_value = "all")]
    pub(crate) connections: Connections,
    /// Also packets that are only routed through the target's namespace
    #[arg(long)]
    pub(crate) forwarded: bool,
}

/// One TCP flag of `--tcp-flags`.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub(crate) enum TcpFlag {
    /// Opens a connection (also the SYN-ACK that answers it)
    Syn,
    /// Closes a connection
    Fin,
    /// Ends a connection at once
    Rst,
}

impl MatchArgs {
    /// The match of a rule; names become addresses through `resolve`.
    pub(crate) fn to_spec<E>(
        &self,
        direction: Option<Direction>,
        mut resolve: impl FnMut(&str) -> Result<Vec<IpAddr>, E>,
    ) -> Result<MatchSpec, E> {
        let mut endpoints = |peers: &[Peer]| -> Result<Vec<Endpoint>, E> {
            let found: Result<Vec<_>, E> = peers.iter().map(|peer| peer.endpoints(&mut resolve)).collect();
            Ok(found?.concat())
        };
        let has = |flag| self.tcp_flags.contains(&flag);
        Ok(MatchSpec {
            direction,
            peers: endpoints(&self.peer)?,
            peer_ports: self.peer_port.clone(),
            locals: self.local.clone(),
            local_ports: self.local_port.clone(),
            protos: self.proto.clone(),
            interfaces: self.interface.clone(),
            except: endpoints(&self.except)?,
            tcp_flags: TcpFlags { syn: has(TcpFlag::Syn), fin: has(TcpFlag::Fin), rst: has(TcpFlag::Rst) },
            data_only: self.data_only,
            share: self.share,
            connections: self.connections,
            forwarded: self.forwarded,
        })
    }

    /// Refuses conditions that no packet can meet.
    pub(crate) fn check(&self) -> Result<(), Failure> {
        self.check_ports()?;
        if !self.tcp_flags.is_empty() && !self.proto.is_empty() && !self.proto.contains(&Proto::Tcp) {
            return Err(Failure::usage("--tcp-flags and a --proto without tcp exclude each other")
                .mend("leave out --proto, or write --proto tcp"));
        }
        if let Some(peer) =
            self.peer.iter().find(|peer| self.except.iter().any(|except| covers(except, peer)))
        {
            return Err(Failure::usage(format!("--peer {peer} is wholly excluded by --except"))
                .mend("exclude less than what is meant: exclusions always win"));
        }
        Ok(())
    }

    fn check_ports(&self) -> Result<(), Failure> {
        if self.proto != [Proto::Icmp] {
            return Ok(());
        }
        let with_port = [
            ("--peer-port", !self.peer_port.is_empty()),
            ("--local-port", !self.local_port.is_empty()),
            ("--peer with a port", self.peer.iter().any(|peer| peer.ports.is_some())),
        ];
        match with_port.iter().find(|(_, given)| *given) {
            None => Ok(()),
            Some((flag, _)) => {
                Err(Failure::usage(format!("{flag} and --proto icmp exclude each other: ICMP has no ports"))
                    .mend("leave out the port, or write --proto tcp or --proto udp"))
            }
        }
    }
}

/// Whether every packet of `peer` is one of `except`; names only when they are the same word.
fn covers(except: &Peer, peer: &Peer) -> bool {
    let hosts = match (&except.host, &peer.host) {
        (PeerHost::Net(except), PeerHost::Net(peer)) => except.contains(peer),
        (PeerHost::Name(except), PeerHost::Name(peer)) => except == peer,
        (PeerHost::Net(_), PeerHost::Name(_)) | (PeerHost::Name(_), PeerHost::Net(_)) => false,
    };
    let ports = match (except.ports, peer.ports) {
        (None, _) => true,
        (Some(_), None) => false,
        (Some(except), Some(peer)) => except.first <= peer.first && peer.last <= except.last,
    };
    hosts && ports
}

/// An interface name as the kernel takes it (`dev_valid_name` in net/core/dev.c, Linux 6.18).
fn interface(text: &str) -> Result<String, String> {
    let length_ok = (1..=15).contains(&text.len());
    let chars_ok = text.bytes().all(|byte| !byte.is_ascii_whitespace() && byte != b'/' && byte != b':');
    if length_ok && chars_ok && text != "." && text != ".." {
        return Ok(text.to_owned());
    }
    Err("write the name of an interface as `ip link` shows it: 1 to 15 characters, no space, `/` or `:`"
        .to_owned())
}

impl ValueEnum for Direction {
    fn value_variants<'a>() -> &'a [Self] {
        &[Self::Egress, Self::Ingress, Self::Both]
    }

    fn to_possible_value(&self) -> Option<PossibleValue> {
        Some(match self {
            Self::Egress => PossibleValue::new("egress").help("Leaves the target"),
            Self::Ingress => PossibleValue::new("ingress").help("Comes to the target"),
            Self::Both => PossibleValue::new("both").help("Either way, each with its own state"),
        })
    }
}

impl ValueEnum for Proto {
    fn value_variants<'a>() -> &'a [Self] {
        &[Self::Tcp, Self::Udp, Self::Icmp]
    }

    fn to_possible_value(&self) -> Option<PossibleValue> {
        Some(match self {
            Self::Tcp => PossibleValue::new("tcp"),
            Self::Udp => PossibleValue::new("udp"),
            Self::Icmp => PossibleValue::new("icmp").alias("icmpv6").help("ICMP and ICMPv6"),
        })
    }
}

impl ValueEnum for Connections {
    fn value_variants<'a>() -> &'a [Self] {
        &[Self::All, Self::New, Self::Established]
    }

    fn to_possible_value(&self) -> Option<PossibleValue> {
        Some(match self {
            Self::All => PossibleValue::new("all"),
            Self::New => PossibleValue::new("new").help("Their first packet was seen since the fault began"),
            Self::Established => PossibleValue::new("established").help("Every other flow"),
        })
    }
}
