//! What an agent writes down: for its successor, and for people; also where nothing can be written.
#![expect(clippy::unwrap_used, reason = "a failed unwrap in a test is a failed test")]

use std::{
    fs,
    path::{Path, PathBuf},
    process::Command,
    time::Duration,
};

use chaos_tests::{
    api::{Agent, partition},
    chaos::{self, FREED},
    lab::{
        alone,
        process::{Process, wait_until},
        shapes::{B4, Pair},
        unique_name,
    },
    require_root,
    snapshot::Snapshot,
};
use nix::sys::signal::Signal;
use serde_json::{Value, json};

const SOON: Duration = Duration::from_secs(5);

/// A folder of our own, gone afterwards; perhaps a small file system of its own.
struct Folder {
    path: PathBuf,
    is_mounted: bool,
}

impl Folder {
    fn new(options: Option<&str>) -> Self {
        let path = std::env::temp_dir().join(unique_name());
        fs::create_dir(&path).unwrap();
        if let Some(options) = options {
            let mounted = Command::new("mount")
                .args(["-t", "tmpfs", "-o", options, "none"])
                .arg(&path)
                .status()
                .unwrap();
            assert!(mounted.success());
        }
        Self { path, is_mounted: options.is_some() }
    }

    fn agent(&self) -> Agent {
        let (state, audit) = (self.path.join("state"), self.path.join("state/audit.jsonl"));
        Agent::start(&format!("--state-dir {} --audit-log {}", state.display(), audit.display())).unwrap()
    }

    fn journal(&self) -> PathBuf {
        self.path.join("state/journal")
    }
}

impl Drop for Folder {
    fn drop(&mut self) {
        if self.is_mounted {
            let _ = Command::new("umount").arg("-l").arg(&self.path).status();
        }
        let _ = fs::remove_dir_all(&self.path);
    }
}

fn lines(path: &Path) -> Vec<Value> {
    let text = fs::read_to_string(path).unwrap_or_default();
    text.lines().map(|line| serde_json::from_str(line).unwrap()).collect()
}

fn unwritten(agent: &Agent) -> (u64, u64) {
    let status = agent.ask("GET", "/v1/status", &Value::Null).unwrap().body;
    let of = |what: &str| status["unwritten"][what].as_u64().unwrap();
    (of("audit"), of("journal"))
}

#[test]
fn after_a_kill_the_next_agent_knows_what_there_was_and_takes_nothing_up() {
    require_root!();
    let _alone = alone().unwrap();
    let pair = Pair::new().unwrap();
    assert!(pair.a.reaches(B4));
    let before = Snapshot::before(&[&pair.a, &pair.b]).unwrap();
    let folder = Folder::new(None);
    let agent = folder.agent();
    let first = agent.set(&partition(&pair.a)).unwrap();
    assert_eq!(agent.ask("DELETE", &format!("/v1/faults/{first}"), &Value::Null).unwrap().status, 200);
    let mut body = partition(&pair.a);
    body["name"] = "held".into();
    let second = agent.set(&body).unwrap();
    std::thread::sleep(Duration::from_millis(20));
    let longer = agent.ask("PATCH", "/v1/faults/held", &json!({"duration": "1m"})).unwrap();
    assert_eq!(longer.status, 200, "{longer:?}");
    agent.kill().unwrap();
    std::thread::sleep(FREED);

    let agent = folder.agent();
    assert!(pair.a.reaches(B4), "it had a minute left, and is not taken up again");
    let shown = agent.ask("GET", "/v1/faults/held", &Value::Null).unwrap().body;
    assert_eq!((&shown["id"], &shown["state"]), (&json!(second), &json!("ended")), "{shown}");
    assert!(shown["why"].as_str().unwrap().contains("was killed"), "{shown}");
    assert_eq!(shown["targets"], format!("netns:{}", pair.a.name()));
    assert_eq!(agent.ask("GET", &format!("/v1/faults/{first}"), &Value::Null).unwrap().status, 404);
    assert!(agent.set(&partition(&pair.a)).unwrap() > second, "no number is given twice");
    agent.stop().unwrap();

    let audit = lines(&folder.path.join("state/audit.jsonl"));
    let told =
        |what: &str, id: u64| audit.iter().filter(|line| line["what"] == what && line["fault"] == id).count();
    assert_eq!((told("started", first), told("ended", first)), (1, 1));
    assert_eq!((told("started", second), told("ended", second)), (1, 1), "{audit:?}");
    let started = audit.iter().find(|line| line["fault"] == second).unwrap();
    assert!(started["until"].is_string() && started["request"]["name"] == "held", "{started}");
    let changed = audit.iter().find(|line| line["what"] == "changed").unwrap();
    let until = |line: &Value| line["until"].as_str().unwrap().to_owned();
    assert!(until(changed) > until(started), "its minute began anew: {started} {changed}");
    assert_eq!((&started["who"]["via"], &started["who"]["uid"]), (&json!("unix"), &json!(0)), "{started}");
    assert_eq!(started["who"]["pid"], std::process::id(), "{started}");
    before.settle(&[&pair.a, &pair.b], SOON).unwrap();
}

