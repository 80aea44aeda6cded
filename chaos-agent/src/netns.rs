//! Network namespaces: open, enter and come back, identify.

use std::{
    fs::File,
    io,
    os::{
        fd::{AsFd, AsRawFd, BorrowedFd, OwnedFd},
        unix::fs::MetadataExt,
    },
    panic,
    path::{Path, PathBuf},
    sync::Arc,
    thread,
};

use nix::{
    errno::Errno,
    sched::{CloneFlags, setns, unshare},
    sys::{
        socket::{AddressFamily, SockFlag, SockType, socket},
        stat::fstat,
    },
};

/// Directories where `ip netns add` leaves its bind mounts (ip-netns(8)); the second is the first's old name.
const NAMED_DIRS: [&str; 2] = ["/run/netns", "/var/run/netns"];

/// What can go wrong with a network namespace.
#[derive(Debug, thiserror::Error)]
pub enum NetnsError {
    /// No such name.
    #[error("there is no network namespace named `{name}`; {existing}. `ip netns list` shows them")]
    NoSuchName {
        /// What was asked for.
        name: String,
        /// A half sentence with the names there are.
        existing: String,
    },
    /// A name that could leave the directory of namespaces.
    #[error("`{0}` is no network namespace name: a name has no `/` and is not `.` or `..`")]
    BadName(String),
    /// No such process.
    #[error("there is no process {0}")]
    NoSuchProcess(i32),
    /// The file is not a network namespace, for instance the empty file left by a lost bind mount.
    #[error("{} is not a network namespace; if a crash left it there, `ip netns delete` removes it", .0.display())]
    NotANamespace(PathBuf),
    /// Entering (or making) needs `CAP_SYS_ADMIN`.
    #[error(
        "{what} needs the capability CAP_SYS_ADMIN, which this process lacks: run it with sudo or as root"
    )]
    Denied {
        /// What was attempted.
        what: String,
    },
    /// Any other failure of the kernel.
    #[error("{what}: {source}")]
    Io {
        /// What was attempted.
        what: String,
        /// The kernel's answer.
        source: io::Error,
    },
}

impl NetnsError {
    fn io(what: impl Into<String>, source: impl Into<io::Error>) -> Self {
        let (what, source) = (what.into(), source.into());
        if source.kind() == io::ErrorKind::PermissionDenied {
            Self::Denied { what }
        } else {
            Self::Io { what, source }
        }
    }
}

/// Which namespace: two handles with equal ids are the same namespace.
///
/// Device and inode number of its nsfs file (namespaces(7)). The inode is used again once the namespace is
/// gone, so the id means something only while somebody holds a handle.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct NetnsId {
    /// Device of nsfs.
    pub dev: u64,
    /// Inode number, as in `net:[4026531840]`.
    pub ino: u64,
}

impl NetnsId {
    /// The namespace of a process, without opening it; none if there is no such process, it is a zombie, or
    /// we may not look (`PTRACE_MODE_READ`, see namespaces(7)).
    #[must_use]
    pub fn of_pid(pid: i32) -> Option<Self> {
        Self::of_path(Path::new(&format!("/proc/{pid}/ns/net"))).ok()
    }

    /// The namespace behind a file, without opening it. For a file that is none the id belongs to nothing.
    pub fn of_path(path: &Path) -> io::Result<Self> {
        let metadata = std::fs::metadata(path)?;
        Ok(Self { dev: metadata.dev(), ino: metadata.ino() })
    }
}

/// An open network namespace. Clones share one descriptor; the last one closes it.
///
/// While it is open the namespace and its devices live on, also without processes and without a name
/// (kernel-side: the file holds a reference on `struct net`). So let go of it when a target vanishes.
#[derive(Clone, Debug)]
pub struct Netns {
    fd: Arc<OwnedFd>,
    id: NetnsId,
}

impl PartialEq for Netns {
    fn eq(&self, other: &Self) -> bool {
        self.id == other.id
    }
}

impl Eq for Netns {}

impl AsFd for Netns {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.fd.as_fd()
    }
}

impl Netns {
    /// The namespace of the calling thread.
    pub fn current() -> Result<Self, NetnsError> {
        Self::open_path(Path::new("/proc/thread-self/ns/net"))
    }

    /// The namespace with this `ip netns` name.
    pub fn by_name(name: &str) -> Result<Self, NetnsError> {
        Self::open_path(&Self::path_of_name(name)?)
    }

    /// The namespace a process is in.
    pub fn by_pid(pid: i32) -> Result<Self, NetnsError> {
        match Self::open_path(&PathBuf::from(format!("/proc/{pid}/ns/net"))) {
            // A zombie still has its directory, but its namespaces are gone: EINVAL or ESRCH by kernel.
            Err(NetnsError::Io { source, .. })
                if matches!(source.kind(), io::ErrorKind::NotFound)
                    || source.raw_os_error() == Some(libc::ESRCH) =>
            {
                Err(NetnsError::NoSuchProcess(pid))
            }
            other => other,
        }
    }

    /// The namespace behind a file, such as a bind mount or `/proc/PID/ns/net`.
    pub fn open_path(path: &Path) -> Result<Self, NetnsError> {
        let file = File::open(path).map_err(|error| {
            NetnsError::io(format!("opening the network namespace {}", path.display()), error)
        })?;
        Self::from_fd(file.into()).map_err(|error| {
            if matches!(error, Errno::ENOTTY | Errno::EINVAL) {
                NetnsError::NotANamespace(path.to_owned())
            } else {
                NetnsError::io(format!("looking at {}", path.display()), error)
            }
        })
    }

