//! Idle connections of rules that end connections: nothing passes that a program could answer, so
//! they are ended by their sockets (`SOCK_DESTROY`).
//!
//! Which sockets a rule means is asked of the same code that judges packets: a connection is looked
//! at as its next segment without data, leaving and coming, on the devices that it may use.

use std::{
    collections::{BTreeMap, BTreeSet, HashMap, HashSet},
    time::{Duration, Instant},
};

use chaos_common::{
    abi::{Device, Direction, Flow, FlowKey, Rule, RuleState},
    compile::{Tables, addr_of},
    fault::Faults,
    host::Host,
    job::{Job, Size, job_flags},
    lookup::symmetric,
    packet::{Class, Packet, packet_flags, tcp},
};
use nix::errno::Errno;

use super::{
    Engine,
    clock::boot_ns,
    owners::{conversation, deepest, keys},
    site::Site,
    types::{EngineError, Event, EventKind},
};
use crate::{
    net::{
        Netlink, route,
        sockets::{self, Socket, Transport},
    },
    netns::{Netns, NetnsId},
};

/// When idle connections end that shall end at once: those that are not idle have been reset by then, which
/// tells both programs what happened; one whose socket is ended hears ECONNABORTED. Resets get through the
/// rules that make them, so the other end hears of it.
const GRACE_NS: u64 = 20_000_000;
/// How often connections are looked at whose time may have come.
const LOOK: Duration = Duration::from_millis(200);
/// An IP and a TCP header: what a segment without data has.
const HEADERS: u32 = 54;

/// A namespace with rules.
pub(super) struct Place {
    /// The namespace.
    pub(super) netns: Netns,
    /// `SO_NETNS_COOKIE`, as in the tables.
    pub(super) cookie: u64,
    /// What no rule may touch there.
    pub(super) protected: Vec<FlowKey>,
}

/// The deepest target cgroup above a cgroup, by id.
pub(super) type OwnerOf = HashMap<u64, u64>;

/// Rules that end connections later than at arming.
#[derive(Default)]
pub(super) struct Resets {
    /// The rules that are armed; empty while none ends connections later.
    host: Host,
    /// When each begins to, counted from the rule's start; by slot.
    later: BTreeMap<u32, u64>,
    /// Boot clock when a connection was first seen, by socket cookie.
    seen: HashMap<u64, u64>,
    looked: Option<Instant>,
}

impl Resets {
    /// Call it when the rules in the slots `fresh` have their times, and before they are armed: notes which end
    /// connections, and which connections are there.
    pub(super) fn arm(
        &mut self,
        tables: &Tables,
        fresh: &BTreeSet<u32>,
        sockets_of: impl FnOnce() -> (Vec<Place>, OwnerOf),
    ) -> Result<(), EngineError> {
        let armed: HashSet<u32> = tables.rules.iter().map(|(slot, _)| *slot).collect();
        self.later.retain(|slot, _| !fresh.contains(slot) && armed.contains(slot));
        let mut first_armed_ns = boot_ns();
        for (slot, rule) in tables.rules.iter().filter(|(slot, _)| fresh.contains(slot)) {
            if let (Some(after_ns), false) = (ends_after_ns(&rule.faults), spares_idle(rule)) {
                self.later.insert(*slot, after_ns);
            }
            first_armed_ns = first_armed_ns.min(rule.armed_ns);
        }
        if self.later.is_empty() {
            *self = Self::default();
            return Ok(());
        }
        self.host = host(tables);
        if !self.later.keys().any(|slot| fresh.contains(slot)) {
            return Ok(());
        }
        let (places, owner_of) = sockets_of();
        for place in places.iter().filter(|place| is_judged(tables, place)) {
            self.look(place, &owner_of, first_armed_ns.saturating_sub(1))?;
        }
        Ok(())
    }

    /// Ends connections whose time has come; call it from every tick. Looks at most five times a second.
    pub(super) fn tick(
        &mut self,
        sockets_of: impl FnOnce() -> (Vec<Place>, OwnerOf),
    ) -> Result<Vec<Event>, EngineError> {
        if self.later.is_empty() {
            return Ok(Vec::new());
        }
        let now_ns = boot_ns();
        let looked = self.looked.is_some_and(|looked| looked.elapsed() < LOOK);
        if looked && !self.begins_at_once(now_ns) {
            return Ok(Vec::new());
        }
        self.looked = Some(Instant::now());
        let (places, owner_of) = sockets_of();
        let mut events = Vec::new();
        let mut present = BTreeSet::new();
        for place in &places {
            if !is_judged(&self.host.tables, place) {
                continue;
            }
            let known = self.look(place, &owner_of, now_ns)?;
            present.extend(known.iter().map(|(socket, _)| socket.cookie));
            events.extend(end(place, &known, |slots, socket| self.is_due(slots, socket, now_ns))?);
        }
        self.seen.retain(|cookie, _| present.contains(cookie));
        self.done_once(now_ns);
        Ok(events)
    }

