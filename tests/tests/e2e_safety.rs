//! Caps, budgets and confirmations: what is refused, and what stays as it was.
#![expect(clippy::unwrap_used, reason = "a failed unwrap in a test is a failed test")]

use std::{net::Ipv4Addr, time::Duration};

use chaos_tests::{
    api::{Agent, partition},
    chaos,
    lab::{
        alone,
        process::wait_until,
        shapes::{B4, Pair, join},
    },
    require_root,
};
use serde_json::{Value, json};

const SOON: Duration = Duration::from_secs(5);

#[test]
fn a_whole_host_is_hit_only_when_somebody_says_so() {
    require_root!();
    let _alone = alone().unwrap();
    for words in ["inject host --loss 1% --for 1s", "partition host 192.0.2.7 --for 1s"] {
        let output = chaos::run(words).unwrap();
        let said = String::from_utf8_lossy(&output.stderr).into_owned();
        assert_eq!(output.status.code(), Some(3), "{words}: {said}");
        assert!(said.contains("this host itself") && said.contains("--yes-whole-host"), "{said}");
    }
    // The host may be hit, but nothing of what goes to an address that nobody has.
    let output = chaos::run("partition host 192.0.2.7 --for 1s --yes-whole-host").unwrap();
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
    let agent = Agent::start("").unwrap();
    let mut body = json!({"target": format!("netns:pid:{}", std::process::id()), "duration": "1s",
        "faults": {"loss": "1%"}, "match": {"peer": "192.0.2.7"}});
    let pointer = |body: &Value| {
        let answer = agent.ask("POST", "/v1/faults", body).unwrap();
        (answer.status, answer.body["errors"][0]["pointer"].as_str().unwrap_or_default().to_owned())
    };
    assert_eq!(pointer(&body), (422, "/confirm".to_owned()), "the host under another name");
    body["confirm"] = "host".into();
    assert_eq!(pointer(&body), (422, "/lease".to_owned()));
    body["lease"] = "5s".into();
    assert_eq!(pointer(&body), (201, String::new()));
    agent.stop().unwrap();
}

#[test]
fn no_more_faults_and_no_longer_than_is_allowed() {
    require_root!();
    let _alone = alone().unwrap();
    let pair = Pair::new().unwrap();
    let agent = Agent::start("--max-faults 64").unwrap();
    let fault = |port: usize| {
        json!({"target": format!("netns:{}", pair.a.name()), "faults": {"loss": "1%"},
        "match": {"peer_port": port}, "duration": "1m"})
    };
    let set = |count: usize| json!({"faults": (1..=count).map(fault).collect::<Vec<_>>()});
    let wrong = agent.ask("PUT", "/v1/faults", &set(65)).unwrap();
    assert_eq!(wrong.status, 409, "{wrong:?}");
    assert!(wrong.body["detail"].as_str().unwrap().contains("64 at once"), "{wrong:?}");
    assert_eq!(agent.ask("GET", "/v1/status", &Value::Null).unwrap().body["faults"], 0);
    assert_eq!(agent.ask("PUT", "/v1/faults", &set(64)).unwrap().status, 200);
    let [posted, validated] =
        ["/v1/faults", "/v1/faults:validate"].map(|path| agent.ask("POST", path, &fault(99)).unwrap());
    assert_eq!((posted.status, &posted.body), (409, &validated.body), "one more");
    assert_eq!(agent.ask("PUT", "/v1/faults", &set(64)).unwrap().status, 200, "instead of the others");
    let mut wrong = fault(1);
    wrong["duration"] = "61m".into();
    let answer = agent.ask("POST", "/v1/faults", &wrong).unwrap();
    assert_eq!(
        (answer.status, &answer.body["errors"][0]["pointer"]),
        (422, &json!("/duration")),
        "{answer:?}"
    );
    wrong.as_object_mut().unwrap().remove("duration");
    let answer = agent.ask("POST", "/v1/faults", &wrong).unwrap();
    assert_eq!(
        (answer.status, &answer.body["errors"][0]["pointer"]),
        (422, &json!("/duration")),
        "{answer:?}"
    );
    agent.stop().unwrap();
}

#[test]
fn a_budget_of_targets_holds_when_armed_and_when_more_come() {
    require_root!();
    let _alone = alone().unwrap();
    let pair = Pair::new().unwrap();
    assert!(pair.a.reaches(B4));
    let agent = Agent::start("").unwrap();
    let mut body = partition(&pair.a);
    body["max_targets"] = 1.into();
    // The veth and lo.
    let wrong = agent.ask("POST", "/v1/faults", &body).unwrap();
    assert_eq!(wrong.status, 409, "{wrong:?}");
    let said = wrong.body["detail"].as_str().unwrap();
    assert!(said.contains("2 devices") && said.contains("--max-targets 2"), "{said}");
    assert!(pair.a.reaches(B4), "nothing changed");
    body["max_targets"] = 2.into();
    agent.set(&body).unwrap();
    assert!(!pair.a.reaches(B4));
    // A third device comes later: it is spared, the others are not.
    join(&pair.a, "vc", &pair.b, "vd", None).unwrap();
    pair.a.run("ip addr add 10.79.0.1/24 dev vc").unwrap();
    pair.b.run("ip addr add 10.79.0.2/24 dev vd").unwrap();
    let third = Ipv4Addr::new(10, 79, 0, 2);
    wait_until("the new way", SOON, || pair.a.reaches(third)).unwrap();
    std::thread::sleep(Duration::from_millis(500));
    assert!(pair.a.reaches(third) && !pair.a.reaches(B4));
    // A place that is given up is given again.
    pair.a.run("ip link set va down").unwrap();
    wait_until("the next in line", SOON, || !pair.a.reaches(third)).unwrap();
    agent.stop().unwrap();
    assert!(pair.a.reaches(third));
}
