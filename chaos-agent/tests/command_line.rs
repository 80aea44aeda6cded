//! The binary as a user without privileges meets it: exit codes, sentences, generated files.
#![expect(clippy::unwrap_used, reason = "a failed unwrap in a test is a failed test")]

use std::{
    fs,
    os::unix::{fs::PermissionsExt as _, process::CommandExt as _},
    path::{Path, PathBuf},
    process::{Command, Output},
};

const CHAOS: &str = env!("CARGO_BIN_EXE_chaos");
/// The user `nobody` of every Linux distribution.
const NOBODY: u32 = 65534;

/// A directory that goes with the test.
struct Scratch(PathBuf);

impl Scratch {
    fn new(name: &str) -> Self {
        let path = std::env::temp_dir().join(format!("chaos-test-{name}-{}", std::process::id()));
        fs::create_dir_all(&path).unwrap();
        fs::set_permissions(&path, fs::Permissions::from_mode(0o755)).unwrap();
        Self(path)
    }

    fn path(&self) -> &Path {
        &self.0
    }
}

impl Drop for Scratch {
    fn drop(&mut self) {
        let _ = fs::remove_dir_all(&self.0);
    }
}

/// An agent of this machine is never asked.
fn command(binary: &Path) -> Command {
    let mut command = Command::new(binary);
    command.env("CHAOS_STANDALONE", "1").env_remove("CHAOS_SOCKET");
    command
}

fn chaos(args: &str) -> Output {
    command(Path::new(CHAOS)).args(args.split_whitespace()).output().unwrap()
}

/// Runs a copy of the binary that nobody can reach, as nobody.
fn chaos_unprivileged(args: &str, test: &str) -> Output {
    let scratch = Scratch::new(test);
    let binary = scratch.path().join("chaos");
    // By another process: a fork of a neighbouring test would inherit our descriptor for writing, and a
    // program that somebody has open for writing cannot be executed (ETXTBSY, execve(2)).
    assert!(Command::new("cp").args([Path::new(CHAOS), &binary]).status().unwrap().success());
    let mut command = command(&binary);
    command.args(args.split_whitespace()).current_dir("/");
    if nix::unistd::geteuid().is_root() {
        command.gid(NOBODY).uid(NOBODY);
    }
    command.output().unwrap()
}

fn text(bytes: &[u8]) -> String {
    String::from_utf8(bytes.to_vec()).unwrap()
}

#[test]
fn without_privileges_one_sentence_and_exit_code_3() {
    for (args, test) in [
        ("inject --loss 10% host --for 1s", "inject"),
        ("partition host 192.0.2.1 --for 1s", "partition"),
        ("stop --all", "stop"),
        ("exec --loss 10% -- true", "exec"),
    ] {
        let output = chaos_unprivileged(args, test);
        let error = text(&output.stderr);
        assert_eq!(output.status.code(), Some(3), "{args}: {error}");
        for phrase in ["chaos: this needs CAP_NET_ADMIN", "sudo", args.split(' ').next().unwrap(), "setcap"] {
            assert!(error.contains(phrase), "{args} should say `{phrase}`:\n{error}");
        }
        assert!(output.stdout.is_empty(), "{args}: errors belong on stderr");
    }
}

#[test]
fn without_privileges_json_says_the_same() {
    let output = chaos_unprivileged("stop --all --json", "json");
    let line: serde_json::Value = serde_json::from_slice(&output.stdout).unwrap();
    assert_eq!((&line["type"], &line["error"]["code"]), (&"error".into(), &3.into()), "{line}");
}

#[test]
fn wrong_usage_is_exit_code_2_on_stderr() {
    for args in [
        "",
        "inject",
        "inject host",
        "inject --loss 200% host",
        "inject --loss 1% 10.0.0.1",
        "stop",
        "nonsense",
        "partition netns:a netns:b netns:c",
        "partition {netns:a,netns:b} netns:a",
        "partition --ring netns:a,netns:b,netns:c",
        "partition --mode melt netns:a netns:b",
        "inject --profile 6g host",
        "inject host --partition melt",
    ] {
        let output = chaos(args);
        assert_eq!(output.status.code(), Some(2), "{args}: {}", text(&output.stderr));
        assert!(output.stdout.is_empty(), "{args}");
        assert!(!output.stderr.is_empty(), "{args}");
    }
}

#[test]
fn help_and_version_are_results() {
    for args in ["--help", "--version", "help inject", "exec -h", "partition --help"] {
        let output = chaos(args);
        assert_eq!(output.status.code(), Some(0), "{args}");
        assert!(!output.stdout.is_empty() && output.stderr.is_empty(), "{args}");
    }
}

