//! The command line with an agent: what it asks it, what it does when that hangs or is gone, and how the two live
//! side by side.
#![expect(clippy::unwrap_used, reason = "a failed unwrap in a test is a failed test")]

use std::{
    os::unix::process::CommandExt as _,
    process::{Command, Output},
    time::Duration,
};

use chaos_tests::{
    api::{Agent, partition},
    chaos::{self, Chaos, FREED},
    lab::{
        alone,
        process::{self, wait_until},
        shapes::{B4, Pair},
    },
    require_root, require_tools,
    snapshot::Snapshot,
};
use nix::sys::signal::Signal;
use serde_json::{Value, json};

const SOON: Duration = Duration::from_secs(5);
const LIMIT: Duration = Duration::from_secs(30);

/// `chaos ARGUMENTS`, which asks this agent.
fn asking(agent: &Agent, arguments: &str) -> Command {
    let mut command = chaos::command(arguments).unwrap();
    command.env("CHAOS_SOCKET", agent.socket()).env_remove("CHAOS_STANDALONE");
    command
}

fn held(agent: &Agent) -> u64 {
    agent.ask("GET", "/v1/status", &Value::Null).unwrap().body["faults"].as_u64().unwrap()
}

fn text(output: &Output) -> String {
    format!("{}{}", String::from_utf8_lossy(&output.stdout), String::from_utf8_lossy(&output.stderr))
}

fn run(command: Command) -> (Option<i32>, String) {
    let output = process::output(command, LIMIT).unwrap();
    (output.status.code(), text(&output))
}

#[test]
fn the_agent_holds_the_fault_and_it_ends_with_the_command() {
    require_root!();
    let _alone = alone().unwrap();
    let pair = Pair::new().unwrap();
    let agent = Agent::start("").unwrap();
    let arguments = format!("inject --json netns:{} --partition --for 1m --lease 2s", pair.a.name());
    let chaos = Chaos::start_command(asking(&agent, &arguments)).unwrap();
    assert_eq!(held(&agent), 1);
    assert!(!pair.a.reaches(B4));
    std::thread::sleep(Duration::from_secs(3));
    assert!(!pair.a.reaches(B4), "the lease is renewed");
    let rules = chaos.stop().unwrap();
    assert!(rules[0].both("dropped_packets") > 0 && rules[0].name == "partition", "{rules:?}");
    assert_eq!(held(&agent), 0, "Ctrl-C ends it at once");
    assert!(pair.a.reaches(B4));

    // Killed, it ends by its lease.
    let chaos = Chaos::start_command(asking(&agent, &arguments)).unwrap();
    assert!(!pair.a.reaches(B4));
    chaos.kill().unwrap();
    wait_until("the lease is over", SOON, || pair.a.reaches(B4)).unwrap();
    assert_eq!(held(&agent), 0);

    // Somebody else ends it: the command says so.
    let mut chaos = Chaos::start_command(asking(&agent, &arguments)).unwrap();
    agent.ask("DELETE", "/v1/faults", &Value::Null).unwrap();
    let error = chaos.wait_for("error", SOON).unwrap();
    assert_eq!(error["error"]["code"], 3, "{error}");
    assert!(error.to_string().contains("every fault was deleted"), "{error}");
    assert!(chaos.seen().iter().any(|line| chaos::kind(line) == Some("summary")), "{:?}", chaos.seen());
    agent.stop().unwrap();
}

#[test]
fn what_the_agent_refuses_is_said_as_if_we_had() {
    require_root!();
    let _alone = alone().unwrap();
    let pair = Pair::new().unwrap();
    let agent = Agent::start("").unwrap();
    let name = pair.a.name();
    for (arguments, code, words) in [
        ("inject netns:no-such-namespace --loss 10%".to_owned(), 3, "no-such-namespace"),
        (format!("inject netns:{name} --loss 10% --peer no-such-host.invalid"), 3, "no-such-host.invalid"),
        (format!("inject netns:{name} --loss 10% --interface no-such-device"), 3, "no-such-device"),
        (format!("inject netns:{name} --loss 110%"), 2, "110%"),
    ] {
        let (alone_code, alone) = run(chaos::command(&arguments).unwrap());
        let (got, said) = run(asking(&agent, &arguments));
        assert_eq!((got, alone_code), (Some(code), Some(code)), "{arguments}: {said}\nalone: {alone}");
        assert!(said.contains(words) && alone.contains(words), "{arguments}: {said}\nalone: {alone}");
    }
    assert_eq!(held(&agent), 0);
    agent.stop().unwrap();
}

