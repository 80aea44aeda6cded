//! Who asks.

use std::net::{IpAddr, SocketAddr};

use tokio::net::unix::UCred;

use crate::safety;

/// Who asks, as an extension of every request: `Extension(caller): Extension<Caller>`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum Caller {
    /// Over the Unix socket; the kernel says who connected.
    Unix {
        /// User.
        uid: u32,
        /// Group.
        gid: u32,
        /// Process, as far as our namespace of processes shows it.
        pid: Option<i32>,
    },
    /// Over TCP, with the right key.
    Tcp {
        /// Its end of the connection.
        from: SocketAddr,
    },
    /// Over TCP without a key: gets to hear whether we live, nothing else.
    Stranger {
        /// Its end of the connection.
        from: SocketAddr,
    },
}

impl Caller {
    /// As the audit log has it.
    pub(super) fn for_the_record(&self) -> safety::Caller {
        match self {
            Self::Unix { uid, pid, .. } => safety::Caller::Unix { uid: *uid, pid: *pid },
            Self::Tcp { from } | Self::Stranger { from } => safety::Caller::Tcp { peer: *from },
        }
    }

    /// Whose a thing is that must not be mixed up with others': the user, or the address, whatever the connection.
    pub(super) fn owner(&self) -> Owner {
        match self {
            Self::Unix { uid, .. } => Owner::User(*uid),
            Self::Tcp { from } | Self::Stranger { from } => Owner::Address(from.ip().to_canonical()),
        }
    }

    /// Who: `uid 0 gid 0`, `key`, `nobody`.
    pub(crate) fn who(&self) -> String {
        match self {
            Self::Unix { uid, gid, .. } => format!("uid {uid} gid {gid}"),
            Self::Tcp { .. } => "key".to_owned(),
            Self::Stranger { .. } => "nobody".to_owned(),
        }
    }

    /// From where: `pid 1234`, `10.0.0.1:40000`.
    pub(crate) fn from(&self) -> String {
        match self {
            Self::Unix { pid: Some(pid), .. } => format!("pid {pid}"),
            Self::Unix { pid: None, .. } => "unix socket".to_owned(),
            Self::Tcp { from } | Self::Stranger { from } => from.to_string(),
        }
    }
}

/// The door a connection came through.
#[derive(Clone, Copy, Debug)]
pub(super) enum Door {
    /// The Unix socket.
    Unix { uid: u32, gid: u32, pid: Option<i32> },
    /// TCP.
    Tcp {
        from: SocketAddr,
        /// We listen on loopback only.
        is_loopback: bool,
    },
}

impl Door {
    pub(super) fn unix(peer: &UCred) -> Self {
        Self::Unix { uid: peer.uid(), gid: peer.gid(), pid: peer.pid() }
    }

    /// Whom the number of requests is counted for.
    pub(super) fn payer(self) -> Payer {
        match self {
            Self::Unix { uid, .. } => Payer::User(uid),
            Self::Tcp { from, .. } => Payer::Address(match from.ip().to_canonical() {
                // Whoever has one address of a /64 has them all.
                IpAddr::V6(ip) => IpAddr::V6((u128::from(ip) >> 64 << 64).into()),
                ip @ IpAddr::V4(_) => ip,
            }),
        }
    }

    pub(super) fn caller(self, has_key: bool) -> Caller {
        match self {
            Self::Unix { uid, gid, pid } => Caller::Unix { uid, gid, pid },
            Self::Tcp { from, .. } if has_key => Caller::Tcp { from },
            Self::Tcp { from, .. } => Caller::Stranger { from },
        }
    }
}

/// A caller, over several connections.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub(super) enum Owner {
    User(u32),
    Address(IpAddr),
}

/// Whose requests are counted together.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub(super) enum Payer {
    User(u32),
    Address(IpAddr),
    /// Those for whom there is no more room.
    Others,
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn callers_are_told_apart() {
        let unix = Caller::Unix { uid: 7, gid: 8, pid: Some(9) };
        assert_eq!((unix.who(), unix.from()), ("uid 7 gid 8".to_owned(), "pid 9".to_owned()));
        let payer = |from: &str| Door::Tcp { from: from.parse().unwrap(), is_loopback: false }.payer();
        assert_eq!(payer("[fd00::1]:1"), payer("[fd00::2]:2"));
        assert_eq!(payer("[::ffff:10.0.0.1]:1"), payer("10.0.0.1:2"));
        assert_ne!(payer("10.0.0.1:1"), payer("10.0.0.2:1"));
    }
}