    /// A new namespace without a name and without processes; it ends with the last handle.
    ///
    /// It has a loopback device that is down, and nothing else. Needs `CAP_SYS_ADMIN`.
    pub fn anonymous() -> Result<Self, NetnsError> {
        in_thread(|| {
            unshare(CloneFlags::CLONE_NEWNET)
                .map_err(|error| NetnsError::io("making a network namespace", error))?;
            Self::current()
        })?
    }

    /// The path of a name, where its bind mount is; an error lists the names there are.
    pub fn path_of_name(name: &str) -> Result<PathBuf, NetnsError> {
        if name.is_empty() || name.contains(['/', '\0']) || name == "." || name == ".." {
            return Err(NetnsError::BadName(name.to_owned()));
        }
        NAMED_DIRS.iter().map(|dir| Path::new(dir).join(name)).find(|path| path.exists()).ok_or_else(|| {
            let names = Self::names();
            let existing = if names.is_empty() {
                "none has a name on this machine".to_owned()
            } else {
                format!("there is {}", names.join(", "))
            };
            NetnsError::NoSuchName { name: name.to_owned(), existing }
        })
    }

    /// All names, sorted.
    #[must_use]
    pub fn names() -> Vec<String> {
        let mut names: Vec<String> = NAMED_DIRS
            .iter()
            .filter_map(|dir| std::fs::read_dir(dir).ok())
            .flat_map(Iterator::flatten)
            .filter_map(|entry| entry.file_name().into_string().ok())
            .collect();
        names.sort();
        names.dedup();
        names
    }

    /// Which namespace this is.
    #[must_use]
    pub fn id(&self) -> NetnsId {
        self.id
    }

    /// Runs `work` on a thread of its own inside this namespace and returns what it returns.
    ///
    /// The caller's thread never changes namespace, whatever `work` does; a panic in `work` goes on in the
    /// caller. Sockets opened inside stay in this namespace wherever they are used later. Needs
    /// `CAP_SYS_ADMIN`, except for the namespace the caller is in already.
    pub fn run<T: Send>(&self, work: impl FnOnce() -> T + Send) -> Result<T, NetnsError> {
        let already_there = Self::current().is_ok_and(|current| current == *self);
        in_thread(|| {
            if !already_there {
                setns(self.fd.as_fd(), CloneFlags::CLONE_NEWNET)
                    .map_err(|error| NetnsError::io("entering a network namespace", error))?;
            }
            Ok(work())
        })?
    }

    /// The kernel's own number for this namespace, never used twice while the machine runs.
    ///
    /// `SO_NETNS_COOKIE`, from Linux 5.14; equals what `bpf_get_netns_cookie` returns.
    pub fn cookie(&self) -> Result<u64, NetnsError> {
        self.run(netns_cookie)?.map_err(|error| NetnsError::io("asking for the namespace's cookie", error))
    }

    fn from_fd(fd: OwnedFd) -> Result<Self, Errno> {
        let kind = ns_type(fd.as_fd())?;
        if kind != libc::CLONE_NEWNET {
            return Err(Errno::EINVAL);
        }
        let stat = fstat(&fd)?;
        Ok(Self { fd: Arc::new(fd), id: NetnsId { dev: stat.st_dev, ino: stat.st_ino } })
    }
}

/// Runs `work` on a new thread, waits for it, and passes a panic on.
fn in_thread<T: Send>(work: impl FnOnce() -> T + Send) -> Result<T, NetnsError> {
    thread::scope(|scope| {
        let thread = thread::Builder::new()
            .name("chaos-netns".to_owned())
            .spawn_scoped(scope, work)
            .map_err(|error| NetnsError::io("starting a thread", error))?;
        thread.join().map_or_else(|payload| panic::resume_unwind(payload), Ok)
    })
}

/// `CLONE_NEW*` flag of an nsfs file; ENOTTY for any other file (`ioctl_ns(2)`, from Linux 4.11).
fn ns_type(fd: BorrowedFd<'_>) -> Result<i32, Errno> {
    const NS_GET_NSTYPE: libc::Ioctl = 0xb703;
    // SAFETY: the descriptor is borrowed and open, and this request takes no argument to read or write.
    let kind = unsafe { libc::ioctl(fd.as_raw_fd(), NS_GET_NSTYPE) };
    Errno::result(kind)
}

/// The cookie of the calling thread's namespace.
fn netns_cookie() -> io::Result<u64> {
    let socket = socket(AddressFamily::Inet, SockType::Datagram, SockFlag::SOCK_CLOEXEC, None)?;
    let mut cookie = 0_u64;
    let mut length = libc::socklen_t::try_from(size_of::<u64>()).map_err(io::Error::other)?;
    // SAFETY: both pointers are to live locals, and `length` is the size of the one the kernel fills.
    let result = unsafe {
        libc::getsockopt(
            socket.as_raw_fd(),
            libc::SOL_SOCKET,
            libc::SO_NETNS_COOKIE,
            (&raw mut cookie).cast(),
            &raw mut length,
        )
    };
    Errno::result(result)?;
    Ok(cookie)
}
