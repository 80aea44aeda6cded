//! The command line as users type it: what is read, what is refused and with which words.

mod bodies;
mod readme;
mod sets;

use std::{net::IpAddr, time::Duration};

use chaos_common::fault::{FAULTS, Value};
use clap::{CommandFactory as _, error::ErrorKind};

use super::{
    args::{Cli, Command},
    failure::{Exit, Report},
    rule,
    ruleset::RuleSet,
};
use crate::{
    spec::{Direction, RuleSpec},
    targets::Target,
};

fn parse(line: &str) -> Result<Cli, clap::Error> {
    let words: Vec<_> = std::iter::once("chaos").chain(line.split_whitespace()).map(Into::into).collect();
    super::parse(&words).map(|(cli, _)| cli)
}

/// The rule that a command line stands for, if it is one; every name has the same two addresses.
fn rule(line: &str) -> anyhow::Result<RuleSpec> {
    let set = rules(line)?;
    assert_eq!(set.rules.len(), 1, "{line}");
    Ok(set.rules[0].clone())
}

fn rules(line: &str) -> anyhow::Result<RuleSet> {
    let resolve = |_: &str| -> anyhow::Result<Vec<IpAddr>> {
        Ok(vec!["192.0.2.1".parse().unwrap(), "2001:db8::1".parse().unwrap()])
    };
    match parse(line)?.command {
        Command::Exec(args) => rule::exec(&args, &Target::Cgroup("/chaos".into()), &resolve),
        Command::Inject(args) => rule::inject(&args, &resolve),
        Command::Partition(args) => rule::partition(&args),
        other @ (Command::Flows(_)
        | Command::Ls(_)
        | Command::Show(_)
        | Command::Rm(_)
        | Command::Events(_)
        | Command::Stop(_)
        | Command::Doctor
        | Command::Completions(_)
        | Command::Agent(_)
        | Command::Probe(_)
        | Command::Man(_)) => panic!("`{line}` is no fault: {other:?}"),
    }
}

/// What clap says about a wrong command line.
fn clap_error(line: &str) -> String {
    let error = parse(line).err().unwrap_or_else(|| panic!("`{line}` was accepted"));
    assert_eq!(error.exit_code(), 2, "{line}");
    error.to_string()
}

/// What we say about a command line that clap takes and that makes no sense.
fn refusal(line: &str) -> String {
    let error = rules(line).err().unwrap_or_else(|| panic!("`{line}` was accepted"));
    let report = Report::new(&error);
    assert_eq!(report.code, Exit::Usage as u8, "{line}");
    assert!(report.mend.is_some(), "{line} does not say what to do: {}", report.what);
    report.text()
}

fn assert_phrases(line: &str, text: &str, phrases: &[&str]) {
    for phrase in phrases {
        assert!(text.contains(phrase), "`{line}` should say `{phrase}`, but says:\n{text}");
    }
}

#[test]
fn a_fault_has_so_many_abort_conditions() {
    let line = |count: usize| format!("inject netns:a --loss 1%{}", " --abort tcp=10.0.0.1:1".repeat(count));
    assert_eq!(rules(&line(16)).unwrap().aborts.len(), 16);
    assert_phrases("17 times --abort", &refusal(&line(17)), &["17 abort conditions", "16 at most"]);
}

#[test]
fn the_definition_is_sound() {
    Cli::command().debug_assert();
}

#[test]
fn every_fault_is_in_the_help_of_inject_and_exec() {
    for command in ["inject", "exec"] {
        let help = parse(&format!("{command} --help")).expect_err("help is an error to clap");
        assert_eq!(help.kind(), ErrorKind::DisplayHelp);
        // clap breaks lines where it likes.
        let help = help.to_string().split_whitespace().collect::<Vec<_>>().join(" ");
        for info in FAULTS {
            assert_phrases(command, &help, &[&format!("--{}", info.name), info.help]);
        }
    }
}

