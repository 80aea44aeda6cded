//! The guard, with processes that are killed. Needs root, for cgroups, network namespaces and filters.
#![expect(clippy::unwrap_used, reason = "a failed unwrap in a test is a failed test")]

#[expect(dead_code, reason = "shared with other tests, each of which uses a part")]
mod support;

use std::{
    fs,
    process::Stdio,
    time::{Duration, Instant},
};

use chaos_agent::{
    cgroup::Hierarchy,
    guard::{Guard, Job},
};
use nix::{
    sys::signal::{Signal, kill},
    unistd::Pid,
};
use support::{cgroups_of, children, eventually, exec, is_root, process_exists, read_until};

#[test]
fn nothing_is_left_within_a_second_of_a_kill() {
    if !is_root("nothing_is_left_within_a_second_of_a_kill") {
        return;
    }
    let mut process = exec(&["sleep", "0.2"]).spawn().unwrap();
    let runs = |name: &str| !children(process.id(), name).is_empty();
    eventually("the command and the guard run", || runs("sleep") && runs("chaos-guard"));
    let guards = children(process.id(), "chaos-guard");
    let command = children(process.id(), "sleep")[0];
    process.kill().unwrap();
    process.wait().unwrap();
    assert_eq!(guards.len(), 1);
    assert!(process_exists(command), "the command is the user's and runs on");
    eventually("the command ends", || !process_exists(command));
    let ended = Instant::now();
    eventually("the cgroup is removed", || cgroups_of(process.id()).is_empty());
    eventually("the guard ends", || !process_exists(guards[0]));
    assert!(ended.elapsed() < Duration::from_secs(1), "{:?}", ended.elapsed());
}

#[test]
fn the_guard_holds_nothing_of_the_caller() {
    if !is_root("the_guard_holds_nothing_of_the_caller") {
        return;
    }
    let mut process = exec(&["--hold-ms", "10000", "true"])
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn()
        .unwrap();
    read_until(process.stderr.as_mut().unwrap(), "\n");
    // It names itself once it runs, which may be later.
    eventually("the guard runs", || !children(process.id(), "chaos-guard").is_empty());
    let guard = children(process.id(), "chaos-guard")[0];
    let mut descriptors: Vec<String> = Vec::new();
    eventually("the guard holds but five descriptors", || {
        let entries = fs::read_dir(format!("/proc/{guard}/fd")).unwrap();
        descriptors = entries
            .filter_map(|entry| fs::read_link(entry.ok()?.path()).ok())
            .map(|target| target.display().to_string())
            .collect();
        descriptors.len() == 5
    });
    let allowed =
        |name: &String| name == "/dev/null" || name.starts_with("socket:") || name.contains("pidfd");
    assert!(descriptors.iter().all(allowed), "{descriptors:?}");
    let stat = fs::read_to_string(format!("/proc/{guard}/stat")).unwrap();
    let session = stat.rsplit_once(") ").unwrap().1.split(' ').nth(3).unwrap();
    assert_eq!(session, guard.to_string(), "a session of its own");
    assert_eq!(fs::read_link(format!("/proc/{guard}/cwd")).unwrap().to_str(), Some("/"));
    kill(Pid::from_raw(guard), Signal::SIGTERM).unwrap();
    process.kill().unwrap();
    process.wait().unwrap();
    eventually("the cgroup is removed in spite of the SIGTERM", || cgroups_of(process.id()).is_empty());
}

#[test]
fn a_clean_end_leaves_neither_guard_nor_job() {
    if !is_root("a_clean_end_leaves_neither_guard_nor_job") {
        return;
    }
    let directory =
        Hierarchy::discover().unwrap().mount().join(format!("chaos-test-guard-{}", std::process::id()));
    let guard = Guard::start().unwrap();
    let pid = guard.pid();
    let kept = guard.register(Job::RemoveCgroup { directory: directory.clone() }, None).unwrap();
    fs::create_dir(&directory).unwrap();
    assert!(guard.is_alive());
    kept.unregister();
    drop(guard);
    assert!(!process_exists(pid), "the guard left before the drop returned");
    assert!(directory.exists(), "a withdrawn job is not done");

    let guard = Guard::start().unwrap();
    drop(guard.register(Job::RemoveCgroup { directory: directory.clone() }, None).unwrap());
    assert!(directory.exists(), "not before the end");
    drop(guard);
    eventually("the job that was left is done", || !directory.exists());
}

#[test]
fn a_killed_guard_is_noticed() {
    if !is_root("a_killed_guard_is_noticed") {
        return;
    }
    let guard = Guard::start().unwrap();
    kill(Pid::from_raw(guard.pid()), Signal::SIGKILL).unwrap();
    eventually("the guard is dead", || !guard.is_alive());
    let job = Job::RemoveCgroup { directory: "/nowhere".into() };
    let error = guard.register(job, None).unwrap_err();
    assert!(matches!(error.raw_os_error(), Some(libc::EPIPE | libc::ECONNRESET)), "{error}");
}
