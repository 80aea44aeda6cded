//! Child processes with a bounded life.

use std::{
    io::Read,
    net::{SocketAddr, TcpStream},
    os::unix::process::{CommandExt, ExitStatusExt},
    process::{Child, Command, ExitStatus, Output, Stdio},
    thread,
    time::{Duration, Instant},
};

use anyhow::{Context, Result, bail, ensure};
use nix::{
    sched::{CpuSet, sched_setaffinity},
    sys::{
        prctl,
        signal::{Signal, kill},
    },
    unistd::Pid,
};

use super::netns::Netns;

/// How long a command of the set-up may take.
pub const COMMAND_LIMIT: Duration = Duration::from_secs(30);

/// A running child, killed by its pid when dropped (and by the kernel should we die).
#[derive(Debug)]
pub struct Process {
    child: Child,
    what: String,
}

impl Process {
    /// Starts `command`. Its thread must live as long as the child: the kernel kills the child
    /// when the thread that started it ends (prctl(2), `PR_SET_PDEATHSIG`).
    ///
    /// # Errors
    /// When the program cannot be started.
    pub fn start(mut command: Command) -> Result<Self> {
        let what = format!("{command:?}");
        die_with_us(&mut command);
        let child = command.spawn().with_context(|| format!("starting {what}"))?;
        Ok(Self { child, what })
    }

    /// Its process id.
    #[must_use]
    pub fn pid(&self) -> Pid {
        Pid::from_raw(i32::try_from(self.child.id()).unwrap_or(i32::MAX))
    }

    /// The child, for its pipes.
    pub fn child(&mut self) -> &mut Child {
        &mut self.child
    }

    /// Sends a signal.
    ///
    /// # Errors
    /// When the process is gone already.
    pub fn signal(&self, signal: Signal) -> Result<()> {
        kill(self.pid(), signal).with_context(|| format!("signalling {}", self.what))
    }

    /// Waits at most `limit` for its end.
    ///
    /// # Errors
    /// When it still runs after that.
    pub fn wait(&mut self, limit: Duration) -> Result<ExitStatus> {
        let deadline = Instant::now() + limit;
        loop {
            if let Some(status) = self.child.try_wait()? {
                return Ok(status);
            }
            ensure!(Instant::now() < deadline, "{} still runs after {limit:?}", self.what);
            thread::sleep(Duration::from_millis(2));
        }
    }

    /// Whether it still runs.
    pub fn is_running(&mut self) -> bool {
        matches!(self.child.try_wait(), Ok(None))
    }
}

impl Drop for Process {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

/// Makes a prepared command run on the first CPU only. A sender that changes CPU is overtaken by
/// itself: a plain veth reorders up to 1 % of single segments then, and a test of what we add
/// would measure that.
#[must_use]
pub fn on_one_cpu(mut command: Command) -> Command {
    // SAFETY: between fork and exec only sched_setaffinity is called, one system call.
    unsafe {
        command.pre_exec(|| {
            let mut first = CpuSet::new();
            first.set(0)?;
            sched_setaffinity(Pid::from_raw(0), &first).map_err(Into::into)
        });
    }
    command
}

/// Asks the kernel to kill the child when the thread that starts it ends.
fn die_with_us(command: &mut Command) {
    // SAFETY: prctl is one system call, allowed between fork and exec.
    unsafe {
        command.pre_exec(|| prctl::set_pdeathsig(Signal::SIGKILL).map_err(Into::into));
    }
}

/// Runs `command` to its end within `limit`, its output collected.
///
/// # Errors
/// When it cannot be started or takes longer; its exit code is the caller's to judge.
pub fn output(mut command: Command, limit: Duration) -> Result<Output> {
    command.stdin(Stdio::null()).stdout(Stdio::piped()).stderr(Stdio::piped());
    let mut process = Process::start(command)?;
    let stdout = process.child.stdout.take().map(read_in_background);
    let stderr = process.child.stderr.take().map(read_in_background);
    let status = process.wait(limit)?;
    let collect = |reader: Option<thread::JoinHandle<Vec<u8>>>| {
        reader.and_then(|reader| reader.join().ok()).unwrap_or_default()
    };
    Ok(Output { status, stdout: collect(stdout), stderr: collect(stderr) })
}

fn read_in_background(mut pipe: impl Read + Send + 'static) -> thread::JoinHandle<Vec<u8>> {
    thread::spawn(move || {
        let mut bytes = Vec::new();
        let _ = pipe.read_to_end(&mut bytes);
        bytes
    })
}

/// Runs `command` and returns what it printed.
///
/// # Errors
/// When it fails; the error carries what it wrote to stderr.
pub fn run(command: Command) -> Result<String> {
    let what = format!("{command:?}");
    let output = output(command, COMMAND_LIMIT)?;
    if !output.status.success() {
        let code = output.status.code().or(output.status.signal().map(|signal| 128 + signal));
        bail!("{what} failed ({code:?}): {}", String::from_utf8_lossy(&output.stderr).trim());
    }
    Ok(String::from_utf8_lossy(&output.stdout).into_owned())
}

/// Starts a server in `netns` and waits until `ready` accepts connections.
///
/// # Errors
/// When it does not within 10 s.
pub fn serve(netns: &Netns, line: &str, ready: SocketAddr) -> Result<Process> {
    serve_command(netns, netns.command(line), ready)
}

/// The same with a prepared command.
///
/// # Errors
/// When it does not accept connections within 10 s.
pub fn serve_command(netns: &Netns, mut command: Command, ready: SocketAddr) -> Result<Process> {
    command.stdin(Stdio::null()).stdout(Stdio::null()).stderr(Stdio::null());
    let mut process = Process::start(command)?;
    let deadline = Instant::now() + Duration::from_secs(10);
    let limit = Duration::from_millis(500);
    while netns.enter(|| TcpStream::connect_timeout(&ready, limit))?.is_err() {
        ensure!(process.is_running(), "{} ended before it accepted connections", process.what);
        ensure!(Instant::now() < deadline, "{} accepts nothing at {ready} after 10 s", process.what);
        thread::sleep(Duration::from_millis(20));
    }
    Ok(process)
}

/// Asks `condition` every 5 ms until it says yes, at most `limit`; how long that took.
///
/// # Errors
/// When it never does.
pub fn wait_until(what: &str, limit: Duration, mut condition: impl FnMut() -> bool) -> Result<Duration> {
    let start = Instant::now();
    while !condition() {
        ensure!(start.elapsed() < limit, "not within {limit:?}: {what}");
        thread::sleep(Duration::from_millis(5));
    }
    Ok(start.elapsed())
}

#[cfg(test)]
mod tests {
    use std::{
        process::Command,
        time::{Duration, Instant},
    };

    use super::{output, run, wait_until};

    #[test]
    fn a_command_that_hangs_is_killed() {
        let mut command = Command::new("sleep");
        command.arg("30");
        let start = Instant::now();
        assert!(output(command, Duration::from_millis(50)).is_err());
        assert!(start.elapsed() < Duration::from_secs(10));
    }

    #[test]
    fn a_failure_says_why() {
        let mut command = Command::new("sh");
        command.args(["-c", "echo because >&2; exit 3"]);
        let error = run(command).unwrap_err().to_string();
        assert!(error.contains("because") && error.contains('3'), "{error}");
    }

    #[test]
    fn waiting_is_bounded() {
        assert!(wait_until("never", Duration::from_millis(20), || false).is_err());
        wait_until("at once", Duration::from_millis(20), || true).unwrap();
    }
}
