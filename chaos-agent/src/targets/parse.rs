//! How a target is written.

use std::{
    fmt,
    net::{IpAddr, Ipv6Addr},
    path::{Component, Path, PathBuf},
    str::FromStr,
};

use ipnet::IpNet;

use super::Target;

/// Every accepted form, one per line, as help and errors show it.
pub const ACCEPTED: &str = "  host                 this machine
  cgroup:/path         a cgroup v2 directory and everything below it, as in /proc/PID/cgroup
  unit:name.service    a systemd unit
  netns:name           a network namespace of `ip netns list`
  pid:1234             the network namespace of a process (also netns:pid:1234)
  10.0.0.2, fd00::/64  an address or a range (as a peer)
  redis:6379           a host name or address and a port (as a peer); IPv6 as [fd00::1]:6379";

/// A target that cannot be read.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum TargetParseError {
    /// None of the forms.
    #[error("`{text}` names no target: {why}. Accepted is:\n{ACCEPTED}")]
    Unknown {
        /// What was typed.
        text: String,
        /// What is wrong with it.
        why: String,
    },
    /// A form that is planned.
    #[error(
        "`{text}`: containers are not a target yet; use the container's namespace or cgroup instead: {instead}"
    )]
    NotYet {
        /// What was typed.
        text: String,
        /// A command line that works today.
        instead: String,
    },
}

impl FromStr for Target {
    type Err = TargetParseError;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        let unknown = |why: String| TargetParseError::Unknown { text: text.to_owned(), why };
        if text == "host" {
            return Ok(Self::Host);
        }
        if let Ok(net) = parse_net(text) {
            return Ok(Self::Net(net));
        }
        if let Some((prefix, rest)) = text.split_once(':')
            && let Some(parsed) = parse_prefixed(text, prefix, rest)
        {
            return parsed.map_err(|error| match error {
                Failure::Wrong(why) => unknown(why),
                Failure::Refused(error) => error,
            });
        }
        parse_host_port(text).map_err(unknown)
    }
}

/// Wrong in itself, or not supported yet.
enum Failure {
    Wrong(String),
    Refused(TargetParseError),
}

impl From<String> for Failure {
    fn from(why: String) -> Self {
        Self::Wrong(why)
    }
}

/// The forms that begin with a word of ours; none = not such a word. `host:6379` is a host called `host`.
fn parse_prefixed(text: &str, prefix: &str, rest: &str) -> Option<Result<Target, Failure>> {
    Some(match prefix {
        "cgroup" => parse_cgroup(rest).map_err(Failure::from),
        "unit" => parse_unit(rest).map_err(Failure::from),
        "pid" => parse_pid(rest).map_err(Failure::from),
        "netns" => match rest.strip_prefix("pid:") {
            Some(pid) => parse_pid(pid).map_err(Failure::from),
            None => parse_netns(rest).map_err(Failure::from),
        },
        "container" => Err(Failure::Refused(not_yet(
            text,
            format!("pid:$(docker inspect -f '{{{{.State.Pid}}}}' {})", word(rest, "NAME")),
        ))),
        "pod" => Err(Failure::Refused(not_yet(
            text,
            "on the pod's node, pid:PID with a process of the pod, from `crictl inspect CONTAINER`"
                .to_owned(),
        ))),
        _ => return None,
    })
}

fn not_yet(text: &str, instead: String) -> TargetParseError {
    TargetParseError::NotYet { text: text.to_owned(), instead }
}

fn word<'a>(text: &'a str, placeholder: &'a str) -> &'a str {
    if text.is_empty() { placeholder } else { text }
}

