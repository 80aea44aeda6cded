//! Namespaces: entered and left, told apart, let go of. Needs root.
use std::{
    net::UdpSocket,
    panic::{AssertUnwindSafe, catch_unwind},
};

use crate::support::{NamedNetns, Process, skip};
use chaos_agent::netns::{Netns, NetnsError};

#[test]
fn the_callers_thread_stays_where_it_is() {
    if skip("netns: the caller's thread stays where it is") {
        return;
    }
    let home = Netns::current().unwrap();
    let other = Netns::anonymous().unwrap();
    assert_ne!(home, other);
    let inside = other.run(Netns::current).unwrap().unwrap();
    assert_eq!(inside, other);
    assert_eq!(Netns::current().unwrap(), home);
    assert_eq!(home.run(Netns::current).unwrap().unwrap(), home);
}

#[test]
fn a_panic_inside_reaches_the_caller() {
    if skip("netns: a panic inside reaches the caller") {
        return;
    }
    let other = Netns::anonymous().unwrap();
    let result = catch_unwind(AssertUnwindSafe(|| other.run(|| panic!("on purpose"))));
    assert!(result.is_err());
}

#[test]
fn a_socket_opened_inside_stays_inside() {
    if skip("netns: a socket opened inside stays inside") {
        return;
    }
    let named = NamedNetns::new();
    let netns = named.open();
    let port = 40_123;
    let inside = netns.run(|| UdpSocket::bind(("127.0.0.1", port))).unwrap().unwrap();
    let second = Netns::anonymous().unwrap();
    // Same port, another namespace; loopback is down there, binding works all the same.
    second.run(|| UdpSocket::bind(("0.0.0.0", port))).unwrap().unwrap();
    assert_eq!(inside.local_addr().unwrap().port(), port);
    assert!(netns.run(|| UdpSocket::bind(("127.0.0.1", port))).unwrap().is_err());
}

#[test]
fn name_pid_and_cookie_agree() {
    if skip("netns: name, pid and cookie agree") {
        return;
    }
    let named = NamedNetns::new();
    let by_name = named.open();
    let process = named.spawn(&["sleep", "60"]);
    crate::support::eventually("the process is inside", std::time::Duration::from_secs(2), || {
        Netns::by_pid(process.pid()).is_ok_and(|netns| netns == by_name)
    });
    assert!(Netns::names().contains(&named.0));
    let cookie = by_name.cookie().unwrap();
    assert_ne!(cookie, Netns::current().unwrap().cookie().unwrap());
    assert_eq!(cookie, Netns::by_pid(process.pid()).unwrap().cookie().unwrap());
}

#[test]
fn what_is_no_namespace_is_refused_by_name() {
    let error = Netns::by_name("chaos-no-such-name").unwrap_err();
    assert!(matches!(error, NetnsError::NoSuchName { .. }), "{error}");
    assert!(matches!(Netns::by_name("../x"), Err(NetnsError::BadName(_))));
    assert!(matches!(Netns::by_pid(i32::MAX), Err(NetnsError::NoSuchProcess(_))));
    let error = Netns::open_path(std::path::Path::new("/proc/self/status")).unwrap_err();
    assert!(matches!(error, NetnsError::NotANamespace(_)), "{error}");
    let error = Netns::open_path(std::path::Path::new("/proc/self/ns/mnt")).unwrap_err();
    assert!(matches!(error, NetnsError::NotANamespace(_)), "{error}");
}

#[test]
fn a_dead_process_is_no_namespace() {
    let mut process = Process::spawn("true", &[]);
    process.0.wait().unwrap();
    assert!(matches!(Netns::by_pid(process.pid()), Err(NetnsError::NoSuchProcess(_))));
}

#[test]
fn two_hundred_namespaces_leave_no_descriptor() {
    if skip("netns: two hundred namespaces leave no descriptor") {
        return;
    }
    let count = || std::fs::read_dir("/proc/self/fd").unwrap().count();
    let before = count();
    for _ in 0..200 {
        let netns = Netns::anonymous().unwrap();
        netns.run(|| ()).unwrap();
    }
    // Other tests of this binary run at the same time and hold a few.
    assert!(count() < before + 50, "{before} before, {} after", count());
}
