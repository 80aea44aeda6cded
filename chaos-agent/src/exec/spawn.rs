//! The child: born in its cgroup, waits at a barrier, becomes the command.
//!
//! Between the fork and execve(2) the child makes only system calls on memory prepared before: this process
//! may have other threads, whose locks are copied as they are (fork(2), signal-safety(7)). System calls that
//! change identity go through syscall(2), because the C library's wrappers signal all threads it believes in
//! (nptl(7)).

use std::{
    ffi::CString,
    fs::File,
    io,
    os::{
        fd::{AsRawFd, FromRawFd, OwnedFd, RawFd},
        unix::{ffi::OsStrExt, fs::OpenOptionsExt},
    },
    path::Path,
    ptr,
};

use nix::sys::socket::{AddressFamily, MsgFlags, SockFlag, SockType, recv, send, socketpair};

use super::{
    environment, inherited,
    invoker::{Identity, Invoker},
};

/// `CLONE_INTO_CGROUP` of clone(2), 5.7; the libc crate's type is too narrow for it.
const CLONE_INTO_CGROUP: u64 = 0x2_0000_0000;

/// What execvp(3) and the shells fall back to when PATH is not set.
const DEFAULT_PATH: &[u8] = b"/usr/local/bin:/bin:/usr/bin";

/// Everything the child needs, allocated before the fork.
pub(super) struct Plan {
    /// Where the program may be, in the order of PATH.
    candidates: Vec<CString>,
    /// The command's words; the pointers of `argv` lead into it.
    _words: Vec<CString>,
    argv: Vec<*const libc::c_char>,
    /// `/bin/sh`, a place for the program's path, then the words after the first: for a script without `#!`.
    shell_argv: Vec<*const libc::c_char>,
    envp: Vec<*const libc::c_char>,
    invoker: Invoker,
    ignore_sigpipe: bool,
    ignore_sigchld: bool,
    signal_mask: libc::sigset_t,
}

impl Plan {
    /// `signal_mask` and `ignore_sigchld`: as they were before we touched them.
    pub(super) fn new(
        words: Vec<CString>,
        invoker: Invoker,
        signal_mask: libc::sigset_t,
        ignore_sigchld: bool,
    ) -> Self {
        let terminated = |list: &[CString]| -> Vec<_> {
            list.iter().map(|item| item.as_ptr()).chain([ptr::null()]).collect()
        };
        let argv = terminated(&words);
        let mut shell_argv = vec![c"/bin/sh".as_ptr(), ptr::null()];
        shell_argv.extend(argv.iter().skip(1));
        Self {
            candidates: candidates(&words, &invoker.environment),
            envp: terminated(&invoker.environment),
            argv,
            shell_argv,
            _words: words,
            invoker,
            ignore_sigpipe: inherited::sigpipe_was_ignored(),
            ignore_sigchld,
            signal_mask,
        }
    }

    pub(super) fn into_invoker(self) -> Invoker {
        self.invoker
    }
}

/// The paths at which a program name is looked for: execvp(3).
fn candidates(words: &[CString], environment: &[CString]) -> Vec<CString> {
    let Some(name) = words.first().map(CString::as_bytes).filter(|name| !name.is_empty()) else {
        return Vec::new();
    };
    if name.contains(&b'/') {
        return CString::new(name).into_iter().collect();
    }
    let path = environment::find(environment, "PATH").unwrap_or(DEFAULT_PATH);
    path.split(|byte| *byte == b':')
        // An empty element is the working directory.
        .map(|directory| if directory.is_empty() { b".".as_slice() } else { directory })
        .filter_map(|directory| CString::new([directory, b"/", name].concat()).ok())
        .collect()
}

/// The child before and after the barrier.
#[derive(Debug)]
pub(super) struct Child {
    pub(super) pid: libc::pid_t,
    pub(super) pidfd: OwnedFd,
    /// The child writes an errno (0 at the barrier), we write one byte to let it go; closed by execve.
    control: OwnedFd,
    reaped: bool,
    released: bool,
}

/// A change of the child's state: waitid(2).
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Change {
    /// It ended with this code.
    Exited(i32),
    /// This signal ended it.
    Killed(i32),
    /// This signal stopped it.
    Stopped(i32),
}

