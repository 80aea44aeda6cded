//! A steady stream of numbered datagrams: which of them arrived, and when each was sent.

use std::{
    io::ErrorKind,
    net::{IpAddr, SocketAddr, UdpSocket},
    sync::{
        Arc,
        atomic::{AtomicBool, Ordering},
    },
    thread::JoinHandle,
    time::{Duration, Instant},
};

use anyhow::{Context, Result, ensure};
use nix::sys::socket::{setsockopt, sockopt};

use crate::lab::netns::Netns;

/// Where the datagrams go.
pub const PROBE_PORT: u16 = 9;

/// Room for seconds of a busy receiver.
const RECEIVE_BUFFER: usize = 64 << 20;

/// One datagram.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Sample {
    /// When it was sent.
    pub sent_at: Instant,
    /// Whether it arrived.
    pub arrived: bool,
}

/// A running stream.
#[derive(Debug)]
pub struct Probe {
    stop: Arc<AtomicBool>,
    sender: JoinHandle<Result<Vec<Instant>>>,
    receiver: JoinHandle<Vec<u32>>,
}

impl Probe {
    /// Sends one datagram every `interval` from `from` to [`PROBE_PORT`] at `address` in `to`, until stopped.
    ///
    /// # Errors
    /// When the sockets cannot be made.
    pub fn start(from: &Netns, to: &Netns, address: IpAddr, interval: Duration) -> Result<Self> {
        Self::start_at(from, to, SocketAddr::new(address, PROBE_PORT), interval)
    }

    /// The same to a port of one's own choice.
    ///
    /// # Errors
    /// When the sockets cannot be made.
    pub fn start_at(from: &Netns, to: &Netns, at: SocketAddr, interval: Duration) -> Result<Self> {
        let target = to.enter(|| UdpSocket::bind(at))?.context("the receiving socket")?;
        target.set_read_timeout(Some(Duration::from_millis(50)))?;
        // What the receiver is late to read must not count as lost.
        setsockopt(&target, sockopt::RcvBufForce, &RECEIVE_BUFFER).context("SO_RCVBUFFORCE")?;
        let source = from.enter(|| -> std::io::Result<UdpSocket> {
            let any = if at.is_ipv4() { "0.0.0.0:0" } else { "[::]:0" };
            let socket = UdpSocket::bind(any)?;
            socket.connect(at)?;
            Ok(socket)
        })?;
        let source = source.context("the sending socket")?;
        let stop = Arc::new(AtomicBool::new(false));
        let (seen_by_sender, seen_by_receiver) = (Arc::clone(&stop), Arc::clone(&stop));
        let sender = std::thread::spawn(move || send(&source, interval, &seen_by_sender));
        let receiver = std::thread::spawn(move || receive(&target, &seen_by_receiver));
        Ok(Self { stop, sender, receiver })
    }

    /// Ends it and returns every datagram in the order of sending.
    ///
    /// # Errors
    /// When a datagram could not be sent: a fault must not be visible to the sender.
    pub fn finish(self) -> Result<Vec<Sample>> {
        self.stop.store(true, Ordering::Relaxed);
        let sent = self.sender.join().map_err(|_| anyhow::anyhow!("the sender panicked"))??;
        let numbers = self.receiver.join().map_err(|_| anyhow::anyhow!("the receiver panicked"))?;
        let mut samples: Vec<_> =
            sent.into_iter().map(|sent_at| Sample { sent_at, arrived: false }).collect();
        for number in numbers {
            let sample = samples.get_mut(usize::try_from(number)?).context("a number never sent")?;
            ensure!(!sample.arrived, "datagram {number} arrived twice");
            sample.arrived = true;
        }
        Ok(samples)
    }
}

fn send(socket: &UdpSocket, interval: Duration, stop: &AtomicBool) -> Result<Vec<Instant>> {
    let mut sent = Vec::new();
    let start = Instant::now();
    while !stop.load(Ordering::Relaxed) {
        let number = u32::try_from(sent.len())?;
        sent.push(Instant::now());
        socket.send(&number.to_ne_bytes()).context("a datagram was refused")?;
        let next = start + interval * (number + 1);
        std::thread::sleep(next.saturating_duration_since(Instant::now()));
    }
    Ok(sent)
}

fn receive(socket: &UdpSocket, stop: &AtomicBool) -> Vec<u32> {
    let mut numbers = Vec::new();
    let mut bytes = [0; 4];
    loop {
        match socket.recv(&mut bytes) {
            Ok(4) => numbers.push(u32::from_ne_bytes(bytes)),
            Err(error) if error.kind() == ErrorKind::WouldBlock && stop.load(Ordering::Relaxed) => {
                return numbers;
            }
            Ok(_) | Err(_) => {}
        }
    }
}

/// The first blackout: when its first lost and its first arriving datagram after that were sent.
///
/// # Errors
/// When nothing was lost, or nothing arrived afterwards.
pub fn first_blackout(samples: &[Sample]) -> Result<(Instant, Instant)> {
    let first = samples.iter().position(|sample| !sample.arrived).context("nothing was lost")?;
    let end = samples[first..].iter().find(|sample| sample.arrived).context("nothing arrived again")?;
    Ok((samples[first].sent_at, end.sent_at))
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::{Probe, first_blackout};
    use crate::lab::shapes::{B4, Pair};

    #[test]
    fn a_link_that_is_down_for_a_while_is_seen() {
        crate::require_root!();
        let pair = Pair::new().unwrap();
        pair.a.run(&format!("ping -c 1 -W 2 -q {B4}")).unwrap();
        let probe = Probe::start(&pair.a, &pair.b, B4.into(), Duration::from_millis(2)).unwrap();
        pair.a.run("sleep 0.2").unwrap();
        // What comes from an address without a way back is dropped (reverse path filter).
        pair.b.run("sysctl -qw net.ipv4.conf.vb.rp_filter=1").unwrap();
        pair.b.run("ip route add blackhole 10.77.0.1/32").unwrap();
        pair.a.run("sleep 0.3").unwrap();
        pair.b.run("ip route del blackhole 10.77.0.1/32").unwrap();
        pair.a.run("sleep 0.2").unwrap();
        let samples = probe.finish().unwrap();
        let (first, end) = first_blackout(&samples).unwrap();
        let length = end - first;
        assert!(length > Duration::from_millis(250) && length < Duration::from_secs(3), "{length:?}");
    }
}