#[test]
fn garbage_and_a_torn_journal_stop_no_agent() {
    require_root!();
    let _alone = alone().unwrap();
    let pair = Pair::new().unwrap();
    let folder = Folder::new(None);
    let agent = folder.agent();
    let id = agent.set(&partition(&pair.a)).unwrap();
    agent.kill().unwrap();
    let whole = fs::read(folder.journal()).unwrap();
    let torn = &whole[..whole.len() - 7];
    let other_boot = vec![0xff; 4096];
    for (bytes, known) in [(torn, true), (&[][..], false), (&other_boot[..], false)] {
        fs::write(folder.journal(), bytes).unwrap();
        let agent = folder.agent();
        let shown = agent.ask("GET", &format!("/v1/faults/{id}"), &Value::Null).unwrap();
        assert_eq!(shown.status == 200, known, "{shown:?}");
        assert!(pair.a.reaches(B4));
        agent.kill().unwrap();
    }
}

#[test]
fn where_nothing_can_be_written_faults_still_begin_and_end() {
    require_root!();
    let _alone = alone().unwrap();
    let pair = Pair::new().unwrap();
    assert!(pair.a.reaches(B4));
    let works = |agent: &Agent| {
        let id = agent.set(&partition(&pair.a)).unwrap();
        assert!(!pair.a.reaches(B4));
        assert_eq!(agent.ask("DELETE", &format!("/v1/faults/{id}"), &Value::Null).unwrap().status, 200);
        assert!(pair.a.reaches(B4));
    };
    // A disk that fills up while the agent runs, and is emptied again.
    let folder = Folder::new(Some("size=256k"));
    let agent = folder.agent();
    works(&agent);
    assert_eq!(unwritten(&agent), (0, 0));
    let filler = folder.path.join("filler");
    fs::write(&filler, vec![1; 1 << 20]).expect_err("it is full");
    for _ in 0..12 {
        works(&agent);
    }
    let (audit, journal) = unwritten(&agent);
    assert!(audit > 0 && journal > 0, "{audit} {journal}");
    let error = agent.ask("GET", "/v1/status", &Value::Null).unwrap().body["last_error"].clone();
    assert!(error["message"].as_str().unwrap().contains("cannot be written"), "{error}");
    fs::remove_file(&filler).unwrap();
    let id = agent.set(&partition(&pair.a)).unwrap();
    agent.kill().unwrap();
    let agent = folder.agent();
    let shown = agent.ask("GET", &format!("/v1/faults/{id}"), &Value::Null).unwrap();
    assert_eq!((shown.status, &shown.body["state"]), (200, &json!("ended")), "written again: {shown:?}");
    agent.stop().unwrap();
    // One that is read-only from the beginning: nothing is begun that could not be remembered.
    let folder = Folder::new(Some("size=256k,ro"));
    let state = folder.path.join("state");
    let refused = Agent::start(&format!("--state-dir {}", state.display())).expect_err("it is read-only");
    assert!(format!("{refused:#}").contains("Read-only file system"), "{refused:#}");
}

#[test]
fn a_target_that_dies_and_a_namespace_that_goes_leave_an_agent_that_works() {
    require_root!();
    let _alone = alone().unwrap();
    let pair = Pair::new().unwrap();
    let other = Pair::new().unwrap();
    let folder = Folder::new(None);
    let agent = folder.agent();
    let mut sleeper = Process::start(other.a.command("sleep 1000")).unwrap();
    let mut body = partition(&other.a);
    body["target"] = format!("pid:{}", sleeper.pid()).into();
    let dies = agent.set(&body).unwrap();
    sleeper.signal(Signal::SIGKILL).unwrap();
    sleeper.wait(SOON).unwrap();
    let goes = agent.set(&partition(&other.b)).unwrap();
    let Pair { a, b } = other;
    a.delete().unwrap();
    b.delete().unwrap();
    // Others are set, changed and ended beside them.
    let kept = agent.set(&partition(&pair.a)).unwrap();
    assert!(!pair.a.reaches(B4));
    for id in [dies, goes, kept] {
        let ended = agent.ask("DELETE", &format!("/v1/faults/{id}"), &Value::Null).unwrap();
        assert_eq!((ended.status, &ended.body["state"]), (200, &json!("ended")), "{ended:?}");
    }
    wait_until("the end", SOON, || pair.a.reaches(B4)).unwrap();
    agent.stop().unwrap();
}

#[test]
fn a_command_alone_writes_its_lines_too_or_says_why_not() {
    require_root!();
    let _alone = alone().unwrap();
    let pair = Pair::new().unwrap();
    let folder = Folder::new(None);
    let run = |audit: &Path| {
        let mut command = Command::new(chaos::binary().unwrap());
        command.env("CHAOS_AUDIT_LOG", audit).args(["inject", &format!("netns:{}", pair.a.name())]);
        let output = command.args(["--loss", "1%", "--for", "1s"]).output().unwrap();
        assert!(output.status.success());
        String::from_utf8_lossy(&output.stderr).into_owned()
    };
    let audit = folder.path.join("audit.jsonl");
    run(&audit);
    let audit = lines(&audit);
    assert_eq!(audit.len(), 2, "{audit:?}");
    assert_eq!((&audit[0]["what"], &audit[0]["who"]["via"]), (&json!("started"), &json!("command")));
    assert_eq!((&audit[1]["what"], &audit[1]["why"]), (&json!("ended"), &json!("its time is over")));
    let said = run(&folder.path);
    assert!(said.contains("cannot be written") && said.contains("not in it"), "{said}");
}
