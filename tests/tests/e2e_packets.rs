//! Records of packets tell the truth: held against what was sent and what arrived.
#![expect(clippy::unwrap_used, reason = "a failed unwrap in a test is a failed test")]

use std::{
    collections::BTreeMap,
    fs,
    net::{IpAddr, SocketAddr, UdpSocket},
    os::unix::fs::MetadataExt as _,
    sync::{Arc, Mutex},
    thread,
    time::{Duration, Instant},
};

use chaos_agent::{
    engine::{Engine, EngineOptions},
    spec::{Direction, Limits, MatchSpec, PortRange, Proto, RuleSpec, Schedule},
    targets::Target,
    telemetry::{Names, Packet},
};
use chaos_common::{
    abi::Record,
    fault::{FAULTS, Faults},
    sample::Sampling,
};
use chaos_tests::{
    lab::{
        alone,
        netns::Netns,
        shapes::{A4, B4, Pair},
    },
    require_root,
};

const PORT: u16 = 7010;
/// MAC, IPv4 and UDP header.
const HEADERS: u64 = 14 + 20 + 8;

type Seen = Arc<Mutex<Vec<Record>>>;

fn rule(target: &Netns, fault: (&str, &str), direction: Direction, limits: Limits) -> RuleSpec {
    let mut faults = Faults::default();
    let info = FAULTS.iter().find(|info| info.name == fault.0).unwrap();
    (info.parse)(fault.1, &mut faults).unwrap();
    let range = vec![PortRange { first: PORT, last: PORT }];
    let mut matching =
        MatchSpec { direction: Some(direction), protos: vec![Proto::Udp], ..MatchSpec::default() };
    if direction == Direction::Egress {
        matching.peer_ports = range;
    } else {
        matching.local_ports = range;
    }
    RuleSpec {
        name: fault.0.to_owned(),
        target: Target::NetnsName(target.name().to_owned()),
        peer: None,
        matching,
        faults,
        schedule: Schedule { duration: Some(Duration::from_mins(1)), ..Schedule::default() },
        limits,
        shadow: false,
        seed: None,
        // Nobody renews it here.
        lease: Duration::from_mins(1),
    }
}

fn telling(rule: &RuleSpec, sampling: Sampling) -> (Engine, Seen) {
    let mut engine = Engine::start(std::slice::from_ref(rule), &EngineOptions::default()).unwrap();
    let seen = Seen::default();
    let sink = Arc::clone(&seen);
    engine.tell(sampling, Box::new(move |mut batch| sink.lock().unwrap().append(&mut batch))).unwrap();
    (engine, seen)
}

fn socket(netns: &Netns, at: (std::net::Ipv4Addr, u16)) -> UdpSocket {
    let socket = netns.enter(|| UdpSocket::bind(at)).unwrap().unwrap();
    socket.set_read_timeout(Some(Duration::from_millis(500))).unwrap();
    socket
}

/// Datagrams of different lengths from A to B; which lengths arrived.
fn exchange(pair: &Pair, lengths: &[usize]) -> (SocketAddr, Vec<usize>) {
    let receiver = socket(&pair.b, (B4, PORT));
    let sender = socket(&pair.a, (A4, 0));
    for length in lengths {
        sender.send_to(&vec![7; *length], (B4, PORT)).unwrap();
    }
    let mut bytes = [0; 2048];
    let arrived = std::iter::from_fn(|| receiver.recv(&mut bytes).ok()).collect();
    (sender.local_addr().unwrap(), arrived)
}

/// Inode of our own cgroup, which our sockets have, in whatever namespace.
fn own_cgroup() -> Option<u64> {
    let text = fs::read_to_string("/proc/self/cgroup").ok()?;
    let path = text.lines().find_map(|line| line.strip_prefix("0::"))?.to_owned();
    ["/sys/fs/cgroup", "/sys/fs/cgroup/unified"]
        .iter()
        .filter(|mount| fs::metadata(format!("{mount}/cgroup.controllers")).is_ok())
        .find_map(|mount| Some(fs::metadata(format!("{mount}{path}")).ok()?.ino()))
}

