//! What TCP packets a namespace really receives.
//!
//! A raw IPv4 socket gets a copy of every packet that is delivered to the local stack
//! (`raw_local_deliver`, `net/ipv4/raw.c`), that is after tc ingress and on any device. So the same
//! instrument serves rules on the far end's egress and on the near end's ingress, where a packet
//! socket would see the packet before the rule, and twice with the ingress normaliser.

use std::{
    os::fd::{AsRawFd, OwnedFd},
    sync::{
        Arc,
        atomic::{AtomicBool, Ordering},
    },
    thread::JoinHandle,
    time::Duration,
};

use anyhow::{Context, Result, ensure};
use nix::sys::{
    socket::{AddressFamily, MsgFlags, SockFlag, SockProtocol, SockType, recv, setsockopt, socket, sockopt},
    time::TimeVal,
};

use crate::lab::netns::Netns;

/// Room for what a busy receiver has not read yet.
const RECEIVE_BUFFER: usize = 512 << 20;
/// Index of the drop counter in what `SO_MEMINFO` returns (`include/uapi/linux/sock_diag.h`).
const SK_MEMINFO_DROPS: usize = 8;

/// One TCP packet that reached the stack.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Arrival {
    /// Names the connection.
    pub source_port: u16,
    /// The IPv4 identification of its first segment.
    pub id: u16,
    /// How many wire segments it stands for (GSO skbs arrive whole where nothing cut them).
    pub segments: u32,
    /// It carries data.
    pub data: bool,
    /// It ends the connection.
    pub fin: bool,
}

/// A running capture.
#[derive(Debug)]
pub struct Capture {
    socket: Arc<OwnedFd>,
    stop: Arc<AtomicBool>,
    reader: JoinHandle<Vec<Arrival>>,
}

impl Capture {
    /// Starts to record TCP packets for `port` that reach the stack of `netns`; `mss` is what
    /// a full segment carries.
    ///
    /// # Errors
    /// Without `CAP_NET_RAW` and `CAP_NET_ADMIN`.
    pub fn start(netns: &Netns, port: u16, mss: u32) -> Result<Self> {
        let socket = Arc::new(netns.enter(raw_socket)??);
        let stop = Arc::new(AtomicBool::new(false));
        let (source, seen) = (Arc::clone(&socket), Arc::clone(&stop));
        let reader = std::thread::spawn(move || read_until(&source, &seen, port, mss));
        Ok(Self { socket, stop, reader })
    }

    /// Ends it and returns what arrived, in the order of arrival.
    ///
    /// # Errors
    /// When the capture itself lost packets: such a run shows nothing.
    pub fn finish(self) -> Result<Vec<Arrival>> {
        std::thread::sleep(Duration::from_millis(50));
        self.stop.store(true, Ordering::Relaxed);
        let arrivals = self.reader.join().map_err(|_| anyhow::anyhow!("the capture thread panicked"))?;
        let missed = drops(&self.socket)?;
        ensure!(missed == 0, "the capture itself missed {missed} packets: this run is void");
        Ok(arrivals)
    }
}

fn raw_socket() -> Result<OwnedFd> {
    let flags = SockFlag::SOCK_CLOEXEC;
    let socket = socket(AddressFamily::Inet, SockType::Raw, flags, SockProtocol::Tcp)
        .context("a raw socket; needs CAP_NET_RAW")?;
    setsockopt(&socket, sockopt::RcvBufForce, &RECEIVE_BUFFER).context("SO_RCVBUFFORCE")?;
    setsockopt(&socket, sockopt::ReceiveTimeout, &TimeVal::new(0, 20_000)).context("SO_RCVTIMEO")?;
    Ok(socket)
}

fn read_until(socket: &OwnedFd, stop: &AtomicBool, port: u16, mss: u32) -> Vec<Arrival> {
    let mut arrivals = Vec::new();
    let mut buffer = [0; 128];
    loop {
        match recv(socket.as_raw_fd(), &mut buffer, MsgFlags::empty()) {
            Ok(length) => arrivals.extend(parse(&buffer[..length], port, mss)),
            Err(_) if stop.load(Ordering::Relaxed) => return arrivals,
            Err(_) => {}
        }
    }
}

/// An IPv4 packet with a TCP header for `port`.
fn parse(bytes: &[u8], port: u16, mss: u32) -> Option<Arrival> {
    let be16 = |at: usize| Some(u16::from_be_bytes([*bytes.get(at)?, *bytes.get(at + 1)?]));
    let header = usize::from(bytes.first()? & 0x0f) * 4;
    if be16(header + 2)? != port {
        return None;
    }
    let tcp_header = usize::from(bytes.get(header + 12)? >> 4) * 4;
    let payload = usize::from(be16(2)?).saturating_sub(header + tcp_header);
    let payload = u32::try_from(payload).unwrap_or(u32::MAX);
    Some(Arrival {
        source_port: be16(header)?,
        id: be16(4)?,
        segments: payload.div_ceil(mss).max(1),
        data: payload > 0,
        fin: bytes.get(header + 13)? & 1 != 0,
    })
}

/// How many packets the socket's queue could not take.
fn drops(socket: &OwnedFd) -> Result<u32> {
    let mut info = [0_u32; 16];
    let mut length = libc::socklen_t::try_from(size_of_val(&info))?;
    // SAFETY: the kernel writes at most `length` bytes into `info`, which is that long.
    let code = unsafe {
        libc::getsockopt(
            socket.as_raw_fd(),
            libc::SOL_SOCKET,
            libc::SO_MEMINFO,
            info.as_mut_ptr().cast(),
            &raw mut length,
        )
    };
    ensure!(code == 0, "SO_MEMINFO: {}", std::io::Error::last_os_error());
    Ok(info[SK_MEMINFO_DROPS])
}

#[cfg(test)]
mod tests {
    use super::{Arrival, parse};
    use crate::packet::Packet;

    #[test]
    fn only_the_port_asked_for_counts_and_segments_are_told_by_length() {
        let packet = Packet::new().ipv4("10.0.0.1", "10.0.0.2").options(&[1]).tcp(5, 6).payload(&[0; 2500]);
        let bytes = packet.bytes();
        let arrival = Arrival { source_port: 5, id: 0, segments: 3, data: true, fin: false };
        assert_eq!(parse(&bytes[..128], 6, 1000), Some(arrival));
        assert_eq!(parse(&bytes[..128], 7, 1000), None);
        assert_eq!(parse(&bytes[..10], 6, 1000), None);
    }
}