#[test]
fn an_agent_that_is_gone_is_done_without_and_one_that_hangs_is_named() {
    require_root!();
    let _alone = alone().unwrap();
    let pair = Pair::new().unwrap();
    let mut agent = Agent::start("").unwrap();
    let arguments = format!("inject netns:{} --partition --for 1s", pair.a.name());
    agent.chaos().process().signal(Signal::SIGSTOP).unwrap();
    let (code, said) = run(asking(&agent, &arguments));
    assert_eq!(code, Some(1), "{said}");
    assert!(said.contains("did not answer") && said.contains("--standalone"), "{said}");
    let (code, said) = run(asking(&agent, &format!("{arguments} --standalone")));
    assert_eq!(code, Some(0), "{said}");
    agent.chaos().process().signal(Signal::SIGCONT).unwrap();

    // The lever needs no answer: the kernel is enough. Before the lease of a hung agent is over.
    agent.set(&partition(&pair.a)).unwrap();
    agent.chaos().process().signal(Signal::SIGSTOP).unwrap();
    assert!(!pair.a.reaches(B4));
    let (code, said) = run(asking(&agent, "stop --all"));
    assert_eq!(code, Some(0), "{said}");
    assert!(said.contains("disarmed in the kernel") && said.contains("did not answer"), "{said}");
    assert!(pair.a.reaches(B4));
    let _ = agent.chaos().process().wait(SOON).unwrap();

    // Killed, it leaves its socket.
    let agent = Agent::start("").unwrap();
    let socket = agent.socket().clone();
    let stale = asking(&agent, &arguments);
    agent.kill().unwrap();
    assert!(socket.exists());
    let (code, said) = run(stale);
    assert_eq!(code, Some(0), "{said}");
    assert!(said.contains("no agent listens at") && said.contains("working alone"), "{said}");
    Agent::start("").unwrap().stop().unwrap();
}

#[test]
fn the_lever_leaves_an_agent_that_answers_alive() {
    require_root!();
    let _alone = alone().unwrap();
    let pair = Pair::new().unwrap();
    let mut agent = Agent::start("").unwrap();
    agent.set(&partition(&pair.a)).unwrap();
    let alone = Chaos::inject(&pair.b, "--loss 100% --proto udp").unwrap();
    let (code, said) = run(asking(&agent, "stop --all"));
    assert_eq!(code, Some(0), "{said}");
    assert!(pair.a.reaches(B4));
    drop(alone);
    assert!(agent.chaos().process().is_running(), "{said}");
    assert_eq!(held(&agent), 0);
    agent.set(&partition(&pair.a)).expect("new faults are accepted");
    assert!(!pair.a.reaches(B4));
    agent.stop().unwrap();
}

/// A command that works alone and an agent: each has its own marker, maps and programs.
#[test]
fn an_agent_and_a_command_that_works_alone_do_not_disturb_each_other() {
    require_root!();
    let _alone = alone().unwrap();
    let pair = Pair::new().unwrap();
    let namespaces = [&pair.a, &pair.b];
    let before = Snapshot::before(&namespaces).unwrap();
    let agent = Agent::start("").unwrap();
    let target = format!("netns:{}", pair.a.name());
    // The agent's fault spares ping, the other is for ping only: both on one device.
    let udp =
        json!({"target": target, "faults": {"loss": "100%"}, "match": {"proto": "udp"}, "duration": "1m"});
    let id = agent.set(&udp).unwrap();
    let alive = |agent: &Agent| {
        pair.a.run(&format!("ping -c 1 -W 1 -q {B4}")).ok();
        pair.a.enter(|| std::net::UdpSocket::bind("0.0.0.0:0").unwrap().send_to(b"x", (B4, 9)).ok()).unwrap();
        let shown = agent.ask("GET", &format!("/v1/faults/{id}"), &Value::Null).unwrap().body;
        (shown["state"] == "active", shown["egress"]["dropped_packets"].as_u64().unwrap())
    };
    let mut dropped = 0;
    let mut still_works = |agent: &Agent, when: &str| {
        let (active, now) = alive(agent);
        assert!(active && now > dropped, "{when}: {active} {now} after {dropped}");
        dropped = now;
    };
    still_works(&agent, "alone");
    for end in ["interrupted", "killed"] {
        let other = Chaos::inject(&pair.a, "--partition --proto icmp").unwrap();
        assert!(!pair.a.reaches(B4), "{end}");
        still_works(&agent, "beside another");
        if end == "killed" {
            other.kill().unwrap();
        } else {
            assert!(other.stop().unwrap()[0].both("dropped_packets") > 0);
        }
        wait_until("it heals", SOON, || pair.a.reaches(B4)).unwrap();
        still_works(&agent, end);
    }
    // A new one sweeps up what the killed one left, and nothing of the agent's.
    let other = Chaos::inject(&pair.a, "--partition --proto icmp").unwrap();
    still_works(&agent, "after the sweep");
    agent.kill().unwrap();
    std::thread::sleep(FREED);
    assert!(!pair.a.reaches(B4), "the end of the agent changes nothing for the other");
    other.stop().unwrap();
    assert!(pair.a.reaches(B4));
    before.settle(&namespaces, SOON).unwrap();
}

