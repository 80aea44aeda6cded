//! What was typed, as the body of the API and back: the same rules.

use proptest::{prelude::*, sample::subsequence};
use serde_json::{Value, json};

use super::{Cli, Command, RuleSet, rule};
use crate::api;

/// A command line as rules and as a body.
fn both(line: &str) -> (RuleSet, Value) {
    let words: Vec<_> = std::iter::once("chaos").chain(line.split_whitespace()).map(Into::into).collect();
    let (Cli { command, .. }, matches) =
        super::super::parse(&words).unwrap_or_else(|error| panic!("{line}: {error}"));
    let resolve = |_: &str| panic!("there are only addresses in `{line}`");
    let set = if let Command::Inject(args) = command {
        rule::inject(&args, &resolve)
    } else if let Command::Partition(args) = command {
        rule::partition(&args)
    } else {
        panic!("`{line}` is no fault: {command:?}")
    };
    let set = set.unwrap_or_else(|error| panic!("{line}: {error}"));
    (set, super::super::body::of(&matches).into())
}

/// The rules of a body are those of the words it was made of.
fn round_trip(line: &str) {
    let (set, mut body) = both(line);
    // `remote::hold` says what the command line would take.
    body.as_object_mut().unwrap().entry("duration").or_insert_with(|| "60s".into());
    let understood =
        api::understood(&body).unwrap_or_else(|problem| panic!("`{line}` became {body}: {problem}"));
    assert_eq!(understood.set, set, "`{line}` became {body}");
    let duration = set.rules.first().and_then(|rule| rule.schedule.duration);
    assert_eq!(Some(understood.duration), duration, "`{line}` became {body}");
}

#[test]
fn a_body_has_the_fields_of_the_api() {
    let (_, body) = both(
        "inject netns:a --loss 10% --partition --to 10.0.0.1:80,::1 --peer-port 80 --data-only --for 5s --lease 9s --direction both --json",
    );
    let wanted = json!({
        "target": "netns:a", "faults": {"loss": "10%", "partition": true}, "duration": "5s", "lease": "9s",
        "match": {"peer": ["10.0.0.1:80", "::1"], "peer_port": "80", "data_only": true,
            "direction": "both"},
    });
    assert_eq!(body, wanted);
    let (_, body) =
        both("partition netns:a,netns:b netns:c --one-way --mode reject --no-confirm --standalone");
    let wanted =
        json!({"partition": {"sides": ["netns:a,netns:b", "netns:c"], "one_way": true, "mode": "reject"}});
    assert_eq!(body, wanted);
}

const SOME_FAULTS: &[&str] = &[
    "--loss 10%",
    "--loss every=7",
    "--loss p=1%,r=25%",
    "--duplicate 5%,correlation=25%",
    "--corrupt 1%,silent",
    "--delay 100ms±20ms,distribution=normal",
    "--rate 1Mbit/s,burst=16KB",
    "--dns nxdomain:*.internal,api.example.com",
    "--mtu 1200,reply",
];
const CONDITIONS: &[&str] = &[
    "--to 10.0.0.0/8,[fd00::1]:443",
    "--peer-port 80,8000-8100",
    "--local 10.0.0.1 --local fd00::/8",
    "--local-port 22",
    "--except 10.9.0.1",
    "--interface eth0,lo",
    "--share 25%",
    "--connections established",
    "--direction both",
];
const WHENS: &[&str] = &[
    "--for 90s",
    "--start-after 1500ms",
    "--flap 100ms/1s",
    "--max-packets 7",
    "--max-bytes 1MiB",
    "--max-targets 3",
    "--seed 0x5eed",
    "--shadow",
];
const PARTITIONS: &[&str] = &[
    "netns:a 10.0.0.5",
    "netns:a,netns:b netns:c",
    "{netns:a,netns:b} {netns:c,10.0.0.0/24}",
    "--isolate netns:a netns:a,netns:b,netns:c",
    "--bridge netns:e netns:a,netns:b,netns:c,netns:e",
    "--ring netns:a,netns:b,netns:c,netns:d",
];

proptest! {
    #![proptest_config(ProptestConfig { cases: 128, failure_persistence: None, ..ProptestConfig::default() })]

    #[test]
    fn injected(
        fault in prop::sample::select(SOME_FAULTS),
        conditions in subsequence(CONDITIONS, 0..=CONDITIONS.len()),
        whens in subsequence(WHENS, 0..=WHENS.len()),
    ) {
        // DNS is no protocol of its own: the flags of ports do not go with it.
        let conditions = if fault.contains("dns") { Vec::new() } else { conditions };
        round_trip(&format!("inject netns:a {fault} {} {}", conditions.join(" "), whens.join(" ")));
    }

    #[test]
    fn parted(
        sides in prop::sample::select(PARTITIONS),
        mode in prop::sample::select(&["", "--mode reset", "--mode reject", "--connections new"][..]),
        when in prop::sample::select(&["", "--for 10s", "--shadow --seed 7", "--flap 1s/2s"][..]),
    ) {
        round_trip(&format!("partition {sides} {mode} {when}"));
    }
}

#[test]
fn faults_that_are_several_or_have_no_value() {
    for line in [
        "inject netns:a --profile 3g",
        "inject netns:a --profile 3g --loss 2%",
        "inject netns:a --reset --loss 5% --direction both",
        "inject netns:a --partition reject",
        "inject netns:a --reject",
        "inject netns:a --dns nxdomain:a.example --dns nxdomain:b.example",
        "inject netns:a --loss 1% --tcp-flags syn,fin --proto tcp --data-only --forwarded",
    ] {
        round_trip(line);
    }
}
