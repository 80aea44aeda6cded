//! `/metrics`: what Prometheus would read, while faults come and go.
#![expect(clippy::unwrap_used, reason = "a failed unwrap in a test is a failed test")]

use std::time::{Duration, Instant};

use chaos_common::abi::Count;
use chaos_tests::{
    api::Agent,
    lab::{
        alone,
        netns::Netns,
        process::Process,
        shapes::{B4, Pair},
    },
    metrics::Scrape,
    require_root,
};
use serde_json::{Value, json};

fn scrape(agent: &Agent) -> Scrape {
    let answer = agent.ask("GET", "/metrics", &Value::Null).unwrap();
    assert_eq!(answer.status, 200, "{answer:?}");
    assert!(answer.head.contains("content-type: text/plain; version=0.0.4"), "{answer:?}");
    Scrape::parse(answer.body.as_str().unwrap()).unwrap()
}

fn ping(from: &Netns, times: u32) {
    let _ = from.run(&format!("ping -c {times} -i 0.01 -W 0.2 -q {B4}"));
}

#[track_caller]
fn is(scrape: &Scrape, name: &str, labels: &[(&str, &str)], wanted: u32) {
    let value = scrape.sum(name, labels);
    assert!((value - f64::from(wanted)).abs() < 1e-9, "{name} {labels:?} is {value}, not {wanted}");
}

#[test]
fn what_a_fault_did_is_counted_by_direction_and_verdict() {
    require_root!();
    let _alone = alone().unwrap();
    let pair = Pair::new().unwrap();
    let agent = Agent::start("").unwrap();
    is(&scrape(&agent), "chaos_faults", &[], 0);
    let body = json!({"target": format!("netns:{}", pair.a.name()), "name": "cut-it",
        "faults": {"loss": "100%"}, "match": {"proto": "icmp"}, "duration": "1m", "lease": "30s"});
    let id = agent.set(&body).unwrap().to_string();
    ping(&pair.a, 7);
    let seen = scrape(&agent);
    let way = |direction| [("fault", id.as_str()), ("direction", direction)];
    is(&seen, "chaos_fault_matched_packets_total", &way("egress"), 7);
    is(&seen, "chaos_fault_matched_bytes_total", &way("egress"), 7 * 98);
    is(&seen, "chaos_fault_matched_packets_total", &way("ingress"), 0);
    for count in Count::ALL.iter().filter(|count| **count != Count::Matched) {
        let labels = [("fault", id.as_str()), ("direction", "egress"), ("verdict", count.label())];
        let wanted = if *count == Count::Dropped { 7 } else { 0 };
        is(&seen, "chaos_fault_packets_total", &labels, wanted);
        is(&seen, "chaos_fault_bytes_total", &labels, wanted * 98);
    }
    for (name, wanted) in
        [("chaos_faults", 1), ("chaos_rules", 1), ("chaos_targets", 1), ("chaos_stopped", 0)]
    {
        is(&seen, name, &[], wanted);
    }
    is(&seen, "chaos_fault_info", &[("fault", &id), ("name", "cut-it"), ("what", "loss 100%")], 1);
    is(&seen, "chaos_build_info", &[], 1);
    let left = seen.sum("chaos_fault_lease_remaining_seconds", &[("fault", &id)]);
    assert!((1.0..=30.0).contains(&left), "{left}");

    assert_eq!(agent.ask("POST", "/v1/stop", &json!({"reason": "a fire"})).unwrap().status, 200);
    let after = scrape(&agent);
    assert_eq!(after.fallen(&seen), Vec::<String>::new());
    is(&after, "chaos_fault_matched_packets_total", &way("egress"), 7);
    is(&after, "chaos_stopped", &[], 1);
    is(&after, "chaos_faults_ended_total", &[("reason", "stopped")], 1);
    is(&after, "chaos_faults_ended_total", &[], 1);
    is(&after, "chaos_events_total", &[("kind", "started")], 1);
    agent.stop().unwrap();
}

#[test]
fn counters_never_fall_while_faults_come_and_go() {
    require_root!();
    let _alone = alone().unwrap();
    let pair = Pair::new().unwrap();
    let agent = Agent::start("").unwrap();
    let pinger = Process::start(pair.a.command(&format!("ping -i 0.01 -q {B4}"))).unwrap();
    let began = Instant::now();
    let mut before = scrape(&agent);
    let mut rounds = 0;
    while began.elapsed() < Duration::from_secs(6) {
        let body = json!({"target": format!("netns:{}", pair.a.name()), "duration": "1m",
            "faults": {"loss": "10%", "delay": "2ms"}, "match": {"proto": "icmp"}});
        let path = format!("/v1/faults/turn-{}", rounds % 5);
        let put = agent.ask("PUT", &path, &body).unwrap();
        assert!([200, 201].contains(&put.status), "{put:?}");
        if rounds % 4 == 3 {
            assert_eq!(agent.ask("DELETE", "/v1/faults", &Value::Null).unwrap().status, 200);
        }
        let now = scrape(&agent);
        assert_eq!(now.fallen(&before), Vec::<String>::new());
        let own = now.samples.keys().filter(|key| key.starts_with("chaos_fault_matched_packets_total"));
        assert!(own.count() <= 2 * 65, "the names are bounded");
        before = now;
        rounds += 1;
    }
    drop(pinger);
    assert!(rounds >= 4, "only {rounds} rounds");
    assert!(before.sum("chaos_fault_matched_packets_total", &[]) > 10.0, "something was matched");
    is(&before, "chaos_faults_started_total", &[], rounds);
    agent.stop().unwrap();
}
