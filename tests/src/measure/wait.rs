//! How late packets are: datagrams that carry their number and the time of their sending, dated on arrival by
//! the kernel, and the round trips of `ping`.
//!
//! Arrivals wait in the socket's buffer with their dates (`SO_TIMESTAMPNS`) until they are read: nothing has to
//! run while packets arrive.

use std::{
    io::IoSliceMut,
    net::{IpAddr, SocketAddr, UdpSocket},
    os::fd::AsRawFd as _,
    thread,
    time::{Duration, Instant},
};

use anyhow::{Context, Result, bail};
use nix::{
    cmsg_space,
    errno::Errno,
    sys::{
        socket::{ControlMessageOwned, MsgFlags, SockaddrStorage, recvmsg, setsockopt, sockopt},
        time::TimeSpec,
    },
    time::{ClockId, clock_gettime},
};

use crate::lab::{netns::Netns, process};

/// The smallest payload: a number and a time.
pub const HEADER: usize = 12;
/// What a datagram takes on Ethernet besides its payload, with IPv4.
pub const FRAME_HEADERS: usize = 14 + 20 + 8;
/// Room for seconds of a fast sender.
const RECEIVE_BUFFER: usize = 256 << 20;

/// One datagram that arrived.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Arrival {
    /// Its number, as its sender said.
    pub number: u32,
    /// When it was sent: `CLOCK_REALTIME`, nanoseconds.
    pub sent_ns: u64,
    /// When it arrived, likewise.
    pub came_ns: u64,
    /// Payload in bytes.
    pub bytes: usize,
}

impl Arrival {
    /// How long it took, milliseconds.
    #[must_use]
    pub fn took_ms(&self) -> f64 {
        ms(self.came_ns.saturating_sub(self.sent_ns))
    }
}

/// Nanoseconds as milliseconds.
#[must_use]
#[expect(clippy::cast_precision_loss, reason = "spans of a test are far below 2^52 ns")]
pub fn ms(ns: u64) -> f64 {
    ns as f64 / 1e6
}

/// `CLOCK_REALTIME` in nanoseconds, by which the kernel dates arrivals.
///
/// # Panics
/// When the clock cannot be read.
#[must_use]
pub fn now_ns() -> u64 {
    ns(clock_gettime(ClockId::CLOCK_REALTIME).expect("every kernel has this clock"))
}

fn ns(time: TimeSpec) -> u64 {
    u64::try_from(Duration::from(time).as_nanos()).unwrap_or(u64::MAX)
}

/// A socket that receives.
#[derive(Debug)]
pub struct Listener(UdpSocket);

impl Listener {
    /// Listens in `netns`.
    ///
    /// # Errors
    /// When the address cannot be had.
    pub fn new(netns: &Netns, at: SocketAddr) -> Result<Self> {
        let socket = netns.enter(|| UdpSocket::bind(at))?.with_context(|| format!("listening at {at}"))?;
        setsockopt(&socket, sockopt::RcvBufForce, &RECEIVE_BUFFER).context("SO_RCVBUFFORCE")?;
        setsockopt(&socket, sockopt::ReceiveTimestampns, &true).context("SO_TIMESTAMPNS")?;
        socket.set_read_timeout(Some(Duration::from_millis(20)))?;
        Ok(Self(socket))
    }

    /// Everything that has come, until nothing came for `quiet`.
    ///
    /// # Errors
    /// When a datagram is not one of ours.
    pub fn collect(&self, quiet: Duration) -> Result<Vec<Arrival>> {
        let mut arrivals = Vec::new();
        let mut last = Instant::now();
        while last.elapsed() < quiet {
            if let Some(arrival) = self.receive()? {
                arrivals.push(arrival);
                last = Instant::now();
            }
        }
        Ok(arrivals)
    }

    /// The next datagram, or none within 20 ms.
    ///
    /// # Errors
    /// When it is not one of ours.
    pub fn receive(&self) -> Result<Option<Arrival>> {
        let mut bytes = [0; 2048];
        let mut room = cmsg_space!(TimeSpec);
        let mut places = [IoSliceMut::new(&mut bytes)];
        let message =
            recvmsg::<SockaddrStorage>(self.0.as_raw_fd(), &mut places, Some(&mut room), MsgFlags::empty());
        let (length, came) = match message {
            Ok(message) => {
                let stamp = message.cmsgs()?.find_map(|part| {
                    if let ControlMessageOwned::ScmTimestampns(time) = part { Some(ns(time)) } else { None }
                });
                (message.bytes, stamp.context("a datagram without a date")?)
            }
            Err(Errno::EAGAIN | Errno::EINTR) => return Ok(None),
            Err(errno) => return Err(errno).context("receiving"),
        };
        let (number, sent) = bytes.get(..HEADER).context("a short datagram")?.split_at(4);
        Ok(Some(Arrival {
            number: u32::from_ne_bytes(number.try_into()?),
            sent_ns: u64::from_ne_bytes(sent.try_into()?),
            came_ns: came,
            bytes: length,
        }))
    }
}