fn parse_cgroup(text: &str) -> Result<Target, String> {
    let path = Path::new(text);
    if path.as_os_str().is_empty() {
        return Err("the path of the cgroup is missing".to_owned());
    }
    // PATH_MAX and NAME_MAX of include/uapi/linux/limits.h; the mount point comes before the path.
    if text.contains('\0') || text.len() > 3072 || text.split('/').any(|part| part.len() > 255) {
        return Err("a cgroup path has at most 3072 bytes, 255 in each part, and none that is 0".to_owned());
    }
    let below = path.strip_prefix("/").unwrap_or(path);
    let mut clean = PathBuf::from("/");
    for part in below.components() {
        match part {
            Component::Normal(part) => clean.push(part),
            Component::CurDir => {}
            Component::ParentDir | Component::RootDir | Component::Prefix(_) => {
                return Err("a cgroup path may not contain `..`".to_owned());
            }
        }
    }
    Ok(Target::Cgroup(clean))
}

fn parse_unit(name: &str) -> Result<Target, String> {
    // systemd.unit(5): letters, digits and :-_.\ with @ for instances.
    let valid = |byte: u8| byte.is_ascii_alphanumeric() || b":-_.\\@".contains(&byte);
    if name.is_empty() || name.len() > 255 || !name.bytes().all(valid) {
        return Err("a unit name has 1 to 255 letters, digits and `:-_.\\@`".to_owned());
    }
    Ok(Target::Unit(name.to_owned()))
}

fn parse_netns(name: &str) -> Result<Target, String> {
    if !(1..=255).contains(&name.len()) || name.contains(['/', '\0']) || name == "." || name == ".." {
        return Err("a namespace name has 1 to 255 bytes, no `/` and none that is 0".to_owned());
    }
    Ok(Target::NetnsName(name.to_owned()))
}

fn parse_pid(pid: &str) -> Result<Target, String> {
    match pid.parse() {
        Ok(pid) if pid > 0 => Ok(Target::Pid(pid)),
        _ => Err(format!("`{pid}` is no process id (1 to {})", i32::MAX)),
    }
}

/// An address or a range; bits behind the prefix are cleared.
fn parse_net(text: &str) -> Result<IpNet, ()> {
    let bare = text.strip_prefix('[').and_then(|inner| inner.strip_suffix(']')).unwrap_or(text);
    if let Ok(addr) = bare.parse::<IpAddr>() {
        return Ok(addr.into());
    }
    text.parse::<IpNet>().map(|net| net.trunc()).map_err(drop)
}

fn parse_host_port(text: &str) -> Result<Target, String> {
    if let Some((_, prefix)) = text.split_once('/')
        && prefix.parse::<u8>().is_ok()
    {
        return Err(
            "the range is wrong: an IPv4 address and /0 to /32, or an IPv6 address and /0 to /128".into()
        );
    }
    let (host, port) = match text.strip_prefix('[').and_then(|rest| rest.split_once("]:")) {
        Some((host, port)) => {
            host.parse::<Ipv6Addr>().map_err(|_| format!("`{host}` is no IPv6 address"))?;
            (host, port)
        }
        None => text.rsplit_once(':').ok_or_else(|| {
            format!(
                "it is neither an address nor a known word, and a host name needs a port, such as `{text}:80`"
            )
        })?,
    };
    let named = host.parse::<IpAddr>().is_ok() || is_host_name(host);
    if !named {
        return Err(format!("`{host}` is no host name, no address and no kind of target"));
    }
    match port.parse::<u16>() {
        Ok(port) if port > 0 => Ok(Target::HostPort { host: host.to_owned(), port }),
        _ => Err(format!("`{port}` is no port (1 to 65535), and `{host}` is no kind of target")),
    }
}

/// RFC 1123, with `_` as service discovery has it.
fn is_host_name(name: &str) -> bool {
    let label = |label: &str| {
        !label.is_empty()
            && label.len() <= 63
            && label.bytes().all(|byte| byte.is_ascii_alphanumeric() || byte == b'-' || byte == b'_')
    };
    name.len() <= 253 && name.strip_suffix('.').unwrap_or(name).split('.').all(label)
}

