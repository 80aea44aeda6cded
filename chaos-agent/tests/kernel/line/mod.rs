//! The delay line's device and thread against the running kernel. Needs root.

mod device;
mod measure;
mod rig;

use std::{
    sync::{Arc, atomic::Ordering::SeqCst},
    time::Duration,
};

use chaos_agent::lines::{LineOptions, LineThread};

use self::rig::{DRAIN, MS, Rig, Rules, now_ns, numbers, word};
use crate::support::{alone, eventually, skip};

/// Long enough for anything that is promised within 10 ms, on a machine that is busy.
const SOON: Duration = Duration::from_secs(2);

#[test]
fn frames_leave_by_time_and_those_of_one_time_as_they_came() {
    if skip("line: frames leave by time and those of one time as they came") {
        return;
    }
    let _alone = alone();
    let mut rig = Rig::new();
    let thread = rig.serve(LineOptions::default());
    let due = now_ns() + 60 * MS;
    // Later ones first; ten of each time.
    for (number, ahead) in (0..50_u32).zip([4_u64, 3, 2, 1, 0].into_iter().cycle()) {
        rig.push(number, word(due + ahead * MS, 7), 100);
    }
    let caught = rig.catch(50, SOON);
    let expected: Vec<u32> = (0..5).flat_map(|ahead| (0..10).map(move |n| n * 5 + 4 - ahead)).collect();
    assert_eq!(numbers(&caught), expected);
    for one in &caught {
        let release = one.word & ((1 << 48) - 1);
        assert!(one.at_ns >= release && one.length == 100, "{one:?}");
    }
    let stats = thread.stats();
    assert_eq!((stats.read, stats.written, stats.released, stats.flushed), (50, 50, 50, 0));
    assert_eq!(rig.rules.released(7), 50);
    eventually("nothing is held", SOON, || thread.stats().held_frames == 0 && thread.stats().held_bytes == 0);
}

#[test]
fn large_frames_and_small_come_back_whole() {
    if skip("line: large frames and small come back whole") {
        return;
    }
    let _alone = alone();
    let mut rig = Rig::new();
    let _thread = rig.serve(LineOptions::default());
    let lengths = [14, 60, 257, 1_514, 9_014, 16_385, 65_535];
    for (number, &length) in (0..).zip(&lengths) {
        rig.push(number, word(now_ns() + 5 * MS, 1), length);
    }
    let caught = rig.catch(lengths.len(), SOON);
    assert_eq!(caught.iter().map(|one| one.length).collect::<Vec<_>>(), lengths);
}

#[test]
fn what_a_rule_holds_leaves_when_it_is_over() {
    if skip("line: what a rule holds leaves when it is over") {
        return;
    }
    let _alone = alone();
    // A machine that is shared may stand still meanwhile: one of three must be in time.
    assert!((0..3).any(|_| let_go()), "not within 10 ms, three times");
}

/// Whether what a rule holds was out within 10 ms of its end.
fn let_go() -> bool {
    let mut rig = Rig::new();
    let thread = rig.serve(LineOptions::default());
    let far = now_ns() + 60_000 * MS;
    for number in 0..200_u32 {
        // Two rules in turn; those of rule 3 in backward order by pairs.
        let slot = if number % 2 == 0 { 3 } else { 4 };
        rig.push(number, word(far + u64::from(number / 4 * 4 + 3 - number % 4), slot), 1_000);
    }
    eventually("all are held", SOON, || thread.stats().held_frames == 200);
    let end = now_ns();
    rig.rules.end(3);
    let caught = rig.catch(100, SOON);
    let expected: Vec<u32> = (0..50).flat_map(|four| [four * 4 + 2, four * 4]).collect();
    assert_eq!(numbers(&caught), expected);
    let took_ns = caught.last().unwrap().at_ns - end;
    println!("100 frames of a rule that ended were out after {took_ns} ns");
    // What still comes of it does not wait; the other rule's does.
    rig.push(900, word(far, 3), 100);
    rig.push(901, word(far, 4), 100);
    assert_eq!(numbers(&rig.catch(2, Duration::from_millis(100))), [900]);
    let stats = thread.stats();
    assert_eq!((stats.flushed, stats.released, stats.held_frames), (101, 0, 101));
    assert_eq!((rig.rules.released(3), rig.rules.released(4)), (101, 0));
    took_ns < 10 * MS || !thread.scheduling().is_real_time()
}

