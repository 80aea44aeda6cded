//! Where a row is measured: namespaces, cgroup, addresses, and the rule under test.

use std::{net::SocketAddr, process::Command, rc::Rc, time::Duration};

use anyhow::Result;
use chaos_tests::{
    chaos::Chaos,
    lab::{
        cgroup::Cgroup,
        netns::{Netns, words},
        process::Process,
        shapes::{Pair, pair_address},
    },
    measure::{
        datagrams::{self, Seen, Stream},
        helper::{self, End},
        tcp,
    },
};

use crate::row::{Device, Place, Row, Way};

/// Where receivers listen.
const PORT: u16 = 5400;
/// How long after the last datagram arrivals still count, on top of the rule's delay.
const GRACE: Duration = Duration::from_millis(100);

/// A place made ready.
pub(crate) struct Bench<'r> {
    /// What is measured.
    pub(crate) row: &'r Row,
    /// Fewer samples and shorter times are wanted.
    pub(crate) quick: bool,
    /// The machine is an emulated one.
    pub(crate) slow: bool,
    /// Two namespaces; on the loopback device only A is used.
    pub(crate) pair: Pair,
    // In the order of their end: a cgroup goes when nothing is in it.
    _inhabitant: Option<Process>,
    inside: Box<dyn Fn(Command) -> Command>,
    cgroup: Option<Rc<Cgroup>>,
}

impl<'r> Bench<'r> {
    pub(crate) fn new(row: &'r Row, quick: bool, slow: bool) -> Result<Self> {
        let pair = Pair::new()?;
        let cgroup = row.place.cgroup.then(Cgroup::new).transpose()?.map(Rc::new);
        let mut inside: Box<dyn Fn(Command) -> Command> = Box::new(tcp::plain);
        let mut inhabitant = None;
        if let Some(cgroup) = &cgroup {
            // The namespace of a cgroup is known from the processes in it.
            let sleeper = target(row.place, &pair).inside(cgroup.inside(words("sleep 600")));
            inhabitant = Some(Process::start(sleeper)?);
            let home = Rc::clone(cgroup);
            inside = Box::new(move |command| home.inside(command));
        }
        let bench = Self { row, quick, slow, pair, _inhabitant: inhabitant, inside, cgroup };
        helper::warm_up(bench.near().netns, bench.to().ip())?;
        Ok(bench)
    }

    pub(crate) fn place(&self) -> Place {
        self.row.place
    }

    fn end<'a>(&'a self, netns: &'a Netns, is_target: bool) -> End<'a> {
        End { netns, wrap: if is_target { &*self.inside } else { &tcp::plain } }
    }

    /// Who sends, asks, connects.
    pub(crate) fn near(&self) -> End<'_> {
        self.end(&self.pair.a, self.place().way != Way::Ingress)
    }

    /// Who receives, answers, listens.
    pub(crate) fn far(&self) -> End<'_> {
        let netns = if self.place().device == Device::Lo { &self.pair.a } else { &self.pair.b };
        self.end(netns, self.place().way == Way::Ingress)
    }

    /// Where the far end listens.
    pub(crate) fn to(&self) -> SocketAddr {
        let v6 = self.place().v6;
        let address = match self.place().device {
            Device::Veth => pair_address(true, v6),
            Device::Lo if v6 => std::net::Ipv6Addr::LOCALHOST.into(),
            Device::Lo => std::net::Ipv4Addr::LOCALHOST.into(),
        };
        helper::at(address, PORT)
    }

    /// The arguments of `chaos` for these faults here, with more flags.
    pub(crate) fn arguments(&self, asked: &str, more: &str) -> String {
        if let Some(flags) = asked.strip_prefix("partition A B") {
            let (a, b) = (self.pair.a.name(), self.pair.b.name());
            return format!("partition netns:{a} netns:{b} {flags} --for 2m {more}");
        }
        let target = match &self.cgroup {
            Some(cgroup) => format!("cgroup:{}", cgroup.name()),
            None => format!("netns:{}", target(self.place(), &self.pair).name()),
        };
        // On the loopback device answers go the same way as requests: the port tells them apart.
        let which = match (self.place().way, self.place().device) {
            (Way::Egress, Device::Veth) => "--direction egress".to_owned(),
            (Way::Ingress, Device::Veth) => "--direction ingress".to_owned(),
            (Way::Own, Device::Veth) => String::new(),
            (Way::Egress, Device::Lo) => format!("--direction egress --peer-port {PORT}"),
            (Way::Ingress, Device::Lo) => format!("--direction ingress --local-port {PORT}"),
            (Way::Own, Device::Lo) => format!("--peer-port {PORT}"),
        };
        format!("inject {target} {which} --for 2m {more} {asked}")
    }

    /// Sets the row's rule.
    pub(crate) fn arm(&self) -> Result<Chaos> {
        self.arm_with(&self.row.asked)
    }

    /// Sets a rule of its own making.
    pub(crate) fn arm_with(&self, asked: &str) -> Result<Chaos> {
        // An emulated machine may stand still for longer than a lease usually lasts.
        let lease = if self.slow { "--lease 1m" } else { "" };
        Chaos::start(&self.arguments(asked, lease))
    }

    /// `full`, or `quick` in a quick run.
    pub(crate) fn count(&self, full: u32, quick: u32) -> u32 {
        if self.quick { quick } else { full }
    }

    /// A stream of datagrams here; `longest` is how long one may be held.
    pub(crate) fn send(&self, stream: &Stream, longest: Duration) -> Result<Seen> {
        datagrams::send(self.near(), self.far(), stream, longest + GRACE)
    }

    /// The same under the row's rule.
    pub(crate) fn send_armed(&self, stream: &Stream, longest: Duration) -> Result<Seen> {
        let chaos = self.arm()?;
        let seen = self.send(stream, longest)?;
        chaos.stop()?;
        Ok(seen)
    }

    /// Datagrams to here, one every `interval`.
    pub(crate) fn stream(&self, count: u32, interval_us: u64) -> Stream {
        Stream::new(self.to(), count, Duration::from_micros(interval_us))
    }

    /// The same where the time of each datagram matters: a machine that is slow is asked for no more than it can do
    /// beside, or they would wait for each other.
    pub(crate) fn gentle_stream(&self, count: u32, interval_us: u64) -> Stream {
        if self.slow { self.stream(count / 5, interval_us * 20) } else { self.stream(count, interval_us) }
    }

    /// Both namespaces, for counters.
    pub(crate) fn namespaces(&self) -> [&Netns; 2] {
        [&self.pair.a, &self.pair.b]
    }
}

/// The namespace the rule is for.
fn target(place: Place, pair: &Pair) -> &Netns {
    let far = place.way == Way::Ingress && place.device == Device::Veth;
    if far { &pair.b } else { &pair.a }
}
