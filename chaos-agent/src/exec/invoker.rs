//! Who called us, through sudo or directly, and what the command must therefore find.
//!
//! Under sudo our own environment, limits and umask are sudo's making. What the calling shell passed on is
//! still in the sudo process: /proc/PID/environ shows a process's initial environment, and sudo's is exactly
//! what the shell exported at the call (the shell's own shows only what it was started with). Limits and umask
//! are read from sudo's parent, because sudo changes its own (`RLIMIT_NPROC`, `RLIMIT_CORE`, sudo(8)).

use std::{
    ffi::CString,
    fs::{self, File},
    os::{
        fd::OwnedFd,
        unix::{
            ffi::OsStrExt,
            fs::{MetadataExt, OpenOptionsExt},
        },
    },
};

use nix::unistd::{Gid, Uid, User, geteuid, getgrouplist};
use procfs::process::Process;

use super::{environment, limits::Limits};

/// A chain of parents longer than this is not followed.
const ANCESTORS_MAX: usize = 64;

/// Where the command's environment comes from, best first.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum EnvironmentSource {
    /// Not under sudo: ours.
    Own,
    /// sudo's initial environment: what the calling shell had exported.
    Sudo,
    /// The calling process's initial environment, completed by what sudo let through: sudo replaced itself by us
    /// (without `use_pty` and PAM sessions), and what the shell had exported after its start went with it.
    Caller,
    /// Ours without sudo's variables; neither of the others could be read.
    Reconstructed,
}

/// Under sudo: whom the command is run as.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Identity {
    /// User id (`SUDO_UID`).
    pub uid: u32,
    /// Group id (`SUDO_GID`).
    pub gid: u32,
    /// Supplementary groups: those of the calling process, else those of the user database.
    pub groups: Vec<u32>,
}

/// What the command gets.
#[derive(Debug)]
pub struct Invoker {
    /// The user to change to; `None` means that the command runs as we do.
    pub identity: Option<Identity>,
    /// `NAME=value` strings, in the order of their source.
    pub environment: Vec<CString>,
    /// Where they come from.
    pub environment_source: EnvironmentSource,
    /// File mode creation mask, when it differs from how it was given to us.
    pub umask: Option<u32>,
    /// Resource limits to set; `None` keeps ours.
    pub limits: Option<Limits>,
    /// The directory to start in; `None` keeps ours.
    pub directory: Option<OwnedFd>,
}

impl Invoker {
    /// Looks at our environment and ancestors. Only root can change to another user, so without it the
    /// command runs as we do.
    #[must_use]
    pub fn detect() -> Self {
        let own = || Self::direct(environment::own());
        if !geteuid().is_root() {
            return own();
        }
        let Some((uid, gid)) = variable("SUDO_UID").zip(variable("SUDO_GID")) else { return own() };
        Self::through_sudo(uid, gid, &Ancestry::find(uid))
    }

    /// The caller's own, unchanged.
    fn direct(environment: Vec<CString>) -> Self {
        Self {
            identity: None,
            environment,
            environment_source: EnvironmentSource::Own,
            umask: None,
            limits: None,
            directory: None,
        }
    }

    fn through_sudo(uid: u32, gid: u32, ancestry: &Ancestry) -> Self {
        let caller = ancestry.caller.as_ref();
        let status = caller.and_then(|caller| caller.status().ok());
        let sudo = ancestry.sudo.as_ref();
        let user = User::from_uid(Uid::from_raw(uid)).ok().flatten();
        let groups = match &status {
            Some(status) => status.groups.clone(),
            None => database_groups(user.as_ref(), gid),
        };
        let (environment_source, environment) = sudo
            .and_then(environment::initial)
            .map(|environment| (EnvironmentSource::Sudo, environment))
            .or_else(|| {
                let initial = caller.and_then(environment::initial)?;
                Some((EnvironmentSource::Caller, environment::completed(initial, environment::own())))
            })
            .unwrap_or_else(|| {
                let environment = environment::reconstructed(environment::own(), user.as_ref());
                (EnvironmentSource::Reconstructed, environment)
            });
        Self {
            identity: Some(Identity { uid, gid, groups }),
            environment,
            environment_source,
            umask: status.and_then(|status| status.umask),
            limits: caller.and_then(Limits::of),
            directory: if ancestry.sudo_is_parent {
                sudo.and_then(|sudo| directory_of(sudo.pid()))
            } else {
                None
            },
        }
    }
}

