//! Runs a command in a transient cgroup as the invoking user: what `chaos exec` is made of.
//!
//! [`Command::prepare`] makes the cgroup and a child in it that stands at a barrier; the caller arms its faults
//! for [`Prepared::cgroup`]; [`Prepared::release`] lets the child become the command; [`Running::wait`] waits for
//! its end. When anything fails before the release, or we are killed, the command never runs.

mod client;
mod environment;
mod inherited;
mod invoker;
mod limits;
mod signals;
mod spawn;
mod witness;

use std::{
    ffi::OsString,
    io,
    os::{fd::AsFd, unix::ffi::OsStrExt},
    path::{Path, PathBuf},
    time::{Duration, Instant},
};

use nix::poll::{PollFd, PollFlags, PollTimeout, poll};

pub use self::{
    client::client_warning,
    invoker::{EnvironmentSource, Identity, Invoker},
    limits::Limits,
};
use self::{
    signals::Signals,
    spawn::{Change, Child},
};
use crate::{
    cgroup::{self, CgroupError, CgroupRef, Hierarchy, Removal, Transient},
    guard::{Guard, Job, Registration},
};

/// How often [`Running::wait`] calls its callback.
const TICK: Duration = Duration::from_millis(50);

/// What a shell returns for a command that is not found (sh(1), POSIX.1-2024 section 2.8.2).
const EXIT_NOT_FOUND: i32 = 127;
/// What a shell returns for a command that cannot be executed.
const EXIT_NOT_EXECUTABLE: i32 = 126;
/// Added to the number of the signal that ended the command.
const EXIT_SIGNAL_BASE: i32 = 128;

/// Why the command did not run.
#[derive(Debug, thiserror::Error)]
pub enum ExecError {
    /// No words.
    #[error(
        "no command given; put it after `--`, such as: chaos exec --loss 10% -- curl http://localhost:8080/"
    )]
    NoCommand,
    /// A word with a zero byte in it.
    #[error("the command has a word with a zero byte in it, which no program can be given")]
    ZeroByte,
    /// The program does not exist.
    #[error("{}: command not found{}", .program.display(), .searched.as_deref().map(|path| format!(" in the caller's PATH ({path})")).unwrap_or_default())]
    NotFound {
        /// Its name as given.
        program: PathBuf,
        /// The PATH it was looked for in, when the name has no slash.
        searched: Option<String>,
    },
    /// The program exists and cannot be run.
    #[error("{}: cannot be executed: {source}", .program.display())]
    NotExecutable {
        /// Its name as given.
        program: PathBuf,
        /// Why.
        source: io::Error,
    },
    /// No cgroup for it.
    #[error(transparent)]
    Cgroup(#[from] CgroupError),
    /// A system call failed.
    #[error("{what}: {source}")]
    System {
        /// What was attempted.
        what: &'static str,
        /// The answer.
        source: io::Error,
    },
}

impl ExecError {
    /// The exit code of `chaos`: 127 and 126 as a shell would return for the command, 2 for a wrong use, else 1.
    #[must_use]
    pub fn exit_code(&self) -> i32 {
        match self {
            Self::NoCommand | Self::ZeroByte => 2,
            Self::NotFound { .. } => EXIT_NOT_FOUND,
            Self::NotExecutable { .. } => EXIT_NOT_EXECUTABLE,
            Self::Cgroup(_) | Self::System { .. } => 1,
        }
    }
}

fn system(what: &'static str) -> impl Fn(io::Error) -> ExecError {
    move |source| ExecError::System { what, source }
}

/// A command to be run.
#[derive(Debug)]
pub struct Command {
    argv: Vec<OsString>,
    guard: Option<Guard>,
}

impl Command {
    /// The program and its arguments.
    #[must_use]
    pub fn new(argv: Vec<OsString>) -> Self {
        Self { argv, guard: None }
    }

    /// Lets a guard remove the cgroup should we be killed, or once what the command left running has ended.
    #[must_use]
    pub fn guarded_by(mut self, guard: &Guard) -> Self {
        self.guard = Some(guard.clone());
        self
    }

