//! Delays as programs see them: round trips, requests, distributions, order.
//!
//! What is compared is the median of many with that of the same way without a fault, in the same run.
#![expect(clippy::unwrap_used, reason = "a failed unwrap in a test is a failed test")]

use std::{
    io::{Read, Write},
    net::{IpAddr, SocketAddr, TcpListener, TcpStream},
    process::Command,
    thread,
    time::{Duration, Instant},
};

use chaos_tests::{
    chaos::{Chaos, RuleCounters},
    lab::{
        alone,
        cgroup::Cgroup,
        netns::Netns,
        shapes::{B4, Pair, pair_address},
        tun::TunPair,
    },
    measure::{
        stats::check_rate,
        wait::{Arrival, Listener, median, ping, quantile, round_trips, send_all, sender},
    },
    require_root, require_tools,
};
use rand::{Rng as _, SeedableRng as _, rngs::StdRng};

/// How much later than asked a median may be on a busy machine, milliseconds.
const LATE_MS: f64 = 3.0;
/// How much earlier: what the same way takes without a fault strays too.
const EARLY_MS: f64 = 0.5;
/// Requests of a median.
const COUNT: u32 = 25;
/// Of a transfer.
const BYTES: usize = 24 << 20;
/// Datagrams of which a share overtakes.
const MANY: u32 = 3000;

fn later_by(what: &str, direct: f64, seen: f64, asked: f64) {
    println!("{what}: direct {direct:.3} ms, {seen:.3} ms: {:+.3} ms for {asked} ms", seen - direct);
    let late = seen - direct - asked;
    assert!((-EARLY_MS..LATE_MS).contains(&late), "{what}: {late} ms beside {asked} ms");
}

fn literal(text: &str) -> IpAddr {
    text.parse().unwrap()
}

/// Median round trip in A with a fault and without.
fn check_trip(netns: &Netns, what: &str, flags: &str, (to, from): (IpAddr, Option<IpAddr>), asked: f64) {
    let trip = || median(&round_trips(netns.inside(ping(to, from, COUNT))).unwrap());
    let direct = trip();
    let chaos = Chaos::inject(netns, flags).unwrap();
    let seen = trip();
    let rules = chaos.stop().unwrap();
    later_by(what, direct, seen, asked);
    assert_eq!(rules[0].both("unheld_packets"), 0, "{what}: {rules:?}");
    assert!(rules[0].both("delayed_packets") >= u64::from(COUNT), "{what}: {rules:?}");
}

#[test]
fn a_round_trip_over_veth_is_late_by_what_was_asked() {
    require_root!();
    require_tools!("ping");
    let _alone = alone().unwrap();
    let pair = Pair::new().unwrap();
    let (v4, v6) = ((pair_address(true, false), None), (pair_address(true, true), None));
    let check = |flags: &str, to, asked| check_trip(&pair.a, flags, flags, to, asked);
    check("--delay 50ms", v4, 50.0);
    check("--delay 20ms --direction ingress", v4, 20.0);
    check("--delay 20ms --direction both", v6, 40.0);
    check("--delay 1ms --direction ingress", v6, 1.0);
    check("--rtt 40ms", v4, 40.0);
    check("--rtt 30ms --delay 10ms --direction both", v4, 50.0);
}

#[test]
fn a_round_trip_over_lo_and_tun_is_late_by_what_was_asked() {
    require_root!();
    require_tools!("ping");
    let _alone = alone().unwrap();
    let pair = Pair::new().unwrap();
    for (address, prefix) in [("10.99.0.1", 32), ("10.99.0.2", 32), ("fd99::1", 128), ("fd99::2", 128)] {
        pair.a.run(&format!("ip addr add {address}/{prefix} dev lo")).unwrap();
    }
    let lo = |what, flags, from, to, asked| {
        check_trip(&pair.a, what, flags, (literal(to), Some(literal(from))), asked);
    };
    let (near4, far4, near6, far6) = ("10.99.0.1", "10.99.0.2", "fd99::1", "fd99::2");
    lo("lo egress IPv4", "--delay 20ms --direction egress --peer 10.99.0.2", near4, far4, 20.0);
    lo("lo ingress IPv4", "--delay 20ms --direction ingress --peer 10.99.0.1", near4, far4, 20.0);
    lo("lo egress IPv6", "--delay 20ms --direction egress --peer fd99::2", near6, far6, 20.0);
    lo("lo ingress IPv6", "--delay 20ms --direction ingress --peer fd99::1", near6, far6, 20.0);
    lo("lo, both ways, request and answer", "--delay 10ms --direction both", near4, far4, 20.0);
    for (direction, v6) in [("egress", false), ("ingress", false), ("egress", true), ("ingress", true)] {
        let tun = TunPair::new().unwrap();
        let flags = format!("--delay 20ms --direction {direction}");
        let what = format!("tun {direction}, IPv6 {v6}");
        check_trip(&tun.pair.a, &what, &flags, (pair_address(true, v6), None), 20.0);
    }
}

