//! How a condition is written: `http=http://10.0.0.1:8080/health,within=500ms,fails=3/5`.

use std::{str::FromStr, time::Duration};

use super::{Abort, Look};
use crate::cli::units;

const FORM: &str = "write http=URL[,status=200-399][,within=1s], tcp=HOST:PORT[,within=1s], command=WORDS[,within=5s], \
handshakes=SHARE or retransmits=+SHARE, then [,every=1s][,fails=3/5][,in=target]; a command comes last";

/// Looks more often than this are no looks but load.
const OFTEN: Duration = Duration::from_millis(50);
/// So many looks are remembered at most.
const LOOKS: usize = 1000;

impl FromStr for Abort {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        let (first, rest) = options(text)?;
        let (kind, value) = first.split_once('=').ok_or_else(|| FORM.to_owned())?;
        let mut options = Options {
            within: None,
            status: None,
            every: Duration::from_secs(1),
            fails: (3, 5),
            in_target: false,
        };
        for option in rest {
            options.read(option)?;
        }
        let default = if kind == "command" { 5 } else { 1 };
        let within = options.within.unwrap_or(Duration::from_secs(default));
        let look = look(kind, value, within, &options)?;
        let (breaches, of) = options.fails;
        let abort = Self {
            look,
            every: options.every,
            breaches,
            of,
            in_target: options.in_target,
            text: text.to_owned(),
        };
        Ok(abort)
    }
}

struct Options {
    within: Option<Duration>,
    status: Option<(u16, u16)>,
    every: Duration,
    fails: (usize, usize),
    in_target: bool,
}

impl Options {
    fn read(&mut self, option: &str) -> Result<(), String> {
        match option.split_once('=') {
            Some(("within", time)) => self.within = Some(some(units::duration(time)?, time)?),
            Some(("every", time)) => {
                self.every = units::duration(time)?;
                if self.every < OFTEN {
                    return Err(format!("every={time}: at least {}", units::show_duration(OFTEN)));
                }
            }
            Some(("status", range)) => {
                let (first, last) = range.split_once('-').unwrap_or((range, range));
                let code = |text: &str| text.parse().ok().filter(|code| (100..600).contains(code));
                self.status = code(first).zip(code(last)).filter(|(first, last)| first <= last);
                self.status.ok_or_else(|| format!("status={range}: write 200 or 200-399"))?;
            }
            Some(("fails", share)) => {
                let (breaches, of) = share.split_once('/').unwrap_or((share, share));
                let read = breaches.parse().ok().zip(of.parse().ok());
                self.fails = read
                    .filter(|(breaches, of)| (1..=*of).contains(breaches) && *of <= LOOKS)
                    .ok_or_else(|| format!("fails={share}: write 3/5 for three of the last five, or 1"))?;
            }
            Some(("in", "target")) => self.in_target = true,
            _ => return Err(format!("`{option}`: {FORM}")),
        }
        Ok(())
    }
}

/// A command may hold commas, so everything behind it is its own; its options come before it.
fn options(text: &str) -> Result<(&str, Vec<&str>), String> {
    if let Some(at) =
        text.find("command=").filter(|at| *at == 0 || text.as_bytes().get(at - 1) == Some(&b','))
    {
        let (before, command) = text.split_at(at);
        let before = before.trim_end_matches(',');
        return Ok((command, before.split(',').filter(|option| !option.is_empty()).collect()));
    }
    let mut parts = text.split(',');
    let first = parts.next().ok_or_else(|| FORM.to_owned())?;
    Ok((first, parts.collect()))
}

fn look(kind: &str, value: &str, within: Duration, options: &Options) -> Result<Look, String> {
    let only_http = kind == "http" || options.status.is_none();
    let is_probe = matches!(kind, "http" | "tcp" | "command");
    if !only_http || (!is_probe && options.within.is_some()) {
        return Err(format!("`{kind}` has no such option: {FORM}"));
    }
    match kind {
        "http" => {
            let (authority, path) = url(value)?;
            Ok(Look::Http { authority, path, status: options.status.unwrap_or((200, 399)), within })
        }
        "tcp" => Ok(Look::Tcp { authority: authority(value, None)?, within }),
        "command" if value.trim().is_empty() => Err(FORM.to_owned()),
        "command" => Ok(Look::Command { command: value.to_owned(), within }),
        "handshakes" => Ok(Look::Handshakes { share: share(value)? }),
        "retransmits" => Ok(Look::Retransmits { margin: share(value.strip_prefix('+').unwrap_or(value))? }),
        _ => Err(format!("`{kind}`: {FORM}")),
    }
}

fn some(time: Duration, text: &str) -> Result<Duration, String> {
    if time.is_zero() { Err(format!("within={text}: more than 0")) } else { Ok(time) }
}

fn share(text: &str) -> Result<f64, String> {
    let form = || format!("`{text}`: write a share such as 10% or 0.1");
    let number = match text.strip_suffix('%') {
        Some(percent) => percent.parse::<f64>().map_err(|_| form())? / 100.0,
        None => text.parse().map_err(|_| form())?,
    };
    if (0.0..=1.0).contains(&number) { Ok(number) } else { Err(form()) }
}

fn url(text: &str) -> Result<(String, String), String> {
    if text.starts_with("https:") {
        return Err("https is not spoken here: use command=curl ... or probe the plain port".to_owned());
    }
    let rest =
        text.strip_prefix("http://").ok_or_else(|| format!("`{text}`: write http://HOST[:PORT]/PATH"))?;
    let end = rest.find(['/', '?']).unwrap_or(rest.len());
    let (host, path) = rest.split_at(end);
    let path = if path.starts_with('/') { path.to_owned() } else { format!("/{path}") };
    if path.bytes().any(|byte| byte <= b' ' || byte == 0x7f) {
        return Err(format!("`{text}`: a path has no spaces"));
    }
    Ok((authority(host, Some(80))?, path))
}

fn authority(text: &str, port: Option<u16>) -> Result<String, String> {
    let form = || format!("`{text}`: write HOST:PORT, IPv6 as [fd00::1]:80");
    let (host, digits) = match text.rsplit_once(':') {
        Some((host, digits)) if !digits.contains(']') => (host, Some(digits)),
        _ => (text, None),
    };
    let port = match digits {
        Some(digits) => digits.parse().ok(),
        None => port,
    };
    let is_host = |byte: u8| byte.is_ascii_alphanumeric() || b".-_:[]%".contains(&byte);
    let is_bare_v6 = host.contains(':') && !host.starts_with('[');
    if host.is_empty() || !host.bytes().all(is_host) || is_bare_v6 {
        return Err(form());
    }
    port.filter(|port: &u16| *port > 0).map(|port| format!("{host}:{port}")).ok_or_else(form)
}
