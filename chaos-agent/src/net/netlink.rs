//! A small synchronous netlink client: one request, its answer; or one request, a whole dump.

use std::io;

use netlink_packet_core::{
    NLM_F_ACK, NLM_F_ACK_TLVS, NLM_F_DUMP, NLM_F_DUMP_INTR, NLM_F_REQUEST, NLMSG_DONE, NLMSG_ERROR,
    NLMSG_NOOP, NLMSG_OVERRUN, NetlinkBuffer, NetlinkDeserializable, NetlinkHeader, NetlinkMessage,
    NetlinkPayload, NetlinkSerializable, NlasIterator, parse_string,
};
use netlink_packet_route::RouteNetlinkMessage;
use netlink_sys::{
    Socket, SocketAddr,
    protocols::{NETLINK_GENERIC, NETLINK_ROUTE, NETLINK_SOCK_DIAG},
};
use nix::{
    errno::Errno,
    sys::{
        socket::{setsockopt, sockopt::ReceiveTimeout},
        time::{TimeVal, TimeValLike},
    },
};

/// The kernel answers at once; this only keeps a bug on either side from hanging the agent.
const ANSWER_TIMEOUT_S: i64 = 10;

/// A dump is asked for again when the list changed under it; a machine that makes namespaces all the time
/// must not keep us here for ever.
const DUMP_ATTEMPTS: usize = 20;

/// Larger than any part of a dump (the kernel fills at most 32 KiB at a time, `netlink_dump` in
/// `net/netlink/af_netlink.c`, 6.18); a single link with many virtual functions may need more than that.
const RECEIVE_BUFFER_BYTES: usize = 256 * 1024;

/// Why a netlink exchange failed.
#[derive(Debug, thiserror::Error)]
pub enum NetlinkError {
    /// The socket itself failed.
    #[error("{what}: netlink socket: {source}")]
    Socket {
        /// What was attempted.
        what: &'static str,
        /// The system call's answer.
        source: io::Error,
    },
    /// The kernel refused the request.
    #[error("{what}: the kernel says {errno}{}{}", detail.as_ref().map(|text| format!(" ({text})")).unwrap_or_default(), mend(*errno))]
    Kernel {
        /// What was attempted.
        what: &'static str,
        /// The reason it gave.
        errno: Errno,
        /// Its own words (extended acknowledgement), where it has any.
        detail: Option<String>,
    },
    /// The answer could not be read.
    #[error("{what}: the kernel's answer could not be read: {detail}")]
    Decode {
        /// What was attempted.
        what: &'static str,
        /// Where it stopped making sense.
        detail: String,
    },
    /// The list changed during each of many attempts to read it.
    #[error("{what}: the list kept changing while it was read; try again")]
    Unstable {
        /// What was attempted.
        what: &'static str,
    },
}

/// The end of the sentence for the refusals a user can do something about.
fn mend(errno: Errno) -> &'static str {
    if matches!(errno, Errno::EPERM | Errno::EACCES) {
        "; this needs the capability CAP_NET_ADMIN: run it with sudo or as root"
    } else {
        ""
    }
}

impl NetlinkError {
    /// The errno, when the kernel refused.
    #[must_use]
    pub fn errno(&self) -> Option<Errno> {
        match self {
            Self::Kernel { errno, .. } => Some(*errno),
            Self::Socket { .. } | Self::Decode { .. } | Self::Unstable { .. } => None,
        }
    }

    /// An error in an answer, for the modules that read one.
    pub(crate) fn decode(what: &'static str, detail: &(impl ToString + ?Sized)) -> Self {
        Self::Decode { what, detail: detail.to_string() }
    }
}

/// A netlink socket in the namespace where it was opened.
pub struct Netlink {
    socket: Socket,
    sequence: u32,
    buffer: Vec<u8>,
}

/// One message of an answer: `nlmsg_type` and what follows the header.
pub type OnMessage<'a> = &'a mut dyn FnMut(u16, &[u8]) -> Result<(), NetlinkError>;

impl Netlink {
    /// A socket for rtnetlink(7), in the namespace of the calling thread.
    pub fn route() -> Result<Self, NetlinkError> {
        Self::open(NETLINK_ROUTE)
    }

    /// A socket for `sock_diag(7)`, in the namespace of the calling thread.
    pub fn sock_diag() -> Result<Self, NetlinkError> {
        Self::open(NETLINK_SOCK_DIAG)
    }

    /// A socket for generic netlink, in the namespace of the calling thread.
    pub fn generic() -> Result<Self, NetlinkError> {
        Self::open(NETLINK_GENERIC)
    }

    fn open(protocol: isize) -> Result<Self, NetlinkError> {
        let socket = connect(protocol).map_err(|source| NetlinkError::Socket { what: "opening", source })?;
        Ok(Self { socket, sequence: 0, buffer: vec![0; RECEIVE_BUFFER_BYTES] })
    }