#[test]
fn one_who_may_not_ask_is_told_who_may() {
    require_root!();
    require_tools!("setpriv");
    let _alone = alone().unwrap();
    let agent = Agent::start("").unwrap();
    let unprivileged = |arguments: &str| {
        let mut command = Command::new("setpriv");
        command.args(["--reuid", "65534", "--regid", "65534", "--clear-groups"]);
        command.arg(chaos::binary().unwrap()).args(arguments.split_whitespace());
        command.env("CHAOS_SOCKET", agent.socket()).env_remove("CHAOS_STANDALONE");
        run(command)
    };
    let (code, said) = unprivileged("inject netns:x --loss 10%");
    assert_eq!(code, Some(3), "{said}");
    assert!(said.contains("may not ask the agent") && said.contains("sudo"), "{said}");
    let (code, said) = unprivileged("inject netns:x --loss 10% --standalone");
    assert_eq!(code, Some(3), "{said}");
    assert!(said.contains("CAP_NET_ADMIN"), "{said}");
    agent.stop().unwrap();
}

/// The same as somebody who may do nothing but ask.
fn asking_in_the_group(agent: &Agent, arguments: &str) -> (Option<i32>, String) {
    let mut command = asking(agent, arguments);
    let group = nix::unistd::Group::from_name("daemon").unwrap().unwrap().gid.as_raw();
    // Without the groups of root, which this sets aside.
    command.uid(65_534).gid(group);
    run(command)
}

#[test]
fn who_only_looks_asks_the_agent_too() {
    require_root!();
    let _alone = alone().unwrap();
    let pair = Pair::new().unwrap();
    let held_open = pair.a.enter(|| std::net::TcpListener::bind("0.0.0.0:7011")).unwrap().unwrap();
    let agent = Agent::start("--socket-group daemon --protect-peers 10.77.0.9").unwrap();
    let (a, b) = (format!("netns:{}", pair.a.name()), format!("netns:{}", pair.b.name()));
    // What only the agent knows of, and what both say.
    let protected = "10.77.0.9";
    for (arguments, says) in [
        (format!("flows {a}"), "0.0.0.0:7011"),
        (format!("inject {a} --loss 10% --explain"), "loss 10%"),
        (format!("inject {a} --loss 10% --dry-run"), "va"),
        (format!("partition {a} {b} --explain"), "partition"),
        ("exec --loss 10% --explain -- true".to_owned(), "loss 10%"),
    ] {
        let (code, said) = asking_in_the_group(&agent, &arguments);
        assert!(code == Some(0) && said.contains(says), "{arguments}: {said}");
        assert_eq!(said.contains(protected), arguments.contains("--explain"), "{arguments}: {said}");
        let (code, alone) = run(asking(
            &agent,
            &format!("{arguments} --standalone").replace("-- true --standalone", "--standalone -- true"),
        ));
        assert!(
            code == Some(0) && alone.contains(says) && !alone.contains(protected),
            "{arguments}: {alone}"
        );
        // But for what only the agent knows of, and how long a command may run, it is the same.
        let own = |text: &str| -> Vec<String> {
            let is_same = |line: &&str| {
                !line.contains(protected) && !line.contains("it acts ") && line.trim() != "nothing"
            };
            text.lines().filter(is_same).map(str::to_owned).collect()
        };
        assert_eq!(own(&said), own(&alone), "{arguments}");
    }
    let json = |arguments: &str| -> Value {
        let (code, said) = asking_in_the_group(&agent, arguments);
        assert_eq!(code, Some(0), "{said}");
        serde_json::from_str(&said).unwrap()
    };
    let flows = json(&format!("flows --json {a}"));
    assert_eq!((&flows["type"], &flows["flows"][0]["local"]), (&json!("flows"), &json!("0.0.0.0:7011")));
    let plan = json(&format!("inject --json {a} --loss 10% --explain"));
    assert_eq!(plan["protected"], json!([format!("by the settings, {protected}/32")]));
    let (code, said) = asking_in_the_group(&agent, "inject netns:no-such-namespace --loss 10% --explain");
    assert!(code == Some(3) && said.contains("no-such-namespace"), "{said}");
    assert_eq!(held(&agent), 0, "nothing was set");
    drop(held_open);
    agent.stop().unwrap();
}

