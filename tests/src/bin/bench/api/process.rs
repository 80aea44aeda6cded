//! The agent as a process: how fast it starts, what it weighs, whether it sleeps.

use std::{
    fs,
    os::unix::net::UnixStream,
    process::Stdio,
    thread,
    time::{Duration, Instant},
};

use anyhow::{Context, Result, ensure};
use chaos_tests::{
    api::Agent,
    chaos,
    lab::{process::Process, shapes::Pair},
};
use nix::{sys::signal::Signal, unistd::Pid};
use serde_json::{Value, json};

use super::report::Report;

const MIB: f64 = 1024.0 * 1024.0;
/// How long the idle agent is watched.
const WATCHED: Duration = Duration::from_secs(10);

/// From exec(2) to the first answer.
pub(super) fn start(report: &mut Report, rounds: usize) -> Result<()> {
    let mut times = Vec::new();
    for round in 0..rounds {
        let socket = format!("/run/chaos-test-{}/start-{round}.sock", std::process::id());
        let begun = Instant::now();
        let mut command = chaos::command(&format!("agent --socket {socket}"))?;
        command.stdout(Stdio::null());
        let mut process = Process::start(command)?;
        let answered = loop {
            if UnixStream::connect(&socket).is_ok_and(|stream| answers(stream).is_ok()) {
                break begun.elapsed();
            }
            ensure!(begun.elapsed() < Duration::from_secs(20), "the agent does not answer");
            thread::sleep(Duration::from_micros(200));
        };
        times.push(answered);
        process.signal(Signal::SIGTERM)?;
        process.wait(Duration::from_secs(10))?;
    }
    report.times("start, exec to first answer", &mut times, Some(Duration::from_millis(100)), None);
    Ok(())
}

fn answers(mut stream: UnixStream) -> Result<()> {
    use std::io::{Read as _, Write as _};
    stream.set_read_timeout(Some(Duration::from_secs(5)))?;
    stream.write_all(b"GET /healthz HTTP/1.1\r\nhost: chaos\r\nconnection: close\r\n\r\n")?;
    let mut text = String::new();
    stream.read_to_string(&mut text)?;
    ensure!(text.starts_with("HTTP/1.1 200"), "{text}");
    Ok(())
}

/// Memory idle, with faults, and idle again; wake-ups.
pub(super) fn weight(report: &mut Report) -> Result<()> {
    let pair = Pair::new()?;
    let mut agent = Agent::start("")?;
    let pid = agent.chaos().process().pid();
    thread::sleep(Duration::from_secs(2));
    report.amount("resident, idle after the start", resident_mib(pid)?, "MiB", Some(20.0));
    report.amount("wake-ups in 10 s, idle after the start", wakeups(pid)?, "", Some(0.0));
    let faults = [r#"{"partition": true}"#, r#"{"delay": "20ms", "loss": "5%"}"#];
    for (port, faults) in (0..20).zip(faults.iter().cycle()) {
        let faults: Value = serde_json::from_str(faults)?;
        let body = json!({"target": format!("netns:{}", pair.a.name()), "faults": faults,
            "match": {"peer_port": [1000 + port]}, "duration": "1m"});
        let answer = agent.ask("POST", "/v1/faults", &body)?;
        ensure!(answer.status == 201, "{answer:?}");
    }
    report.amount("resident, with 20 faults", resident_mib(pid)?, "MiB", None);
    agent.ask("DELETE", "/v1/faults", &Value::Null)?;
    thread::sleep(Duration::from_secs(13));
    report.amount("resident, idle 13 s after the last fault", resident_mib(pid)?, "MiB", Some(20.0));
    report.amount("wake-ups in 10 s, 13 s after the last fault", wakeups(pid)?, "", Some(0.0));
    agent.stop()
}

/// The binary.
pub(super) fn size(report: &mut Report) -> Result<()> {
    let path = chaos::binary()?;
    let bytes = fs::metadata(&path).with_context(|| path.display().to_string())?.len();
    report.amount("size of the binary", bytes as f64 / MIB, "MiB", Some(15.0));
    Ok(())
}

/// A line of `/proc/PID/status`, as a number.
fn field(status: &str, name: &str) -> Result<u64> {
    let line = status.lines().find_map(|line| line.strip_prefix(name));
    let word = line.and_then(|line| line.split_whitespace().next()).with_context(|| format!("no {name}"))?;
    word.parse().with_context(|| format!("{name} {word}"))
}

fn resident_mib(pid: Pid) -> Result<f64> {
    let status = fs::read_to_string(format!("/proc/{pid}/status"))?;
    Ok(field(&status, "VmRSS:")? as f64 / 1024.0)
}

/// How often its threads began to run.
fn switches(pid: Pid) -> Result<u64> {
    let mut sum = 0;
    for task in fs::read_dir(format!("/proc/{pid}/task"))? {
        // A thread may end meanwhile.
        let Ok(status) = fs::read_to_string(task?.path().join("status")) else { continue };
        sum += field(&status, "voluntary_ctxt_switches:")?;
    }
    Ok(sum)
}

fn wakeups(pid: Pid) -> Result<f64> {
    let before = switches(pid)?;
    thread::sleep(WATCHED);
    Ok(switches(pid)?.saturating_sub(before) as f64)
}