#[test]
fn only_the_cgroup_is_late() {
    require_root!();
    require_tools!("ping");
    let _alone = alone().unwrap();
    let pair = Pair::new().unwrap();
    let (cgroup, other) = (Cgroup::new().unwrap(), Cgroup::new().unwrap());
    let trip = |cgroup: &Cgroup| {
        let command = cgroup.inside(ping(B4.into(), None, COUNT));
        median(&round_trips(pair.a.inside(command)).unwrap())
    };
    let direct = trip(&cgroup);
    // Somebody lives there all the time: that is how its namespace is found.
    let mut sleep = Command::new("sleep");
    sleep.arg("60");
    let resident = pair.a.inside(cgroup.inside(sleep));
    let _resident = chaos_tests::lab::process::Process::start(resident).unwrap();
    for (direction, asked) in [("egress", 20.0), ("both", 40.0)] {
        let flags = format!("inject cgroup:{} --delay 20ms --direction {direction} --for 1m", cgroup.name());
        let chaos = Chaos::start(&flags).unwrap();
        later_by(&format!("cgroup {direction}"), direct, trip(&cgroup), asked);
        later_by(&format!("another cgroup {direction}"), direct, trip(&other), 0.0);
        chaos.stop().unwrap();
    }
}

/// Datagrams from A to B, each number from its own socket, under a fault; what arrived and the counters.
fn datagrams(
    flags: &str,
    (count, flows): (u32, usize),
    interval: Duration,
) -> (Vec<Arrival>, Vec<RuleCounters>) {
    let pair = Pair::new().unwrap();
    let at = SocketAddr::new(B4.into(), 4000);
    let listener = Listener::new(&pair.b, at).unwrap();
    let sockets: Vec<_> = (0..flows).map(|_| sender(&pair.a, at).unwrap()).collect();
    pair.a.run(&format!("ping -c 1 -W 2 -q {B4}")).unwrap();
    let chaos = Chaos::inject(&pair.a, flags).unwrap();
    send_all(&sockets, 0..count, 100, interval).unwrap();
    let arrivals = listener.collect(Duration::from_millis(300)).unwrap();
    (arrivals, chaos.stop().unwrap())
}

/// Each from a socket of its own, so that none waits for another.
#[test]
fn jitter_is_spread_as_asked() {
    require_root!();
    let _alone = alone().unwrap();
    let spread = |flags: &str| {
        let (arrivals, _) = datagrams(flags, (600, 600), Duration::from_millis(1));
        assert_eq!(arrivals.len(), 600, "{flags}");
        let took: Vec<f64> = arrivals.iter().map(Arrival::took_ms).collect();
        let at = [0.0, 0.1, 0.25, 0.5, 0.75, 0.9, 1.0].map(|share| quantile(&took, share));
        println!("{flags}: quantiles {at:.2?} ms");
        at
    };
    // The error of a quantile of 600: at most 3.3 * sqrt(0.25 / 600) = 7 % of the values, 2.7 ms of 40 ms.
    let near =
        |seen: f64, asked: f64| assert!((-3.0..3.0 + LATE_MS).contains(&(seen - asked)), "{seen} {asked}");
    let uniform = spread("--delay 50ms±20ms");
    assert!(uniform[0] > 30.0 - EARLY_MS, "{uniform:?}");
    for (seen, asked) in uniform[1..6].iter().zip([34.0, 40.0, 50.0, 60.0, 66.0]) {
        near(*seen, asked);
    }
    let normal = spread("--delay 50ms±10ms,distribution=normal");
    for (seen, asked) in normal[1..6].iter().zip([37.2, 43.3, 50.0, 56.7, 62.8]) {
        near(*seen, asked);
    }
    let constant = spread("--delay 50ms");
    assert!(constant[0] > 50.0 - EARLY_MS && constant[4] < 50.0 + LATE_MS, "{constant:?}");
}

