//! Commands that are several rules: partitions and profiles.

use chaos_common::profile::PROFILES;

use super::{super::fault_flags, assert_phrases, clap_error, parse, rule, rules};
use crate::{
    spec::{Connections, Direction},
    targets::Target,
};

#[test]
fn the_partition_command_sets_its_fault_and_both_directions() {
    let rule = rule("partition unit:a.service netns:b").unwrap();
    assert!(!rule.faults.is_off());
    assert_eq!(rule.target, Target::Unit("a.service".to_owned()));
    assert_eq!(rule.peer, Some(Target::NetnsName("b".to_owned())));
    assert_eq!(rule.matching.direction, Some(Direction::Both));
}

#[test]
fn one_way_means_from_a_to_b_on_whichever_side_is_ours() {
    let ours = rule("partition host 10.0.0.5 --one-way").unwrap();
    assert_eq!((ours.target, ours.matching.direction), (Target::Host, Some(Direction::Egress)));
    assert_eq!(ours.peer, "10.0.0.5".parse().ok(), "the engine asks whether it can be reached");
    let theirs = rule("partition 10.0.0.5 host --one-way").unwrap();
    assert_eq!((theirs.target, theirs.matching.direction), (Target::Host, Some(Direction::Ingress)));
}

#[test]
fn a_group_is_one_fault_of_many_rules() {
    let set = rules("partition {netns:a,netns:b} {netns:c,10.0.0.1} --connections new").unwrap();
    assert_eq!(set.name, "partition {netns:a,netns:b} <-> {netns:c,10.0.0.1}");
    assert_eq!(set.targets(), "netns:a, netns:b");
    let pairs: Vec<&str> = set.rules.iter().map(|rule| rule.name.as_str()).collect();
    assert_eq!(
        pairs,
        [
            "partition netns:a <-> netns:c",
            "partition netns:a <-> 10.0.0.1",
            "partition netns:b <-> netns:c",
            "partition netns:b <-> 10.0.0.1"
        ]
    );
    assert!(set.rules.iter().all(|rule| rule.matching.connections == Connections::New));
    let set = rules("partition --isolate 10.0.0.1 netns:a,netns:b --one-way").unwrap();
    assert_eq!(set.name, "partition 10.0.0.1 -> {netns:a,netns:b}");
    let sides: Vec<_> =
        set.rules.iter().map(|rule| (rule.target.to_string(), rule.matching.direction)).collect();
    let ingress = Some(Direction::Ingress);
    assert_eq!(
        sides,
        [("netns:a".to_owned(), ingress), ("netns:b".to_owned(), ingress)],
        "what X sends comes to them"
    );
}

#[test]
fn the_mode_of_a_partition_is_read_by_its_fault() {
    assert_eq!(
        rule("partition host 10.0.0.1 --mode drop").unwrap(),
        rule("partition host 10.0.0.1").unwrap()
    );
    let line = "partition host 10.0.0.1 --mode melt";
    assert_phrases(line, &clap_error(line), &["--mode <MODE>", "melt", "drop"]);
    for line in [
        "partition --isolate netns:a --ring netns:b,netns:c",
        "partition",
        "partition {netns:a netns:b",
        "partition netns:a,nonsense host",
    ] {
        clap_error(line);
    }
}

#[test]
fn a_profile_is_in_the_help_with_its_numbers_and_a_wrong_one_is_refused() {
    let help = parse("inject --help").expect_err("help is an error to clap").to_string();
    // clap breaks lines where it likes.
    let help = help.split_whitespace().collect::<Vec<_>>().join(" ");
    for profile in PROFILES {
        assert_phrases("inject --help", &help, &[profile.name, &profile.describe()]);
    }
    let line = "inject --profile 6g host";
    assert_phrases(line, &clap_error(line), &["--profile <NETWORK>", "wifi-lossy", "cross-region"]);
}

#[test]
fn a_profile_becomes_two_rules_of_one_fault() {
    let set = rules("inject --profile wifi-lossy host").unwrap();
    assert_eq!(set.name, "profile wifi-lossy");
    let directions: Vec<_> = set.rules.iter().map(|rule| rule.matching.direction).collect();
    assert_eq!(directions, [Some(Direction::Egress), Some(Direction::Ingress)]);
    assert_ne!(set.rules[0].faults, set.rules[1].faults, "the rates differ");
    assert_eq!(rules("inject --profile 3g host --direction ingress").unwrap().rules.len(), 1);
}

#[test]
fn what_is_given_beside_a_profile_wins() {
    let set = rules("exec --profile wifi-lossy --loss 5% --partition -- true").unwrap();
    assert_eq!(set.name, "profile wifi-lossy + loss 5% + partition");
    let words: Vec<String> = set.rules.iter().map(|rule| fault_flags::describe(&rule.faults)).collect();
    assert!(words[0].contains("loss 5%") && words[0].contains("partition"), "{words:?}");
    assert!(!words[1].contains("loss") && words[1].contains("partition"), "loss acts on egress: {words:?}");
}

#[test]
fn a_named_peer_of_a_partition_is_left_to_the_engine() {
    let rule = rule("partition host redis:6379").unwrap();
    assert_eq!(rule.peer, Some(Target::HostPort { host: "redis".to_owned(), port: 6379 }));
    assert!(rule.matching.peers.is_empty());
}
