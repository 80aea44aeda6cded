//! `traffic datagrams-out ADDRESS COUNT INTERVAL_NS SIZE FLOWS ECN`, `traffic datagrams-in ADDRESS`.

use std::{
    io::{IoSliceMut, Write},
    net::{SocketAddr, UdpSocket},
    os::fd::{AsFd, AsRawFd},
};

use anyhow::{Context, Result, ensure};
use chaos_tests::measure::datagrams::{Arrival, Sent, judge, payload};
use nix::{
    errno::Errno,
    poll::{PollFd, PollFlags, PollTimeout, poll},
    sys::socket::{ControlMessageOwned, MsgFlags, SockaddrStorage, recvmsg, setsockopt, sockopt},
};

use crate::{clock, option::set_option};

/// Room for seconds of a receiver that does not get to run.
const RECEIVE_BUFFER: usize = 64 << 20;
/// ECN field of a sender that understands marks, and the mark (RFC 3168, section 5).
const ECT0: i32 = 0b10;
const CE: u8 = 0b11;

pub(crate) fn send(
    to: SocketAddr,
    count: u32,
    interval_ns: u64,
    size: usize,
    flows: u32,
    ecn: bool,
) -> Result<()> {
    let sockets = (0..flows.max(1)).map(|_| socket_to(to, ecn)).collect::<Result<Vec<_>>>()?;
    let payloads: Vec<Vec<u8>> = (0..count).map(|number| payload(number, size)).collect();
    clock::ready()?;
    let mut sent = Sent { at_ns: Vec::with_capacity(payloads.len()), refused: Vec::new() };
    let start_ns = clock::now_ns()? + 1_000_000;
    for (number, bytes) in (0..).zip(&payloads) {
        clock::wait_until(start_ns + u64::from(number) * interval_ns)?;
        let socket = &sockets[(number % flows.max(1)) as usize];
        sent.at_ns.push(clock::now_ns()?);
        if let Err(error) = socket.send(bytes) {
            sent.refused.push((number, clock::errno(&error)));
        }
    }
    crate::print(&sent)
}

fn socket_to(to: SocketAddr, ecn: bool) -> Result<UdpSocket> {
    let socket = UdpSocket::bind(if to.is_ipv4() { "0.0.0.0:0" } else { "[::]:0" })?;
    socket.connect(to).with_context(|| format!("connecting to {to}"))?;
    if ecn {
        let (level, name) = if to.is_ipv4() {
            (libc::IPPROTO_IP, libc::IP_TOS)
        } else {
            (libc::IPPROTO_IPV6, libc::IPV6_TCLASS)
        };
        set_option(&socket, level, name, ECT0)?;
    }
    Ok(socket)
}

pub(crate) fn receive(at: SocketAddr) -> Result<()> {
    let socket = UdpSocket::bind(at).with_context(|| format!("listening at {at}"))?;
    setsockopt(&socket, sockopt::RcvBufForce, &RECEIVE_BUFFER).context("SO_RCVBUFFORCE")?;
    setsockopt(&socket, sockopt::ReceiveTimestampns, &true).context("SO_TIMESTAMPNS")?;
    let (level, name) = if at.is_ipv4() {
        (libc::IPPROTO_IP, libc::IP_RECVTOS)
    } else {
        (libc::IPPROTO_IPV6, libc::IPV6_RECVTCLASS)
    };
    set_option(&socket, level, name, 1)?;
    let ahead_ns = clock::realtime_ahead_ns()?;
    clock::ready()?;
    let mut arrivals = Vec::new();
    let stdin = std::io::stdin();
    let mut buffer = vec![0; 65536];
    loop {
        let mut ready =
            [PollFd::new(socket.as_fd(), PollFlags::POLLIN), PollFd::new(stdin.as_fd(), PollFlags::POLLIN)];
        poll(&mut ready, PollTimeout::NONE).context("waiting for datagrams")?;
        let ended = ready[1].any() == Some(true);
        while let Some(arrival) = take(&socket, &mut buffer, ahead_ns)? {
            arrivals.push(arrival);
        }
        if ended {
            break;
        }
    }
    let moved_ns = clock::realtime_ahead_ns()?.abs_diff(ahead_ns);
    ensure!(moved_ns < 100_000, "somebody set the clock by {moved_ns} ns: no arrival is dated");
    let mut text = Vec::new();
    for arrival in &arrivals {
        serde_json::to_writer(&mut text, arrival)?;
        text.push(b'\n');
    }
    std::io::stdout().lock().write_all(&text).context("writing the records")
}

/// One datagram, if one waits.
fn take(socket: &UdpSocket, buffer: &mut [u8], ahead_ns: u64) -> Result<Option<Arrival>> {
    let mut control = nix::cmsg_space!(nix::sys::time::TimeSpec, i32);
    let mut parts = [IoSliceMut::new(buffer)];
    let received = recvmsg::<SockaddrStorage>(
        socket.as_raw_fd(),
        &mut parts,
        Some(&mut control),
        MsgFlags::MSG_DONTWAIT,
    );
    let message = match received {
        Ok(message) => message,
        // Nothing there, or an ICMP error about something sent earlier.
        Err(Errno::EAGAIN | Errno::ECONNREFUSED) => return Ok(None),
        Err(error) => return Err(error).context("receiving"),
    };
    let (mut at_ns, mut marked) = (clock::now_ns()?, false);
    let length = message.bytes;
    for control in message.cmsgs()? {
        if let ControlMessageOwned::ScmTimestampns(stamp) = control {
            at_ns = clock::to_ns(stamp)?.saturating_sub(ahead_ns);
        }
        if let ControlMessageOwned::Ipv4Tos(tos) = control {
            marked = tos & CE == CE;
        }
        if let ControlMessageOwned::Ipv6TClass(class) = control {
            marked = class.to_le_bytes()[0] & CE == CE;
        }
    }
    let (number, intact) = judge(&buffer[..length]);
    Ok(Some(Arrival { number, at_ns, size: u32::try_from(length)?, intact, marked }))
}
