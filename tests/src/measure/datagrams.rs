//! Numbered datagrams from one program to another: when each left and came, what was lost, came twice, came
//! late, came damaged, was marked.
//!
//! Both programs read `CLOCK_MONOTONIC` of the same machine, so the way of one direction is measured exactly. An
//! arrival is dated by the kernel (`SO_TIMESTAMPNS`), not by when the program got to run. Datagrams leave at
//! absolute points in time and are spread over several sockets (*flows*), in turn: a fault that keeps the order
//! within a flow is then seen as it decides, not as one packet waits for another.

use std::{collections::BTreeMap, net::SocketAddr, time::Duration};

use anyhow::{Context, Result, ensure};
use serde::{Deserialize, Serialize};

use super::helper::{self, Beside, End};

/// What is to be sent.
#[derive(Clone, Copy, Debug)]
pub struct Stream {
    /// Where the receiver listens.
    pub to: SocketAddr,
    /// How many datagrams.
    pub count: u32,
    /// Time between two of them.
    pub interval: Duration,
    /// Payload in bytes, at least [`HEADER`].
    pub size: usize,
    /// How many sockets send in turn.
    pub flows: u32,
    /// Whether they say that they understand congestion marks (ECT(0)).
    pub ecn: bool,
}

/// The number of a datagram stands thrice at its beginning, so that damage to one is healed.
pub const HEADER: usize = 12;

impl Stream {
    /// `count` datagrams of 100 bytes from one socket, one every `interval`.
    #[must_use]
    pub const fn new(to: SocketAddr, count: u32, interval: Duration) -> Self {
        Self { to, count, interval, size: 100, flows: 1, ecn: false }
    }

    /// How long sending takes.
    #[must_use]
    pub fn lasts(&self) -> Duration {
        self.interval * self.count
    }
}

/// What the sender noted; times are `CLOCK_MONOTONIC` in nanoseconds.
#[derive(Clone, Debug, Default, Serialize, Deserialize)]
pub struct Sent {
    /// When each datagram was handed to the kernel.
    pub at_ns: Vec<u64>,
    /// Which of them the kernel refused, with the errno.
    pub refused: Vec<(u32, i32)>,
}

/// One arrival as the receiver noted it.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Arrival {
    /// Its number; none when the damage was too great to tell.
    pub number: Option<u32>,
    /// When the kernel received it: `CLOCK_MONOTONIC` in nanoseconds.
    pub at_ns: u64,
    /// Bytes of payload.
    pub size: u32,
    /// The payload is what was sent.
    pub intact: bool,
    /// It carries the mark "congestion experienced".
    pub marked: bool,
}

/// What both sides noted.
#[derive(Clone, Debug, Default)]
pub struct Seen {
    /// How many flows sent in turn.
    pub flows: u32,
    /// The sender's notes.
    pub sent: Sent,
    /// In the order of arrival.
    pub arrivals: Vec<Arrival>,
}

/// The payload of datagram `number`: its number thrice, then a pattern that differs between numbers and places.
#[must_use]
pub fn payload(number: u32, size: usize) -> Vec<u8> {
    let mut bytes = number.to_be_bytes().repeat(3);
    let start = number.wrapping_mul(0x9e37_79b9).to_be_bytes()[0];
    bytes.extend((HEADER..size).map(|place| start.wrapping_add(place.to_le_bytes()[0])));
    bytes
}

/// Reads a payload: the number that two of three places agree on, and whether all is as it was sent.
#[must_use]
pub fn judge(bytes: &[u8]) -> (Option<u32>, bool) {
    let word = |at: usize| Some(u32::from_be_bytes(bytes.get(at..at + 4)?.try_into().ok()?));
    let (Some(a), Some(b), Some(c)) = (word(0), word(4), word(8)) else { return (None, false) };
    let number = if a == b || a == c { Some(a) } else { (b == c).then_some(b) };
    (number, number.is_some_and(|number| payload(number, bytes.len()) == bytes))
}