#[test]
fn a_wrong_value_says_which_flag_and_what_is_accepted() {
    let cases: &[(&str, &[&str])] = &[
        ("--for 30", &["--for <TIME>", "write 30s"]),
        ("--for 0s", &["--for <TIME>", "does nothing"]),
        ("--for 2h", &["--for <TIME>", "at most 1h"]),
        ("--for -5s", &["--for <TIME>", "cannot be negative"]),
        ("--for --json", &["--for <TIME>", "the value is missing"]),
        ("--start-after soon", &["--start-after <TIME>", "such as 100ms"]),
        ("--flap 100ms", &["--flap <ON/OFF>", "100ms/100ms"]),
        ("--share 0", &["--share <SHARE>", "hits no flow"]),
        ("--share 25", &["--share <SHARE>", "percentage"]),
        ("--max-packets 0", &["--max-packets <N>", "hits nothing"]),
        ("--max-bytes 1kilo", &["--max-bytes <SIZE>", "1MiB"]),
        ("--seed x", &["--seed <NUMBER>", "0x5eed"]),
        ("--lease 1ms", &["--lease <TIME>", "from 1s to 1h"]),
        ("--direction up", &["--direction <WAY>", "egress, ingress, both"]),
        ("--proto sctp", &["--proto <PROTO>", "tcp, udp, icmp"]),
        ("--peer host", &["--peer <PEER>", "is a target, not a peer"]),
        ("--to redis:http", &["--peer <PEER>", "1 to 65535"]),
        ("--peer-port 70000", &["--peer-port <PORT>", "1 to 65535"]),
        ("--local-port 90-80", &["--local-port <PORT>", "write 80-90"]),
        ("--local 10.0.0.1:80", &["--local <ADDR>", "--local-port"]),
        ("--except 10.0.0.0/40", &["--except <PEER>", "10.0.0.0/8"]),
        ("--interface a-name-too-long-for-it", &["--interface <NAME>", "1 to 15 characters"]),
        ("--tcp-flags ack", &["--tcp-flags <FLAG>", "syn, fin, rst"]),
        ("--connections some", &["--connections <WHICH>", "all, new, established"]),
        ("--log-level loud", &["--log-level <LEVEL>", "debug"]),
    ];
    for (flags, phrases) in cases {
        let line = format!("inject --partition host {flags}");
        assert_phrases(&line, &clap_error(&line), phrases);
    }
}

#[test]
fn a_wrong_value_of_any_fault_names_its_flag() {
    for info in FAULTS {
        let wrong: &[&str] = match info.value {
            Value::None => &[],
            Value::Required(_) => &["no-such-value", "-1", "--json"],
            Value::Optional(_) => &["no-such-value"],
        };
        for value in wrong {
            let line = format!("inject host --{} {value}", info.name);
            assert_phrases(&line, &clap_error(&line), &[&format!("--{}", info.name), value]);
        }
    }
}

#[test]
fn an_optional_value_may_be_there_or_not_and_takes_no_target() {
    for info in FAULTS.iter().filter(|info| matches!(info.value, Value::Optional(_))) {
        let name = info.name;
        for line in [
            format!("inject --{name} host"),
            format!("inject host --{name}"),
            format!("inject --{name} unit:api.service --json"),
            format!("inject --{name} redis:6379"),
            format!("exec --{name} -- true"),
        ] {
            let read = parse(&line).unwrap_or_else(|error| panic!("{line}: {error}")).command;
            let flags = if let Command::Exec(args) = read {
                args.faults
            } else if let Command::Inject(args) = read {
                args.faults
            } else {
                panic!("{line}: {read:?}")
            };
            assert!(!flags.faults.is_off(), "{line}");
        }
    }
}

#[test]
fn an_optional_value_is_read_with_a_space_and_with_an_equals_sign() {
    // A word that is both is the target only where there is no other.
    let Command::Inject(args) = parse("inject --reject host").unwrap().command else { panic!("not inject") };
    assert_eq!(args.target, Target::Host);
    assert_ne!(
        rule("inject netns:a --reject host").unwrap().faults,
        rule("inject netns:a --reject").unwrap().faults
    );
    for line in [
        "inject host --partition drop",
        "inject --partition drop host",
        "inject --partition=drop host --for 2s",
        "exec --partition drop -- true",
        "exec --partition -- drop",
    ] {
        assert_eq!(
            rule(line).unwrap_or_else(|error| panic!("{line}: {error:#}")).name,
            "partition",
            "{line}"
        );
    }
    let Command::Exec(args) = parse("exec --partition -- --partition drop").unwrap().command else {
        panic!("not exec")
    };
    assert_eq!(args.command, ["--partition", "drop"], "what follows -- is the command's");
}

