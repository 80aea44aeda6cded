//! Client and server, and what runs in them all the time.

use std::{
    net::{IpAddr, Ipv4Addr},
    process::Command,
};

use anyhow::Result;
use chaos_tests::{
    bench::rules::{Cgroups, cgroups_of},
    lab::{
        process::{Process, serve},
        shapes::{B4, Pair},
    },
    measure::helper::{at, warm_up},
    redis,
    skip::find_tool,
};

use super::{condition::RULES, http};

/// Where the servers listen, and the proxy before them.
pub(super) mod port {
    pub(crate) const IPERF: u16 = 5201;
    pub(crate) const REDIS: u16 = 6379;
    pub(crate) const HTTP: u16 = 8080;
    pub(crate) const UDP: u16 = 9000;
}

/// Where the servers are without a proxy.
pub(super) const DIRECT: IpAddr = IpAddr::V4(B4);
/// Where the proxy listens: beside the client, the nearest it can be.
pub(super) const PROXIED: IpAddr = IpAddr::V4(Ipv4Addr::LOCALHOST);

/// The network, made ready.
pub(super) struct Place {
    /// Here something of ours may be.
    pub(super) tried: Lane,
    /// Here never.
    pub(super) bare: Lane,
    /// Targets on the client's side of the tried lane that send nothing.
    pub(super) cgroups: Cgroups,
}

/// Two namespaces: the client is in A, the servers are in B.
pub(super) struct Lane {
    pub(super) pair: Pair,
    _servers: Vec<Process>,
}

impl Place {
    pub(super) fn new() -> Result<Self> {
        let tried = Lane::new()?;
        let cgroups = Cgroups::new(&tried.pair.a, cgroups_of(RULES))?;
        Ok(Self { tried, bare: Lane::new()?, cgroups })
    }
}

impl Lane {
    fn new() -> Result<Self> {
        let pair = Pair::new()?;
        warm_up(&pair.a, DIRECT)?;
        let mut servers = Vec::new();
        if find_tool("iperf3").is_some() {
            let line = format!("iperf3 --server --port {}", port::IPERF);
            servers.push(serve(&pair.b, &line, at(DIRECT, port::IPERF))?);
        }
        if find_tool("redis-server").is_some() {
            servers.push(redis::start(&pair.b, at(DIRECT, port::REDIS), |command: Command| command)?);
        }
        http::serve(&pair.b, at(DIRECT, port::HTTP))?;
        Ok(Self { pair, _servers: servers })
    }
}
