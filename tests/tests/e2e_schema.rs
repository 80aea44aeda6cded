//! The API against its own description, with requests that a machine makes up: schemathesis.
#![expect(clippy::unwrap_used, reason = "a failed unwrap in a test is a failed test")]

use std::{
    env,
    fs::{self, OpenOptions},
    io::{self, Write as _},
    net::{Shutdown, TcpListener, TcpStream},
    os::unix::{fs::OpenOptionsExt as _, net::UnixStream},
    path::{Path, PathBuf},
    process::Command,
    thread,
    time::Duration,
};

use chaos_tests::{
    api::Agent,
    lab::{
        alone,
        shapes::{B4, Pair},
    },
    require_root, skip,
    snapshot::Snapshot,
};
use serde_json::Value;

/// Requests for each operation and phase: about a minute for all.
const EXAMPLES: u32 = 10;
/// Always the same requests.
const SEED: u32 = 20_240;
/// Who knows it may ask over TCP.
const KEY: &str = "0123456789abcdef0123";
const SOON: Duration = Duration::from_secs(5);

/// The program: of the environment, of the folder that CI installs it into, or of the path.
fn schemathesis() -> Option<PathBuf> {
    let installed = Path::new(env!("CARGO_MANIFEST_DIR")).join("../target/schemathesis/bin/st");
    let named = env::var_os("CHAOS_SCHEMATHESIS").map(PathBuf::from);
    let runs = |path: &PathBuf| {
        Command::new(path).arg("--version").output().is_ok_and(|output| output.status.success())
    };
    named.into_iter().chain([installed, PathBuf::from("st")]).find(runs)
}

/// Lets TCP connections reach the socket; the address.
fn relay(socket: &Path) -> io::Result<String> {
    let listener = TcpListener::bind("127.0.0.1:0")?;
    let address = listener.local_addr()?.to_string();
    let socket = socket.to_owned();
    thread::spawn(move || {
        for client in listener.incoming().flatten() {
            let Ok(agent) = UnixStream::connect(&socket) else { return };
            thread::spawn(move || pass(&client, &agent));
        }
    });
    Ok(address)
}

fn pass(client: &TcpStream, agent: &UnixStream) {
    thread::scope(|scope| {
        scope.spawn(|| {
            let _ = io::copy(&mut &*client, &mut &*agent);
            let _ = agent.shutdown(Shutdown::Write);
        });
        let _ = io::copy(&mut &*agent, &mut &*client);
        let _ = client.shutdown(Shutdown::Both);
    });
}

/// A file with the key, as long as it is needed.
struct Key(PathBuf);

impl Key {
    fn new() -> io::Result<Self> {
        let path = env::temp_dir().join(format!("chaos-key-{}", std::process::id()));
        let mut file = OpenOptions::new().write(true).create(true).truncate(true).mode(0o600).open(&path)?;
        writeln!(file, "{KEY}")?;
        Ok(Self(path))
    }
}

impl Drop for Key {
    fn drop(&mut self) {
        let _ = fs::remove_file(&self.0);
    }
}

/// Whether what answers at the address is what it says it is, and what schemathesis found.
fn run(program: &Path, address: &str, phases: &str, netns: &str) -> (bool, String) {
    let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("schemathesis");
    let output = Command::new(program)
        .args(["--config-file", &folder.join("schemathesis.toml").display().to_string(), "run"])
        .arg(format!("http://{address}/openapi.json"))
        .args(["--header", &format!("x-chaos-key: {KEY}"), "--phases", phases])
        .args(["--seed", &SEED.to_string(), "--max-examples", &EXAMPLES.to_string(), "--workers", "1"])
        .args(["--checks", "all", "--request-timeout", "20", "--generation-deterministic"])
        // What ended is still shown, with its counters; that a key is needed has tests of its own.
        .args(["--exclude-checks", "use_after_free,ignored_auth"])
        // A stream has no end; e2e_surface has tests of its own for it.
        .args(["--exclude-path", "/v1/events", "--no-color"])
        // It leaves a cache where it is run.
        .current_dir(env!("CARGO_TARGET_TMPDIR"))
        .env("SCHEMATHESIS_HOOKS", "hooks")
        .env("PYTHONPATH", &folder)
        .env("PYTHONDONTWRITEBYTECODE", "1")
        .env("CHAOS_TEST_NETNS", netns)
        .env("CHAOS_TEST_KEY", KEY)
        .output()
        .unwrap();
    let text = [output.stdout, output.stderr].map(|bytes| String::from_utf8_lossy(&bytes).into_owned());
    (output.status.success(), text.concat())
}

#[test]
fn the_api_is_what_it_says_it_is() {
    require_root!();
    let Some(program) = schemathesis() else {
        skip!(
            "schemathesis is not installed: python3 -m venv target/schemathesis && target/schemathesis/bin/pip install schemathesis==4.32.5"
        );
    };
    let _alone = alone().unwrap();
    let pair = Pair::new().unwrap();
    assert!(pair.a.run(&format!("ping -c 1 -W 1 -q {B4}")).is_ok());
    let before = Snapshot::before(&[&pair.a, &pair.b]).unwrap();
    let key = Key::new().unwrap();
    let flags = "--listen 127.0.0.1:0 --limits-requests-per-second 100000 --key-file";
    let agent = Agent::start(&format!("{flags} {}", key.0.display())).unwrap();
    let doors = [
        (relay(agent.socket()).unwrap(), "examples,coverage,fuzzing,stateful"),
        (agent.tcp().unwrap().to_string(), "examples,fuzzing"),
    ];
    for (address, phases) in doors {
        let (is_clean, text) = run(&program, &address, phases, pair.a.name());
        println!("{text}");
        assert!(is_clean, "the API is not as described; see above");
    }

    // Real faults were made, and nothing is left of them.
    let faults = agent.ask("GET", "/v1/faults", &Value::Null).unwrap().body;
    let last = faults["faults"].as_array().unwrap().iter().filter_map(|fault| fault["id"].as_u64()).max();
    println!("{} faults were made", last.unwrap_or_default());
    assert!(last.unwrap_or_default() >= 20, "{last:?}");
    agent.stop().unwrap();
    assert!(pair.a.run(&format!("ping -c 1 -W 1 -q {B4}")).is_ok());
    before.settle(&[&pair.a, &pair.b], SOON).unwrap();
}
