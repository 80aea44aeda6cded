//! Flows put together by peer, each with the match that hits it.

use std::{
    collections::{BTreeMap, BTreeSet},
    net::IpAddr,
};

use serde::Serialize;

use super::{Direction, Flow};
use crate::{
    net::sockets::{State, Transport},
    table,
};

/// All flows between the target and one peer endpoint (or one port of the target that is open to all).
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct Conversation {
    /// The other end; none = anybody.
    pub peer: Option<IpAddr>,
    /// The port that tells this conversation from others: the peer's if the target connected, else the
    /// target's own.
    pub port: u16,
    /// Which end began.
    pub direction: Direction,
    /// TCP or UDP.
    pub proto: Transport,
    /// The target's addresses in it.
    pub locals: BTreeSet<IpAddr>,
    /// How many flows there are, by state.
    pub states: BTreeMap<State, usize>,
    /// Processes that hold them, as `name (pid)`.
    pub processes: BTreeSet<String>,
    /// Options for a rule that hits these flows and their successors, and no others.
    pub suggested_match: String,
}

impl Conversation {
    /// How many flows there are.
    #[must_use]
    pub fn count(&self) -> usize {
        self.states.values().sum()
    }

    fn new(key: Key) -> Self {
        Self {
            peer: key.peer,
            port: key.port,
            direction: key.direction,
            proto: key.proto,
            locals: BTreeSet::new(),
            states: BTreeMap::new(),
            processes: BTreeSet::new(),
            suggested_match: suggestion(key),
        }
    }
}

/// What makes flows one conversation, in the order of the table: open ports come last.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
struct Key {
    anybody: bool,
    peer: Option<IpAddr>,
    port: u16,
    direction: Direction,
    proto: Transport,
}

impl Key {
    fn of(flow: &Flow) -> Self {
        let peer = flow.peer.map(|peer| peer.ip());
        let port = match (flow.direction, flow.peer) {
            (Direction::Outbound, Some(peer)) => peer.port(),
            _ => flow.local.port(),
        };
        Self { anybody: peer.is_none(), peer, port, direction: flow.direction, proto: flow.proto }
    }
}

/// Puts flows together by peer, sorted by peer; open ports come last.
#[must_use]
pub fn conversations(flows: &[Flow]) -> Vec<Conversation> {
    let mut grouped: BTreeMap<Key, Conversation> = BTreeMap::new();
    for flow in flows {
        let key = Key::of(flow);
        let conversation = grouped.entry(key).or_insert_with(|| Conversation::new(key));
        *conversation.states.entry(flow.state).or_default() += 1;
        conversation.locals.insert(flow.local.ip());
        if let (Some(command), Some(pid)) = (&flow.command, flow.pid) {
            conversation.processes.insert(format!("{command} ({pid})"));
        }
    }
    grouped.into_values().collect()
}

fn suggestion(key: Key) -> String {
    let mut options = Vec::new();
    if let Some(peer) = key.peer {
        options.push(format!("--peer {peer}"));
    }
    let side = if key.direction == Direction::Outbound { "--peer-port" } else { "--local-port" };
    options.push(format!("{side} {}", key.port));
    if key.proto == Transport::Udp {
        options.push("--proto udp".to_owned());
    }
    options.join(" ")
}

/// The conversations as a table for people.
#[must_use]
pub fn table(flows: &[Flow]) -> String {
    if flows.is_empty() {
        return "no TCP or UDP sockets\n".to_owned();
    }
    let rows: Vec<[String; 6]> = conversations(flows).iter().map(row).collect();
    table::render(["PEER", "LOCAL", "PROTO", "STATE", "PROCESS", "MATCH"], &rows)
}

fn row(conversation: &Conversation) -> [String; 6] {
    let port = conversation.port;
    let local = short(conversation.locals.iter().map(|addr| shown(*addr)));
    let (peer, local) = match (conversation.peer, conversation.direction) {
        (Some(peer), Direction::Outbound) => (format!("{}:{port}", shown(peer)), local),
        (Some(peer), _) => (shown(peer), format!("{local}:{port}")),
        (None, _) => ("anybody".to_owned(), format!("{local}:{port}")),
    };
    let states: Vec<String> = conversation
        .states
        .iter()
        .map(
            |(state, count)| {
                if *count == 1 { state.name().to_owned() } else { format!("{count} {}", state.name()) }
            },
        )
        .collect();
    [
        peer,
        local,
        conversation.proto.name().to_owned(),
        states.join(", "),
        short(conversation.processes.iter().cloned()),
        conversation.suggested_match.clone(),
    ]
}

/// Brackets around IPv6, as where a port follows.
fn shown(addr: IpAddr) -> String {
    if addr.is_ipv6() { format!("[{addr}]") } else { addr.to_string() }
}

/// The first of several, and how many more.
fn short(mut items: impl ExactSizeIterator<Item = String>) -> String {
    match (items.len(), items.next()) {
        (1, Some(only)) => only,
        (count, Some(first)) => format!("{first} +{}", count - 1),
        (_, None) => "-".to_owned(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn flow(proto: Transport, state: State, direction: Direction, local: &str, peer: Option<&str>) -> Flow {
        Flow {
            proto,
            state,
            direction,
            local: local.parse().unwrap(),
            peer: peer.map(|peer| peer.parse().unwrap()),
            pid: Some(7),
            command: Some("api".to_owned()),
            cgroup: None,
            namespace: "host".to_owned(),
        }
    }

    #[test]
    fn flows_to_one_endpoint_are_one_row_with_a_match() {
        let tcp = |state, direction, local, peer| flow(Transport::Tcp, state, direction, local, peer);
        let flows = [
            tcp(State::Listen, Direction::Open, "0.0.0.0:8080", None),
            tcp(State::Established, Direction::Outbound, "10.0.0.1:50001", Some("10.0.0.2:6379")),
            tcp(State::Established, Direction::Outbound, "10.0.0.1:50002", Some("10.0.0.2:6379")),
            tcp(State::SynSent, Direction::Outbound, "10.0.0.1:50003", Some("10.0.0.2:6379")),
            tcp(State::Established, Direction::Inbound, "10.0.0.1:8080", Some("10.0.0.9:40001")),
            tcp(State::Established, Direction::Inbound, "10.0.0.1:8080", Some("10.0.0.9:40002")),
            flow(
                Transport::Udp,
                State::Established,
                Direction::Outbound,
                "[fd00::1]:3",
                Some("[fd00::2]:53"),
            ),
        ];
        let expected = "\
PEER           LOCAL          PROTO  STATE                    PROCESS  MATCH
10.0.0.2:6379  10.0.0.1       tcp    2 established, syn-sent  api (7)  --peer 10.0.0.2 --peer-port 6379
10.0.0.9       10.0.0.1:8080  tcp    2 established            api (7)  --peer 10.0.0.9 --local-port 8080
[fd00::2]:53   [fd00::1]      udp    established              api (7)  --peer fd00::2 --peer-port 53 --proto udp
anybody        0.0.0.0:8080   tcp    listen                   api (7)  --local-port 8080
";
        assert_eq!(table(&flows), expected);
        assert_eq!(conversations(&flows)[0].count(), 3);
    }

    #[test]
    fn nothing_is_said_to_be_nothing() {
        assert_eq!(table(&[]), "no TCP or UDP sockets\n");
    }
}
