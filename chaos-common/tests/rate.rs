//! A link of so many bits a second: never faster, hardly slower, fair about what does not fit.

#![expect(clippy::cast_precision_loss, reason = "numbers of a test are far below 2^52")]

use std::thread;

use chaos_common::{
    abi::FlowMemory,
    fault::{FaultKind, States},
    job::{Job, Size},
    verdict::verdict_flags,
};

use crate::{
    bench::{Bench, decide, host},
    support::{NOW_NS, Random},
};

const MTU: u64 = 1514;
const WINDOW_NS: u64 = 10_000_000;
const SECOND_NS: u64 = 1_000_000_000;

/// Packets as they leave the link: when, and of how many bytes.
struct Left {
    packets: Vec<(u64, u64)>,
    lost: u64,
}

/// Sends trains of packets after random pauses, on average `load_tenths` tenths of what the link can carry.
fn send(bench: &mut Bench, bps: u64, load_tenths: u64, count: u64, random: &mut Random) -> Left {
    let mut left = Left { packets: Vec::new(), lost: 0 };
    let mut now = 0;
    for _ in 0..count {
        let train = 1 + random.below(20);
        for _ in 0..train {
            let bytes = if random.one_in(3) { 60 + random.below(MTU - 60 + 1) } else { MTU };
            let verdict = bench.send(now, bytes, None);
            if verdict.drop_by == 0 {
                assert_ne!(verdict.flags & verdict_flags::ORDERED, 0);
                left.packets.push((now + verdict.queue_ns, bytes));
            } else {
                assert_eq!(verdict.drop_by, FaultKind::Rate.number());
                left.lost += 1;
            }
        }
        let train_ns = train * 1200 * 8 * SECOND_NS / bps;
        now += random.below(20 * train_ns / load_tenths);
    }
    left
}

/// The most bytes that arrive within any window.
fn most_in_a_window(packets: &[(u64, u64)]) -> u64 {
    let (mut most, mut sum, mut first) = (0, 0, 0);
    for (time, bytes) in packets {
        sum += bytes;
        while packets[first].0 + WINDOW_NS < *time {
            sum -= packets[first].1;
            first += 1;
        }
        most = most.max(sum);
    }
    most
}

#[test]
fn no_ten_milliseconds_carry_more_than_burst_and_one_packet() {
    for (text, bps) in
        [("1KB/s", 8_000), ("1Mbit/s", 1_000_000), ("10Mbit/s", 10_000_000), ("100Mbit/s", 100_000_000)]
    {
        for (burst, burst_bytes) in [("0", 0), ("16KB", 16_000), ("1500", 1500)] {
            for load in [5, 10, 50] {
                let mut bench = Bench::new(&[("rate", &format!("{text},burst={burst},queue=100KB"))], 1);
                let left = send(&mut bench, bps, load, 4000, &mut Random::new(bps + burst_bytes));
                assert!(left.packets.is_sorted_by_key(|packet| packet.0), "{text}: order");
                let bound = burst_bytes + MTU + bps * WINDOW_NS / (8 * SECOND_NS);
                let most = most_in_a_window(&left.packets);
                assert!(most <= bound, "{text}, burst {burst}, load {load}/10: {most} bytes, bound {bound}");
                assert!(load < 20 || left.lost > 1000, "{text}: an overload loses, {}", left.lost);
                if load > 20 && bps > 8_000 && burst_bytes == 0 {
                    assert!(most as f64 >= 0.95 * (bound - MTU) as f64, "{text}: {most} of {bound}");
                }
            }
        }
    }
}

/// A link that always has something to send carries its rate, to 10^-4, in packets of any size.
#[test]
fn a_busy_link_carries_its_rate() {
    let rates = [8_000, 100_000, 1_000_000, 7_777_777, 100_000_000, 1_000_000_000, 10_000_000_000u64];
    for bps in rates {
        for bytes in [60, 64, 100, 576, 1514, 9014, 65_536] {
            let mut bench = Bench::new(&[("rate", &format!("{bps}bit,queue=600s"))], 1);
            let count =
                (500_000_000_000u128 * u128::from(bps) / (u128::from(bytes) * 8_000_000_000)).min(20_000);
            let mut last = 0;
            for _ in 0..count {
                let verdict = bench.send(0, bytes, None);
                assert_eq!(verdict.drop_by, 0, "{bps} {bytes}");
                last = verdict.queue_ns;
            }
            let exact = count as f64 * bytes as f64 * 8e9 / bps as f64;
            let error = (last as f64 - exact) / exact;
            assert!(error.abs() < 1e-4 || (last as f64 - exact).abs() <= 1.0, "{bps}, {bytes}: {error}");
        }
    }
}