/// A server that answers every 64 bytes with 64 bytes, for one connection after the other.
fn echo(netns: &Netns, at: SocketAddr) -> thread::JoinHandle<()> {
    let listener = netns.enter(|| TcpListener::bind(at)).unwrap().unwrap();
    thread::spawn(move || {
        for stream in listener.incoming().flatten() {
            let mut stream = stream;
            stream.set_nodelay(true).unwrap();
            let mut bytes = [0; 64];
            let mut first = [0; 1];
            if stream.peek(&mut first).unwrap_or(0) == 0 {
                return;
            }
            while stream.read_exact(&mut bytes).is_ok() {
                stream.write_all(&bytes).unwrap();
            }
        }
    })
}

/// Medians of opening a connection and of a request on it, milliseconds.
fn requests(netns: &Netns, at: SocketAddr) -> (f64, f64) {
    let connect = || {
        let start = Instant::now();
        let stream = netns.enter(|| TcpStream::connect(at)).unwrap().unwrap();
        stream.set_nodelay(true).unwrap();
        (stream, start.elapsed().as_secs_f64() * 1e3)
    };
    let ask = |stream: &mut TcpStream| {
        let start = Instant::now();
        stream.write_all(&[7; 64]).unwrap();
        stream.read_exact(&mut [0; 64]).unwrap();
        start.elapsed().as_secs_f64() * 1e3
    };
    let mut opened = Vec::new();
    let mut asked = Vec::new();
    for _ in 0..5 {
        let (mut stream, took) = connect();
        opened.push(took);
        asked.extend((0..4).map(|_| ask(&mut stream)));
    }
    (median(&opened), median(&asked))
}

#[test]
fn a_request_is_late_by_what_was_asked_once_for_data_only() {
    require_root!();
    let _alone = alone().unwrap();
    let pair = Pair::new().unwrap();
    let at = SocketAddr::new(B4.into(), 4001);
    let server = echo(&pair.b, at);
    let direct = requests(&pair.a, at);
    for (flags, opening, request) in [
        ("--delay 30ms,mode=data-only", 0.0, 30.0),
        ("--delay 30ms,mode=data-only --direction ingress", 0.0, 30.0),
        ("--delay 30ms", 30.0, 30.0),
        ("--delay 30ms --direction both", 60.0, 60.0),
        ("--rtt 30ms,mode=data-only", 0.0, 30.0),
        ("--rtt 30ms", 30.0, 30.0),
    ] {
        let chaos = Chaos::inject(&pair.a, flags).unwrap();
        let seen = requests(&pair.a, at);
        chaos.stop().unwrap();
        later_by(&format!("{flags}, opening"), direct.0, seen.0, opening);
        later_by(&format!("{flags}, request"), direct.1, seen.1, request);
    }
    // An empty connection ends the server.
    drop(pair.a.enter(|| TcpStream::connect(at)).unwrap().unwrap());
    server.join().unwrap();
}

#[test]
fn datagrams_keep_their_order_under_jitter() {
    require_root!();
    let _alone = alone().unwrap();
    for flags in ["--delay 20ms±20ms", "--delay 20ms±10ms,distribution=normal --direction both"] {
        let (arrivals, rules) = datagrams(flags, (4000, 1), Duration::from_micros(200));
        let numbers: Vec<u32> = arrivals.iter().map(|arrival| arrival.number).collect();
        assert!(numbers.iter().copied().eq(0..4000), "{flags}: {} arrived: {numbers:?}", numbers.len());
        assert_eq!(rules[0].both("delayed_packets"), 4000, "{rules:?}");
    }
}

