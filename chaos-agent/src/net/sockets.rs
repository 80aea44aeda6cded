//! TCP and UDP sockets of a namespace with their owners, by `sock_diag(7)`.

use std::net::{IpAddr, SocketAddr};

use netlink_packet_core::{Nla as _, Parseable};
use netlink_packet_sock_diag::{
    SockDiagMessage,
    inet::{ExtensionFlags, InetRequest, InetResponse, SocketId, StateFlags, nlas::Nla},
};
use nix::errno::Errno;
use serde::{Deserialize, Serialize};

use super::netlink::{Netlink, NetlinkError};

// include/uapi/linux/sock_diag.h and inet_diag.h, Linux 6.18.
const SOCK_DESTROY: u16 = 21;
const INET_DIAG_CGROUP_ID: u16 = 21;

/// Transport protocols that have sockets with ports.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Transport {
    /// TCP.
    Tcp,
    /// UDP.
    Udp,
}

impl Transport {
    /// Its number in the IP header.
    #[must_use]
    pub fn number(self) -> u8 {
        match self {
            Self::Tcp => 6,
            Self::Udp => 17,
        }
    }

    /// Its name in lower case.
    #[must_use]
    pub fn name(self) -> &'static str {
        match self {
            Self::Tcp => "tcp",
            Self::Udp => "udp",
        }
    }
}

/// State of a socket (`include/net/tcp_states.h`). UDP knows `Established` (connected) and `Close` only.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum State {
    /// Connected.
    Established,
    /// SYN sent, no answer yet.
    SynSent,
    /// SYN received, handshake not complete.
    SynRecv,
    /// We closed; neither our FIN is acknowledged nor theirs here.
    FinWait1,
    /// Our FIN is acknowledged.
    FinWait2,
    /// Both closed; waits for late segments. Has no owner any more.
    TimeWait,
    /// Not connected; a UDP socket that is only bound.
    Close,
    /// They closed, we have not yet.
    CloseWait,
    /// They closed, then we did.
    LastAck,
    /// Waits for connections.
    Listen,
    /// Both closed at the same time.
    Closing,
    /// TCP, bound to a port without listening or connecting (reported from Linux 6.8).
    Bound,
    /// A state this program does not know.
    #[serde(other)]
    Unknown,
}

impl State {
    /// Its name in lower case, as `ss` and JSON show it.
    #[must_use]
    pub fn name(self) -> &'static str {
        match self {
            Self::Established => "established",
            Self::SynSent => "syn-sent",
            Self::SynRecv => "syn-recv",
            Self::FinWait1 => "fin-wait1",
            Self::FinWait2 => "fin-wait2",
            Self::TimeWait => "time-wait",
            Self::Close => "close",
            Self::CloseWait => "close-wait",
            Self::LastAck => "last-ack",
            Self::Listen => "listen",
            Self::Closing => "closing",
            Self::Bound => "bound",
            Self::Unknown => "unknown",
        }
    }

    /// A connection that its program can still use, so that its end means something: not one that
    /// listens, is half open (the kernel drops it without a word) or only waits for late segments.
    #[must_use]
    pub fn is_connection(self) -> bool {
        matches!(self, Self::Established | Self::SynSent | Self::FinWait1 | Self::FinWait2 | Self::CloseWait)
    }

    fn from_kernel(state: u8) -> Self {
        match state {
            1 => Self::Established,
            2 => Self::SynSent,
            3 | 12 => Self::SynRecv,
            4 => Self::FinWait1,
            5 => Self::FinWait2,
            6 => Self::TimeWait,
            7 => Self::Close,
            8 => Self::CloseWait,
            9 => Self::LastAck,
            10 => Self::Listen,
            11 => Self::Closing,
            13 => Self::Bound,
            _ => Self::Unknown,
        }
    }
}

