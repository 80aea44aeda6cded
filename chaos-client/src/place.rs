//! Where an agent is.

use std::{env, fmt, path::PathBuf};

use crate::Error;

/// The socket of an agent that was not told otherwise.
pub const DEFAULT_SOCKET: &str = "/run/chaos/agent.sock";

/// Where an agent listens.
#[derive(Clone, PartialEq, Eq)]
pub enum Place {
    /// A Unix socket.
    Socket(PathBuf),
    /// TCP.
    Url {
        /// Such as `http://127.0.0.1:8473`, without a path.
        url: String,
        /// What the agent was given as `CHAOS_KEY` or `--key-file`.
        key: Option<String>,
    },
}

impl Place {
    /// `CHAOS_URL` with `CHAOS_KEY`, else `CHAOS_SOCKET`, else [`DEFAULT_SOCKET`].
    ///
    /// # Errors
    /// [`Error::Setting`]: the URL is none.
    pub fn from_env() -> Result<Self, Error> {
        let word = |name: &str| env::var(name).ok().filter(|word| !word.is_empty());
        if let Some(url) = word("CHAOS_URL") {
            return Self::url(&url, word("CHAOS_KEY"));
        }
        Ok(Self::Socket(word("CHAOS_SOCKET").unwrap_or_else(|| DEFAULT_SOCKET.to_owned()).into()))
    }

    /// An agent that listens on TCP.
    ///
    /// # Errors
    /// [`Error::Setting`]: the URL is none, has a path, or needs a feature that was not built in.
    pub fn url(url: &str, key: Option<String>) -> Result<Self, Error> {
        let wrong = |why: &str| Err(Error::Setting(format!("the agent's URL `{url}` {why}")));
        let address = url.trim_end_matches('/');
        let authority = match address.split_once("://") {
            Some(("http", authority)) => authority,
            Some(("https", authority)) if cfg!(feature = "tls") => authority,
            Some(("https", _)) => return wrong("needs chaos-client with the feature `tls`"),
            _ => return wrong("is none; write one such as http://127.0.0.1:8473"),
        };
        if authority.is_empty() || authority.contains(['/', '?', '#', '@']) {
            return wrong("has more than a host and a port; write one such as http://127.0.0.1:8473");
        }
        Ok(Self::Url { url: address.to_owned(), key })
    }

    /// What stands before the path of every question.
    pub(crate) fn base(&self) -> &str {
        match self {
            // HTTP/1.1 wants the name of a host; a socket has none.
            Self::Socket(_) => "http://localhost",
            Self::Url { url, .. } => url,
        }
    }
}

impl fmt::Display for Place {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Socket(path) => path.display().fmt(f),
            Self::Url { url, .. } => url.fmt(f),
        }
    }
}

/// Without the key.
impl fmt::Debug for Place {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Place({self})")
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_a_host_and_a_port_are_a_place() {
        let place = Place::url("http://127.0.0.1:8473/", Some("secret".to_owned())).unwrap();
        assert_eq!(place.base(), "http://127.0.0.1:8473");
        assert!(!format!("{place:?} {place}").contains("secret"), "a key is never shown");
        for wrong in ["", "127.0.0.1:8473", "ftp://a", "http://", "http://a/v1", "http://a@b"] {
            assert!(matches!(Place::url(wrong, None), Err(Error::Setting(_))), "{wrong}");
        }
    }
}