    /// Sends a request that changes something (or asks for one object) and waits for the kernel's verdict.
    ///
    /// `flags` are added to `NLM_F_REQUEST | NLM_F_ACK`; messages before the verdict go to `on_message`.
    pub fn request<M: NetlinkSerializable>(
        &mut self,
        what: &'static str,
        message: M,
        flags: u16,
        on_message: OnMessage<'_>,
    ) -> Result<(), NetlinkError> {
        self.send(what, message, NLM_F_REQUEST | NLM_F_ACK | flags)?;
        self.receive(what, on_message).map(drop)
    }

    /// [`Self::request`] for a change that answers nothing but its verdict.
    pub fn change<M: NetlinkSerializable>(
        &mut self,
        what: &'static str,
        message: M,
        flags: u16,
    ) -> Result<(), NetlinkError> {
        self.request(what, message, flags, &mut |_, _| Ok(()))
    }

    /// Reads a whole list: `add` is called for each message. When the kernel says that the list changed
    /// meanwhile (`NLM_F_DUMP_INTR`), it is read again into a new `L`, so that nothing is listed twice.
    pub fn dump<M: NetlinkSerializable + Clone, L: Default>(
        &mut self,
        what: &'static str,
        message: &M,
        mut add: impl FnMut(&mut L, u16, &[u8]) -> Result<(), NetlinkError>,
    ) -> Result<L, NetlinkError> {
        for _ in 0..DUMP_ATTEMPTS {
            let mut list = L::default();
            self.send(what, message.clone(), NLM_F_REQUEST | NLM_F_DUMP)?;
            let interrupted = self.receive(what, &mut |kind, payload| add(&mut list, kind, payload))?;
            if !interrupted {
                return Ok(list);
            }
        }
        Err(NetlinkError::Unstable { what })
    }

    /// [`Self::dump`] of rtnetlink messages, fully parsed; one that the parser refuses is an error.
    pub fn dump_route(
        &mut self,
        what: &'static str,
        message: &RouteNetlinkMessage,
    ) -> Result<Vec<RouteNetlinkMessage>, NetlinkError> {
        self.dump(what, message, |list: &mut Vec<_>, kind, payload| {
            let mut header = NetlinkHeader::default();
            header.message_type = kind;
            list.push(
                RouteNetlinkMessage::deserialize(&header, payload)
                    .map_err(|error| NetlinkError::decode(what, &error))?,
            );
            Ok(())
        })
    }

    /// Sends a request whose type is not the payload's own, such as `SOCK_DESTROY`.
    pub(crate) fn change_as<M: NetlinkSerializable>(
        &mut self,
        what: &'static str,
        message_type: u16,
        message: M,
    ) -> Result<(), NetlinkError> {
        let mut bytes = self.serialize(message, NLM_F_REQUEST | NLM_F_ACK);
        // `finalize` writes the payload's own type; nlmsg_type lies after the 32-bit length.
        bytes[4..6].copy_from_slice(&message_type.to_ne_bytes());
        self.send_bytes(what, &bytes)?;
        self.receive(what, &mut |_, _| Ok(())).map(drop)
    }

    fn serialize<M: NetlinkSerializable>(&mut self, message: M, flags: u16) -> Vec<u8> {
        self.sequence = self.sequence.wrapping_add(1);
        let mut header = NetlinkHeader::default();
        header.flags = flags;
        header.sequence_number = self.sequence;
        let mut message = NetlinkMessage::new(header, NetlinkPayload::InnerMessage(message));
        message.finalize();
        let mut bytes = vec![0; message.buffer_len()];
        message.serialize(&mut bytes);
        bytes
    }

    fn send<M: NetlinkSerializable>(
        &mut self,
        what: &'static str,
        message: M,
        flags: u16,
    ) -> Result<(), NetlinkError> {
        let bytes = self.serialize(message, flags);
        self.send_bytes(what, &bytes)
    }

    fn send_bytes(&self, what: &'static str, bytes: &[u8]) -> Result<(), NetlinkError> {
        self.socket.send(bytes, 0).map(drop).map_err(|source| NetlinkError::Socket { what, source })
    }