/// A socket as the kernel lists it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Socket {
    /// TCP or UDP.
    pub transport: Transport,
    /// State.
    pub state: State,
    /// Own address and port; unspecified address = all of the namespace's.
    pub local: SocketAddr,
    /// The other end; port 0 = none.
    pub peer: SocketAddr,
    /// Listens on the unspecified IPv6 address and takes IPv4 too.
    pub dual_stack: bool,
    /// Device it is bound to; 0 = none.
    pub device: u32,
    /// Inode, as in `/proc/PID/fd`; 0 = belongs to no process any more.
    pub inode: u32,
    /// The kernel's number of the socket, equal to `bpf_get_socket_cookie`.
    pub cookie: u64,
    /// Owner's user id.
    pub uid: u32,
    /// Cgroup id (inode of the cgroup2 directory) of its creator. None for `TIME_WAIT` and half-open ones, and
    /// before Linux 5.9.
    pub cgroup: Option<u64>,
}

impl Socket {
    /// A TCP connection that [`destroy`] may end.
    #[must_use]
    pub fn can_be_ended(&self) -> bool {
        self.transport == Transport::Tcp && self.state.is_connection() && self.has_peer()
    }

    /// Has another end.
    #[must_use]
    pub fn has_peer(&self) -> bool {
        self.peer.port() != 0
    }
}

/// All TCP and UDP sockets of the namespace where `netlink` (a [`Netlink::sock_diag`]) was opened, in every
/// state. v4-mapped IPv6 addresses are turned to IPv4.
pub fn list(netlink: &mut Netlink) -> Result<Vec<Socket>, NetlinkError> {
    let mut sockets = Vec::new();
    for transport in [Transport::Tcp, Transport::Udp] {
        sockets.extend(list_transport(netlink, transport)?);
    }
    Ok(sockets)
}

/// [`list`], of one protocol.
pub fn list_transport(netlink: &mut Netlink, transport: Transport) -> Result<Vec<Socket>, NetlinkError> {
    let mut sockets = Vec::new();
    for id in [SocketId::new_v4(), SocketId::new_v6()] {
        // All states, also those that this version of the library has no name for.
        let request = SockDiagMessage::InetRequest(request(transport, id, u32::MAX));
        let what = match transport {
            Transport::Tcp => "listing TCP sockets (kernel module tcp_diag)",
            Transport::Udp => "listing UDP sockets (kernel module udp_diag)",
        };
        sockets.extend(netlink.dump(what, &request, |found: &mut Vec<Socket>, _, payload| {
            let response =
                InetResponse::parse(payload).map_err(|error| NetlinkError::decode(what, &error))?;
            found.push(read(transport, &response));
            Ok(())
        })?);
    }
    Ok(sockets)
}

/// Ends a connection: the local program sees `ECONNABORTED` at once, the peer gets a RST (`tcp_abort`).
///
/// False if the socket was gone, or is none that may be ended ([`Socket::can_be_ended`]): listeners and
/// UDP sockets are spared whoever asks. `EOPNOTSUPP` without `CONFIG_INET_DIAG_DESTROY`; needs `CAP_NET_ADMIN`.
pub fn destroy(netlink: &mut Netlink, socket: &Socket) -> Result<bool, NetlinkError> {
    if !socket.can_be_ended() {
        return Ok(false);
    }
    let mut id = if socket.local.is_ipv4() { SocketId::new_v4() } else { SocketId::new_v6() };
    id.source_address = socket.local.ip();
    id.source_port = socket.local.port();
    id.destination_address = socket.peer.ip();
    id.destination_port = socket.peer.port();
    id.interface_id = socket.device;
    id.cookie = cookie_bytes(socket.cookie);
    let request = SockDiagMessage::InetRequest(request(socket.transport, id, u32::MAX));
    match netlink.change_as("ending a connection", SOCK_DESTROY, request) {
        Err(error) if error.errno() == Some(Errno::ENOENT) => Ok(false),
        other => other.map(|()| true),
    }
}