impl Child {
    /// Forks into the cgroup and waits until the child stands at the barrier, as the user, with its program
    /// found. An error in `Ok` is the child's: why the program cannot be run.
    pub(super) fn spawn(plan: &mut Plan, cgroup: &Path) -> io::Result<(Self, io::Result<()>)> {
        let flags = SockFlag::SOCK_CLOEXEC;
        let (ours, theirs) = socketpair(AddressFamily::Unix, SockType::SeqPacket, None, flags)?;
        let directory = File::options().read(true).custom_flags(libc::O_DIRECTORY).open(cgroup)?;
        let (pid, pidfd) = match clone_into(&directory) {
            Ok(Some(parent)) => parent,
            Ok(None) => run(plan, theirs.as_raw_fd(), ours.as_raw_fd()),
            Err(error) => return Err(error),
        };
        drop(theirs);
        let child = Self { pid, pidfd, control: ours, reaped: false, released: false };
        let ready = child.report()?.unwrap_or_else(|| Err(io::Error::from_raw_os_error(libc::ECHILD)));
        Ok((child, ready))
    }

    /// Lets the command run; returns when it has replaced the child, or why it could not.
    pub(super) fn release(&mut self) -> io::Result<io::Result<()>> {
        match send(self.control.as_raw_fd(), &[1], MsgFlags::MSG_NOSIGNAL) {
            // Killed at the barrier: waiting for it tells how.
            Err(nix::errno::Errno::EPIPE | nix::errno::Errno::ECONNRESET) => return Ok(Ok(())),
            sent => sent?,
        };
        let started = self.report()?.unwrap_or(Ok(()));
        self.released = started.is_ok();
        Ok(started)
    }

    /// The child's next word: `None` when its end was closed (by execve or death), else its errno.
    fn report(&self) -> io::Result<Option<io::Result<()>>> {
        let mut errno = [0; 4];
        loop {
            match recv(self.control.as_raw_fd(), &mut errno, MsgFlags::empty()) {
                Ok(0) | Err(nix::errno::Errno::ECONNRESET) => return Ok(None),
                Ok(_) => break,
                Err(nix::errno::Errno::EINTR) => {}
                Err(other) => return Err(other.into()),
            }
        }
        Ok(Some(match i32::from_ne_bytes(errno) {
            0 => Ok(()),
            errno => Err(io::Error::from_raw_os_error(errno)),
        }))
    }

    /// What happened to it since the last call.
    pub(super) fn changed(&mut self) -> io::Result<Option<Change>> {
        // SAFETY: all-zero is a valid siginfo_t; a zero si_pid afterwards means that nothing changed.
        let mut info: libc::siginfo_t = unsafe { std::mem::zeroed() };
        let options = libc::WEXITED | libc::WSTOPPED | libc::WNOHANG;
        // SAFETY: `info` outlives the call; the pid is our unreaped child, so it cannot be another's.
        let result = unsafe { libc::waitid(libc::P_PID, self.pid.cast_unsigned(), &raw mut info, options) };
        if result != 0 {
            return Err(io::Error::last_os_error());
        }
        // SAFETY: waitid fills the fields of SIGCHLD, or leaves zeroes.
        let pid = unsafe { info.si_pid() };
        // SAFETY: as above.
        let status = unsafe { info.si_status() };
        if pid == 0 {
            return Ok(None);
        }
        let change = match info.si_code {
            libc::CLD_STOPPED => Change::Stopped(status),
            libc::CLD_EXITED => Change::Exited(status),
            _ => Change::Killed(status),
        };
        self.reaped = !matches!(change, Change::Stopped(_));
        Ok(Some(change))
    }
}

impl Drop for Child {
    /// Before the release: ends the child without having run anything. After an error in waiting: leaves the
    /// command alone.
    fn drop(&mut self) {
        if self.reaped || self.released {
            return;
        }
        // A closed control socket tells the child to leave.
        // SAFETY: shuts down our own socket; no memory is involved.
        unsafe { libc::shutdown(self.control.as_raw_fd(), libc::SHUT_RDWR) };
        let mut status = 0;
        // SAFETY: `status` outlives the call; the pid is our unreaped child, so it cannot be another's.
        unsafe { libc::waitpid(self.pid, &raw mut status, 0) };
    }
}

