//! The other end of a conversation as people write it: address, range, name, each with a port or not.

use std::{
    fmt,
    net::{IpAddr, Ipv6Addr},
    str::FromStr,
};

use ipnet::IpNet;

use super::units;
use crate::spec::{Endpoint, PortRange};

const FORM: &str = "write an address (10.0.0.5), a range (10.0.0.0/8), a name (db.example), or one with a port (redis:6379, [::1]:80)";

/// Words that begin a target selector; as a peer they would otherwise read as a host name.
const TARGET_WORDS: &[&str] = &["cgroup", "unit", "container", "pod", "netns", "pid"];

/// One `--peer` or `--except`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Peer {
    /// Who.
    pub(crate) host: PeerHost,
    /// On which ports; none means any.
    pub(crate) ports: Option<PortRange>,
}

/// Who the other end is.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum PeerHost {
    /// Addresses.
    Net(IpNet),
    /// A name that must be resolved first.
    Name(String),
}

impl Peer {
    /// The endpoints this stands for; `resolve` turns a name into its addresses.
    pub(crate) fn endpoints<E>(
        &self,
        resolve: impl FnOnce(&str) -> Result<Vec<IpAddr>, E>,
    ) -> Result<Vec<Endpoint>, E> {
        let nets = match &self.host {
            PeerHost::Net(net) => vec![*net],
            PeerHost::Name(name) => resolve(name)?.into_iter().map(IpNet::from).collect(),
        };
        Ok(nets.into_iter().map(|net| Endpoint { net: Some(net), ports: self.ports }).collect())
    }
}

impl fmt::Display for Peer {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let host = match &self.host {
            PeerHost::Net(net) => show_net(net),
            PeerHost::Name(name) => name.clone(),
        };
        match self.ports {
            None => f.write_str(&host),
            Some(ports) if host.contains(':') => write!(f, "[{host}]:{}", show_ports(ports)),
            Some(ports) => write!(f, "{host}:{}", show_ports(ports)),
        }
    }
}

/// A single address without its prefix length, a range with it.
pub(crate) fn show_net(net: &IpNet) -> String {
    if net.prefix_len() == net.max_prefix_len() { net.addr().to_string() } else { net.to_string() }
}

/// `80` or `8000-8100`.
pub(crate) fn show_ports(ports: PortRange) -> String {
    if ports.first == ports.last {
        ports.first.to_string()
    } else {
        format!("{}-{}", ports.first, ports.last)
    }
}

impl FromStr for Peer {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        units::refuse_option(text, FORM)?;
        if text == "host" {
            return Err(format!("`host` is a target, not a peer; {FORM}"));
        }
        if let Ok(net) = net(text) {
            return Ok(Self { host: PeerHost::Net(net), ports: None });
        }
        let (host, port_text) = split_port(text)?;
        if let Some(word) = TARGET_WORDS.iter().find(|word| **word == host && port_text.is_some()) {
            return Err(format!(
                "`{word}:` names a target, not a peer; cut two targets apart with `chaos partition A B`, or {FORM}"
            ));
        }
        let ports = port_text.map(units::ports).transpose().map_err(|error| format!("the port: {error}"))?;
        let host = match net(host) {
            Ok(net) => PeerHost::Net(net),
            Err(_) => PeerHost::Name(name(host)?),
        };
        Ok(Self { host, ports })
    }
}

/// An address or a range of addresses; bits below the prefix are dropped, as routing tools do.
pub(crate) fn net(text: &str) -> Result<IpNet, String> {
    if let Ok(addr) = text.parse::<IpAddr>() {
        return Ok(addr.into());
    }
    text.parse::<IpNet>().map(|net| net.trunc()).map_err(|_| {
        if text.contains(':') && !text.contains("::") && text.matches(':').count() == 1 {
            "an address without a port is wanted here; the target's ports go to --local-port".to_owned()
        } else {
            "write an address such as 10.0.0.5 or ::1, or a range such as 10.0.0.0/8".to_owned()
        }
    })
}