#[test]
fn without_a_time_a_fault_lasts_as_long_as_the_agent_allows() {
    require_root!();
    let _alone = alone().unwrap();
    let pair = Pair::new().unwrap();
    let agent = Agent::start("--max-duration 2s").unwrap();
    let (code, said) = run(asking(&agent, &format!("inject netns:{} --partition", pair.a.name())));
    assert!(code == Some(0) && said.contains("2s"), "{said}");
    let (code, said) = run(asking(&agent, "exec --delay 1ms --allow-no-match -- true"));
    assert_eq!(code, Some(0), "{said}");
    let (code, said) = run(asking(&agent, &format!("inject netns:{} --partition --for 3s", pair.a.name())));
    assert!(code == Some(2) && said.contains("2s"), "who names a time is told: {said}");
    agent.stop().unwrap();
}

#[test]
fn faults_are_listed_shown_removed_and_told_about() {
    require_root!();
    let _alone = alone().unwrap();
    let pair = Pair::new().unwrap();
    let agent = Agent::start("").unwrap();
    let target = format!("netns:{}", pair.a.name());
    let fault = json!({"name": "cut", "target": target, "faults": {"partition": true}, "duration": "1m"});
    let id = agent.set(&fault).unwrap().to_string();
    let ask = |arguments: &str| {
        let (code, said) = run(asking(&agent, arguments));
        assert_eq!(code, Some(0), "{arguments}: {said}");
        said
    };
    let json = |arguments: &str| -> Value { serde_json::from_str(&ask(arguments)).unwrap() };
    let mut follow = asking(&agent, "events --follow --json --fault cut");
    follow.stdout(std::process::Stdio::piped());
    let mut follow = process::Process::start(follow).unwrap();
    assert!(!pair.a.reaches(B4));

    let listed = ask("ls");
    assert!(listed.contains("cut") && listed.contains("partition") && listed.contains(&target), "{listed}");
    assert_eq!(json("ls --json")["faults"][0]["id"].to_string(), id);
    let shown = ask(&format!("show {id}"));
    assert!(shown.contains("dropped") && shown.contains("active"), "{shown}");
    assert!(ask("rm cut").starts_with(&format!("removed {id}: partition:")));
    assert!(pair.a.reaches(B4));
    assert!(ask("rm cut").starts_with(&format!("{id} had ended before, it was deleted: partition:")));
    assert!(!ask("ls").contains("cut") && ask("ls --all").contains("ended"));
    assert_eq!(json("show cut --json")["fault"]["why"], "it was deleted");
    let (code, said) = run(asking(&agent, "rm no-such-fault"));
    assert_eq!(code, Some(3), "{said}");
    assert!(said.contains("no-such-fault"), "{said}");

    let past = ask(&format!("events --fault {id}"));
    assert!(past.contains("started") && past.contains("ended") && past.contains("it was deleted"), "{past}");
    let output = follow.child().stdout.take().unwrap();
    let lines = std::io::BufRead::lines(std::io::BufReader::new(output));
    let kinds: Vec<String> = lines
        .map(|line| {
            serde_json::from_str::<Value>(&line.unwrap()).unwrap()["event"]["kind"]
                .as_str()
                .unwrap()
                .to_owned()
        })
        .take(2)
        .collect();
    assert_eq!(kinds, ["started", "ended"]);
    drop(follow);
    agent.stop().unwrap();
    let mut gone = chaos::command("ls").unwrap();
    gone.env("CHAOS_SOCKET", "/run/chaos-no-such-agent.sock");
    let (code, said) = run(gone);
    assert_eq!(code, Some(3), "{said}");
    assert!(said.contains("no agent listens") && said.contains("sudo chaos agent"), "{said}");
}
