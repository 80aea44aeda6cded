//! Links of so many bits a second as a receiver sees them: how much, how smooth, what does not fit.
#![expect(clippy::unwrap_used, reason = "a failed unwrap in a test is a failed test")]
#![expect(
    clippy::cast_precision_loss,
    clippy::cast_possible_truncation,
    clippy::cast_sign_loss,
    reason = "numbers of a test are positive and far below 2^32"
)]

use std::{net::SocketAddr, thread, time::Duration};

use chaos_tests::{
    chaos::Chaos,
    lab::{
        alone,
        process::Process,
        shapes::{B4, Pair},
    },
    measure::wait::{Arrival, FRAME_HEADERS, Listener, ms, send_all, sender},
    require_root, require_tools,
};

/// The largest frame without a VLAN tag.
const FRAME_MAX: f64 = 1514.0;
/// How far the rate over seconds may be off.
const RATE_ERROR: f64 = 0.03;

/// A link, and a sender that is faster than it.
struct Link {
    flag: &'static str,
    bits: f64,
    burst: f64,
    /// Payload of a datagram, bytes.
    bytes: usize,
    seconds: f64,
}

impl Link {
    fn frame(&self) -> f64 {
        (self.bytes + FRAME_HEADERS) as f64
    }

    fn bytes_in(&self, ms: f64) -> f64 {
        self.bits / 8.0 * ms / 1e3
    }

    /// Datagrams and their pace, at 1.3 times the rate.
    fn pace(&self) -> (u32, Duration) {
        let interval = self.frame() * 8.0 / self.bits / 1.3;
        ((self.seconds / interval) as u32, Duration::from_secs_f64(interval))
    }

    /// The rate over all, bytes a second: what came after the first, from the first to the last; how much of it
    /// is missing. A machine that stands still gives that time away.
    fn check_rate(&self, arrivals: &[Arrival]) -> f64 {
        let after_burst = (self.burst / self.frame()).ceil() as usize;
        let (first, last) = (arrivals[after_burst], arrivals[arrivals.len() - 1]);
        let frames = arrivals.len() - 1 - after_burst;
        let seconds = ms(last.came_ns - first.came_ns) / 1e3;
        let error = frames as f64 * self.frame() * 8.0 / seconds / self.bits - 1.0;
        println!("{}: {frames} frames in {seconds:.3} s, {:+.2} %", self.flag, error * 100.0);
        assert!(error < RATE_ERROR, "{}: {error}", self.flag);
        -error
    }

    /// In no 10 ms more than the burst, one packet, and what the link carries in that time.
    fn check_windows(&self, arrivals: &[Arrival]) {
        let bound = self.burst + FRAME_MAX.max(self.frame()) + self.bytes_in(10.0);
        let mut begin = 0;
        let mut most = 0.0f64;
        for (end, arrival) in arrivals.iter().enumerate() {
            while arrival.came_ns - arrivals[begin].came_ns > 10_000_000 {
                begin += 1;
            }
            most = most.max((end + 1 - begin) as f64 * self.frame());
        }
        println!("{}: at most {most} bytes in 10 ms, bound {bound:.0}", self.flag);
        assert!(most <= bound, "{}: {most} bytes in 10 ms, bound {bound}", self.flag);
    }
}

/// A machine that is shared may stop everything for milliseconds: one of three runs must be undisturbed.
fn check(link: &Link) {
    let missing: Vec<f64> =
        (0..3).map_while(|_| Some(run(link)).filter(|missing| *missing > RATE_ERROR)).collect();
    assert!(missing.len() < 3, "{}: less than its rate by {missing:?}", link.flag);
}

/// One run; see [`Link::check_rate`].
fn run(link: &Link) -> f64 {
    let pair = Pair::new().unwrap();
    let at = SocketAddr::new(B4.into(), 4000);
    let listener = Listener::new(&pair.b, at).unwrap();
    let sockets = [sender(&pair.a, at).unwrap()];
    pair.a.run(&format!("ping -c 1 -W 2 -q {B4}")).unwrap();
    let chaos = Chaos::inject(&pair.a, &format!("--rate {} --proto udp", link.flag)).unwrap();
    let (count, interval) = link.pace();
    send_all(&sockets, 0..count, link.bytes, interval).unwrap();
    let arrivals = listener.collect(Duration::from_millis(1200)).unwrap();
    let rules = chaos.stop().unwrap();
    let missing = link.check_rate(&arrivals);
    link.check_windows(&arrivals);
    assert!(arrivals.is_sorted_by_key(|arrival| arrival.number), "{}: the order is not kept", link.flag);
    let dropped = u64::from(count) - arrivals.len() as u64;
    assert!(dropped > 0, "{}: nothing was too much", link.flag);
    assert_eq!(rules[0].both("dropped_packets"), dropped, "{}: {rules:?}", link.flag);
    assert_eq!(rules[0].both("delayed_packets"), arrivals.len() as u64, "{}: {rules:?}", link.flag);
    missing
}

