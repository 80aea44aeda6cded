//! Packet tables: what each condition, limit and fault does to one packet, in the kernel and on
//! the host alike. `CHAOS_ROW=name cargo test --test tables` runs one row.
#![expect(clippy::unwrap_used, reason = "a failed unwrap in a test is a failed test")]

mod table;

use chaos_tests::{
    oracle::{build::fault, host::HostSubject, kernel::KernelSide},
    packet::Packet,
    progrun::{Row, Subject, run_table},
    require_root, skip,
};
use nix::unistd::geteuid;

fn run(rows: &[Row]) {
    if !geteuid().is_root() {
        run_table(&mut [&mut HostSubject], rows).unwrap();
        skip!("the kernel's part: needs root; run `sudo -E cargo xtask test`");
    }
    let mut kernel = KernelSide::new().unwrap();
    run_table(&mut [&mut HostSubject, &mut kernel], rows).unwrap();
}

#[test]
fn corrupt() {
    run(&table::corrupt::rows());
}

#[test]
fn delay() {
    run(&table::delay::rows());
}

#[test]
fn dns() {
    run(&table::dns::rows());
}

#[test]
fn duplicate() {
    run(&table::duplicate::rows());
}

#[test]
fn faults() {
    run(&table::faults::rows());
}

#[test]
fn life() {
    run(&table::life::rows());
}

#[test]
fn loss() {
    run(&table::loss::rows());
}

#[test]
fn matching() {
    run(&table::matching::rows());
}

#[test]
fn mtu() {
    run(&table::mtu::rows());
}

#[test]
fn parsing() {
    run(&table::parsing::rows());
}

#[test]
fn partition() {
    run(&table::partition::rows());
}

#[test]
fn rate() {
    run(&table::rate::rows());
}

#[test]
fn reject() {
    run(&table::reject::rows());
}

#[test]
fn reorder() {
    run(&table::reorder::rows());
}

#[test]
fn reset() {
    run(&table::reset::rows());
}

#[test]
fn rtt() {
    run(&table::rtt::rows());
}

#[test]
fn stall() {
    run(&table::stall::rows());
}

/// With a seed each packet has its own draw: a later one with a smaller draw leaves no earlier than the one
/// before it, and only in its own flow.
#[test]
fn a_smaller_draw_leaves_no_earlier() {
    require_root!();
    let mut kernel = KernelSide::new().unwrap();
    let subjects: [&mut dyn Subject; 2] = [&mut HostSubject, &mut kernel];
    for subject in subjects {
        let mut release = |others: bool, before: usize| {
            let rule = fault("delay", "50ms±40ms").seed(7);
            let mut row = Row::egress("a packet of many", rule, table::tcp());
            let mut port = 40_000;
            row.before.resize_with(before, || {
                port += u16::from(others);
                Packet::new().eth().ipv4("10.0.0.1", "10.0.0.2").tcp(port, 6379).payload(b"PING")
            });
            subject.judge(&row).unwrap().unwrap().verdict.delay_ns
        };
        let own: Vec<u64> = (0..24).map(|number| release(false, number)).collect();
        let drawn: Vec<u64> = (0..24).map(|number| release(true, number)).collect();
        let latest = |number: usize| drawn[..=number].iter().copied().max().unwrap_or(0);
        assert_eq!(own, (0..24).map(latest).collect::<Vec<_>>(), "{}", subject.name());
        assert!(drawn.windows(2).any(|pair| pair[1] < pair[0]), "{drawn:?}");
    }
}