/// Our ancestors as far as they matter.
#[derive(Default)]
struct Ancestry {
    /// The nearest sudo process, or its pseudo-terminal monitor (a fork with the same environment).
    sudo: Option<Process>,
    /// Whether it is our parent; otherwise a shell or `make` lies between, which chose our directory.
    sudo_is_parent: bool,
    /// Who called sudo: the first process above it that belongs to the invoking user.
    caller: Option<Process>,
}

impl Ancestry {
    fn find(uid: u32) -> Self {
        let mut found = Self::default();
        let mut command_line = Vec::new();
        let chain = ancestors();
        for (distance, process) in chain.into_iter().enumerate() {
            match &found.sudo {
                None if is_sudo(&process) => {
                    found.sudo_is_parent = distance == 0;
                    command_line = process.cmdline().unwrap_or_default();
                    found.sudo = Some(process);
                }
                // With `use_pty` sudo is two processes, the monitor being a fork of the first.
                Some(_) if is_sudo(&process) && process.cmdline().is_ok_and(|line| line == command_line) => {}
                Some(_) => {
                    if process.uid().is_ok_and(|owner| owner == uid) {
                        found.caller = Some(process);
                    }
                    return found;
                }
                None => {}
            }
        }
        if found.sudo.is_none() {
            // sudo replaces itself by the command when it has nothing to watch (sudo(8), "Process model").
            found.caller =
                ancestors().into_iter().find(|process| process.uid().is_ok_and(|owner| owner == uid));
        }
        found
    }
}

/// Our parent, its parent, and so on, init left out.
fn ancestors() -> Vec<Process> {
    let parent = |process: &Process| process.stat().ok().map(|stat| stat.ppid).filter(|pid| *pid > 1);
    let mut chain = Vec::new();
    let mut next = Process::myself().ok().and_then(|own| parent(&own));
    while let Some(process) = next.and_then(|pid| Process::new(pid).ok()) {
        next = parent(&process).filter(|_| chain.len() < ANCESTORS_MAX);
        chain.push(process);
    }
    chain
}

/// sudo, sudo-rs, and the former where Ubuntu has both; they run as root whoever called them.
fn is_sudo(process: &Process) -> bool {
    let name = process.exe().ok().and_then(|path| Some(path.file_name()?.as_bytes().to_vec()));
    let name = name.or_else(|| process.stat().ok().map(|stat| stat.comm.into_bytes())).unwrap_or_default();
    let root = process.status().is_ok_and(|status| status.euid == 0);
    root && matches!(name.as_slice(), b"sudo" | b"sudo-rs" | b"sudo.ws" | b"sudo (deleted)")
}

fn variable(name: &str) -> Option<u32> {
    std::env::var(name).ok()?.parse().ok()
}

fn database_groups(user: Option<&User>, gid: u32) -> Vec<u32> {
    user.and_then(|user| CString::new(user.name.as_bytes()).ok())
        .and_then(|name| getgrouplist(&name, Gid::from_raw(gid)).ok())
        .map_or_else(|| vec![gid], |groups| groups.into_iter().map(Gid::as_raw).collect())
}

/// A process's working directory, if it is not ours (`sudo -i` and `sudo -D` change it).
fn directory_of(pid: i32) -> Option<OwnedFd> {
    let path = format!("/proc/{pid}/cwd");
    let same =
        |left: &fs::Metadata, right: &fs::Metadata| (left.dev(), left.ino()) == (right.dev(), right.ino());
    let (theirs, ours) = (fs::metadata(&path).ok()?, fs::metadata(".").ok());
    if ours.is_some_and(|ours| same(&theirs, &ours)) {
        return None;
    }
    let directory = File::options().read(true).custom_flags(libc::O_PATH | libc::O_DIRECTORY).open(path);
    directory.ok().map(OwnedFd::from)
}
