//! What runs in the guard process.

use std::{
    collections::BTreeMap,
    io::{self, IoSliceMut},
    os::fd::{AsFd, AsRawFd, FromRawFd, OwnedFd, RawFd},
    panic::{AssertUnwindSafe, catch_unwind},
    path::PathBuf,
    thread,
    time::Duration,
};

use nix::{
    errno::Errno,
    poll::{PollFd, PollFlags, PollTimeout, poll},
    sched::{CloneFlags, setns},
    sys::socket::{ControlMessageOwned, MsgFlags, recvmsg},
};

use super::{Job, Message};
use crate::{
    cgroup::{Removal, remove_if_empty, wait_for_change},
    net::{
        netlink::{Netlink, NetlinkError},
        tc,
    },
    rights,
};

/// Longest message; a job is a path (4,096 bytes at most, each written as up to six) or a few numbers.
const MESSAGE_BYTES_MAX: usize = 32 * 1024;

/// How often something that cannot be removed now is tried again, and how long apart.
const ATTEMPTS: usize = 20;
const PAUSE: Duration = Duration::from_millis(50);

/// Where the two descriptors of the guard lie after the others were closed.
const SOCKET: RawFd = 3;
const PARENT: RawFd = 4;

/// The jobs in the order in which they came, each with the namespace it needs.
type Jobs = BTreeMap<u64, (Job, Option<OwnedFd>)>;

/// The guard's life. Never returns, so that nothing of the parent's is dropped in the copy.
pub(super) fn run(socket: &OwnedFd, parent: &OwnedFd) -> ! {
    let (socket, parent) = (socket.as_raw_fd(), parent.as_raw_fd());
    let lived = catch_unwind(AssertUnwindSafe(|| {
        let (socket, parent) = become_daemon(socket, parent)?;
        work(wait(&socket, &parent)?);
        Ok::<(), io::Error>(())
    }));
    let code = i32::from(!matches!(lived, Ok(Ok(()))));
    // SAFETY: ends this copy of the process without running its exit handlers, which belong to the parent.
    unsafe { libc::_exit(code) }
}

/// Leaves the terminal, the directory and every descriptor of the parent.
fn become_daemon(socket: RawFd, parent: RawFd) -> io::Result<(OwnedFd, OwnedFd)> {
    // SAFETY: takes a terminated name of less than 16 bytes.
    unsafe { libc::prctl(libc::PR_SET_NAME, c"chaos-guard".as_ptr()) };
    nix::unistd::setsid()?;
    nix::unistd::chdir("/")?;
    // One that cannot let go of them can still do its work.
    let _ = rights::keep_only_what_the_guard_needs();
    // Above the places they go to, so that neither overwrites the other.
    let socket = duplicate(socket)?;
    let parent = duplicate(parent)?;
    let nothing = std::fs::File::options().read(true).write(true).open("/dev/null")?;
    let places = [(nothing.as_raw_fd(), 0), (nothing.as_raw_fd(), 1), (nothing.as_raw_fd(), 2)];
    for (from, to) in places.into_iter().chain([(socket, SOCKET), (parent, PARENT)]) {
        // SAFETY: every descriptor below 5 belonged to the parent's copy, which is never used again here.
        Errno::result(unsafe { libc::dup2(from, to) })?;
    }
    // Forgotten rather than closed: its number may be one of the places, and close_range closes it otherwise.
    std::mem::forget(nothing);
    // SAFETY: as above for all others.
    Errno::result(unsafe { libc::syscall(libc::SYS_close_range, PARENT + 1, libc::c_uint::MAX, 0) })?;
    // SAFETY: open since dup2, and owned by nobody else in this process.
    let socket = unsafe { OwnedFd::from_raw_fd(SOCKET) };
    // SAFETY: as above.
    let parent = unsafe { OwnedFd::from_raw_fd(PARENT) };
    Ok((socket, parent))
}

fn duplicate(descriptor: RawFd) -> nix::Result<RawFd> {
    // SAFETY: makes a new descriptor above the places; the old one stays as it is.
    Errno::result(unsafe { libc::fcntl(descriptor, libc::F_DUPFD_CLOEXEC, PARENT + 1) })
}

