//! Who asks, and from where.

use std::{fmt, net::SocketAddr};

use serde::{Deserialize, Serialize};

tokio::task_local! {
    /// Who asked for what this task does.
    pub(crate) static CALLER: Caller;
}

/// Somebody who changes faults.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case", tag = "via")]
pub(crate) enum Caller {
    /// The agent itself: the time of a fault is over, its lease, a probe.
    #[default]
    Agent,
    /// A process on this machine, over the agent's Unix socket.
    Unix {
        /// Its user.
        uid: u32,
        /// Its process; none = the kernel does not know it (another PID namespace).
        pid: Option<i32>,
    },
    /// Over TCP.
    Tcp {
        /// The other end.
        peer: SocketAddr,
    },
    /// The command line, working alone.
    Command {
        /// The user; behind sudo the one who called it.
        uid: u32,
        /// The process.
        pid: i32,
    },
}

impl Caller {
    /// Who asked for what the calling task does.
    pub(crate) fn current() -> Self {
        CALLER.try_with(Clone::clone).unwrap_or_default()
    }

    /// May do whatever we can.
    pub(crate) const fn is_root(&self) -> bool {
        matches!(self, Self::Unix { uid: 0, .. })
    }

    /// This process as a command.
    pub(crate) fn command() -> Self {
        let own = nix::unistd::getuid().as_raw();
        let behind_sudo = std::env::var("SUDO_UID").ok().and_then(|text| text.parse().ok());
        let uid = if own == 0 { behind_sudo.unwrap_or(own) } else { own };
        Self::Command { uid, pid: nix::unistd::getpid().as_raw() }
    }
}

impl fmt::Display for Caller {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Agent => f.write_str("the agent"),
            Self::Unix { uid, pid: Some(pid) } => write!(f, "user {uid}, process {pid}"),
            Self::Unix { uid, pid: None } => write!(f, "user {uid}"),
            Self::Tcp { peer } => write!(f, "{peer}"),
            Self::Command { uid, pid } => write!(f, "user {uid}, command {pid}"),
        }
    }
}