#[test]
fn a_word_that_is_neither_value_nor_target_says_what_it_could_be() {
    let cases: &[(&str, &[&str])] = &[
        ("inject --partition drip", &["<TARGET>", "names no target", "--partition=drip", "before the flags"]),
        ("inject host --partition drip", &["--partition", "drip", "write drop"]),
        ("inject --partition drip host", &["--partition", "drip", "write drop"]),
        ("exec --partition drip -- true", &["--partition", "drip", "write drop"]),
        ("inject netns:a --partition host", &["unexpected argument 'host'", "--partition=host"]),
    ];
    for (line, phrases) in cases {
        assert_phrases(line, &clap_error(line), phrases);
    }
}

#[test]
fn wrong_targets_and_commands() {
    for line in [
        "inject --partition nonsense",
        "partition host nonsense:",
        "flows x",
        "stop",
        "exec --partition",
        "man a b",
    ] {
        clap_error(line);
    }
    assert_phrases("inject x", &clap_error("inject --partition x"), &["cgroup:/path", "netns:name", "host"]);
    assert_phrases("exec", &clap_error("exec --partition cargo test"), &["comes after `--`", "-- cargo"]);
    assert_phrases("stop", &clap_error("stop"), &["--all"]);
    assert_phrases("exec", &clap_error("exec --partition"), &["-- CMD"]);
}

#[test]
fn contradictions_are_refused_with_what_mends_them() {
    let cases: &[(&str, &[&str])] = &[
        ("inject host", &["no fault was given", "--loss RATE", "--partition"]),
        ("exec -- true", &["no fault was given"]),
        ("inject --partition 10.0.0.1", &["is an address", "host --peer 10.0.0.1"]),
        ("inject --partition redis:6379", &["is an address", "host --peer redis:6379"]),
        ("inject --partition host --proto icmp --peer-port 80", &["--peer-port", "ICMP has no ports"]),
        ("inject --partition host --proto icmp --local-port 80", &["--local-port", "ICMP has no ports"]),
        ("inject --partition host --proto icmp --peer 10.0.0.1:80", &["--peer with a port"]),
        ("inject --partition host --proto udp --tcp-flags syn", &["--tcp-flags", "--proto tcp"]),
        ("inject --partition host --peer 10.0.0.1 --except 10.0.0.0/8", &["wholly excluded", "always win"]),
        ("inject --partition host --start-after 1m", &["leaves nothing of the 1m", "--for 2m"]),
        ("inject --partition host --for 2s --start-after 3s", &["leaves nothing of the 2s", "--for 5s"]),
        ("inject --partition unit:a.service --forwarded", &["--forwarded", "belong to no process"]),
        ("exec --partition --forwarded -- true", &["--forwarded", "belong to no process"]),
        (
            "inject --loss 1% --partition host",
            &["--loss acts on egress", "--partition on both", "--direction both"],
        ),
        ("partition host host", &["both host"]),
        ("partition 10.0.0.1 10.0.0.2:80", &["neither 10.0.0.1", "is on this machine"]),
        ("partition host", &["the other side is missing", "--isolate"]),
        (
            "partition netns:a netns:b netns:c netns:d",
            &["has two sides, these are 4", "without quotes", "'{a,b}' '{c,d}'"],
        ),
        ("partition {netns:a,netns:a} netns:b", &["netns:a is named twice"]),
        ("partition {netns:a,netns:b} {netns:b,netns:c}", &["netns:b is on both sides", "--bridge"]),
        (
            "partition {netns:a,10.0.0.1} {10.0.0.2,10.0.0.3,host}",
            &["nothing was cut", "10.0.0.1 and 10.0.0.2; 10.0.0.1 and 10.0.0.3", "run chaos where it is"],
        ),
        ("partition --ring netns:a,netns:b,netns:c", &["ring of 3 cuts nothing", "four members"]),
        ("partition --ring --one-way netns:a,netns:b,netns:c,netns:d", &["--one-way", "no first side"]),
        ("partition --bridge netns:a netns:a,netns:b", &["two others at least"]),
        ("partition --isolate netns:a netns:a", &["nobody but netns:a"]),
        ("partition netns:a,netns:b netns:c --max-packets 5", &["for each of the 2 pairs", "--for"]),
    ];
    for (line, phrases) in cases {
        assert_phrases(line, &refusal(line), phrases);
    }
}