#[test]
fn a_frame_that_drains_follows_what_its_rule_holds() {
    if skip("line: a frame that drains follows what its rule holds") {
        return;
    }
    let _alone = alone();
    let mut rig = Rig::new();
    let thread = rig.serve(LineOptions::default());
    let far = now_ns() + 60_000 * MS;
    for number in 0..10 {
        rig.push(number, word(far - u64::from(number), 5), 200);
    }
    rig.push(50, word(far, 6), 200);
    rig.push(10, DRAIN | word(0, 5), 200);
    rig.push(11, DRAIN | word(far, 5), 200);
    let expected: Vec<u32> = (0..10).rev().chain([10, 11]).collect();
    assert_eq!(numbers(&rig.catch(13, Duration::from_millis(200))), expected);
    assert_eq!((thread.stats().late, thread.stats().held_frames), (0, 1));
}

#[test]
fn what_does_not_fit_is_dropped_and_counted() {
    if skip("line: what does not fit is dropped and counted") {
        return;
    }
    let _alone = alone();
    let mut rig = Rig::new();
    let thread = rig.serve(LineOptions { limit_bytes: 100_000, ..LineOptions::default() });
    let due = now_ns() + 300 * MS;
    for number in 0..100 {
        rig.push(number, word(due, 2), 2_000);
    }
    eventually("all are read", SOON, || thread.stats().read == 100);
    let stats = thread.stats();
    assert!(stats.overflow > 50 && stats.held_bytes <= 100_000, "{stats:?}");
    let kept = u32::try_from(100 - stats.overflow).unwrap();
    assert_eq!(numbers(&rig.catch(100, Duration::from_millis(500))), (0..kept).collect::<Vec<_>>());
    assert_eq!(rig.rules.released(2), 100);
}

#[test]
fn what_is_long_overdue_is_dropped() {
    if skip("line: what is long overdue is dropped") {
        return;
    }
    let _alone = alone();
    let mut rig = Rig::new();
    for number in 0..20 {
        rig.push(number, word(now_ns() + 5 * MS, 1), 100);
    }
    rig.push(20, word(now_ns() + 1_000 * MS, 1), 100);
    // As if the thread had been stopped.
    std::thread::sleep(Duration::from_millis(300));
    let thread = rig.serve(LineOptions::default());
    assert_eq!(numbers(&rig.catch(1, SOON)), [20]);
    let stats = thread.stats();
    assert_eq!((stats.late, stats.written), (20, 1));
    assert_eq!(rig.rules.released(1), 21);
}

#[test]
fn what_is_too_short_or_early_is_harmless() {
    if skip("line: what is too short or early is harmless") {
        return;
    }
    let _alone = alone();
    let mut rig = Rig::new();
    let _thread = rig.serve(LineOptions::default());
    // A release that was before the frame came, but not long.
    rig.push(1, word(now_ns() - 20 * MS, 1), 14);
    assert_eq!(numbers(&rig.catch(1, SOON)), [1]);
}

#[test]
fn it_tells_that_it_lives_and_sleeps_without_a_line() {
    if skip("line: it tells that it lives and sleeps without a line") {
        return;
    }
    let _alone = alone();
    let mut rig = Rig::new();
    let rules: Arc<Rules> = Arc::clone(&rig.rules);
    rules.keep_beats.store(true, SeqCst);
    let thread = LineThread::start(Arc::clone(&rules) as _, LineOptions::default()).unwrap();
    println!("scheduling: {}", thread.scheduling());
    let id = thread.add(rig.tap.take().unwrap().fd).unwrap();
    assert_eq!(rules.beats().len(), 1, "the first heartbeat is there when `add` returns");
    std::thread::sleep(Duration::from_millis(500));
    let beats = rules.beats();
    let longest = beats.windows(2).map(|two| two[1] - two[0]).max().unwrap();
    assert!(beats.len() >= 25 && longest < 40 * MS, "{} beats, {longest} ns apart", beats.len());
    assert!(beats.len() < 60, "{} beats", beats.len());
    assert_eq!(rules.asked.load(SeqCst), 0, "nothing is held, so nobody is asked");
    assert!(thread.remove(id) && !thread.remove(id));
    let wake_ups = || {
        let path = format!("/proc/self/task/{}/status", rules.thread.load(SeqCst));
        let text = std::fs::read_to_string(path).unwrap();
        text.lines().find(|line| line.starts_with("voluntary_ctxt_switches")).unwrap().to_owned()
    };
    std::thread::sleep(Duration::from_millis(20));
    let before = wake_ups();
    std::thread::sleep(Duration::from_millis(300));
    assert_eq!(wake_ups(), before, "no line, no wake-ups");
    drop(thread);
}