/// Sends `stream` from one end to the other; `grace` is how long after the last one arrivals still count.
///
/// # Errors
/// When a program fails.
pub fn send(from: End<'_>, to: End<'_>, stream: &Stream, grace: Duration) -> Result<Seen> {
    let running = Running::start(from, to, stream)?;
    running.finish(grace)
}

/// A stream on its way.
#[derive(Debug)]
pub struct Running {
    stream: Stream,
    sender: Beside,
    receiver: Beside,
}

impl Running {
    /// Starts it; the sender begins at once.
    ///
    /// # Errors
    /// When a program does not start.
    pub fn start(from: End<'_>, to: End<'_>, stream: &Stream) -> Result<Self> {
        ensure!(stream.size >= HEADER, "a datagram has at least {HEADER} bytes");
        let receiver = Beside::start(to, &format!("datagrams-in {}", stream.to))?;
        let Stream { to, count, interval, size, flows, ecn } = stream;
        let interval_ns = interval.as_nanos();
        let line = format!("datagrams-out {to} {count} {interval_ns} {size} {flows} {}", u8::from(*ecn));
        let sender = Beside::start(from, &line)?;
        Ok(Self { stream: *stream, sender, receiver })
    }

    /// Waits for the last datagram and `grace` more, and collects the notes.
    ///
    /// # Errors
    /// When a program fails.
    pub fn finish(self, grace: Duration) -> Result<Seen> {
        let limit = self.stream.lasts() + Duration::from_secs(10);
        let sent: Sent = helper::record(&self.sender.finish(limit)?)?;
        std::thread::sleep(grace);
        let arrivals = helper::records(&self.receiver.finish(Duration::from_secs(20))?)?;
        Ok(Seen { flows: self.stream.flows, sent, arrivals })
    }
}

impl Seen {
    /// How many were handed to the kernel and not refused.
    #[must_use]
    pub fn count(&self) -> u64 {
        (self.sent.at_ns.len() - self.sent.refused.len()) as u64
    }

    /// In the order of sending: whether it did not come, damaged or not.
    #[must_use]
    pub fn losses(&self) -> Vec<bool> {
        let mut lost = vec![true; self.sent.at_ns.len()];
        for number in self.arrivals.iter().filter_map(|arrival| arrival.number) {
            if let Some(place) = lost.get_mut(number as usize) {
                *place = false;
            }
        }
        lost
    }

    /// How many did not come.
    #[must_use]
    pub fn lost(&self) -> u64 {
        self.losses().iter().filter(|lost| **lost).count() as u64
    }

    /// How many came more often than once, each counted as often as it came too much.
    #[must_use]
    pub fn extra(&self) -> u64 {
        self.arrivals.len() as u64 + self.lost() - self.sent.at_ns.len() as u64
    }

    /// How many came with other bytes than were sent.
    #[must_use]
    pub fn damaged(&self) -> u64 {
        self.arrivals.iter().filter(|arrival| !arrival.intact).count() as u64
    }

    /// How many came with the mark "congestion experienced".
    #[must_use]
    pub fn marked(&self) -> u64 {
        self.arrivals.iter().filter(|arrival| arrival.marked).count() as u64
    }

    /// How many came after one of their flow that was sent later (RFC 4737, "reordered").
    #[must_use]
    pub fn reordered(&self) -> u64 {
        let mut highest: BTreeMap<u32, u32> = BTreeMap::new();
        let mut late = 0;
        for number in self.arrivals.iter().filter_map(|arrival| arrival.number) {
            let highest = highest.entry(number % self.flows.max(1)).or_insert(number);
            late += u64::from(number < *highest);
            *highest = number.max(*highest);
        }
        late
    }