    /// Some rule that means the connection has let it live for its time.
    fn is_due(&self, slots: &[u32], socket: &Socket, now_ns: u64) -> bool {
        let seen_ns = self.seen.get(&socket.cookie).copied().unwrap_or(now_ns);
        slots.iter().any(|slot| {
            let rule = self.host.tables.rules.iter().find(|(at, _)| at == slot).map(|(_, rule)| rule);
            rule.zip(self.later.get(slot)).is_some_and(|(rule, after_ns)| {
                now_ns.saturating_sub(rule.starts_ns.max(seen_ns)) >= *after_ns
            })
        })
    }

    /// A rule that ends connections when it begins has begun.
    fn begins_at_once(&self, now_ns: u64) -> bool {
        let rules = &self.host.tables.rules;
        let begun =
            |slot: &u32| rules.iter().any(|(at, rule)| at == slot && rule.starts_ns + GRACE_NS <= now_ns);
        self.later.iter().any(|(slot, after_ns)| *after_ns == GRACE_NS && begun(slot))
    }

    /// A rule that ends connections when it begins has done so; from then on packets do.
    fn done_once(&mut self, now_ns: u64) {
        let rules = &self.host.tables.rules;
        let waits =
            |slot: &u32| rules.iter().any(|(at, rule)| at == slot && rule.starts_ns + GRACE_NS > now_ns);
        self.later.retain(|slot, after_ns| *after_ns != GRACE_NS || waits(slot));
    }

    /// The connections of a namespace, with the rules that act on them now. Those not seen before count
    /// as seen at `now_ns`.
    fn look(
        &mut self,
        place: &Place,
        owner_of: &OwnerOf,
        now_ns: u64,
    ) -> Result<Vec<(Socket, Vec<u32>)>, EngineError> {
        let Listed { sockets, devices } = place.netns.run(|| list(&self.host.tables, place.cookie))??;
        let host = &mut self.host;
        host.now_ns.set(boot_ns());
        host.owners.clear();
        host.flows.clear();
        host.protected = place.protected.iter().copied().collect();
        for (socket, _) in &sockets {
            if let Some(owner) = socket.cgroup.and_then(|id| owner_of.get(&id)) {
                host.owners.extend(keys(socket, place.cookie).into_iter().map(|key| (key, *owner)));
            }
            let first_seen_ns = *self.seen.entry(socket.cookie).or_insert(now_ns);
            let flow = Flow { first_seen_ns, last_seen_ns: now_ns };
            host.flows.insert(symmetric(&conversation(socket, place.cookie)), flow);
        }
        let connections = sockets.into_iter().filter(|(socket, _)| socket.can_be_ended());
        let with_rules = connections.map(|(socket, device)| {
            let owner = socket.cgroup.and_then(|id| owner_of.get(&id)).copied().unwrap_or(0);
            host.socket_cgroup.set(owner);
            let here = devices.iter().filter(|(index, _)| device.is_none_or(|device| device == *index));
            let slots = here.flat_map(|(_, device)| acting(host, place.cookie, device, &socket)).collect();
            (socket, slots)
        });
        Ok(with_rules.collect())
    }
}

impl Engine {
    /// Notes which idle connections the rules in the slots `fresh` end; see [`Resets::arm`].
    pub(super) fn note_connections(
        &mut self,
        tables: &Tables,
        fresh: &BTreeSet<u32>,
    ) -> Result<(), EngineError> {
        let mut resets = std::mem::take(&mut self.resets);
        let noted = resets.arm(tables, fresh, || self.sockets_of());
        self.resets = resets;
        noted
    }

    /// Ends idle connections whose time has come; see [`Resets::tick`].
    pub(super) fn end_idle(&mut self) -> Vec<Event> {
        let mut resets = std::mem::take(&mut self.resets);
        let ended = resets.tick(|| self.sockets_of());
        self.resets = resets;
        ended.unwrap_or_else(|error| {
            vec![Event::new(EventKind::Warning, format!("idle connections go on: {error}"))]
        })
    }

    /// The namespaces with rules, and whose the sockets of each cgroup are, among the targets.
    fn sockets_of(&self) -> (Vec<Place>, OwnerOf) {
        let place = |(id, site): (&NetnsId, &Site)| Place {
            netns: site.instance.netns().clone(),
            cookie: site.instance.cookie(),
            protected: self.protected.get(id).into_iter().flat_map(|found| found.values().copied()).collect(),
        };
        let hierarchy = self.hierarchy.as_ref();
        let owner_of = hierarchy.map(|hierarchy| deepest(hierarchy, &self.cgroups())).unwrap_or_default();
        (self.sites.iter().map(place).collect(), owner_of)
    }
}

/// How long after a rule begins to act, or after a later connection began, idle connections end,
/// nanoseconds; none = only packets are answered.
fn ends_after_ns(faults: &Faults) -> Option<u64> {
    match (faults.ends_connections(), faults.closes_after_ns()) {
        (true, _) => Some(GRACE_NS),
        (false, 0) => None,
        (false, after_ns) => Some(after_ns.max(GRACE_NS + 1)),
    }
}

