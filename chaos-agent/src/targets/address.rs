//! Addresses, ranges and `host:port`: ends of a conversation that are not ours to attach to.

use std::{
    io,
    net::{IpAddr, ToSocketAddrs},
};

use ipnet::IpNet;

use super::{Depth, Identity, Kind, Resolved, Target, TargetError};
use crate::{
    netns::Netns,
    spec::{Endpoint, PortRange},
};

/// A peer that is only an address. It is what it is: nothing to watch.
pub(super) struct Address {
    target: Target,
}

impl Address {
    pub(super) fn new(target: Target) -> Self {
        Self { target }
    }
}

impl Kind for Address {
    fn find(&mut self, _depth: Depth) -> Result<Resolved, TargetError> {
        let identities = addresses_of(&self.target, None)?
            .into_iter()
            .map(|endpoint| Identity { endpoint, home: None, passing: false })
            .collect();
        Ok(Resolved { namespaces: Vec::new(), cgroups: Vec::new(), identities })
    }

    fn stale(&mut self) -> bool {
        false
    }
}

/// The endpoints of [`Target::Net`] and [`Target::HostPort`]; a name is resolved inside `within` (none = the
/// caller's namespace) by getaddrinfo(3), with this process's own resolv.conf and hosts file. Empty for
/// other kinds of target.
pub fn addresses_of(target: &Target, within: Option<&Netns>) -> Result<Vec<Endpoint>, TargetError> {
    match target {
        Target::Net(net) => Ok(vec![Endpoint { net: Some(*net), ports: None }]),
        Target::HostPort { host, port } => {
            let ports = Some(PortRange { first: *port, last: *port });
            let addresses = match within {
                Some(netns) => netns.run(|| look_up(host, *port))?,
                None => look_up(host, *port),
            };
            let addresses =
                addresses.map_err(|source| TargetError::Unresolvable { host: host.clone(), source })?;
            Ok(addresses.into_iter().map(|addr| Endpoint { net: Some(IpNet::from(addr)), ports }).collect())
        }
        Target::Host | Target::Cgroup(_) | Target::Unit(_) | Target::NetnsName(_) | Target::Pid(_) => {
            Ok(Vec::new())
        }
    }
}

fn look_up(host: &str, port: u16) -> io::Result<Vec<IpAddr>> {
    let mut found: Vec<IpAddr> =
        (host, port).to_socket_addrs()?.map(|addr| addr.ip().to_canonical()).collect();
    found.sort_unstable();
    found.dedup();
    if found.is_empty() {
        return Err(io::Error::other("the name has no address"));
    }
    Ok(found)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_address_stands_for_itself() {
        let target: Target = "10.0.0.2:6379".parse().unwrap();
        let found = addresses_of(&target, None).unwrap();
        assert_eq!(found.len(), 1);
        assert_eq!(found[0].net, Some("10.0.0.2/32".parse().unwrap()));
        assert_eq!(found[0].ports, Some(PortRange { first: 6379, last: 6379 }));
        let target: Target = "10.0.0.0/8".parse().unwrap();
        assert_eq!(addresses_of(&target, None).unwrap()[0].ports, None);
    }

    #[test]
    fn a_name_without_address_is_an_error() {
        // RFC 6761: `.invalid` resolves nowhere.
        let target: Target = "nowhere.invalid:80".parse().unwrap();
        let error = addresses_of(&target, None).unwrap_err();
        assert!(error.to_string().contains("getent ahosts nowhere.invalid"), "{error}");
    }
}