    /// How long each took that came, in the order of sending, in nanoseconds.
    #[must_use]
    pub fn delays_ns(&self) -> Vec<u64> {
        let mut first: BTreeMap<u32, u64> = BTreeMap::new();
        for arrival in &self.arrivals {
            if let Some(number) = arrival.number {
                first.entry(number).or_insert(arrival.at_ns);
            }
        }
        let took = |(number, at_ns): (&u32, &u64)| {
            let sent_ns = self.sent.at_ns.get(*number as usize)?;
            Some(at_ns.saturating_sub(*sent_ns))
        };
        first.iter().filter_map(took).collect()
    }

    /// The greatest number of bytes (payload and `overhead` each) that came within any `window_ns`.
    #[must_use]
    pub fn most_within(&self, window_ns: u64, overhead: u64) -> u64 {
        let size = |arrival: &Arrival| u64::from(arrival.size) + overhead;
        let (mut first, mut within, mut most) = (0, 0, 0);
        for arrival in &self.arrivals {
            within += size(arrival);
            while self.arrivals[first].at_ns + window_ns <= arrival.at_ns {
                within -= size(&self.arrivals[first]);
                first += 1;
            }
            most = most.max(within);
        }
        most
    }

    /// Bytes a second (payload and `overhead` each) between the first arrival at or after `from_ns` and the last.
    ///
    /// # Errors
    /// With fewer than two arrivals.
    pub fn bytes_per_second(&self, from_ns: u64, overhead: u64) -> Result<f64> {
        let counted: Vec<_> = self.arrivals.iter().filter(|arrival| arrival.at_ns >= from_ns).collect();
        let (first, rest) = counted.split_first().context("nothing arrived")?;
        let last = rest.last().context("only one datagram arrived")?;
        let bytes: u64 = rest.iter().map(|arrival| u64::from(arrival.size) + overhead).sum();
        #[expect(clippy::cast_precision_loss, reason = "counts stay far below 2^52")]
        let bytes = bytes as f64;
        Ok(bytes / Duration::from_nanos(last.at_ns - first.at_ns).as_secs_f64())
    }
}

#[cfg(test)]
mod tests {
    use super::{Arrival, Seen, Sent, judge, payload};

    fn seen(sent: usize, arrivals: &[(u32, u64)]) -> Seen {
        let arrival = |&(number, at_ns): &(u32, u64)| Arrival {
            number: Some(number),
            at_ns,
            size: 100,
            intact: true,
            marked: false,
        };
        let at_ns = (0..sent as u64).map(|number| number * 10).collect();
        let sent = Sent { at_ns, refused: Vec::new() };
        Seen { flows: 1, sent, arrivals: arrivals.iter().map(arrival).collect() }
    }

    #[test]
    fn a_payload_is_known_again_and_damage_is_seen() {
        let bytes = payload(77, 100);
        assert_eq!(judge(&bytes), (Some(77), true));
        for place in 0..100 {
            let mut damaged = bytes.clone();
            damaged[place] ^= 4;
            assert_eq!(judge(&damaged), (Some(77), false), "place {place}");
        }
        assert_eq!(judge(&bytes[..8]), (None, false));
        assert_ne!(payload(1, 64)[12..], payload(2, 64)[12..]);
    }

    #[test]
    fn what_came_is_counted() {
        let seen = seen(5, &[(0, 5), (2, 30), (1, 40), (2, 41), (4, 60)]);
        assert_eq!(seen.losses(), [false, false, false, true, false]);
        assert_eq!((seen.lost(), seen.extra(), seen.reordered(), seen.damaged()), (1, 1, 1, 0));
        assert_eq!(seen.delays_ns(), [5, 30, 10, 20]);
    }

    #[test]
    fn windows_and_rates_are_those_of_the_arrivals() {
        let seen = seen(4, &[(0, 0), (1, 1_000_000_000), (2, 1_000_000_005), (3, 2_000_000_000)]);
        assert_eq!(seen.most_within(10, 28), 256);
        assert_eq!(seen.most_within(1_000_000_001, 0), 200 + 100);
        assert!((seen.bytes_per_second(0, 0).unwrap() - 150.0).abs() < 1e-9);
    }
}
