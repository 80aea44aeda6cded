//! Packets that come twice, damaged or marked: what programs read, and what the kernel's counters say.
#![expect(clippy::unwrap_used, reason = "a failed unwrap in a test is a failed test")]

use std::{
    net::{IpAddr, SocketAddr, UdpSocket},
    time::Duration,
};

use chaos_tests::{
    chaos::Chaos,
    lab::{
        alone,
        netns::Netns,
        shapes::{Pair, pair_address},
    },
    measure::{
        checksums::{Judge, Since, counters, fill_in},
        datagrams::{self, Seen, Stream},
        helper::{End, at, warm_up},
        pour::{Load, pour},
        stats::check_rate,
    },
    require_root, require_tools,
    snapshot::Snapshot,
};

const PORT: u16 = 5340;
const COUNT: u32 = 2000;
const GRACE: Duration = Duration::from_millis(300);

/// Where packets go: over the veth pair or over loopback.
#[derive(Clone, Copy, Debug)]
struct Way {
    v6: bool,
    lo: bool,
}

const WAYS: [Way; 4] = [
    Way { v6: false, lo: false },
    Way { v6: true, lo: false },
    Way { v6: false, lo: true },
    Way { v6: true, lo: true },
];

impl Way {
    fn to(self) -> SocketAddr {
        let local: IpAddr = if self.v6 { "::1".parse().unwrap() } else { "127.0.0.1".parse().unwrap() };
        at(if self.lo { local } else { pair_address(true, self.v6) }, PORT)
    }

    fn receiver(self, pair: &Pair) -> &Netns {
        if self.lo { &pair.a } else { &pair.b }
    }

    /// Datagrams of 100 bytes, one every 100 us.
    fn stream(self, pair: &Pair, ecn: bool) -> Seen {
        let stream = Stream { ecn, ..Stream::new(self.to(), COUNT, Duration::from_micros(100)) };
        let (from, to) = (End::plain(&pair.a), End::plain(self.receiver(pair)));
        datagrams::send(from, to, &stream, GRACE).unwrap()
    }

    /// 4 MB over TCP; both ends hash.
    fn transfer(self, pair: &Pair) -> bool {
        let load = Load { to: self.to(), bytes: 4_000_000, time: Duration::from_secs(20), hash: true };
        let (sent, came) = pour(End::plain(&pair.a), End::plain(self.receiver(pair)), &load).unwrap();
        assert_eq!(sent.bytes, came.bytes);
        sent.sha256 == came.sha256
    }
}

/// The kernel's last words about a packet that goes round in circles (`__dev_queue_xmit`).
fn dead_loops() -> usize {
    let log = chaos_tests::lab::process::run(chaos_tests::lab::netns::words("dmesg"));
    log.unwrap_or_default().matches("Dead loop").count()
}

#[test]
fn a_share_comes_twice_and_no_more() {
    require_root!();
    let _alone = alone().unwrap();
    let pair = Pair::new().unwrap();
    let before = Snapshot::before(&[&pair.a, &pair.b]).unwrap();
    let loops = dead_loops();
    for way in WAYS {
        for (flags, p) in
            [("--duplicate 20% --direction egress", 0.2), ("--duplicate 100% --direction ingress", 1.0)]
        {
            let since = Since::now(&[&pair.a, &pair.b]).unwrap();
            // What comes to A is sent by nobody but A itself, on loopback.
            if flags.contains("ingress") && !way.lo {
                continue;
            }
            let chaos = Chaos::inject(&pair.a, &format!("{flags} --seed 3 --proto udp")).unwrap();
            let seen = way.stream(&pair, false);
            let rules = chaos.stop().unwrap();
            assert_eq!((seen.lost(), seen.damaged()), (0, 0), "{way:?} {flags}");
            check_rate("twice", seen.extra(), u64::from(COUNT), p).unwrap();
            assert_eq!(rules[0].both("duplicated_packets"), seen.extra(), "{way:?} {flags}");
            assert!(seen.arrivals.len() <= 2 * COUNT as usize);
            assert_eq!(since.errors(&[&pair.a, &pair.b]).unwrap(), 0);
        }
        let chaos = Chaos::inject(&pair.a, "--duplicate 30% --seed 4").unwrap();
        assert!(way.transfer(&pair), "{way:?}: other bytes came than were sent");
        chaos.stop().unwrap();
    }
    assert_eq!(dead_loops(), loops);
    before.settle(&[&pair.a, &pair.b], Duration::from_secs(5)).unwrap();
}

