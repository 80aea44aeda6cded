//! Names as programs resolve them: `getaddrinfo` against a small server of ours, without touching the machine.
//!
//! The resolving program gets a mount namespace of its own with our `resolv.conf` and `nsswitch.conf` in it.

use std::{
    fs,
    net::{IpAddr, Ipv4Addr, Ipv6Addr},
    path::Path,
    time::Duration,
};

use anyhow::{Context, Result};
use serde::{Deserialize, Serialize};
use tempfile::TempDir;

use super::helper::{self, Beside, End};

/// What the server answers to every question for an IPv4 address.
pub const ANSWER4: Ipv4Addr = Ipv4Addr::new(192, 0, 2, 77);
/// What the server answers to every question for an IPv6 address.
pub const ANSWER6: Ipv6Addr = Ipv6Addr::new(0x2001, 0xdb8, 0, 0, 0, 0, 0, 0x77);

/// What `getaddrinfo` returned.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Resolved {
    /// 0, or an `EAI_` code (netdb.h): -2 is `EAI_NONAME`, -3 `EAI_AGAIN`.
    pub code: i32,
    /// In the order they were returned.
    pub addresses: Vec<IpAddr>,
    /// How long it took.
    pub took_ns: u64,
}

/// What the server was asked.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Asked {
    /// Questions over UDP.
    pub udp: u64,
    /// Questions over TCP.
    pub tcp: u64,
}

/// A name server that knows every name, at port 53 of an address, UDP and TCP.
#[derive(Debug)]
pub struct Server(Beside);

impl Server {
    /// Starts it.
    ///
    /// # Errors
    /// When the port is taken.
    pub fn start(end: End<'_>, address: IpAddr) -> Result<Self> {
        Beside::start(end, &format!("names {}", helper::at(address, 53))).map(Self)
    }

    /// Ends it and returns what it was asked.
    ///
    /// # Errors
    /// When it failed.
    pub fn finish(self) -> Result<Asked> {
        helper::record(&self.0.finish(Duration::from_secs(5))?)
    }
}

/// A resolver's configuration in a folder of its own.
#[derive(Debug)]
pub struct Resolver(TempDir);

impl Resolver {
    /// Asks this server, over UDP or, with `tcp`, over TCP only; two tries of one second.
    ///
    /// # Errors
    /// When the files cannot be written.
    pub fn new(server: IpAddr, tcp: bool) -> Result<Self> {
        let folder = tempfile::tempdir().context("a folder for resolv.conf")?;
        let options = if tcp { " use-vc" } else { "" };
        let text = format!("nameserver {server}\noptions timeout:1 attempts:2{options}\n");
        fs::write(folder.path().join("resolv.conf"), text)?;
        fs::write(folder.path().join("nsswitch.conf"), "hosts: dns\n")?;
        Ok(Self(folder))
    }

    fn path(&self) -> &Path {
        self.0.path()
    }

    /// Resolves a name as a program at this end would.
    ///
    /// # Errors
    /// When the program fails; a name that is not found is a result.
    pub fn resolve(&self, end: End<'_>, name: &str) -> Result<Resolved> {
        let line = format!("getaddrinfo {name} {}", self.path().display());
        helper::record(&helper::run(end, &line, Duration::from_secs(20))?)
    }
}

#[cfg(test)]
mod tests {
    use super::{ANSWER4, ANSWER6, Resolver, Server};
    use crate::{
        lab::{
            netns::Netns,
            shapes::{A4, B4, B6, Pair},
        },
        measure::helper::End,
    };

    #[test]
    fn a_name_is_resolved_over_udp_and_tcp_and_the_machine_is_not_touched() {
        crate::require_root!();
        let pair = Pair::new().unwrap();
        let before = std::fs::read("/etc/resolv.conf").unwrap();
        for address in [B4.into(), B6.into()] {
            let server = Server::start(End::plain(&pair.b), address).unwrap();
            for tcp in [false, true] {
                let resolver = Resolver::new(address, tcp).unwrap();
                let found = resolver.resolve(End::plain(&pair.a), "db.example.internal").unwrap();
                assert_eq!(found.code, 0);
                assert!(found.addresses.contains(&ANSWER4.into()), "{found:?}");
                assert!(found.addresses.contains(&ANSWER6.into()), "{found:?}");
            }
            let asked = server.finish().unwrap();
            assert_eq!((asked.udp, asked.tcp), (2, 2));
        }
        assert_eq!(std::fs::read("/etc/resolv.conf").unwrap(), before);
    }

    #[test]
    fn nobody_there_is_an_error_to_try_again() {
        crate::require_root!();
        let netns = Netns::new().unwrap();
        let resolver = Resolver::new(A4.into(), false).unwrap();
        let found = resolver.resolve(End::plain(&netns), "db.example.internal").unwrap();
        assert_eq!((found.code, found.addresses), (libc::EAI_AGAIN, vec![]));
    }
}