#[test]
fn completions_for_every_shell() {
    for shell in ["bash", "zsh", "fish", "elvish", "powershell"] {
        let output = chaos(&format!("completions {shell}"));
        assert_eq!(output.status.code(), Some(0), "{shell}");
        assert!(text(&output.stdout).contains("partition"), "{shell}");
    }
    assert_eq!(chaos("completions tcsh").status.code(), Some(2));
}

#[test]
fn a_manual_page_for_every_command() {
    let scratch = Scratch::new("man");
    let output = chaos(&format!("man {}", scratch.path().join("new/man1").display()));
    assert_eq!(output.status.code(), Some(0), "{}", text(&output.stderr));
    for page in [
        "chaos.1",
        "chaos-exec.1",
        "chaos-inject.1",
        "chaos-partition.1",
        "chaos-stop.1",
        "chaos-ls.1",
        "chaos-events.1",
    ] {
        let page = fs::read_to_string(scratch.path().join("new/man1").join(page)).unwrap();
        assert!(page.contains(".TH"), "{page}");
    }
    let output = chaos("man");
    assert!(text(&output.stdout).contains(".TH chaos 1"), "{}", text(&output.stdout));
}

#[test]
fn a_reader_that_went_away_is_no_panic() {
    let mut child = Command::new(CHAOS)
        .args(["completions", "bash"])
        .stdout(std::process::Stdio::piped())
        .stderr(std::process::Stdio::piped())
        .spawn()
        .unwrap();
    drop(child.stdout.take());
    let output = child.wait_with_output().unwrap();
    assert_eq!((output.status.code(), text(&output.stderr)), (Some(0), String::new()));
}

#[test]
fn flows_of_our_own_namespace_need_no_privileges() {
    let listener = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
    let port = listener.local_addr().unwrap().port();
    let target = format!("pid:{}", std::process::id());
    let output = chaos(&format!("flows {target}"));
    assert_eq!(output.status.code(), Some(0), "{}", text(&output.stderr));
    assert!(text(&output.stdout).contains(&format!("--local-port {port}")), "{}", text(&output.stdout));
    let output = chaos(&format!("flows {target} --json"));
    let line: serde_json::Value = serde_json::from_slice(&output.stdout).unwrap();
    let ports = line["conversations"].as_array().unwrap().iter().map(|found| found["port"].as_u64());
    assert!(ports.into_iter().any(|found| found == Some(u64::from(port))), "{line}");
}

#[test]
fn a_group_that_the_shell_took_apart_is_explained() {
    let output = chaos("partition netns:a netns:b netns:c netns:d");
    let error = text(&output.stderr);
    for phrase in ["two sides", "netns:a netns:b netns:c netns:d", "chaos partition '{a,b}' '{c,d}'"] {
        assert!(error.contains(phrase), "should say `{phrase}`:\n{error}");
    }
    let output = chaos("partition {10.0.0.1,netns:a} {10.0.0.2,netns:b}");
    assert!(text(&output.stderr).contains("10.0.0.1 and 10.0.0.2"), "{}", text(&output.stderr));
}

#[test]
fn a_target_after_a_flag_without_its_value_is_a_target() {
    let output = chaos("inject --partition netns:no-such-namespace --dry-run");
    assert_eq!(output.status.code(), Some(3), "{}", text(&output.stderr));
    assert!(text(&output.stderr).contains("no-such-namespace"), "{}", text(&output.stderr));
}

#[test]
fn a_target_that_is_not_there_is_refused() {
    for (args, phrase) in [
        ("flows netns:no-such-namespace", "no network namespace named `no-such-namespace`"),
        ("flows pid:2147483647", "no process 2147483647"),
    ] {
        let output = chaos(args);
        assert_eq!(output.status.code(), Some(3), "{args}");
        assert!(text(&output.stderr).contains(phrase), "{args}: {}", text(&output.stderr));
    }
}

#[test]
fn the_doctor_needs_no_privileges_to_say_what_is_missing() {
    let output = chaos_unprivileged("doctor --json", "doctor");
    let line: serde_json::Value = serde_json::from_slice(&output.stdout).unwrap();
    assert_eq!((&line["type"], &line["healthy"]), (&"doctor".into(), &false.into()), "{line}");
    assert_eq!(output.status.code(), Some(1), "the basics do not work");
    let table = chaos_unprivileged("doctor", "doctor-table");
    assert!(text(&table.stdout).contains("To mend what is missing"), "{}", text(&table.stdout));
}
