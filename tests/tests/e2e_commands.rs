//! The rest of the command line against the real machine: plans, refusals, doctor, flows, targets.
#![expect(clippy::unwrap_used, reason = "a failed unwrap in a test is a failed test")]

use std::{fs, net::SocketAddr, time::Duration};

use chaos_tests::{
    chaos::{self, Chaos},
    lab::{
        alone,
        cgroup::{self, Cgroup},
        process,
        shapes::{B4, Pair},
    },
    redis::{self, Client},
    require_root, require_tools,
    skip::report,
    snapshot::Snapshot,
};

const SOON: Duration = Duration::from_secs(2);
const REDIS: SocketAddr = SocketAddr::new(std::net::IpAddr::V4(B4), 6379);

/// Runs to the end; code, stdout, stderr.
fn run(arguments: &str) -> (Option<i32>, String, String) {
    let output = chaos::run(arguments).unwrap();
    let text = |bytes: &[u8]| String::from_utf8_lossy(bytes).into_owned();
    (output.status.code(), text(&output.stdout), text(&output.stderr))
}

#[test]
fn a_plan_says_what_and_touches_nothing() {
    require_root!();
    let _alone = alone().unwrap();
    let pair = Pair::new().unwrap();
    let namespaces = [&pair.a, &pair.b];
    let before = Snapshot::before(&namespaces).unwrap();
    for flag in ["--dry-run", "--explain", "--dry-run --json"] {
        let (code, stdout, stderr) =
            run(&format!("inject netns:{} --loss 10% --peer {B4} {flag}", pair.a.name()));
        assert_eq!(code, Some(0), "{stderr}");
        assert!(stdout.contains("va") || stdout.contains("10"), "{flag}: {stdout}");
        before.settle(&namespaces, Duration::from_secs(1)).unwrap();
    }
}

#[test]
fn a_refusal_leaves_nothing() {
    require_root!();
    let _alone = alone().unwrap();
    let pair = Pair::new().unwrap();
    let namespaces = [&pair.a, &pair.b];
    let before = Snapshot::before(&namespaces).unwrap();
    let name = pair.a.name();
    for (arguments, code) in [
        ("inject netns:no-such-namespace --loss 10%".to_owned(), None),
        (format!("inject netns:{name} --loss 110%"), Some(2)),
        (format!("inject netns:{name} --loss 10% --for 2h"), Some(2)),
        (format!("inject netns:{name}"), Some(2)),
        (format!("inject netns:{name} --loss 10% --interface no-such-device --for 1s"), None),
        (format!("inject netns:{name} --loss 10% --peer no-such-host.invalid --for 1s"), None),
    ] {
        let (got, stdout, stderr) = run(&arguments);
        assert!(got != Some(0) && (code.is_none() || got == code), "{arguments}: {got:?} {stdout}{stderr}");
        assert!(!stderr.trim().is_empty(), "{arguments} fails without a word");
        before.settle(&namespaces, Duration::from_secs(1)).unwrap();
    }
}

#[test]
fn without_privileges_it_says_which_are_missing() {
    require_root!();
    require_tools!("setpriv");
    let mut command = std::process::Command::new("setpriv");
    command.args(["--reuid", "65534", "--regid", "65534", "--clear-groups"]);
    command.arg(chaos::binary().unwrap()).args(["inject", "host", "--loss", "10%", "--for", "1s"]);
    let output = process::output(command, Duration::from_secs(10)).unwrap();
    let stderr = String::from_utf8_lossy(&output.stderr);
    assert_eq!(output.status.code(), Some(3), "{stderr}");
    assert!(stderr.contains("CAP_") && stderr.contains("sudo"), "{stderr}");
}

#[test]
fn doctor_is_content_with_a_kernel_that_passes_these_tests() {
    require_root!();
    let (code, stdout, stderr) = run("doctor");
    assert_eq!(code, Some(0), "{stdout}{stderr}");
    let (code, stdout, _) = run("doctor --json");
    assert_eq!(code, Some(0));
    assert!(stdout.lines().all(|line| serde_json::from_str::<serde_json::Value>(line).is_ok()), "{stdout}");
}

#[test]
fn flows_shows_a_connection_from_which_a_rule_can_be_written() {
    require_root!();
    require_tools!("redis-server");
    let pair = Pair::new().unwrap();
    let _redis = redis::start(&pair.b, REDIS, |command| command).unwrap();
    let mut client = Client::connect(&pair.a, REDIS, SOON).unwrap();
    client.ping(SOON).unwrap();
    let (code, stdout, stderr) = run(&format!("flows netns:{}", pair.a.name()));
    assert_eq!(code, Some(0), "{stderr}");
    assert!(stdout.contains(&B4.to_string()) && stdout.contains("6379"), "{stdout}");
}

/// No systemd here: a tree as systemd makes it, a service in a slice.
#[test]
fn a_unit_is_found_in_a_tree_like_systemds() {
    require_root!();
    require_tools!("redis-server");
    if !std::path::Path::new("/run/systemd/system").exists() {
        report("a_unit_is_found_in_a_tree_like_systemds", "the part with a running systemd: there is none");
    }
    let slice = cgroup::mount().unwrap().join("system.slice");
    let made = !slice.exists();
    if made {
        fs::create_dir(&slice).unwrap();
    }
    let pair = Pair::new().unwrap();
    let unit = format!("ct-{}.service", std::process::id());
    let service = Cgroup::at(format!("/system.slice/{unit}")).unwrap();
    {
        let _redis = redis::start(&pair.b, REDIS, |command| service.inside(command)).unwrap();
        let mut client = Client::connect(&pair.a, REDIS, SOON).unwrap();
        client.ping(SOON).unwrap();
        let chaos = Chaos::start(&format!("inject unit:{unit} --partition --for 1m")).unwrap();
        assert!(client.ping(Duration::from_millis(500)).is_err());
        chaos.stop().unwrap();
    }
    drop(service);
    if made {
        fs::remove_dir(&slice).unwrap();
    }
}

/// The directory and everything below it; conditions that hold for all of it change nothing.
#[test]
fn a_parent_cgroup_covers_what_is_below_it() {
    require_root!();
    require_tools!("redis-server");
    let pair = Pair::new().unwrap();
    let parent = Cgroup::new().unwrap();
    let child = parent.child("below").unwrap();
    let redis = redis::start(&pair.b, REDIS, |command| child.inside(command)).unwrap();
    let mut client = Client::connect(&pair.a, REDIS, SOON).unwrap();
    client.ping(SOON).unwrap();
    for flags in ["--partition", "--partition --data-only", "--partition --share 100%"] {
        let chaos = Chaos::start(&format!("inject cgroup:{} {flags} --for 1m", parent.name())).unwrap();
        assert!(client.ping(Duration::from_millis(500)).is_err(), "{flags}");
        chaos.stop().unwrap();
        client.expect_answers(1, Duration::from_secs(15)).unwrap();
    }
    drop(redis);
    drop(child);
}