/// Every byte of a transfer, compared with what was sent.
#[test]
fn a_transfer_under_jitter_is_whole() {
    require_root!();
    let _alone = alone().unwrap();
    let pair = Pair::new().unwrap();
    let at = SocketAddr::new(B4.into(), 4002);
    let mut sent = vec![0; BYTES];
    StdRng::seed_from_u64(24).fill(&mut sent[..]);
    let listener = pair.b.enter(|| TcpListener::bind(at)).unwrap().unwrap();
    let chaos = Chaos::inject(&pair.a, "--delay 5ms±5ms --direction both").unwrap();
    let came = thread::scope(|scope| {
        let reader = scope.spawn(|| {
            let mut bytes = Vec::with_capacity(BYTES);
            listener.accept().unwrap().0.read_to_end(&mut bytes).unwrap();
            bytes
        });
        let mut stream = pair.a.enter(|| TcpStream::connect(at)).unwrap().unwrap();
        stream.write_all(&sent).unwrap();
        drop(stream);
        reader.join().unwrap()
    });
    let rules = chaos.stop().unwrap();
    assert!(came == sent, "{} bytes of {BYTES} came, or other ones", came.len());
    assert!(rules[0].both("delayed_packets") > 1000, "{rules:?}");
}

#[test]
fn a_share_overtakes() {
    require_root!();
    let _alone = alone().unwrap();
    let (arrivals, rules) =
        datagrams("--delay 20ms --reorder 25% --seed 10", (MANY, 1), Duration::from_micros(400));
    assert_eq!(arrivals.len(), MANY as usize);
    let early = arrivals.iter().filter(|arrival| arrival.took_ms() < 20.0 - EARLY_MS).count() as u64;
    check_rate("overtaking", early, MANY.into(), 0.25).unwrap();
    assert_eq!(rules[0].both("reordered_packets"), early, "{rules:?}");
    let waiting: Vec<u32> =
        arrivals.iter().filter(|a| a.took_ms() >= 20.0 - EARLY_MS).map(|a| a.number).collect();
    assert!(waiting.is_sorted(), "those that wait keep their order");
    let numbers: Vec<u32> = arrivals.iter().map(|arrival| arrival.number).collect();
    assert!(!numbers.is_sorted(), "nobody overtook");
}

/// One bulk transfer by iperf3 from A to B: Mbit/s received and segments sent again.
fn bulk(pair: &Pair) -> (f64, u64) {
    let json = pair.a.run(&format!("iperf3 -c {B4} -J -O 1 -t 2")).unwrap();
    let value: serde_json::Value = serde_json::from_str(&json).unwrap();
    let received = value["end"]["sum_received"]["bits_per_second"].as_f64().unwrap() / 1e6;
    (received, value["end"]["sum_sent"]["retransmits"].as_u64().unwrap())
}

/// Held packets neither count against the socket nor come in another order: TCP goes as fast as its window.
#[test]
fn a_transfer_is_limited_by_its_window_and_not_stalled() {
    require_root!();
    require_tools!("iperf3");
    let _alone = alone().unwrap();
    let pair = Pair::new().unwrap();
    let _server = chaos_tests::lab::process::Process::start({
        let mut server = pair.b.command("iperf3 -s");
        server.stdout(std::process::Stdio::null());
        server
    })
    .unwrap();
    thread::sleep(Duration::from_millis(300));
    let direct = bulk(&pair);
    println!("direct: {:.0} Mbit/s, {} retransmitted", direct.0, direct.1);
    let mut seen = Vec::new();
    for delay in ["0ms", "10ms", "50ms", "100ms"] {
        let chaos = Chaos::inject(&pair.a, &format!("--delay {delay}")).unwrap();
        let result = bulk(&pair);
        let rules = chaos.stop().unwrap();
        println!("{delay}: {:.0} Mbit/s, {} retransmitted", result.0, result.1);
        assert_eq!(rules[0].both("unheld_packets"), 0, "{rules:?}");
        seen.push(result);
    }
    let [zero, ten, fifty, hundred] = seen[..] else { unreachable!() };
    // A window of the same size takes five times as long at 50 ms as at 10 ms; the start takes its part.
    assert!(fifty.0 * 5.0 > ten.0 * 0.3, "50 ms: {} Mbit/s, 10 ms: {}", fifty.0, ten.0);
    assert!(hundred.0 * 2.0 > fifty.0 * 0.3, "100 ms: {} Mbit/s, 50 ms: {}", hundred.0, fifty.0);
    assert!(zero.0 > direct.0 * 0.1, "0 ms: {} Mbit/s, direct {}", zero.0, direct.0);
}
