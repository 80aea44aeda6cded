//! What the tests of waiting packets share.

use std::{
    net::{SocketAddr, UdpSocket},
    sync::atomic::{AtomicU16, AtomicU32, Ordering},
    time::{Duration, Instant},
};

use chaos_agent::{
    spec::{Direction, Limits, MatchSpec, Proto, RuleSpec, Schedule},
    targets::Target,
};
use chaos_common::fault::{FAULTS, Faults};
use chaos_tests::{
    lab::{
        netns::Netns,
        shapes::{B4, Pair},
    },
    measure::wait::{Arrival, Listener, send_all, sender},
};

/// A rule with these faults on all datagrams that leave A.
pub(crate) fn rule(pair: &Pair, list: &[(&str, &str)]) -> RuleSpec {
    let mut faults = Faults::default();
    for (name, value) in list {
        let info = FAULTS.iter().find(|info| info.name == *name).unwrap();
        (info.parse)(value, &mut faults).unwrap();
    }
    RuleSpec {
        name: format!("{list:?}"),
        target: Target::NetnsName(pair.a.name().to_owned()),
        peer: None,
        matching: MatchSpec {
            direction: Some(Direction::Egress),
            protos: vec![Proto::Udp],
            ..MatchSpec::default()
        },
        faults,
        schedule: Schedule { duration: Some(Duration::from_mins(1)), ..Schedule::default() },
        limits: Limits::default(),
        shadow: false,
        seed: None,
        lease: Duration::from_secs(10),
    }
}

/// The delay line of a namespace, by name.
pub(crate) fn device(netns: &Netns) -> Option<String> {
    let links = netns.run("ip -o link").unwrap();
    let name =
        links.lines().find_map(|line| line.split(": ").nth(1).filter(|name| name.starts_with("chaos-d")));
    name.map(str::to_owned)
}

/// Numbered datagrams from A to B by one flow, one a millisecond.
pub(crate) struct Flow {
    listener: Listener,
    socket: UdpSocket,
    next: AtomicU32,
}

impl Flow {
    /// A flow that no other had before.
    pub(crate) fn new(pair: &Pair) -> Self {
        static PORT: AtomicU16 = AtomicU16::new(4000);
        let at = SocketAddr::new(B4.into(), PORT.fetch_add(1, Ordering::Relaxed));
        let (listener, socket) = (Listener::new(&pair.b, at).unwrap(), sender(&pair.a, at).unwrap());
        Self { listener, socket, next: AtomicU32::new(0) }
    }

    /// Sends for so long; how many were sent so far.
    pub(crate) fn send_for(&self, length: Duration) -> u32 {
        let began = Instant::now();
        while began.elapsed() < length {
            let number = self.next.fetch_add(1, Ordering::Relaxed);
            let one = Duration::from_millis(1);
            send_all(std::slice::from_ref(&self.socket), number..number + 1, 100, one).unwrap();
        }
        self.count()
    }

    /// Sends so many without a pause.
    pub(crate) fn send_at_once(&self, count: u32) {
        let first = self.next.fetch_add(count, Ordering::Relaxed);
        send_all(std::slice::from_ref(&self.socket), first..first + count, 16, Duration::ZERO).unwrap();
    }

    /// How many were sent so far.
    pub(crate) fn count(&self) -> u32 {
        self.next.load(Ordering::Relaxed)
    }

    /// What has arrived, once nothing comes for 700 ms.
    pub(crate) fn arrived(&self) -> Vec<Arrival> {
        self.listener.collect(Duration::from_millis(700)).unwrap()
    }
}
