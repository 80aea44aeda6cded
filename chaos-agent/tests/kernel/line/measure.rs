//! How late the line is, and how much it carries.

use std::{
    sync::atomic::{AtomicBool, Ordering::SeqCst},
    time::{Duration, Instant},
};

use chaos_agent::lines::LineOptions;

use super::rig::{MS, Rig, now_ns, word};
use crate::support::{alone, eventually, skip};

/// The share of a sorted list, in thousandths.
fn at(sorted: &[u64], per_mille: usize) -> u64 {
    sorted[(sorted.len() * per_mille / 1_000).min(sorted.len() - 1)]
}

#[test]
fn ten_thousand_frames_are_hardly_late() {
    const FRAMES: u32 = 10_000;
    if skip("line: ten thousand frames are hardly late") {
        return;
    }
    let _alone = alone();
    let mut rig = Rig::new();
    let thread = rig.serve(LineOptions::default());
    let rig = &rig;
    let caught = std::thread::scope(|scope| {
        let catcher = scope.spawn(move || rig.catch(FRAMES as usize, Duration::from_secs(20)));
        for number in 0..FRAMES {
            rig.push(number, word(now_ns() + 10 * MS, 1), 200);
            std::thread::sleep(Duration::from_micros(100));
        }
        catcher.join().unwrap()
    });
    assert_eq!(caught.len(), FRAMES as usize);
    let mut late: Vec<u64> =
        caught.iter().map(|one| one.at_ns.saturating_sub(one.word & ((1 << 48) - 1))).collect();
    late.sort_unstable();
    let mean = late.iter().sum::<u64>() / u64::from(FRAMES);
    println!("{}", thread.scheduling());
    println!(
        "late at the device, ns: mean {mean}, p50 {}, p99 {}, p999 {}, max {}",
        at(&late, 500),
        at(&late, 990),
        at(&late, 999),
        at(&late, 1_000)
    );
    let stats = thread.stats();
    println!(
        "by its own account: mean {}, p50 <= {:?}, p99 <= {:?}, max {}",
        stats.mean_lateness_ns(),
        stats.lateness_at_most_ns(500),
        stats.lateness_at_most_ns(990),
        stats.lateness_max_ns
    );
    assert_eq!((stats.released, stats.late), (u64::from(FRAMES), 0));
    // Generous: the machine that tests may be busy.
    let bound = if thread.scheduling().is_real_time() { MS } else { 20 * MS };
    assert!(at(&late, 500) < bound);
}

#[test]
#[ignore = "a measurement: run it alone, with --ignored --nocapture"]
fn throughput() {
    const LENGTH: usize = 60_000;
    let _alone = alone();
    for (delay_ms, real_time) in [(0, true), (0, false), (1, true), (10, true), (10, false), (50, true)] {
        let mut rig = Rig::new();
        let thread = rig.serve(LineOptions { real_time, ..LineOptions::default() });
        let rig = &rig;
        let over = AtomicBool::new(false);
        let caught = std::thread::scope(|scope| {
            let catcher = scope.spawn(|| {
                let mut count = 0;
                while !over.load(SeqCst) {
                    count += rig.catch(64, Duration::from_millis(10)).len();
                }
                count
            });
            let start = Instant::now();
            let mut number = 0;
            while start.elapsed() < Duration::from_secs(3) {
                rig.push(number, word(now_ns() + delay_ms * MS, 1), LENGTH);
                number += 1;
            }
            std::thread::sleep(Duration::from_millis(200));
            over.store(true, SeqCst);
            catcher.join().unwrap()
        });
        let stats = thread.stats();
        let megabits = |frames: u64| frames * LENGTH as u64 * 8 / 3_000_000;
        println!(
            "{delay_ms} ms, real-time {real_time}: read {} Mb/s, written {} Mb/s, caught {caught}, {stats:?}",
            megabits(stats.read),
            megabits(stats.written)
        );
    }
}

#[test]
fn the_memory_of_a_crowd_is_given_back() {
    if skip("line: the memory of a crowd is given back") {
        return;
    }
    let _alone = alone();
    let resident_kib = || {
        let status = std::fs::read_to_string("/proc/self/status").unwrap();
        let line = status.lines().find_map(|line| line.strip_prefix("VmRSS:")).unwrap();
        line.trim_end_matches("kB").trim().parse::<u64>().unwrap()
    };
    let mut rig = Rig::new();
    let thread = rig.serve(LineOptions { limit_bytes: 64 << 20, ..LineOptions::default() });
    let before = resident_kib();
    let far = now_ns() + 60_000 * MS;
    for number in 0..2_000 {
        rig.push(number, word(far, 1), 60_000);
    }
    eventually("all are read", Duration::from_secs(5), || thread.stats().read == 2_000);
    let full = resident_kib();
    assert!(thread.stats().overflow > 900 && full - before < 80 << 10, "{before} to {full} KiB");
    rig.rules.end(1);
    eventually("all have left", Duration::from_secs(5), || thread.stats().held_frames == 0);
    eventually("the memory is back", Duration::from_secs(5), || resident_kib() < before + (8 << 10));
    println!("{before} KiB, {full} KiB with 64 MiB of frames, {} KiB afterwards", resident_kib());
}