impl fmt::Display for Target {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Host => f.write_str("host"),
            Self::Cgroup(path) => write!(f, "cgroup:{}", path.display()),
            Self::Unit(name) => write!(f, "unit:{name}"),
            Self::NetnsName(name) => write!(f, "netns:{name}"),
            Self::Pid(pid) => write!(f, "pid:{pid}"),
            Self::Net(net) if net.prefix_len() == net.max_prefix_len() => write!(f, "{}", net.addr()),
            Self::Net(net) => write!(f, "{net}"),
            Self::HostPort { host, port } if host.contains(':') => write!(f, "[{host}]:{port}"),
            Self::HostPort { host, port } => write!(f, "{host}:{port}"),
        }
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn parse(text: &str) -> Target {
        text.parse().unwrap()
    }

    #[test]
    fn every_form_is_read() {
        let host_port = |host: &str, port| Target::HostPort { host: host.to_owned(), port };
        for (text, target) in [
            ("host", Target::Host),
            ("host:80", host_port("host", 80)),
            ("cgroup:/a/b", Target::Cgroup("/a/b".into())),
            ("cgroup:a//b/./", Target::Cgroup("/a/b".into())),
            ("cgroup:/", Target::Cgroup("/".into())),
            ("unit:api", Target::Unit("api".to_owned())),
            ("unit:foo@b\\x2dar.service", Target::Unit("foo@b\\x2dar.service".to_owned())),
            ("netns:blue", Target::NetnsName("blue".to_owned())),
            ("netns:pid:7", Target::Pid(7)),
            ("pid:7", Target::Pid(7)),
            ("10.0.0.2", Target::Net("10.0.0.2/32".parse().unwrap())),
            ("10.1.2.3/8", Target::Net("10.0.0.0/8".parse().unwrap())),
            ("::1", Target::Net("::1/128".parse().unwrap())),
            ("[fd00::1]", Target::Net("fd00::1/128".parse().unwrap())),
            ("fd00::/64", Target::Net("fd00::/64".parse().unwrap())),
            ("10.0.0.2:6379", host_port("10.0.0.2", 6379)),
            ("[fd00::1]:6379", host_port("fd00::1", 6379)),
            ("redis:6379", host_port("redis", 6379)),
            ("api.example.org.:443", host_port("api.example.org.", 443)),
        ] {
            assert_eq!(parse(text), target, "{text}");
            assert_eq!(parse(&target.to_string()), target, "{text} shown and read again");
        }
    }

    #[test]
    fn what_is_wrong_is_refused_with_what_is_accepted() {
        for text in [
            "",
            "redis",
            "cgroup:",
            "cgroup:/a/../b",
            "unit:",
            "unit:a b",
            "netns:",
            "netns:a/b",
            "pid:0",
            "pid:-1",
            "pid:x",
            "netns:pid:",
            "10.0.0.0/33",
            "fd00::/129",
            "redis:0",
            "redis:65536",
            "redis:",
            ":80",
            "[fd00::1]:",
            "[redis]:80",
            "foo:bar",
            "re dis:80",
            "-",
            "1.2.3.4:80:90",
        ] {
            let error = text.parse::<Target>().unwrap_err().to_string();
            assert!(error.contains("unit:name.service"), "{text}: {error}");
        }
    }

    #[test]
    fn containers_and_pods_are_refused_with_what_works() {
        let error = "container:redis".parse::<Target>().unwrap_err().to_string();
        assert!(error.contains("pid:$(docker inspect -f '{{.State.Pid}}' redis)"), "{error}");
        let error = "pod:default/web".parse::<Target>().unwrap_err().to_string();
        assert!(error.contains("crictl"), "{error}");
    }

    proptest! {
        #[test]
        fn whatever_is_typed_is_answered(text in "\\PC{0,40}") {
            if let Ok(target) = text.parse::<Target>() {
                prop_assert_eq!(target.to_string().parse::<Target>().unwrap(), target);
            }
        }
    }
}