/// Forks with clone3(2): `Some` in the parent, `None` in the child.
fn clone_into(directory: &File) -> io::Result<Option<(libc::pid_t, OwnedFd)>> {
    let mut pidfd: RawFd = -1;
    // SAFETY: all-zero is a valid clone_args: no flag, no pointer.
    let mut arguments: libc::clone_args = unsafe { std::mem::zeroed() };
    arguments.flags = CLONE_INTO_CGROUP | u64::from(libc::CLONE_PIDFD.cast_unsigned());
    arguments.pidfd = (&raw mut pidfd) as u64;
    arguments.exit_signal = u64::from(libc::SIGCHLD.cast_unsigned());
    arguments.cgroup = u64::from(directory.as_raw_fd().cast_unsigned());
    // SAFETY: the arguments live across the call; without CLONE_VM the child has its own copy of memory, and
    // it makes only system calls (see the module's head).
    let pid = unsafe { libc::syscall(libc::SYS_clone3, &raw mut arguments, size_of::<libc::clone_args>()) };
    match libc::pid_t::try_from(pid) {
        Ok(0) => Ok(None),
        Ok(pid) if pid > 0 => {
            // SAFETY: the kernel stored a new descriptor there (close-on-exec), which nobody else owns.
            Ok(Some((pid, unsafe { OwnedFd::from_raw_fd(pidfd) })))
        }
        _ => Err(io::Error::last_os_error()),
    }
}

/// The child's life up to execve. `control` is its end, `parents` the copy of the other end, which must be
/// closed so that our death is seen.
fn run(plan: &mut Plan, control: RawFd, parents: RawFd) -> ! {
    // SAFETY: the descriptor is a copy in this process that nothing else uses.
    unsafe { libc::close(parents) };
    let found = become_user(&plan.invoker).and_then(|()| find_program(&plan.candidates));
    let index = match found {
        Ok(index) => index,
        Err(errno) => leave(control, errno),
    };
    tell(control, 0);
    let mut go = 0_u8;
    // SAFETY: one byte of our stack is written at most.
    if unsafe { libc::recv(control, (&raw mut go).cast(), 1, 0) } != 1 {
        // The engine could not be armed, or chaos is gone: the command must not run without its faults.
        exit();
    }
    restore_signals(plan);
    let Some(program) = plan.candidates.get(index) else { leave(control, libc::ENOENT) };
    // SAFETY: program, argv and envp are terminated and live in `plan`, which this process never frees.
    unsafe { libc::execve(program.as_ptr(), plan.argv.as_ptr(), plan.envp.as_ptr()) };
    let mut errno = errno();
    if errno == libc::ENOEXEC {
        // A script without `#!`: what execvp(3) and every shell do.
        if let Some(place) = plan.shell_argv.get_mut(1) {
            *place = program.as_ptr();
        }
        // SAFETY: as above; `shell_argv` is terminated like `argv`.
        unsafe { libc::execve(c"/bin/sh".as_ptr(), plan.shell_argv.as_ptr(), plan.envp.as_ptr()) };
        errno = self::errno();
    }
    leave(control, errno)
}

/// Takes on identity, limits, umask and directory; nothing of our privileges remains for a user who is not root.
fn become_user(invoker: &Invoker) -> Result<(), i32> {
    if let Some(directory) = &invoker.directory {
        // SAFETY: an open descriptor; failing leaves the directory as it is, which the error reports.
        check(unsafe { libc::syscall(libc::SYS_fchdir, directory.as_raw_fd()) })?;
    }
    if let Some(limits) = &invoker.limits {
        limits.apply();
    }
    if let Some(umask) = invoker.umask {
        // SAFETY: cannot fail and touches no memory.
        unsafe { libc::umask(umask) };
    }
    if let Some(Identity { uid, gid, groups }) = &invoker.identity {
        // SAFETY: pointer and length are of one live vector.
        check(unsafe { libc::syscall(libc::SYS_setgroups, groups.len(), groups.as_ptr()) })?;
        // SAFETY: plain numbers.
        check(unsafe { libc::syscall(libc::SYS_setresgid, *gid, *gid, *gid) })?;
        // SAFETY: plain numbers; permitted and effective capabilities go with the last root id.
        check(unsafe { libc::syscall(libc::SYS_setresuid, *uid, *uid, *uid) })?;
    }
    // SAFETY: cannot fail and touches no memory.
    if unsafe { libc::syscall(libc::SYS_geteuid) } != 0 {
        drop_capabilities()?;
    }
    Ok(())
}

