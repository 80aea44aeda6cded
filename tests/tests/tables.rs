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