/// The checksum catches every damaged packet: programs see losses, never wrong bytes.
#[test]
fn detectable_damage_is_detected() {
    require_root!();
    let _alone = alone().unwrap();
    let pair = Pair::new().unwrap();
    for way in WAYS {
        let receiver = [way.receiver(&pair)];
        let since = Since::now(&receiver).unwrap();
        let chaos = Chaos::inject(&pair.a, "--corrupt 10% --seed 5 --proto udp").unwrap();
        let seen = way.stream(&pair, false);
        let rules = chaos.stop().unwrap();
        let hit = rules[0].both("corrupted_packets");
        check_rate("damaged", hit, u64::from(COUNT), 0.1).unwrap();
        assert_eq!((seen.damaged(), seen.lost()), (0, hit), "{way:?}");
        assert_eq!(since.errors(&receiver).unwrap(), hit, "{way:?}");

        let since = Since::now(&receiver).unwrap();
        let chaos = Chaos::inject(&pair.a, "--corrupt 1%,bits=3 --proto tcp").unwrap();
        assert!(way.transfer(&pair), "{way:?}: wrong bytes were read");
        let rules = chaos.stop().unwrap();
        let hit = rules[0].both("corrupted_packets");
        println!("{way:?}: {hit} TCP segments damaged");
        assert!(hit > 0 || way.lo, "{way:?}: {rules:?}");
        assert_eq!(since.errors(&receiver).unwrap(), hit, "{way:?}");
    }
}

/// Damaged pings are not answered, and the kernel counts why.
#[test]
fn damaged_pings_are_detected() {
    require_root!();
    let _alone = alone().unwrap();
    let pair = Pair::new().unwrap();
    for (to, group, receiver) in [
        (pair_address(true, false), "Icmp.InCsumErrors", &pair.b),
        (pair_address(true, true), "Icmp6InCsumErrors", &pair.b),
        ("127.0.0.1".parse().unwrap(), "Icmp.InCsumErrors", &pair.a),
        ("::1".parse().unwrap(), "Icmp6InCsumErrors", &pair.a),
    ] {
        let before = counters(receiver).unwrap()[group];
        let chaos = Chaos::inject(&pair.a, "--corrupt 20%,bytes=16-").unwrap();
        let result = chaos_tests::measure::ping::ping(&pair.a, to, None, 500).unwrap();
        let rules = chaos.stop().unwrap();
        let hit = rules[0].both("corrupted_packets");
        assert!(hit > 50, "{to}: {rules:?}");
        assert_eq!(counters(receiver).unwrap()[group] - before, hit, "{to}");
        // A raw socket gets replies before their checksum is looked at; over veth only requests are hit.
        assert!(to.is_loopback() || result.lost() == hit, "{to}");
    }
}

/// Sends `count` payloads of `size` bytes and returns those that came, as they came.
fn through(pair: &Pair, way: Way, count: u8, size: usize) -> Vec<Vec<u8>> {
    let receiver = way.receiver(pair).enter(|| UdpSocket::bind(way.to()).unwrap()).unwrap();
    receiver.set_read_timeout(Some(GRACE)).unwrap();
    let any = if way.v6 { "[::]:0" } else { "0.0.0.0:0" };
    let sender = pair.a.enter(|| UdpSocket::bind(any).unwrap()).unwrap();
    let mut came = Vec::new();
    for number in 0..count {
        sender.send_to(&vec![number; size], way.to()).unwrap();
        let mut buffer = vec![0; 2048];
        if let Ok(length) = receiver.recv(&mut buffer) {
            buffer.truncate(length);
            came.push(buffer);
        }
    }
    came
}