/// Empties the ambient, inheritable, permitted and effective sets, so that execve grants nothing (also when
/// our own binary has file capabilities). The bounding set stays as the user's shell has it.
fn drop_capabilities() -> Result<(), i32> {
    const CAPABILITY_VERSION_3: u32 = 0x2008_0522;
    // SAFETY: plain numbers; prctl(PR_CAP_AMBIENT, PR_CAP_AMBIENT_CLEAR_ALL) takes no pointer.
    check(unsafe {
        libc::syscall(libc::SYS_prctl, libc::PR_CAP_AMBIENT, libc::PR_CAP_AMBIENT_CLEAR_ALL, 0, 0, 0)
    })?;
    // struct __user_cap_header_struct { version, pid } and two struct __user_cap_data_struct.
    let header = [CAPABILITY_VERSION_3, 0];
    let none = [0_u32; 6];
    // SAFETY: both arrays live across the call and have the sizes capset(2) reads for this version.
    check(unsafe { libc::syscall(libc::SYS_capset, header.as_ptr(), none.as_ptr()) })
}

/// The first candidate this user may execute, by the rules of execvp(3): a refusal is remembered and the
/// search goes on.
fn find_program(candidates: &[CString]) -> Result<usize, i32> {
    let mut refusal = libc::ENOENT;
    for (index, candidate) in candidates.iter().enumerate() {
        // SAFETY: all-zero is a valid stat buffer.
        let mut metadata: libc::stat = unsafe { std::mem::zeroed() };
        // SAFETY: a terminated path and a live buffer of the right type.
        let found = check(unsafe { libc::stat(candidate.as_ptr(), &raw mut metadata) }.into());
        let usable = found.and_then(|()| {
            if metadata.st_mode & libc::S_IFMT == libc::S_IFDIR {
                return Err(libc::EISDIR);
            }
            // SAFETY: a terminated path; real and effective ids are the same by now.
            check(unsafe { libc::access(candidate.as_ptr(), libc::X_OK) }.into())
        });
        match usable {
            Ok(()) => return Ok(index),
            Err(libc::ENOENT | libc::ENOTDIR) => {}
            Err(errno) => refusal = errno,
        }
    }
    Err(refusal)
}

/// Handlers fall to their default by execve; what we or the Rust runtime set to ignore must be undone here.
fn restore_signals(plan: &Plan) {
    for (signal, ignored) in [(libc::SIGPIPE, plan.ignore_sigpipe), (libc::SIGCHLD, plan.ignore_sigchld)] {
        // SAFETY: SIG_IGN and SIG_DFL are valid dispositions of both signals.
        unsafe { libc::signal(signal, if ignored { libc::SIG_IGN } else { libc::SIG_DFL }) };
    }
    // SAFETY: the mask was filled by the kernel before the fork; a null old mask is allowed.
    unsafe { libc::sigprocmask(libc::SIG_SETMASK, &raw const plan.signal_mask, ptr::null_mut()) };
}

fn check(result: libc::c_long) -> Result<(), i32> {
    if result < 0 { Err(errno()) } else { Ok(()) }
}

fn errno() -> i32 {
    nix::errno::Errno::last_raw()
}

fn tell(control: RawFd, errno: i32) {
    let bytes = errno.to_ne_bytes();
    // SAFETY: pointer and length are of one live array. Nobody is left to hear of a failure.
    unsafe { libc::send(control, bytes.as_ptr().cast(), bytes.len(), libc::MSG_NOSIGNAL) };
}

fn leave(control: RawFd, errno: i32) -> ! {
    tell(control, errno);
    exit()
}

fn exit() -> ! {
    // SAFETY: ends this copy of the process without running its exit handlers, which belong to the parent.
    unsafe { libc::_exit(127) }
}

/// The command's words as the kernel takes them.
pub(super) fn words(argv: &[std::ffi::OsString]) -> io::Result<Vec<CString>> {
    argv.iter().map(|word| CString::new(word.as_bytes()).map_err(io::Error::from)).collect()
}