/// Collects jobs until the parent says goodbye or is gone; returns those that are left.
fn wait(socket: &OwnedFd, parent: &OwnedFd) -> io::Result<Jobs> {
    let mut jobs = Jobs::new();
    loop {
        let mut watched =
            [PollFd::new(parent.as_fd(), PollFlags::POLLIN), PollFd::new(socket.as_fd(), PollFlags::POLLIN)];
        match poll(&mut watched, PollTimeout::NONE) {
            Ok(_) | Err(Errno::EINTR) => {}
            Err(errno) => return Err(errno.into()),
        }
        let gone = watched[0].any().unwrap_or(true);
        // What was sent before the end counts, so the socket is read out even then.
        if read_all(socket, &mut jobs)? || gone {
            return Ok(jobs);
        }
    }
}

/// Takes all messages there are; true after a goodbye or the end of the stream.
fn read_all(socket: &OwnedFd, jobs: &mut Jobs) -> io::Result<bool> {
    loop {
        match receive(socket) {
            Ok(Some((Message::Register { id, job }, namespace))) => {
                jobs.insert(id, (job, namespace));
            }
            Ok(Some((Message::Unregister { id }, _))) => {
                jobs.remove(&id);
            }
            Ok(Some((Message::Finish, _)) | None) | Err(Errno::ECONNRESET) => return Ok(true),
            Err(Errno::EAGAIN) => return Ok(false),
            Err(Errno::EINTR) => {}
            Err(errno) => return Err(errno.into()),
        }
    }
}

fn receive(socket: &OwnedFd) -> nix::Result<Option<(Message, Option<OwnedFd>)>> {
    let mut bytes = vec![0; MESSAGE_BYTES_MAX];
    let mut control = nix::cmsg_space!(RawFd);
    let mut data = [IoSliceMut::new(&mut bytes)];
    let flags = MsgFlags::MSG_DONTWAIT | MsgFlags::MSG_CMSG_CLOEXEC;
    let received = recvmsg::<()>(socket.as_raw_fd(), &mut data, Some(&mut control), flags)?;
    let mut namespace = None;
    for message in received.cmsgs()? {
        if let ControlMessageOwned::ScmRights(descriptors) = message {
            for descriptor in descriptors {
                // SAFETY: the kernel has just installed it for us.
                namespace = Some(unsafe { OwnedFd::from_raw_fd(descriptor) });
            }
        }
    }
    let length = received.bytes;
    if length == 0 {
        return Ok(None);
    }
    let message = bytes.get(..length).and_then(|bytes| serde_json::from_slice(bytes).ok());
    message.map(|message| Some((message, namespace))).ok_or(Errno::EBADMSG)
}

/// Does the jobs: filters at once, then the qdiscs that they leave empty, and cgroups as they empty.
fn work(jobs: Jobs) {
    let mut cgroups = Vec::new();
    let mut filters = Vec::new();
    for (job, namespace) in jobs.into_values() {
        match job {
            Job::RemoveCgroup { directory } => cgroups.push(directory),
            Job::RemoveFilter { filter, remove_clsact } => filters.push((filter, remove_clsact, namespace)),
        }
    }
    for (filter, _, namespace) in &filters {
        insist(namespace.as_ref(), |netlink| tc::remove_filter(netlink, filter).map(drop));
    }
    for (filter, _, namespace) in filters.iter().filter(|(_, remove_clsact, _)| *remove_clsact) {
        insist(namespace.as_ref(), |netlink| tc::remove_empty_clsact(netlink, filter.interface).map(drop));
    }
    // What still runs may run for long, and must not keep a deleted namespace alive.
    drop(filters);
    remove_cgroups(cgroups);
}

fn remove_cgroups(mut cgroups: Vec<PathBuf>) {
    loop {
        // One that cannot be removed at all is left to the next chaos command's sweep.
        cgroups.retain(|directory| matches!(remove_if_empty(directory), Ok(Removal::Populated)));
        let Some(first) = cgroups.first() else { return };
        if wait_for_change(first, Duration::from_secs(1)).is_err() {
            thread::sleep(PAUSE);
        }
    }
}

/// Works in a namespace; nobody is left to hear of a failure, so it tries for a second.
fn insist(namespace: Option<&OwnedFd>, mut work: impl FnMut(&mut Netlink) -> Result<(), NetlinkError>) {
    if namespace.is_some_and(|namespace| setns(namespace, CloneFlags::CLONE_NEWNET).is_err()) {
        return;
    }
    for _ in 0..ATTEMPTS {
        if Netlink::route().and_then(|mut netlink| work(&mut netlink)).is_ok() {
            return;
        }
        thread::sleep(PAUSE);
    }
}