    /// Reads up to the end of the answer to the last request; true when the list changed during a dump.
    ///
    /// The answer is read to its end whatever `on_message` says, so that the next one starts clean.
    fn receive(&mut self, what: &'static str, on_message: OnMessage<'_>) -> Result<bool, NetlinkError> {
        let mut interrupted = false;
        let mut failure = None;
        loop {
            let mut free = self.buffer.as_mut_slice();
            let length = match self.socket.recv(&mut free, libc::MSG_TRUNC) {
                Err(error) if error.kind() == io::ErrorKind::Interrupted => continue,
                received => received.map_err(|source| NetlinkError::Socket { what, source })?,
            };
            let datagram = self.buffer.get(..length).ok_or_else(|| {
                NetlinkError::decode(what, &format!("{length} bytes, of which {RECEIVE_BUFFER_BYTES} fit"))
            })?;
            for message in Messages(datagram) {
                let message = message.map_err(|error| NetlinkError::decode(what, &error))?;
                if message.sequence_number() != self.sequence {
                    continue;
                }
                interrupted |= message.flags() & NLM_F_DUMP_INTR != 0;
                match message.message_type() {
                    NLMSG_NOOP => {}
                    NLMSG_OVERRUN => return Err(NetlinkError::decode(what, "overrun")),
                    NLMSG_DONE | NLMSG_ERROR => {
                        verdict(what, message.flags(), message.payload())?;
                        return failure.map_or(Ok(interrupted), Err);
                    }
                    kind if failure.is_none() => failure = on_message(kind, message.payload()).err(),
                    _ => {}
                }
            }
        }
    }
}

/// The messages of one datagram.
struct Messages<'a>(&'a [u8]);

impl<'a> Iterator for Messages<'a> {
    type Item = Result<NetlinkBuffer<&'a [u8]>, netlink_packet_core::DecodeError>;

    fn next(&mut self) -> Option<Self::Item> {
        if self.0.is_empty() {
            return None;
        }
        let message = match NetlinkBuffer::new_checked(self.0) {
            Ok(message) => message,
            Err(error) => {
                self.0 = &[];
                return Some(Err(error));
            }
        };
        // Messages start at multiples of four (NLMSG_ALIGN).
        let length = (message.length() as usize).next_multiple_of(4);
        self.0 = self.0.get(length..).unwrap_or_default();
        Some(Ok(message))
    }
}

/// `NLMSG_ERROR` and `NLMSG_DONE` begin with 0 or a negative errno; words may follow (netlink(7), extended ack).
fn verdict(what: &'static str, flags: u16, payload: &[u8]) -> Result<(), NetlinkError> {
    const NLMSGERR_ATTR_MSG: u16 = 1;
    // The code, then the header of our request, cut short because of NETLINK_CAP_ACK.
    const TLVS: usize = 4 + 16;
    let code = payload.first_chunk().map_or(0, |bytes| i32::from_ne_bytes(*bytes));
    if code == 0 {
        return Ok(());
    }
    let words = payload.get(TLVS..).filter(|_| flags & NLM_F_ACK_TLVS != 0).unwrap_or_default();
    let detail = NlasIterator::new(words)
        .flatten()
        .find(|attribute| attribute.kind() == NLMSGERR_ATTR_MSG)
        .and_then(|attribute| parse_string(attribute.value()).ok());
    Err(NetlinkError::Kernel { what, errno: Errno::from_raw(code.wrapping_neg()), detail })
}

fn connect(protocol: isize) -> io::Result<Socket> {
    let mut socket = Socket::new(protocol)?;
    socket.bind_auto()?;
    socket.connect(&SocketAddr::new(0, 0))?;
    // Without the first the kernel echoes the whole request in its verdict; with the second it adds words.
    socket.set_cap_ack(true)?;
    socket.set_ext_ack(true)?;
    setsockopt(&socket, ReceiveTimeout, &TimeVal::seconds(ANSWER_TIMEOUT_S))?;
    Ok(socket)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_datagram_is_split_at_aligned_lengths() {
        // Two messages of 17 and 16 bytes; the first is padded to 20.
        let mut datagram = vec![0_u8; 36];
        datagram[0] = 17;
        datagram[4] = 7;
        datagram[20] = 16;
        datagram[24] = 8;
        let kinds: Vec<u16> = Messages(&datagram).map(|message| message.unwrap().message_type()).collect();
        assert_eq!(kinds, [7, 8]);
    }

    #[test]
    fn a_length_that_lies_ends_the_datagram_with_an_error() {
        let mut datagram = vec![0_u8; 16];
        datagram[0] = 200;
        let read: Vec<_> = Messages(&datagram).collect();
        assert_eq!(read.len(), 1);
        assert!(read[0].is_err());
    }

    #[test]
    fn the_kernels_words_are_in_the_error() {
        let mut payload = (-libc::EOPNOTSUPP).to_ne_bytes().to_vec();
        payload.extend([0; 16]);
        payload.extend([8, 0, 1, 0]);
        payload.extend(b"no!\0");
        let error = verdict("testing", NLM_F_ACK_TLVS, &payload).unwrap_err();
        assert_eq!(error.errno(), Some(Errno::EOPNOTSUPP));
        assert!(error.to_string().contains("(no!)"), "{error}");
        assert!(verdict("testing", 0, &0_i32.to_ne_bytes()).is_ok());
    }
}
