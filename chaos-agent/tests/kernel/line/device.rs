//! The device: how it is set up, and when it is gone.

use std::{
    io::{BufRead, BufReader},
    process::{Command, Stdio},
    sync::Arc,
    time::Duration,
};

use chaos_agent::{
    lines::{LineOptions, LineThread},
    net::{Netlink, addr, link},
    netns::Netns,
};

use super::{
    SOON,
    rig::{MS, NAME, Rig, make, now_ns, numbers, word},
};
use crate::support::{NamedNetns, Process, alone, eventually, sh, skip};

/// In the environment of the test that is started to be killed: the namespace.
const NAMESPACE: &str = "CHAOS_TEST_LINE_NAMESPACE";

fn exists(netns: &Netns) -> bool {
    netns.run(|| link::by_name(&mut Netlink::route().unwrap(), NAME).unwrap().is_some()).unwrap()
}

#[test]
fn it_is_silent_and_ends_with_its_descriptor() {
    if skip("line: the device is silent and ends with its descriptor") {
        return;
    }
    let netns = Netns::anonymous().unwrap();
    let tap = make(&netns);
    println!("offloads: {:#x}, {}", tap.offloads.mask(), tap.offloads.describe());
    std::thread::sleep(Duration::from_millis(300));
    netns
        .run(|| {
            let mut netlink = Netlink::route().unwrap();
            let found = link::by_name(&mut netlink, NAME).unwrap().unwrap();
            assert_eq!(found.index, tap.index);
            assert!(found.is_up() && found.is_noarp() && found.is_ours() && found.has_ethernet_header());
            assert_eq!(found.mtu, 65_521);
            assert!(addr::list(&mut netlink).unwrap().is_empty(), "an address of its own");
            let details = sh(&format!("ip -d -s -j link show {NAME}"));
            assert!(details.contains("\"txqlen\":10000"), "{details}");
            assert!(
                details.contains("\"vnet_hdr\":true") && details.contains("\"persist\":false"),
                "{details}"
            );
            assert!(
                details.contains("\"tx\":{\"bytes\":0,\"packets\":0"),
                "the kernel sent something: {details}"
            );
        })
        .unwrap();
    drop(tap);
    assert!(!exists(&netns));
}

#[test]
fn one_that_was_left_behind_is_replaced() {
    if skip("line: a device that was left behind is replaced") {
        return;
    }
    let named = NamedNetns::new();
    sh(&format!("ip -n {} tuntap add {NAME} mode tap", named.0));
    let netns = named.open();
    let tap = make(&netns);
    let again = make(&netns);
    assert_ne!(tap.index, again.index);
    drop(again);
    assert!(!exists(&netns));
}

#[test]
fn removing_a_line_lets_go_what_it_holds_first() {
    if skip("line: removing a line lets go what it holds first") {
        return;
    }
    let _alone = alone();
    let mut rig = Rig::new();
    let other = Rig::new();
    let thread = LineThread::start(Arc::clone(&rig.rules) as _, LineOptions::default()).unwrap();
    let id = thread.add(rig.tap.take().unwrap().fd).unwrap();
    let mut other_tap = other;
    let other_id = thread.add(other_tap.tap.take().unwrap().fd).unwrap();
    let far = now_ns() + 60_000 * MS;
    for number in 0..10 {
        rig.push(number, word(far - u64::from(number), 1), 100);
        other_tap.push(number, word(far, 1), 100);
    }
    eventually("all are held", SOON, || thread.stats().held_frames == 20);
    assert!(thread.remove(id));
    assert!(!exists(&rig.netns), "gone when it returns");
    assert_eq!(numbers(&rig.catch(10, SOON)), (0..10).rev().collect::<Vec<_>>());
    assert_eq!(thread.stats().held_frames, 10);
    assert!(other_tap.catch(1, Duration::from_millis(50)).is_empty());
    // The place in the list is used again, and the other line does not notice.
    let tap = make(&rig.netns);
    assert_ne!(thread.add(tap.fd).unwrap(), id);
    assert!(!thread.is_broken(other_id));
    let start = now_ns();
    drop(thread);
    println!("ended after {} ns", now_ns() - start);
    assert!(!exists(&rig.netns) && !exists(&other_tap.netns));
    assert_eq!(numbers(&other_tap.catch(10, SOON)), (0..10).collect::<Vec<_>>());
    assert_eq!(rig.rules.released(1), 20);
}

#[test]
fn one_that_somebody_deletes_breaks_nothing_else() {
    if skip("line: a device that somebody deletes breaks nothing else") {
        return;
    }
    let _alone = alone();
    let (mut rig, mut other) = (Rig::new(), Rig::new());
    let thread = LineThread::start(Arc::clone(&rig.rules) as _, LineOptions::default()).unwrap();
    let id = thread.add(rig.tap.take().unwrap().fd).unwrap();
    let other_id = thread.add(other.tap.take().unwrap().fd).unwrap();
    for number in 0..10 {
        rig.push(number, word(now_ns() + 100 * MS, 1), 100);
    }
    eventually("all are held", SOON, || thread.stats().held_frames == 10);
    let index = rig.index;
    rig.netns.run(|| link::delete(&mut Netlink::route().unwrap(), index).unwrap()).unwrap();
    eventually("it is noticed", SOON, || thread.is_broken(id));
    other.push(1, word(now_ns() + 10 * MS, 1), 100);
    assert_eq!(numbers(&other.catch(1, SOON)), [1]);
    eventually("what it held is counted", SOON, || thread.stats().write_errors == 10);
    assert_eq!(rig.rules.released(1), 11);
    assert!(!thread.is_broken(other_id) && thread.remove(id) && thread.remove(other_id));
}

/// Not a test: what the next one kills.
#[test]
#[ignore = "started by the_device_is_gone_when_its_process_is_killed"]
fn holds_a_line() {
    let netns = Netns::by_name(&std::env::var(NAMESPACE).unwrap()).unwrap();
    let rules: Arc<super::rig::Rules> = Arc::default();
    let thread = LineThread::start(rules, LineOptions::default()).unwrap();
    thread.add(make(&netns).fd).unwrap();
    println!("\nheld");
    std::thread::sleep(Duration::from_mins(1));
}

#[test]
fn the_device_is_gone_when_its_process_is_killed() {
    if skip("line: the device is gone when its process is killed") {
        return;
    }
    let named = NamedNetns::new();
    let child = Command::new(std::env::current_exe().unwrap())
        .args(["--exact", "line::device::holds_a_line", "--ignored", "--nocapture"])
        .env(NAMESPACE, &named.0)
        .stdin(Stdio::null())
        .stdout(Stdio::piped())
        .spawn()
        .unwrap();
    let mut child = Process(child);
    let lines = BufReader::new(child.0.stdout.take().unwrap()).lines();
    assert!(lines.map_while(Result::ok).any(|line| line == "held"), "the child did not get so far");
    let netns = named.open();
    assert!(exists(&netns));
    child.0.kill().unwrap();
    let took = eventually("the device is gone", Duration::from_secs(1), || !exists(&netns));
    println!("gone {took:?} after SIGKILL");
}