/// Splits `host:port`; an IPv6 address needs brackets to carry a port.
fn split_port(text: &str) -> Result<(&str, Option<&str>), String> {
    if let Some(rest) = text.strip_prefix('[') {
        let (host, rest) =
            rest.split_once(']').ok_or_else(|| format!("the bracket is not closed; {FORM}"))?;
        if host.parse::<Ipv6Addr>().is_err() && host.parse::<IpNet>().is_err() {
            return Err(format!("`{host}` in brackets is not an IPv6 address; {FORM}"));
        }
        return match rest.strip_prefix(':') {
            Some(port) => Ok((host, Some(port))),
            None if rest.is_empty() => Ok((host, None)),
            None => Err(format!("`{rest}` after the bracket is not a port; {FORM}")),
        };
    }
    match text.rsplit_once(':') {
        None => Ok((text, None)),
        Some((host, _)) if host.contains(':') => {
            Err(format!("an IPv6 address with a port needs brackets, such as [::1]:80; {FORM}"))
        }
        Some(("", _)) => Err(format!("a port alone goes to --peer-port; {FORM}")),
        Some((host, port)) => Ok((host, Some(port))),
    }
}

/// A host name (RFC 1123, section 2.1; underscores as service names use them, RFC 8552).
fn name(text: &str) -> Result<String, String> {
    let label = |label: &str| {
        (1..=63).contains(&label.len())
            && !label.starts_with('-')
            && !label.ends_with('-')
            && label.bytes().all(|byte| byte.is_ascii_alphanumeric() || byte == b'-' || byte == b'_')
    };
    let trimmed = text.strip_suffix('.').unwrap_or(text);
    let looks_like_address = trimmed.bytes().all(|byte| byte.is_ascii_digit() || byte == b'.');
    if trimmed.len() <= 253 && trimmed.split('.').all(label) && !looks_like_address {
        return Ok(text.to_owned());
    }
    Err(format!("`{text}` is neither an address nor a host name; {FORM}"))
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn peer(text: &str) -> Peer {
        text.parse().unwrap_or_else(|error| panic!("{text}: {error}"))
    }

    #[test]
    fn every_form_is_read_and_shown_back() {
        for text in [
            "10.0.0.5",
            "10.0.0.0/8",
            "::1",
            "fd00::/8",
            "db.example",
            "redis:6379",
            "10.0.0.5:80",
            "[::1]:80",
            "10.0.0.0/8:8000-8100",
            "[fd00::/8]:443",
            "_srv.db-1.example.",
        ] {
            assert_eq!(peer(text).to_string(), text);
        }
        assert_eq!(peer("10.1.2.3/8").to_string(), "10.0.0.0/8");
    }

    #[test]
    fn wrong_peers_say_what_is_accepted() {
        for (text, phrase) in [
            ("host", "is a target, not a peer"),
            ("unit:redis", "chaos partition A B"),
            ("fd00::1:2:3:4:5:6:7:8", "needs brackets"),
            ("[::1", "bracket is not closed"),
            ("[redis]:80", "not an IPv6 address"),
            (":80", "--peer-port"),
            ("redis:http", "from 1 to 65535"),
            ("redis:0", "from 1 to 65535"),
            ("999.1.1.1", "neither an address nor a host name"),
            ("10.0.0.0/33", "neither an address nor a host name"),
            ("a b", "neither an address"),
            ("", "neither an address"),
            ("--json", "the value is missing"),
        ] {
            let error = text.parse::<Peer>().expect_err(text);
            assert!(error.contains(phrase), "{text}: {error}");
        }
    }

    #[test]
    fn a_name_becomes_one_endpoint_per_address() {
        let found = peer("redis:6379").endpoints(|name| {
            assert_eq!(name, "redis");
            Ok::<_, String>(vec!["10.0.0.1".parse().unwrap(), "::1".parse().unwrap()])
        });
        let found = found.unwrap();
        assert_eq!(found.len(), 2);
        assert!(found.iter().all(|endpoint| endpoint.ports == Some(PortRange { first: 6379, last: 6379 })));
    }

    proptest! {
        #[test]
        fn never_panics(text in "\\PC{0,40}") {
            let _ = text.parse::<Peer>();
        }

        #[test]
        fn what_was_shown_reads_back(addr: IpAddr, port in 1_u16..) {
            for ports in [None, Some(PortRange { first: port, last: port })] {
                let peer = Peer { host: PeerHost::Net(addr.into()), ports };
                prop_assert_eq!(peer.to_string().parse::<Peer>(), Ok(peer));
            }
        }
    }
}