#[test]
fn inject_defaults() {
    let rule = rule("inject --loss 10% netns:blue").unwrap();
    assert_eq!(rule.name, "loss 10%");
    assert_eq!(rule.target, Target::NetnsName("blue".to_owned()));
    assert_eq!(rule.schedule.duration, Some(Duration::from_mins(1)));
    assert_eq!(rule.lease, Duration::from_secs(5));
    assert_eq!((rule.matching.direction, rule.seed, rule.shadow), (None, None, false));
}

#[test]
fn every_match_flag_reaches_the_rule() {
    let rule = rule(
        "inject --loss every=7 --loss 1% host --direction ingress --to redis:6379,10.0.0.0/8 --peer [::1]:80-90 \
         --peer-port 1-2,3 --local 10.1.0.1 --local-port 443 --proto TCP,udp --interface lo --interface eth0 \
         --except db --tcp-flags syn,RST --data-only --share 25% --connections new --forwarded",
    )
    .unwrap();
    let matching = rule.matching;
    assert_eq!(matching.direction, Some(Direction::Ingress));
    assert_eq!(matching.peers.len(), 4, "a name has two addresses here: {:?}", matching.peers);
    assert_eq!((matching.peer_ports.len(), matching.local_ports.len(), matching.locals.len()), (2, 1, 1));
    assert_eq!((matching.protos.len(), matching.interfaces.len(), matching.except.len()), (2, 2, 2));
    assert!(matching.tcp_flags.syn && matching.tcp_flags.rst && !matching.tcp_flags.fin);
    assert!(matching.data_only && matching.forwarded);
    assert!((matching.share.unwrap() - 0.25).abs() < 1e-9);
    assert_eq!(rule.name, "loss 1% and of every 7. packet");
}

#[test]
fn schedule_and_limits_reach_the_rule() {
    let rule = rule(
        "inject --partition host --for 1.5s --start-after 100ms --flap 100ms/50ms --max-packets 10000 --max-bytes 1MiB \
         --shadow --seed 0x2a --lease 60s",
    )
    .unwrap();
    assert_eq!(rule.schedule.duration, Some(Duration::from_millis(1500)));
    assert_eq!(rule.schedule.start_delay, Duration::from_millis(100));
    assert_eq!(rule.schedule.flap, Some((Duration::from_millis(100), Duration::from_millis(50))));
    assert_eq!((rule.limits.max_packets, rule.limits.max_bytes), (Some(10_000), Some(1 << 20)));
    assert_eq!((rule.shadow, rule.seed, rule.lease), (true, Some(42), Duration::from_mins(1)));
}

#[test]
fn exec_lives_as_long_as_its_command() {
    assert_eq!(rule("exec --partition -- sleep 1").unwrap().schedule.duration, None);
    assert_eq!(
        rule("exec --partition --for 2s -- x").unwrap().schedule.duration,
        Some(Duration::from_secs(2))
    );
    let Command::Exec(args) = parse("exec --partition -- cmd --json --loss 5%").unwrap().command else {
        panic!("not exec")
    };
    assert_eq!(args.command, ["cmd", "--json", "--loss", "5%"], "what follows -- is the command's");
}

#[test]
fn json_is_accepted_before_and_after_every_command() {
    for line in [
        "--json doctor",
        "doctor --json",
        "stop --all --json",
        "flows host --json",
        "partition host 10.0.0.1 --json",
    ] {
        assert!(parse(line).unwrap().global.json, "{line}");
    }
}

#[test]
fn every_flag_has_help() {
    let mut command = Cli::command();
    command.build();
    for sub in command.get_subcommands().filter(|sub| sub.get_name() != "help") {
        for arg in sub.get_arguments() {
            assert!(arg.get_help().is_some(), "{} --{} has no help", sub.get_name(), arg.get_id());
        }
    }
}

#[test]
fn the_examples_in_the_help_are_accepted() {
    let mut examples = 0;
    for command in Cli::command().get_subcommands() {
        let help = command.get_after_help().map(ToString::to_string).unwrap_or_default();
        for line in help.lines().filter_map(|line| line.trim().strip_prefix("sudo chaos ")) {
            rules(line).unwrap_or_else(|error| panic!("{line}: {error:#}"));
            examples += 1;
        }
    }
    assert!(examples >= 5, "found only {examples}");
}
