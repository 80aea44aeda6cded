//! Probes: one look each, as a client would.

use std::{
    io::{Read as _, Write as _},
    net::TcpStream,
    os::unix::process::CommandExt as _,
    process::{Command, Stdio},
    thread,
    time::{Duration, Instant},
};

use nix::{
    sys::signal::{Signal, killpg},
    unistd::Pid,
};

use super::{Seen, resolve};

/// How often a command is asked whether it has ended.
const GLANCE: Duration = Duration::from_millis(20);

/// A connection is made in time.
pub(super) fn tcp(authority: &str, within: Duration) -> Seen {
    connect(authority, Instant::now() + within).map(drop)
}

/// A page has a status that is well, in time.
pub(super) fn http(authority: &str, path: &str, status: (u16, u16), within: Duration) -> Seen {
    let until = Instant::now() + within;
    let mut stream = connect(authority, until)?;
    let late = |_| format!("no answer within {}", humantime::format_duration(within));
    let left = until.saturating_duration_since(Instant::now()).max(Duration::from_millis(1));
    stream.set_write_timeout(Some(left)).map_err(|error| error.to_string())?;
    let request =
        format!("GET {path} HTTP/1.1\r\nhost: {authority}\r\nuser-agent: chaos\r\nconnection: close\r\n\r\n");
    stream.write_all(request.as_bytes()).map_err(late)?;
    let mut answer = Vec::new();
    let mut part = [0; 512];
    while !answer.contains(&b'\n') && answer.len() < 4096 {
        let left = until.saturating_duration_since(Instant::now());
        if left.is_zero() {
            return Err(format!("no answer within {}", humantime::format_duration(within)));
        }
        stream.set_read_timeout(Some(left)).map_err(|error| error.to_string())?;
        match stream.read(&mut part) {
            Ok(0) => break,
            Ok(length) => answer.extend(part.iter().take(length)),
            Err(error) => return Err(late(error)),
        }
    }
    let text = String::from_utf8_lossy(&answer);
    let code: Option<u16> = text.split(' ').nth(1).and_then(|word| word.trim().get(..3)?.parse().ok());
    match code {
        Some(code) if (status.0..=status.1).contains(&code) => Ok(()),
        Some(code) => Err(format!("status {code}")),
        None => Err("the answer is no HTTP".to_owned()),
    }
}

/// A command ends with 0, in time. It and its children are killed when it does not.
pub(super) fn command(command: &str, within: Duration) -> Seen {
    let mut child = Command::new("sh")
        .args(["-c", command])
        .stdin(Stdio::null())
        .stdout(Stdio::null())
        .stderr(Stdio::null())
        .process_group(0)
        .spawn()
        .map_err(|error| format!("sh cannot be started: {error}"))?;
    let until = Instant::now() + within;
    loop {
        match child.try_wait() {
            Ok(Some(status)) if status.success() => return Ok(()),
            Ok(Some(status)) => return Err(format!("the command ended with {status}")),
            Ok(None) if Instant::now() < until => thread::sleep(GLANCE),
            Ok(None) => {
                let group = i32::try_from(child.id()).map(Pid::from_raw);
                let killed = group.is_ok_and(|group| killpg(group, Signal::SIGKILL).is_ok());
                if killed {
                    let _ = child.wait();
                }
                return Err(format!("the command did not end within {}", humantime::format_duration(within)));
            }
            Err(error) => return Err(format!("the command: {error}")),
        }
    }
}

fn connect(authority: &str, until: Instant) -> Result<TcpStream, String> {
    let mut error = format!("{authority} has no address");
    for address in resolve(authority)? {
        let left = until.saturating_duration_since(Instant::now());
        if left.is_zero() {
            break;
        }
        match TcpStream::connect_timeout(&address, left) {
            Ok(stream) => return Ok(stream),
            Err(failed) => error = format!("connecting to {address}: {failed}"),
        }
    }
    Err(error)
}
