//! The client crate and its example against a running agent: what a handle holds, and how it heals.
#![expect(clippy::unwrap_used, reason = "a failed unwrap in a test is a failed test")]

use std::{
    process::{Command, Output},
    thread,
    time::Duration,
};

use chaos_client::{Client, Condition, Error, NewFault, Place, State};
use chaos_tests::{
    api::Agent,
    lab::{
        alone,
        netns::Netns,
        process::{self, wait_until},
        shapes::{B4, Pair},
    },
    require_root,
};
use nix::sys::signal::Signal;

const SOON: Duration = Duration::from_secs(5);
const LEASE: Duration = Duration::from_secs(2);

fn client(agent: &Agent) -> Client {
    Client::new(Place::Socket(agent.socket().clone())).unwrap()
}

fn partition(netns: &Netns) -> NewFault {
    let target = format!("netns:{}", netns.name());
    NewFault::on(target).fault("partition", true).duration(Duration::from_mins(1)).lease(LEASE)
}

/// The example, with a ping as its command.
fn cut_off(agent: &Agent, pair: &Pair, flags: &str) -> Output {
    let name = pair.a.name();
    let mut command = Command::new(env!("CARGO_BIN_EXE_cut_off"));
    command.arg(format!("netns:{name}")).args(flags.split_whitespace());
    command.args(["--", "ip", "netns", "exec", name, "ping", "-c", "1", "-W", "1", "-q", &B4.to_string()]);
    command.env("CHAOS_SOCKET", agent.socket()).env_remove("CHAOS_URL");
    process::output(command, Duration::from_secs(30)).unwrap()
}

#[test]
fn the_example_cuts_off_and_heals_however_it_ends() {
    require_root!();
    let _alone = alone().unwrap();
    let pair = Pair::new().unwrap();
    let agent = Agent::start("").unwrap();
    let ended = cut_off(&agent, &pair, "");
    let (said, errors) = (String::from_utf8_lossy(&ended.stdout), String::from_utf8_lossy(&ended.stderr));
    assert!(ended.status.success() && said.ends_with("healed\n"), "{said}{errors}");

    let panicked = cut_off(&agent, &pair, "--end panic");
    assert_eq!(panicked.status.code(), Some(101), "{panicked:?}");
    assert!(pair.a.reaches(B4), "the handle went while the panic unwound");

    let aborted = cut_off(&agent, &pair, "--end abort");
    assert_eq!(aborted.status.code(), None, "{aborted:?}");
    wait_until("its lease is over", SOON, || pair.a.reaches(B4)).unwrap();
    agent.stop().unwrap();
}

#[test]
fn a_handle_outlives_its_lease_counts_and_says_how_it_ended() {
    require_root!();
    let _alone = alone().unwrap();
    let pair = Pair::new().unwrap();
    let agent = Agent::start("").unwrap();
    let client = client(&agent);
    let fault = client.hold(partition(&pair.a)).unwrap();
    assert_eq!(client.status().unwrap().faults, 1);
    thread::sleep(2 * LEASE);
    assert!(!pair.a.reaches(B4), "renewed");
    assert_eq!(fault.condition(), Condition::Held);
    assert!(fault.stats().unwrap().both("dropped_packets") > 0);
    let last = fault.heal().unwrap();
    assert_eq!(last.state, State::Ended);
    assert!(last.stats.both("dropped_packets") > 0, "{last:?}");
    assert!(pair.a.reaches(B4));

    // Somebody else ends it: the handle hears of it and why.
    let fault = client.hold(partition(&pair.a)).unwrap();
    client.remove(&fault.id().to_string()).unwrap();
    wait_until("the handle hears of it", SOON, || fault.condition() != Condition::Held).unwrap();
    assert_eq!(fault.condition(), Condition::Ended("it was deleted".to_owned()));
    drop(fault);

    // The agent is killed: its faults are gone with it.
    let fault = client.hold(partition(&pair.a)).unwrap();
    agent.kill().unwrap();
    assert!(pair.a.reaches(B4));
    wait_until("the handle hears of it", SOON, || matches!(fault.condition(), Condition::Lost(_))).unwrap();
    assert!(matches!(fault.stats(), Err(Error::Absent { .. })));
    assert!(matches!(fault.heal(), Err(Error::Absent { .. })));
}

#[test]
fn refusals_say_where_and_what() {
    require_root!();
    let _alone = alone().unwrap();
    let mut agent = Agent::start("").unwrap();
    let client = client(&agent);
    let refused = client.create(&NewFault::on("netns:x").fault("loss", "ten")).expect_err("ten is no share");
    let problem = refused.problem().unwrap();
    assert_eq!((problem.status, problem.errors[0].pointer.as_str()), (422, "/faults/loss"), "{problem:?}");
    assert!(refused.to_string().contains("ten"), "{refused}");
    assert!(client.show("7").expect_err("there is none").is_gone());
    let pair = Pair::new().unwrap();
    assert!(client.validate(&partition(&pair.a)).is_ok());
    assert!(client.explain(&partition(&pair.a)).unwrap().to_string().contains(pair.a.name()));
    assert_eq!(client.status().unwrap().faults, 0, "nothing is set");

    let quick = client.clone().with_limit(Duration::from_millis(300));
    agent.chaos().process().signal(Signal::SIGSTOP).unwrap();
    let silent = quick.status();
    agent.chaos().process().signal(Signal::SIGCONT).unwrap();
    assert!(matches!(silent, Err(Error::Silent { .. })), "{silent:?}");
    assert!(client.status().is_ok(), "it goes on");
    agent.stop().unwrap();
    assert!(matches!(client.status(), Err(Error::Absent { .. })));
}