#[test]
fn slow_links_carry_what_they_should() {
    require_root!();
    let _alone = alone().unwrap();
    // 100 bytes in a frame of 142: one every 142 ms.
    check(&Link { flag: "1KB/s,queue=500ms", bits: 8e3, burst: 0.0, bytes: 100, seconds: 5.0 });
    check(&Link { flag: "1Mbit/s,queue=100ms", bits: 1e6, burst: 0.0, bytes: 1000, seconds: 3.0 });
}

#[test]
fn fast_links_carry_what_they_should() {
    require_root!();
    let _alone = alone().unwrap();
    check(&Link { flag: "10Mbit/s,queue=50ms", bits: 1e7, burst: 0.0, bytes: 1472, seconds: 3.0 });
    check(&Link {
        flag: "10Mbit/s,queue=50ms,burst=32KB",
        bits: 1e7,
        burst: 32e3,
        bytes: 1472,
        seconds: 3.0,
    });
    check(&Link { flag: "100Mbit/s,queue=20ms", bits: 1e8, burst: 0.0, bytes: 1472, seconds: 3.0 });
}

/// Two senders of 1.3 times the rate: together they get it once, or each of them.
#[test]
fn a_link_per_connection_is_each_ones_own() {
    require_root!();
    let _alone = alone().unwrap();
    let (bytes, bits) = (500, 1e6);
    let frame_bits = (bytes + FRAME_HEADERS) as f64 * 8.0;
    for (flag, links) in [("1Mbit/s,queue=50ms", 1.0), ("1Mbit/s,queue=50ms,per=connection", 2.0)] {
        let pair = Pair::new().unwrap();
        let at = SocketAddr::new(B4.into(), 4000);
        let listener = Listener::new(&pair.b, at).unwrap();
        let sockets = [sender(&pair.a, at).unwrap(), sender(&pair.a, at).unwrap()];
        let chaos = Chaos::inject(&pair.a, &format!("--rate {flag} --proto udp")).unwrap();
        let interval = frame_bits / bits / 2.6;
        send_all(&sockets, 0..(2.5 / interval) as u32, bytes, Duration::from_secs_f64(interval)).unwrap();
        let arrivals = listener.collect(Duration::from_millis(200)).unwrap();
        chaos.stop().unwrap();
        let seconds = ms(arrivals[arrivals.len() - 1].came_ns - arrivals[0].came_ns) / 1e3;
        let seen = (arrivals.len() - 1) as f64 * frame_bits / seconds / bits;
        println!("{flag}: {seen:.3} times the rate");
        assert!((seen / links - 1.0).abs() < 0.05, "{flag}: {seen} times the rate");
    }
}

/// What TCP gets out of a link is what is left beside the headers.
#[test]
fn a_transfer_fills_its_link() {
    require_root!();
    require_tools!("iperf3");
    let _alone = alone().unwrap();
    let pair = Pair::new().unwrap();
    let mut server = pair.b.command("iperf3 -s");
    server.stdout(std::process::Stdio::null());
    let _server = Process::start(server).unwrap();
    thread::sleep(Duration::from_millis(300));
    for (flags, way, bits) in [
        ("--rate 10Mbit/s", "", 1e7),
        ("--rate 100Mbit/s --direction ingress", "-R", 1e8),
        ("--rate 1Gbit/s,queue=50ms", "", 1e9),
    ] {
        let chaos = Chaos::inject(&pair.a, flags).unwrap();
        let json = pair.a.run(&format!("iperf3 -c {B4} -J -O 1 -t 3 {way}")).unwrap();
        chaos.stop().unwrap();
        let value: serde_json::Value = serde_json::from_str(&json).unwrap();
        let seen = value["end"]["sum_received"]["bits_per_second"].as_f64().unwrap();
        // With TCP timestamps 1448 bytes of a frame of 1514 are data.
        let share = seen / (bits * 1448.0 / 1514.0);
        println!("{flags}: {:.2} Mbit/s of data, {:.1} % of what fits", seen / 1e6, share * 100.0);
        assert!((0.93..1.05).contains(&share), "{flags}: {share}");
    }
}