    /// Makes the cgroup and the waiting child, and finds the program as the user. From here until the end the
    /// calling thread holds its signals: call it before other threads are started.
    pub fn prepare(self) -> Result<Prepared, ExecError> {
        let program = PathBuf::from(self.argv.first().ok_or(ExecError::NoCommand)?);
        let words = spawn::words(&self.argv).map_err(|_| ExecError::ZeroByte)?;
        let hierarchy = Hierarchy::discover()?;
        let invoker = Invoker::detect();
        let signals = Signals::hold().map_err(system("holding signals"))?;
        let mut plan = spawn::Plan::new(words, invoker, signals.mask_before(), signals.sigchld_was_ignored());
        let mut tried = String::new();
        // The caller's own cgroup keeps its limits and accounting; the root always takes a child.
        let own = hierarchy.own_path().map_err(|error| cgroup::note_failure(&mut tried, &error));
        for parent in own.into_iter().chain([PathBuf::from("/")]) {
            match place(&hierarchy, &parent, self.guard.as_ref(), &mut plan) {
                Ok((home, child, Ok(()))) => {
                    let invoker = plan.into_invoker();
                    return Ok(Prepared { child, home, signals, program, invoker });
                }
                Ok((_home, child, Err(refusal))) => {
                    drop(child);
                    return Err(refused(program, refusal, &plan.into_invoker()));
                }
                Err(error) => cgroup::note_failure(&mut tried, &error),
            }
        }
        Err(CgroupError::NoTransient { tried }.into())
    }
}

/// Makes the cgroup below one parent and the child in it.
fn place(
    hierarchy: &Hierarchy,
    parent: &Path,
    guard: Option<&Guard>,
    plan: &mut spawn::Plan,
) -> Result<(Home, Child, io::Result<()>), ExecError> {
    let directory = Transient::planned(hierarchy, parent)?;
    // Before it exists: a kill between the two must not leave it behind.
    let registration = guard
        .map(|guard| guard.register(Job::RemoveCgroup { directory: directory.clone() }, None))
        .transpose()
        .map_err(system("telling the guard"))?;
    let transient = Transient::create(hierarchy, directory)?;
    let home = Home { transient, registration, guard: guard.cloned() };
    let (child, ready) = Child::spawn(plan, home.transient.directory())
        .map_err(system("starting the command in its cgroup"))?;
    Ok((home, child, ready))
}

fn refused(program: PathBuf, source: io::Error, invoker: &Invoker) -> ExecError {
    if source.raw_os_error() != Some(libc::ENOENT) {
        return ExecError::NotExecutable { program, source };
    }
    let searched = environment::find(&invoker.environment, "PATH")
        .filter(|_| !program.as_os_str().as_bytes().contains(&b'/'))
        .map(|path| String::from_utf8_lossy(path).into_owned());
    ExecError::NotFound { program, searched }
}

/// The command's cgroup and its entry with the guard.
#[derive(Debug)]
struct Home {
    transient: Transient,
    registration: Option<Registration>,
    guard: Option<Guard>,
}

impl Home {
    fn remove(&mut self, patience: Duration) -> io::Result<Removal> {
        let removal = self.transient.remove(patience)?;
        if removal == Removal::Removed
            && let Some(registration) = self.registration.take()
        {
            registration.unregister();
        }
        Ok(removal)
    }
}

impl Drop for Home {
    fn drop(&mut self) {
        // What still lives in it is the user's; the entry then stays with the guard.
        let _ = self.remove(Duration::ZERO);
    }
}

/// A command whose child waits in its cgroup. Dropping it ends the child without having run anything.
#[derive(Debug)]
pub struct Prepared {
    // Dropped in this order: the child must be gone before its cgroup can be removed.
    child: Child,
    home: Home,
    signals: Signals,
    program: PathBuf,
    invoker: Invoker,
}

impl Prepared {
    /// The cgroup in which the command and all its descendants will be.
    #[must_use]
    pub fn cgroup(&self) -> &CgroupRef {
        self.home.transient.cgroup()
    }

    /// Its directory, absolute.
    #[must_use]
    pub fn cgroup_directory(&self) -> &Path {
        self.home.transient.directory()
    }

