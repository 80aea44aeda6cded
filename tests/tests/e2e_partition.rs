//! Partitions as a real redis and its clients see them.
#![expect(clippy::unwrap_used, reason = "a failed unwrap in a test is a failed test")]

use std::{
    net::{SocketAddr, UdpSocket},
    time::Duration,
};

use chaos_tests::{
    api::{Agent, both_ways},
    chaos::{self, Chaos},
    lab::{
        alone,
        cgroup::Cgroup,
        netns::Netns,
        process::wait_until,
        shapes::{A4, B4, Pair},
    },
    redis::{self, Client},
    require_root, require_tools,
};
use serde_json::json;

/// How long an answer may take where nothing is in the way.
const SOON: Duration = Duration::from_secs(2);
/// How long we wait to believe that no answer comes.
const BLOCKED: Duration = Duration::from_millis(700);
/// TCP waits longer from one try to the next; after 3 s of silence up to this long.
const HEALED: Duration = Duration::from_secs(15);

const REDIS: SocketAddr = SocketAddr::new(std::net::IpAddr::V4(B4), 6379);
const OTHER_REDIS: SocketAddr = SocketAddr::new(std::net::IpAddr::V4(B4), 6380);

fn asked_in_vain(client: &mut Client) {
    assert!(client.ping(BLOCKED).is_err(), "the connection still answers");
}

fn cannot_connect(netns: &Netns, to: SocketAddr) {
    assert!(Client::connect(netns, to, BLOCKED).is_err(), "a new connection is still possible");
}

/// The partition stops what there is and what is new, and afterwards the same connection goes on.
fn check_partition(pair: &Pair, arguments: &str) {
    let _redis = redis::start(&pair.b, REDIS, |command| command).unwrap();
    let mut established = Client::connect(&pair.a, REDIS, SOON).unwrap();
    established.ping(SOON).unwrap();
    let chaos = Chaos::start(arguments).unwrap();
    asked_in_vain(&mut established);
    cannot_connect(&pair.a, REDIS);
    let rules = chaos.finish(Duration::from_secs(10)).unwrap();
    assert!(rules[0].both("dropped_packets") > 0, "{rules:?}");
    established.expect_answers(1, HEALED).unwrap();
    established.ping(SOON).unwrap();
    Client::connect(&pair.a, REDIS, SOON).unwrap().ping(SOON).unwrap();
}

#[test]
fn two_namespaces_are_parted_and_go_on_afterwards() {
    require_root!();
    require_tools!("redis-server");
    let _alone = alone().unwrap();
    both_ways(|| {
        let pair = Pair::new().unwrap();
        let (a, b) = (pair.a.name(), pair.b.name());
        check_partition(&pair, &format!("partition netns:{a} netns:{b} --for 3s"));
    })
    .unwrap();
}

#[test]
fn a_namespace_and_an_address_are_parted() {
    require_root!();
    require_tools!("redis-server");
    let pair = Pair::new().unwrap();
    check_partition(&pair, &format!("partition netns:{} {B4} --for 3s", pair.a.name()));
    check_partition(&pair, &format!("partition {A4} netns:{} --for 3s", pair.b.name()));
}

#[test]
fn a_host_and_port_is_parted_and_its_neighbour_port_is_not() {
    require_root!();
    require_tools!("redis-server");
    let pair = Pair::new().unwrap();
    let _other = redis::start(&pair.b, OTHER_REDIS, |command| command).unwrap();
    let mut neighbour = Client::connect(&pair.a, OTHER_REDIS, SOON).unwrap();
    std::thread::scope(|scope| {
        let parted = scope
            .spawn(|| check_partition(&pair, &format!("partition netns:{} {REDIS} --for 3s", pair.a.name())));
        while !parted.is_finished() {
            neighbour.ping(SOON).unwrap();
            std::thread::sleep(Duration::from_millis(20));
        }
        parted.join().unwrap();
    });
}

/// One way: what A sends vanishes, so B's pings to A lack only the replies; nothing else does.
#[test]
fn one_way_drops_only_what_a_sends() {
    require_root!();
    let pair = Pair::new().unwrap();
    let (a, b) = (pair.a.name(), pair.b.name());
    let chaos = Chaos::start(&format!("partition netns:{a} netns:{b} --one-way --for 20s")).unwrap();
    let ping = chaos_tests::measure::ping::ping(&pair.b, A4.into(), None, 50).unwrap();
    assert_eq!(ping.received, 0);
    let received = pair.a.run("cat /proc/net/snmp").unwrap();
    let icmp: Vec<&str> = received.lines().filter(|line| line.starts_with("Icmp:")).collect();
    let column = icmp[0].split(' ').position(|name| name == "InEchos").unwrap();
    assert_eq!(icmp[1].split(' ').nth(column), Some("50"), "what B sends must arrive");
    chaos.stop().unwrap();
}

#[test]
fn without_an_identity_of_b_visible_from_a_it_refuses() {
    require_root!();
    let (lonely, other) = (Netns::new().unwrap(), Pair::new().unwrap());
    let output =
        chaos::run(&format!("partition netns:{} netns:{} --for 3s", lonely.name(), other.a.name())).unwrap();
    let text = String::from_utf8_lossy(&output.stderr);
    assert_eq!(output.status.code(), Some(3), "{text}");
    assert!(text.contains(lonely.name()) || text.contains(other.a.name()), "{text}");
}