/// Every record says what was sent and what became of it.
fn tells_the_truth(direction: Direction, fault: (&'static str, &str), verdict: &'static str, delay_us: u64) {
    let pair = Pair::new().unwrap();
    pair.a.run(&format!("ping -c 1 -W 2 -q {B4}")).unwrap();
    let (target, device, cgroup) = match direction {
        Direction::Egress => (&pair.a, "va", own_cgroup()),
        Direction::Ingress | Direction::Both => (&pair.b, "vb", None),
    };
    let (mut engine, seen) = telling(&rule(target, fault, direction, Limits::default()), Sampling::ALL);
    let lengths: Vec<usize> = (1..=20).map(|n| n * 37).collect();
    let (sender, arrived) = exchange(&pair, &lengths);
    let names = Names::default();
    for (slot, armed_ns) in engine.armings() {
        names.armed(slot, armed_ns, 7);
    }
    names.interfaces(engine.interfaces());
    engine.hush();
    let stats = engine.stop().unwrap();
    let packets: Vec<Packet> = seen.lock().unwrap().iter().map(|record| Packet::of(record, &names)).collect();
    assert_eq!(packets.len(), lengths.len(), "{packets:#?}");
    assert_eq!(arrived, if verdict == "dropped" { Vec::new() } else { lengths.clone() });
    for (packet, length) in packets.iter().zip(&lengths) {
        let wanted = Packet {
            time: packet.time.clone(),
            fault: Some(7),
            faults: vec![fault.0],
            verdicts: vec![verdict],
            delay_us,
            direction: if direction == Direction::Egress { "egress" } else { "ingress" },
            protocol: "udp".to_owned(),
            source: Some(IpAddr::V4(A4)),
            source_port: sender.port(),
            destination: Some(IpAddr::V4(B4)),
            destination_port: PORT,
            packets: 1,
            bytes: HEADERS + *length as u64,
            interface: Some(device.to_owned()),
            cgroup,
            pid: None,
            command: None,
        };
        assert_eq!(*packet, wanted, "{}", packet.line());
    }
    let way = if direction == Direction::Egress { stats[0].egress } else { stats[0].ingress };
    assert_eq!(way.matched_packets, lengths.len() as u64);
    let delays = way.delays;
    assert_eq!(delays.sum_ns, delay_us * 1_000 * if delay_us > 0 { lengths.len() as u64 } else { 0 });
    assert_eq!(delays.classes.iter().sum::<u64>(), way.delayed_packets);
}

#[test]
fn of_losses_and_delays_both_ways() {
    require_root!();
    let _alone = alone().unwrap();
    tells_the_truth(Direction::Egress, ("partition", ""), "dropped", 0);
    tells_the_truth(Direction::Ingress, ("loss", "100%"), "dropped", 0);
    tells_the_truth(Direction::Egress, ("delay", "20ms"), "delayed", 20_000);
    tells_the_truth(Direction::Ingress, ("delay", "30ms"), "delayed", 30_000);
}

/// As many as fit through two CPUs, all of them told: counters are exact, and every record is there or counted
/// as lost.
#[test]
fn in_a_flood_counters_lose_nothing_and_lost_records_are_counted() {
    const DATAGRAMS: u64 = 400_000;
    require_root!();
    let _alone = alone().unwrap();
    let pair = Pair::new().unwrap();
    pair.a.run(&format!("ping -c 1 -W 2 -q {B4}")).unwrap();
    let (mut engine, seen) =
        telling(&rule(&pair.a, ("partition", ""), Direction::Egress, Limits::default()), Sampling::ALL);
    let began = Instant::now();
    thread::scope(|scope| {
        for _ in 0..2 {
            let sender = socket(&pair.a, (A4, 0));
            sender.connect((B4, PORT)).unwrap();
            scope.spawn(move || {
                for _ in 0..DATAGRAMS / 2 {
                    sender.send(b"flood").unwrap();
                }
            });
        }
    });
    let took = began.elapsed();
    engine.hush();
    let lost = engine.records_lost().unwrap();
    let stats = engine.stop().unwrap();
    let told = seen.lock().unwrap().len() as u64;
    println!("{DATAGRAMS} in {took:?}: {told} told, {lost} lost");
    let way = stats[0].egress;
    assert_eq!((way.matched_packets, way.dropped_packets), (DATAGRAMS, DATAGRAMS), "counters are exact");
    assert_eq!(told + lost, DATAGRAMS, "a record is there, or counted as lost");
    let mut by_port: BTreeMap<u16, u64> = BTreeMap::new();
    for record in seen.lock().unwrap().iter() {
        *by_port.entry(record.source_port).or_default() += 1;
    }
    assert_eq!(by_port.len(), 2, "{by_port:?}");
}

/// Switches of the reader's thread that it asked for itself.
fn switches() -> u64 {
    let tasks = fs::read_dir("/proc/self/task").unwrap();
    let reader = tasks
        .map(|task| task.unwrap().path())
        .find(|task| fs::read_to_string(task.join("comm")).is_ok_and(|name| name.trim() == "chaos-events"))
        .unwrap();
    let status = fs::read_to_string(reader.join("status")).unwrap();
    let line = status.lines().find_map(|line| line.strip_prefix("voluntary_ctxt_switches:")).unwrap();
    line.trim().parse().unwrap()
}

#[test]
fn an_idle_ring_costs_no_wakeup_and_the_first_record_comes_soon() {
    require_root!();
    let _alone = alone().unwrap();
    let pair = Pair::new().unwrap();
    pair.a.run(&format!("ping -c 1 -W 2 -q {B4}")).unwrap();
    let rule = rule(&pair.a, ("partition", ""), Direction::Egress, Limits::default());
    let (engine, seen) = telling(&rule, Sampling::new(3, 10));
    thread::sleep(Duration::from_secs(1));
    let before = switches();
    thread::sleep(Duration::from_secs(2));
    assert_eq!(switches(), before, "wake-ups of an idle ring");
    // What is sampled is told soon: of twenty the first three, then one in ten.
    let sender = socket(&pair.a, (A4, 0));
    let wait_for_turn = Instant::now();
    while fs::read_to_string("/proc/uptime").unwrap().split(['.', ' ']).nth(1).unwrap() > "30"
        && wait_for_turn.elapsed() < Duration::from_secs(2)
    {
        thread::sleep(Duration::from_millis(20));
    }
    for _ in 0..20 {
        sender.send_to(b"x", (B4, PORT)).unwrap();
    }
    let limit = Instant::now() + Duration::from_secs(2);
    while seen.lock().unwrap().len() < 5 && Instant::now() < limit {
        thread::sleep(Duration::from_millis(5));
    }
    assert_eq!(seen.lock().unwrap().len(), 5);
    assert_eq!(engine.stop().unwrap()[0].egress.dropped_packets, 20);
}

#[test]
fn only_the_first_flows_are_hit() {
    require_root!();
    let _alone = alone().unwrap();
    let pair = Pair::new().unwrap();
    pair.a.run(&format!("ping -c 1 -W 2 -q {B4}")).unwrap();
    let limits = Limits { max_flows: Some(3), ..Limits::default() };
    let engine = Engine::start(
        &[rule(&pair.a, ("loss", "100%"), Direction::Egress, limits)],
        &EngineOptions::default(),
    )
    .unwrap();
    let receiver = socket(&pair.b, (B4, PORT));
    let senders: Vec<UdpSocket> = (0..8).map(|_| socket(&pair.a, (A4, 0))).collect();
    for _ in 0..4 {
        for sender in &senders {
            sender.send_to(b"x", (B4, PORT)).unwrap();
        }
    }
    let mut arrived: BTreeMap<u16, u32> = BTreeMap::new();
    let mut bytes = [0; 16];
    while let Ok((_, from)) = receiver.recv_from(&mut bytes) {
        *arrived.entry(from.port()).or_default() += 1;
    }
    let wanted = senders[3..].iter().map(|sender| (sender.local_addr().unwrap().port(), 4)).collect();
    assert_eq!(arrived, wanted, "the first three flows are gone, whole, and no others");
    let way = engine.stop().unwrap()[0].egress;
    assert_eq!((way.matched_packets, way.dropped_packets, way.limited_packets), (32, 12, 20));
}
