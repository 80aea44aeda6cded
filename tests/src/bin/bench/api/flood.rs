//! Datagrams from one namespace to another without a pause, with the time each left and the time it came.

use std::{
    net::{SocketAddr, UdpSocket},
    sync::{
        Arc,
        atomic::{AtomicBool, AtomicU64, Ordering},
    },
    thread::{self, JoinHandle},
    time::{Duration, Instant},
};

use anyhow::{Context, Result, ensure};
use chaos_tests::lab::shapes::{A4, B4, Pair};

/// One datagram so often: the grain of every time that is told.
const EVERY: Duration = Duration::from_micros(100);
/// Datagrams that are remembered: seconds of them.
const REMEMBERED: usize = 1 << 17;
const PORT: u16 = 7_777;

/// A running flood; dropping it ends it.
pub(super) struct Flood {
    notes: Arc<Notes>,
    threads: Vec<JoinHandle<()>>,
}

struct Notes {
    begun: Instant,
    is_over: AtomicBool,
    /// The number of the next one.
    next: AtomicU64,
    /// When each left, nanoseconds since `begun`; 0 = not yet.
    left: Vec<AtomicU64>,
    /// When each came; 0 = not yet, or lost.
    came: Vec<AtomicU64>,
}

impl Notes {
    fn now_ns(&self) -> u64 {
        u64::try_from(self.begun.elapsed().as_nanos()).unwrap_or(u64::MAX)
    }
}

fn note(list: &[AtomicU64], number: u64, at_ns: u64) {
    let place = usize::try_from(number).unwrap_or(0) % REMEMBERED;
    if let Some(slot) = list.get(place) {
        slot.store(at_ns, Ordering::Release);
    }
}

fn at(list: &[AtomicU64], number: u64) -> u64 {
    let place = usize::try_from(number).unwrap_or(0) % REMEMBERED;
    list.get(place).map_or(0, |slot| slot.load(Ordering::Acquire))
}

/// A moment of the flood.
#[derive(Clone, Copy)]
pub(super) struct Mark {
    at_ns: u64,
    number: u64,
}

impl Flood {
    /// Starts it from end A to end B.
    pub(super) fn start(pair: &Pair) -> Result<Self> {
        let to = SocketAddr::from((B4, PORT));
        let receiver = pair.b.enter(|| UdpSocket::bind(to))?.context("the receiver's socket")?;
        let sender = pair.a.enter(|| UdpSocket::bind((A4, 0)))?.context("the sender's socket")?;
        sender.connect(to)?;
        // A partition stops ARP, too: the flood would wait for an answer, and go on a second after the end.
        sender.set_nonblocking(true)?;
        for (netns, device, other, far, address) in
            [(&pair.a, "va", &pair.b, "vb", B4), (&pair.b, "vb", &pair.a, "va", A4)]
        {
            let link = other.run(&format!("ip -o link show {far}"))?;
            let mac = link.split("link/ether ").nth(1).and_then(|rest| rest.split(' ').next());
            let mac = mac.context("no address of the link")?;
            netns.run(&format!("ip neigh replace {address} lladdr {mac} dev {device} nud permanent"))?;
        }
        receiver.set_read_timeout(Some(Duration::from_millis(50)))?;
        let list = || (0..REMEMBERED).map(|_| AtomicU64::new(0)).collect();
        let notes = Arc::new(Notes {
            begun: Instant::now(),
            is_over: AtomicBool::new(false),
            next: AtomicU64::new(0),
            left: list(),
            came: list(),
        });
        let (sending, receiving) = (Arc::clone(&notes), Arc::clone(&notes));
        let threads = vec![
            thread::spawn(move || send(&sending, &sender)),
            thread::spawn(move || receive(&receiving, &receiver)),
        ];
        let flood = Self { notes, threads };
        let before = flood.mark();
        thread::sleep(Duration::from_millis(50));
        ensure!(flood.first(before, |trip| trip.is_some()).is_some(), "no datagram arrives");
        Ok(flood)
    }

    /// Now.
    pub(super) fn mark(&self) -> Mark {
        Mark { at_ns: self.notes.now_ns(), number: self.notes.next.load(Ordering::Acquire) }
    }

    /// How long after `mark` the first datagram left whose way is as wanted: the time it took, none if it was lost.
    /// Ask when the last that counts has had time to come.
    pub(super) fn first(&self, mark: Mark, wanted: impl Fn(Option<Duration>) -> bool) -> Option<Duration> {
        let last = self.notes.next.load(Ordering::Acquire);
        (mark.number..last).find_map(|number| {
            let left = at(&self.notes.left, number);
            let came = at(&self.notes.came, number);
            let trip = (came != 0).then(|| Duration::from_nanos(came.saturating_sub(left)));
            (left >= mark.at_ns && wanted(trip)).then(|| Duration::from_nanos(left - mark.at_ns))
        })
    }
}

impl Drop for Flood {
    fn drop(&mut self) {
        self.notes.is_over.store(true, Ordering::Release);
        for thread in self.threads.drain(..) {
            let _ = thread.join();
        }
    }
}

fn send(notes: &Notes, socket: &UdpSocket) {
    while !notes.is_over.load(Ordering::Acquire) {
        let number = notes.next.load(Ordering::Acquire);
        note(&notes.came, number, 0);
        note(&notes.left, number, notes.now_ns());
        notes.next.store(number + 1, Ordering::Release);
        // A fault may answer with an error: that is not ours to judge.
        let _ = socket.send(&number.to_be_bytes());
        thread::sleep(EVERY);
    }
}

fn receive(notes: &Notes, socket: &UdpSocket) {
    let mut bytes = [0; 8];
    while !notes.is_over.load(Ordering::Acquire) {
        if let Ok(8) = socket.recv(&mut bytes) {
            let at_ns = notes.now_ns();
            note(&notes.came, u64::from_be_bytes(bytes), at_ns);
        }
    }
}