/// A socket that sends from `netns` to `to`.
///
/// # Errors
/// When there is no way there.
pub fn sender(netns: &Netns, to: SocketAddr) -> Result<UdpSocket> {
    let socket = netns.enter(|| -> std::io::Result<UdpSocket> {
        let socket = UdpSocket::bind(if to.is_ipv4() { "0.0.0.0:0" } else { "[::]:0" })?;
        socket.connect(to)?;
        Ok(socket)
    });
    socket?.context("the sending socket")
}

/// Sends one datagram with this number and as many bytes.
///
/// # Errors
/// When the kernel refuses it: a fault must not be visible to its sender.
pub fn send(socket: &UdpSocket, number: u32, bytes: usize) -> Result<()> {
    let mut payload = vec![0; bytes.max(HEADER)];
    payload[..4].copy_from_slice(&number.to_ne_bytes());
    payload[4..HEADER].copy_from_slice(&now_ns().to_ne_bytes());
    socket.send(&payload).map(drop).context("a datagram was refused")
}

/// Sends `numbers`, one every `interval`, each from the next of the `sockets` in turn.
///
/// # Errors
/// When the kernel refuses one.
pub fn send_all(
    sockets: &[UdpSocket],
    numbers: std::ops::Range<u32>,
    bytes: usize,
    interval: Duration,
) -> Result<()> {
    let start = Instant::now();
    for (turn, (number, socket)) in (0u32..).zip(numbers.zip(sockets.iter().cycle())) {
        send(socket, number, bytes)?;
        // What is behind catches up: the mean pace is what was asked.
        thread::sleep((start + interval * (turn + 1)).saturating_duration_since(Instant::now()));
    }
    Ok(())
}

/// The value below which this share of the values lies; they need not be sorted.
///
/// # Panics
/// When there is no value.
#[must_use]
#[expect(
    clippy::cast_possible_truncation,
    clippy::cast_sign_loss,
    clippy::cast_precision_loss,
    reason = "an index"
)]
pub fn quantile(values: &[f64], share: f64) -> f64 {
    let mut sorted = values.to_vec();
    sorted.sort_by(f64::total_cmp);
    let place = (share * (sorted.len() - 1) as f64).round() as usize;
    sorted[place]
}

/// The one in the middle.
///
/// # Panics
/// When there is no value.
#[must_use]
pub fn median(values: &[f64]) -> f64 {
    quantile(values, 0.5)
}

/// The command for [`round_trips`]: one request every 10 ms.
#[must_use]
pub fn ping(to: IpAddr, from: Option<IpAddr>, count: u32) -> std::process::Command {
    let mut command = std::process::Command::new("ping");
    command.args(["-n", "-i", "0.01", "-W", "2", "-c", &count.to_string()]);
    if let Some(from) = from {
        command.args(["-I", &from.to_string()]);
    }
    command.arg(to.to_string());
    command
}

/// Runs a [`ping`] and returns the round trips in milliseconds; all must be answered.
///
/// # Errors
/// When one is not.
pub fn round_trips(command: std::process::Command) -> Result<Vec<f64>> {
    let text = process::run(command)?;
    if !text.contains(" 0% packet loss") {
        bail!("not every request was answered: {text}");
    }
    let times = text.lines().filter_map(|line| line.split("time=").nth(1)?.split(' ').next()?.parse().ok());
    Ok(times.collect())
}

#[cfg(test)]
mod tests {
    use std::{net::SocketAddr, time::Duration};

    use super::{Listener, median, ping, quantile, round_trips, send_all, sender};
    use crate::lab::shapes::{B4, Pair};

    #[test]
    fn a_direct_way_takes_little_and_keeps_order() {
        crate::require_root!();
        let pair = Pair::new().unwrap();
        let at = SocketAddr::new(B4.into(), 4000);
        let listener = Listener::new(&pair.b, at).unwrap();
        let sockets = [sender(&pair.a, at).unwrap()];
        send_all(&sockets, 0..100, 50, Duration::from_millis(1)).unwrap();
        let arrivals = listener.collect(Duration::from_millis(100)).unwrap();
        assert!(arrivals.iter().map(|arrival| arrival.number).eq(0..100));
        let took: Vec<f64> = arrivals.iter().map(super::Arrival::took_ms).collect();
        assert!(median(&took) < 20.0, "{took:?}");
        let trips = round_trips(ping(B4.into(), None, 10)).err();
        assert!(trips.is_some(), "there is no way from here");
        let trips = round_trips(pair.a.inside(ping(B4.into(), None, 10))).unwrap();
        assert_eq!(trips.len(), 10);
    }

    #[test]
    fn quantiles_are_found() {
        let values = [3.0, 1.0, 2.0, 5.0, 4.0];
        assert_eq!((median(&values), quantile(&values, 0.0), quantile(&values, 1.0)), (3.0, 1.0, 5.0));
    }
}