#[test]
fn a_free_link_takes_the_time_of_the_packet_alone() {
    let mut bench = Bench::new(&[("rate", "1Mbit/s")], 1);
    for second in 0..10 {
        assert_eq!(bench.send(second * SECOND_NS, 1250, None).queue_ns, 10_000_000, "10,000 bits");
    }
    let mut bench = Bench::new(&[("rate", "1Mbit/s,burst=2500")], 1);
    let waits: Vec<u64> = (0..4).map(|_| bench.send(0, 1250, None).queue_ns).collect();
    assert_eq!(waits, [0, 0, 10_000_000, 20_000_000], "a burst leaves at once");
    assert_eq!(bench.send(SECOND_NS, 1250, None).queue_ns, 0, "after a pause again");
}

#[test]
fn a_queue_is_as_long_as_it_says() {
    // 10 packets of 1250 bytes a second; half a second waits.
    for queue in ["500ms", "6250", "6.25KB"] {
        let mut bench = Bench::new(&[("rate", &format!("100kbit/s,queue={queue}"))], 1);
        let taken = (0..100).filter(|_| bench.send(0, 1250, None).drop_by == 0).count();
        assert_eq!(taken, 5, "{queue}");
        assert_eq!(bench.send(100_000_000, 1250, None).drop_by, 0, "one has gone, one fits");
        assert_ne!(bench.send(100_000_000, 1250, None).drop_by, 0);
    }
    // What is longer than the queue passes when nobody waits.
    let mut bench = Bench::new(&[("rate", "100kbit/s,queue=0")], 1);
    assert_eq!(bench.send(0, 1250, None).queue_ns, 100_000_000);
    assert_ne!(bench.send(99_999_999, 1250, None).drop_by, 0);
    assert_eq!(bench.send(100_000_000, 1250, None).drop_by, 0);
    // Without being asked: 250 ms, but 32 KiB on slow links.
    for (rate, bytes) in [("1KB/s", 32_768), ("1Mbit/s", 32_768), ("10Mbit/s", 312_500)] {
        let mut bench = Bench::new(&[("rate", rate)], 1);
        let taken = (0..10_000).filter(|_| bench.send(0, 100, None).drop_by == 0).count();
        assert_eq!(taken, bytes / 100, "{rate}");
    }
}

#[test]
fn connections_share_a_link_or_have_their_own() {
    let flows = [FlowMemory::default(), FlowMemory::default()];
    let mut own = Bench::new(&[("rate", "1Mbit/s,per=connection")], 1);
    let mut shared = Bench::new(&[("rate", "1Mbit/s")], 1);
    for turn in 1..=3 {
        for (number, flow) in flows.iter().enumerate() {
            assert_eq!(own.send(0, 1250, Some(flow)).queue_ns, turn * 10_000_000);
            let before = 2 * (turn - 1) + number as u64;
            assert_eq!(shared.send(0, 1250, Some(flow)).queue_ns, (before + 1) * 10_000_000);
        }
    }
    assert_eq!(
        own.send(0, 1250, None).queue_ns,
        10_000_000,
        "what belongs to no connection has the rule's link"
    );
}

/// A packet that loss takes does not use the link.
#[test]
fn what_is_lost_before_the_link_leaves_it_free() {
    let mut bench = Bench::new(&[("loss", "every=2"), ("rate", "1Mbit/s")], 1);
    let verdicts: Vec<_> = (0..6).map(|_| bench.send(0, 1250, None)).collect();
    let waits: Vec<_> = verdicts.iter().filter(|verdict| verdict.drop_by == 0).map(|v| v.queue_ns).collect();
    assert_eq!(waits, [10_000_000, 20_000_000, 30_000_000]);
}

/// Several CPUs book at once: every byte is booked, and no two packets have the same time.
#[test]
fn many_cpus_make_one_link() {
    const THREADS: u64 = 4;
    const EACH: u64 = 20_000;
    let rule = Bench::new(&[("rate", "1Gbit/s,queue=600s")], 1).rule;
    let states = States::default();
    let one = |seed| {
        let host = host(seed);
        let job = Job { now_ns: NOW_NS, size: Size { segments: 1, bytes: 1250 }, ..Job::default() };
        (0..EACH).map(|n| decide(&host, &rule, &states, &job, n, None).queue_ns).collect::<Vec<_>>()
    };
    let mut all: Vec<u64> = thread::scope(|scope| {
        let threads: Vec<_> = (1..=THREADS).map(|seed| scope.spawn(move || one(seed))).collect();
        threads.into_iter().flat_map(|thread| thread.join().unwrap()).collect()
    });
    all.sort_unstable();
    let expected: Vec<u64> = (1..=THREADS * EACH).map(|n| n * 10_000).collect();
    // A packet that eight others in a row outran is not booked: none on this few CPUs, or hardly any.
    let wrong = all.iter().zip(&expected).filter(|(seen, expected)| seen != expected).count();
    assert!(wrong == 0 || all.windows(2).filter(|pair| pair[0] == pair[1]).count() < 10, "{wrong}");
}