/// Exactly so many bits, only where they may be, and no checksum says so.
#[test]
fn silent_damage_is_read_by_programs() {
    require_root!();
    let _alone = alone().unwrap();
    let pair = Pair::new().unwrap();
    for way in WAYS {
        for (options, bits, places) in
            [("bits=1", 1, 0..500), ("bits=5,bytes=10-19", 5, 10..20), ("bits=16,bytes=100-", 16, 100..500)]
        {
            let since = Since::now(&[&pair.a, &pair.b]).unwrap();
            let chaos =
                Chaos::inject(&pair.a, &format!("--corrupt 100%,silent,{options} --proto udp")).unwrap();
            let came = through(&pair, way, 100, 500);
            chaos.stop().unwrap();
            assert_eq!(came.len(), 100, "{way:?} {options}");
            for (payload, number) in came.iter().zip(0_u8..) {
                let flips: u32 = payload.iter().map(|byte| (byte ^ number).count_ones()).sum();
                let hit = payload.iter().enumerate().filter(|(_, byte)| **byte != number);
                assert_eq!((payload.len(), flips), (500, bits), "{way:?} {options}");
                assert!(
                    hit.map(|(place, _)| place).all(|place| places.contains(&place)),
                    "{way:?} {options}"
                );
            }
            assert_eq!(since.errors(&[&pair.a, &pair.b]).unwrap(), 0, "{way:?} {options}");
        }
        let since = Since::now(&[&pair.a, &pair.b]).unwrap();
        // On lo it is only some 60 packets: at 5 % one run in 25 would damage none, at 30 % one in 10^9.
        let chaos = Chaos::inject(&pair.a, "--corrupt 30%,silent --proto tcp").unwrap();
        assert!(!way.transfer(&pair), "{way:?}: the program read what was sent");
        chaos.stop().unwrap();
        assert_eq!(since.errors(&[&pair.a, &pair.b]).unwrap(), 0, "{way:?}");
    }
}

/// Marks instead of losses, where the sender says that it understands them.
#[test]
fn congestion_is_marked() {
    require_root!();
    let _alone = alone().unwrap();
    let pair = Pair::new().unwrap();
    for way in WAYS {
        let chaos = Chaos::inject(&pair.a, "--loss 20%,ecn --seed 6 --proto udp").unwrap();
        let (capable, other) = (way.stream(&pair, true), way.stream(&pair, false));
        let rules = chaos.stop().unwrap();
        assert_eq!((capable.lost(), capable.damaged(), other.marked()), (0, 0, 0), "{way:?}");
        check_rate("marked", capable.marked(), u64::from(COUNT), 0.2).unwrap();
        check_rate("lost", other.lost(), u64::from(COUNT), 0.2).unwrap();
        let counted = [rules[0].both("marked_packets"), rules[0].both("dropped_packets")];
        assert_eq!(counted, [capable.marked(), other.lost()], "{way:?}");
    }
}

/// Whatever was changed is right to an outsider, except for what shall be wrong.
#[test]
fn tcpdump_finds_only_detectable_damage() {
    require_root!();
    require_tools!("tcpdump", "ethtool");
    let _alone = alone().unwrap();
    let pair = Pair::new().unwrap();
    fill_in([(&pair.a, "va"), (&pair.b, "vb")]).unwrap();
    for v6 in [false, true] {
        let way = Way { v6, lo: false };
        warm_up(&pair.a, pair_address(true, v6)).unwrap();
        for (flags, wrong) in [
            ("--duplicate 30% --seed 4", false),
            ("--loss 30%,ecn", false),
            ("--corrupt 30%,silent,bits=4", false),
            ("--corrupt 30%,detectable", true),
        ] {
            let judge = Judge::start(&pair.b, "vb", &format!("udp port {PORT}")).unwrap();
            let chaos = Chaos::inject(&pair.a, &format!("{flags} --proto udp")).unwrap();
            let stream = Stream { ecn: true, ..Stream::new(way.to(), 500, Duration::from_micros(500)) };
            datagrams::send(End::plain(&pair.a), End::plain(&pair.b), &stream, GRACE).unwrap();
            let rules = chaos.stop().unwrap();
            let judgement = judge.finish().unwrap();
            let expected = if wrong { rules[0].both("corrupted_packets") } else { 0 };
            assert!(judgement.packets >= 500, "{flags}: {judgement:#?}");
            assert_eq!(judgement.wrong.len() as u64, expected, "{flags}: {judgement:#?}");
        }
    }
}