    /// As whom and with what the command will run.
    #[must_use]
    pub fn invoker(&self) -> &Invoker {
        &self.invoker
    }

    /// Process id of the waiting child, which will be the command's.
    #[must_use]
    pub fn pid(&self) -> i32 {
        self.child.pid
    }

    /// Lets the command run.
    pub fn release(mut self) -> Result<Running, ExecError> {
        match self.child.release().map_err(system("starting the command"))? {
            Ok(()) => Ok(Running { child: self.child, home: self.home, signals: self.signals }),
            Err(refusal) => Err(refused(self.program, refusal, &self.invoker)),
        }
    }
}

/// A command that runs.
#[derive(Debug)]
pub struct Running {
    child: Child,
    home: Home,
    signals: Signals,
}

impl Running {
    /// Process id of the command.
    #[must_use]
    pub fn pid(&self) -> i32 {
        self.child.pid
    }

    /// Waits for the command's end; calls `tick` at least every 50 ms, in this thread. Stops and continues with
    /// the command, as a shell's job control expects. While both are stopped, nothing ticks.
    pub fn wait(mut self, mut tick: impl FnMut()) -> Result<ExitOutcome, ExecError> {
        let mut due = Instant::now();
        loop {
            if due <= Instant::now() {
                tick();
                due = Instant::now() + TICK;
            }
            self.sleep_until(due).map_err(system("waiting for the command"))?;
            self.signals.pass_on(self.child.pid, &self.child.pidfd).map_err(system("passing a signal on"))?;
            match self.child.changed().map_err(system("waiting for the command"))? {
                Some(Change::Exited(code)) => return Ok(self.ended(code, None)),
                Some(Change::Killed(signal)) => {
                    return Ok(self.ended(EXIT_SIGNAL_BASE + signal, Some(signal)));
                }
                Some(Change::Stopped(signal)) => signals::stop_like(signal),
                None => {}
            }
        }
    }

    fn sleep_until(&self, due: Instant) -> io::Result<()> {
        let left = due.saturating_duration_since(Instant::now());
        let timeout_ms = u16::try_from(left.as_millis()).unwrap_or(u16::MAX).saturating_add(1);
        let mut watched = [
            PollFd::new(self.child.pidfd.as_fd(), PollFlags::POLLIN),
            PollFd::new(self.signals.as_fd(), PollFlags::POLLIN),
        ];
        match poll(&mut watched, PollTimeout::from(timeout_ms)) {
            Ok(_) | Err(nix::errno::Errno::EINTR) => Ok(()),
            Err(errno) => Err(errno.into()),
        }
    }

    fn ended(self, code: i32, signal: Option<i32>) -> ExitOutcome {
        let by_terminal = signal.filter(|signal| self.signals.held_from_terminal() == Some(*signal));
        ExitOutcome { code, signal, by_terminal, home: self.home, signals: self.signals }
    }
}

/// How a command ended. Signals stay held until it is dropped, so that a second Ctrl-C does not interrupt the
/// clean-up.
#[derive(Debug)]
pub struct ExitOutcome {
    /// What a shell would return: the command's own code, or 128 + the signal that ended it.
    pub code: i32,
    /// The signal that ended it.
    pub signal: Option<i32>,
    by_terminal: Option<i32>,
    home: Home,
    signals: Signals,
}

impl ExitOutcome {
    /// Removes the command's cgroup; call it when the faults are gone. [`Removal::Populated`] means that
    /// processes the command left behind still run: they are not touched, and the guard removes the cgroup when
    /// the last has ended.
    pub fn remove_cgroup(&mut self) -> io::Result<Removal> {
        self.home.remove(Duration::ZERO)
    }

    /// Ends this process as the command ended: with its code; and by the signal itself when that was the
    /// terminal's Ctrl-C or Ctrl-\, because a shell's loop goes on after exit code 130.
    pub fn exit(self) -> ! {
        let Self { code, by_terminal, mut home, signals, .. } = self;
        let guard = home.guard.take();
        drop(home);
        if let Some(guard) = guard {
            guard.finish();
        }
        drop(signals);
        if let Some(signal) = by_terminal {
            signals::die_of(signal);
        }
        std::process::exit(code)
    }
}