/// Its limits count packets, and a connection that carries none has none to count; in shadow it
/// touches nothing.
fn spares_idle(rule: &Rule) -> bool {
    [rule.max_packets, rule.max_bytes, rule.max_flows] != [0; 3]
        || rule.flags & chaos_common::abi::rule_flags::SHADOW != 0
}

/// The same rules on the host, their leases without end: we hold them.
fn host(tables: &Tables) -> Host {
    let state = || RuleState { lease_until_ns: u64::MAX, ..RuleState::default() };
    let states = tables.rules.iter().map(|(slot, _)| (*slot, state())).collect();
    Host { tables: tables.clone(), states, ..Host::default() }
}

fn is_judged(tables: &Tables, place: &Place) -> bool {
    tables.devices.keys().any(|(netns, _)| *netns == place.cookie)
}

/// The TCP sockets of a namespace.
struct Listed {
    /// Each with the device its segments take, if that is one where packets are judged. None = not
    /// known: a rule may name a port of the bridge that has the route.
    sockets: Vec<(Socket, Option<u32>)>,
    /// The devices where packets are judged, by index.
    devices: Vec<(u32, Device)>,
}

/// Of the calling thread's namespace.
fn list(tables: &Tables, cookie: u64) -> Result<Listed, EngineError> {
    let devices: Vec<(u32, Device)> = tables
        .devices
        .iter()
        .filter(|((netns, _), _)| *netns == cookie)
        .map(|((_, index), device)| (*index, *device))
        .collect();
    let sockets = sockets::list_transport(&mut Netlink::sock_diag()?, Transport::Tcp)?;
    let mut netlink = Netlink::route()?;
    let mut taken = HashMap::new();
    let mut device_of = |socket: &Socket| {
        let found = taken.entry(socket.peer.ip()).or_insert_with(|| {
            let route = route::lookup(&mut netlink, socket.peer.ip()).ok().flatten();
            route.map(|route| route.device)
        });
        found.filter(|index| devices.iter().any(|(judged, _)| judged == index))
    };
    let with_device = |socket: Socket| {
        let device = if socket.can_be_ended() { device_of(&socket) } else { None };
        (socket, device)
    };
    let sockets = sockets.into_iter().map(with_device).collect();
    Ok(Listed { sockets, devices })
}

/// The rules that act on the next segment of a connection on this device, whichever way it goes.
fn acting(host: &Host, netns: u64, device: &Device, socket: &Socket) -> Vec<u32> {
    let leaving = Packet {
        source: addr_of(socket.local.ip()),
        destination: addr_of(socket.peer.ip()),
        source_port: socket.local.port(),
        destination_port: socket.peer.port(),
        class: Class::TCP,
        proto: Transport::Tcp.number(),
        tcp_flags: tcp::ACK,
        flags: packet_flags::IP | packet_flags::PORTS,
        network_offset: 14,
        header_len: HEADERS,
        ..Packet::default()
    };
    let coming = Packet {
        source: leaving.destination,
        destination: leaving.source,
        source_port: leaving.destination_port,
        destination_port: leaving.source_port,
        ..leaving
    };
    let ways = [(leaving, Direction::Egress), (coming, Direction::Ingress)];
    let job = |(packet, direction): (Packet, Direction)| Job {
        packet,
        device: *device,
        size: Size { segments: 1, bytes: u64::from(HEADERS) },
        netns,
        direction: direction as u32,
        flags: job_flags::FINAL,
        ..Job::default()
    };
    ways.into_iter().flat_map(|way| host.acting(&job(way))).collect()
}

/// Ends those of the connections that are due.
fn end(
    place: &Place,
    known: &[(Socket, Vec<u32>)],
    is_due: impl Fn(&[u32], &Socket) -> bool,
) -> Result<Vec<Event>, EngineError> {
    let due: Vec<&Socket> =
        known.iter().filter(|(socket, slots)| is_due(slots, socket)).map(|(socket, _)| socket).collect();
    if due.is_empty() {
        return Ok(Vec::new());
    }
    let ended = place.netns.run(|| {
        let mut netlink = Netlink::sock_diag()?;
        let mut ended = 0;
        for socket in due {
            ended += u32::from(sockets::destroy(&mut netlink, socket)?);
        }
        Ok(ended)
    })?;
    let event = match ended {
        Ok(0) => return Ok(Vec::new()),
        Ok(1) => Event::new(EventKind::Ended, "1 idle connection was ended"),
        Ok(count) => Event::new(EventKind::Ended, format!("{count} idle connections were ended")),
        Err::<_, crate::net::NetlinkError>(error) if error.errno() == Some(Errno::EOPNOTSUPP) => Event::new(
            EventKind::Warning,
            "this kernel cannot end idle connections (CONFIG_INET_DIAG_DESTROY): they end with their next packet; `chaos doctor` says what mends it",
        ),
        Err(error) => Event::new(EventKind::Warning, format!("idle connections go on: {error}")),
    };
    Ok(vec![event])
}