/// A rule for the cgroup of one redis: its listener gets no SYN, its old connections are cut;
/// the redis beside it, on the same addresses, notices nothing.
#[test]
fn a_cgroup_is_cut_off_and_its_neighbour_is_not() {
    require_root!();
    require_tools!("redis-server");
    let _alone = alone().unwrap();
    let (pair, cgroup) = (Pair::new().unwrap(), Cgroup::new().unwrap());
    let _redis = redis::start(&pair.b, REDIS, |command| cgroup.inside(command)).unwrap();
    let _other = redis::start(&pair.b, OTHER_REDIS, |command| command).unwrap();
    let mut older = Client::connect(&pair.a, REDIS, SOON).unwrap();
    let mut neighbour = Client::connect(&pair.a, OTHER_REDIS, SOON).unwrap();
    older.ping(SOON).unwrap();
    for direction in ["ingress", "egress", "both"] {
        let flags = format!("inject cgroup:{} --partition --direction {direction} --for 1m", cgroup.name());
        let chaos = Chaos::start(&flags).unwrap();
        asked_in_vain(&mut older);
        cannot_connect(&pair.a, REDIS);
        neighbour.ping(SOON).unwrap();
        Client::connect(&pair.a, OTHER_REDIS, SOON).unwrap().ping(SOON).unwrap();
        let rules = chaos.stop().unwrap();
        assert!(rules[0].both("dropped_packets") > 0, "{rules:?}");
        older.expect_answers(1, HEALED).unwrap();
    }
}

/// Only the SYN is hit: new connections fail, those there are go on.
#[test]
fn only_the_inbound_syn_of_a_listener_is_hit() {
    require_root!();
    require_tools!("redis-server");
    let (pair, cgroup) = (Pair::new().unwrap(), Cgroup::new().unwrap());
    let _redis = redis::start(&pair.b, REDIS, |command| cgroup.inside(command)).unwrap();
    let mut older = Client::connect(&pair.a, REDIS, SOON).unwrap();
    let flags = "--partition --direction ingress --tcp-flags syn --local-port 6379 --for 1m";
    let chaos = Chaos::start(&format!("inject cgroup:{} {flags}", cgroup.name())).unwrap();
    cannot_connect(&pair.a, REDIS);
    older.ping(SOON).unwrap();
    let rules = chaos.stop().unwrap();
    assert!(rules[0].ingress["dropped_packets"] > 0, "{rules:?}");
}

/// New connections only, then older ones only.
#[test]
fn new_and_established_connections_are_told_apart() {
    require_root!();
    require_tools!("redis-server");
    let pair = Pair::new().unwrap();
    let _redis = redis::start(&pair.b, REDIS, |command| command).unwrap();
    let mut older = Client::connect(&pair.a, REDIS, SOON).unwrap();

    let chaos = Chaos::inject(&pair.a, "--partition --connections new --proto tcp").unwrap();
    cannot_connect(&pair.a, REDIS);
    older.ping(SOON).unwrap();
    chaos.stop().unwrap();

    let chaos = Chaos::inject(&pair.a, "--partition --connections established --proto tcp").unwrap();
    asked_in_vain(&mut older);
    Client::connect(&pair.a, REDIS, SOON).unwrap().ping(SOON).unwrap();
    chaos.stop().unwrap();
}

/// A conversation that a rule takes for a new one stays one, also when another rule asks which there are.
#[test]
fn a_new_conversation_stays_one_when_another_rule_comes() {
    require_root!();
    let pair = Pair::new().unwrap();
    let agent = Agent::start("").unwrap();
    let new_ones = |port: u16| {
        let conditions = json!({"connections": "new", "proto": "udp", "peer_port": port});
        json!({"target": format!("netns:{}", pair.a.name()), "faults": {"partition": true}, "match": conditions,
            "duration": "1m"})
    };
    let receiver = pair.b.enter(|| UdpSocket::bind((B4, 5400))).unwrap().unwrap();
    receiver.set_read_timeout(Some(BLOCKED)).unwrap();
    let connect = || {
        let socket = UdpSocket::bind((A4, 0))?;
        socket.connect((B4, 5400)).map(|()| socket)
    };
    let older = pair.a.enter(connect).unwrap().unwrap();
    older.send(b"older").unwrap();
    let is_cut = |socket: &UdpSocket| {
        socket.send(b"?").unwrap();
        receiver.recv(&mut [0; 9]).is_err()
    };
    receiver.recv(&mut [0; 9]).unwrap();

    agent.set(&new_ones(5400)).unwrap();
    let newer = pair.a.enter(connect).unwrap().unwrap();
    assert!(is_cut(&newer) && !is_cut(&older));
    agent.set(&new_ones(5401)).unwrap();
    assert!(is_cut(&newer) && !is_cut(&older));
    agent.stop().unwrap();
}

/// A partition whose time is over ends by itself, also while nobody stops it.
#[test]
fn it_ends_by_itself() {
    require_root!();
    let pair = Pair::new().unwrap();
    let arguments = format!("inject netns:{} --partition --for 1s", pair.a.name());
    let mut chaos = Chaos::start(&arguments).unwrap();
    wait_until("chaos ends", Duration::from_secs(5), || !chaos.process().is_running()).unwrap();
    pair.a.run(&format!("ping -c 1 -W 2 -q {B4}")).unwrap();
}