/// Whether this kernel can [`destroy`]: asked with a socket that cannot exist, its port being 0. A kernel
/// that can says `ENOENT` (`inet_diag_find_one_icsk`, Linux 6.18), one that cannot
/// `EOPNOTSUPP`. Needs `CAP_NET_ADMIN`.
pub fn can_destroy(netlink: &mut Netlink) -> Result<bool, NetlinkError> {
    let request = SockDiagMessage::InetRequest(request(Transport::Tcp, SocketId::new_v4(), u32::MAX));
    match netlink.change_as("asking for SOCK_DESTROY", SOCK_DESTROY, request) {
        Err(error) if error.errno() == Some(Errno::ENOENT) => Ok(true),
        Err(error) if error.errno() == Some(Errno::EOPNOTSUPP) => Ok(false),
        other => other.map(|()| true),
    }
}

fn request(transport: Transport, socket_id: SocketId, states: u32) -> InetRequest {
    let family = if socket_id.source_address.is_ipv4() { libc::AF_INET } else { libc::AF_INET6 };
    InetRequest {
        family: u8::try_from(family).unwrap_or_default(),
        protocol: transport.number(),
        // The cgroup id comes unasked (`inet_diag_msg_attrs_fill`, net/ipv4/inet_diag.c).
        extensions: ExtensionFlags::empty(),
        states: StateFlags::from_bits_retain(states),
        socket_id,
    }
}

fn read(transport: Transport, response: &InetResponse) -> Socket {
    let header = &response.header;
    let id = &header.socket_id;
    let (mut cgroup, mut v6_only) = (None, false);
    for nla in &response.nlas {
        if let Nla::SkV6Only(only) = nla {
            v6_only = *only;
        } else if let Nla::Other(other) = nla
            && other.kind() == INET_DIAG_CGROUP_ID
            && other.value_len() == size_of::<u64>()
        {
            let mut id = [0; size_of::<u64>()];
            other.emit_value(&mut id);
            cgroup = Some(u64::from_ne_bytes(id)).filter(|&id| id != 0);
        }
    }
    let unspecified_v6 = id.source_address.is_ipv6() && id.source_address.is_unspecified();
    Socket {
        transport,
        state: State::from_kernel(header.state),
        local: SocketAddr::new(unmapped(id.source_address), id.source_port),
        peer: SocketAddr::new(unmapped(id.destination_address), id.destination_port),
        dual_stack: unspecified_v6 && !v6_only,
        device: id.interface_id,
        inode: header.inode,
        cookie: cookie_number(id.cookie),
        uid: header.uid,
        cgroup,
    }
}

fn unmapped(addr: IpAddr) -> IpAddr {
    addr.to_canonical()
}

/// The cookie is two 32-bit words, the low one first, each in the machine's order (`sock_diag_save_cookie`).
fn cookie_number(bytes: [u8; 8]) -> u64 {
    let word = |at: usize| bytes[at..].first_chunk().map_or(0, |word| u32::from_ne_bytes(*word));
    u64::from(word(0)) | u64::from(word(4)) << 32
}

fn cookie_bytes(cookie: u64) -> [u8; 8] {
    let mut bytes = [0; 8];
    #[expect(clippy::cast_possible_truncation, reason = "the low half is meant")]
    bytes[..4].copy_from_slice(&(cookie as u32).to_ne_bytes());
    bytes[4..].copy_from_slice(&((cookie >> 32) as u32).to_ne_bytes());
    bytes
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_cookie_survives_the_round_trip() {
        let cookie = 0x1122_3344_5566_7788;
        assert_eq!(cookie_number(cookie_bytes(cookie)), cookie);
    }

    #[test]
    fn mapped_addresses_become_v4() {
        assert_eq!(unmapped("::ffff:10.0.0.1".parse().unwrap()), "10.0.0.1".parse::<IpAddr>().unwrap());
        assert_eq!(unmapped("::1".parse().unwrap()), "::1".parse::<IpAddr>().unwrap());
    }

    #[test]
    fn states_have_the_kernels_numbers() {
        assert_eq!(State::from_kernel(10), State::Listen);
        assert_eq!(State::from_kernel(12), State::SynRecv);
        assert_eq!(State::from_kernel(200), State::Unknown);
    }
}
