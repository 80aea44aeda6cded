//! `dns`: queries for the names of a list fail, wait, vanish or get a chosen address.
//!
//! A query is judged by its own bytes, over UDP and over TCP (where the connection is reset instead of
//! answered), so names that are not on the list are untouched.

#[cfg(feature = "user")]
use std::net::{Ipv4Addr, Ipv6Addr};

use super::{Case, Fault, FaultKind, NoState};
#[cfg(feature = "user")]
use super::{DefaultDirection, FaultInfo, Faults, Need, Value};
#[cfg(feature = "user")]
use crate::{
    dns::{code, patterns, shape},
    units::{parse_duration, show_duration},
};
use crate::{
    packet::{Addr, Class, mapped},
    verdict::{Answer, Verdict, answers},
    world::World,
};

/// Names and patterns that one rule may list.
pub const NAMES_MAX: usize = 8;

/// What happens to a query, in [`Dns::mode`]; 0 = the fault is off.
pub mod mode {
    /// It is answered: [`super::Dns::code`] says how.
    pub const ANSWER: u32 = 1;
    /// It waits.
    pub const DELAY: u32 = 2;
    /// It vanishes.
    pub const SILENCE: u32 = 3;
}

/// Parameters of DNS faults.
#[repr(C)]
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Dns {
    /// See [`mode`].
    pub mode: u32,
    /// Names on the list; the first of [`Dns::names`] are valid.
    pub count: u32,
    /// Numbers of names and patterns in the kernel's table (`chaos_common::dns::patterns`).
    pub names: [u32; NAMES_MAX],
    /// How long a query waits, nanoseconds.
    pub delay_ns: u64,
    /// Response code and flags of the answer: see [`crate::dns::code`].
    pub code: u32,
    /// Which addresses the answer has: see [`crate::dns::shape`].
    pub shape: u32,
    /// IPv4 address, network byte order.
    pub addr4: u32,
    /// Keeps the next field aligned.
    pub reserved: u32,
    /// IPv6 address, network byte order.
    pub addr6: Addr,
}

impl Dns {
    /// The packet asks for a name on the list.
    #[inline(always)]
    fn is_asked<W: World>(&self, case: &Case<'_, W>) -> bool {
        if !case.world.read_question(case.job) {
            return false;
        }
        let mut left = self.count;
        for name in &self.names {
            if left == 0 {
                return false;
            }
            if case.world.matches_name(*name) {
                return true;
            }
            left = left.wrapping_sub(1);
        }
        false
    }
}

impl Fault for Dns {
    type State = NoState;

    #[inline(always)]
    fn is_off(&self) -> bool {
        self.mode == 0
    }

    /// A query is one wire packet.
    #[inline(always)]
    fn needs_wire(&self) -> bool {
        false
    }

    fn needs_line(&self) -> bool {
        self.mode == mode::DELAY
    }

    #[inline(always)]
    fn decide<W: World>(&self, _state: &NoState, case: &Case<'_, W>, verdict: &mut Verdict) {
        if !self.is_asked(case) {
            return;
        }
        match self.mode {
            mode::SILENCE => verdict.drop(FaultKind::Dns),
            mode::DELAY => verdict.delay(FaultKind::Dns, self.delay_ns),
            mode::ANSWER => {
                let what = if case.job.packet.class == Class::TCP { answers::RESET } else { answers::DNS };
                verdict.answer(
                    FaultKind::Dns,
                    Answer {
                        what,
                        code: self.code,
                        code6: self.shape,
                        mtu: 0,
                        address: mapped(self.addr4),
                        address6: self.addr6,
                    },
                );
            }
            _ => {}
        }
    }

    #[cfg(feature = "user")]
    fn blind_spots(&self) -> &'static [&'static str] {
        if self.is_off() { &[] } else { &BLIND_SPOTS }
    }
}

/// What a DNS fault cannot see, for `--explain`.
#[cfg(feature = "user")]
const BLIND_SPOTS: [&str; 4] = [
    "dns sees queries to port 53 over UDP and TCP (127.0.0.53 and Docker's 127.0.0.11, too); not DNS over HTTPS or TLS (DoH, DoT), mDNS, LLMNR, /etc/hosts, nor names that the program or a cache remembers",
    "queries that a daemon makes for the program (nscd, systemd-resolved through nss-resolve, dnsmasq) belong to the daemon: they are hit only if it is a target, too",
    "names are compared as they are asked for: with a search list, `redis` is asked for as redis.SEARCH-DOMAIN first, which `redis.*` means, too",
    "over TCP a query is answered by a reset, and is seen only if its length and its message come in one segment",
];

/// What the host says about this kind.
#[cfg(feature = "user")]
pub(super) const INFO: FaultInfo = FaultInfo {
    kind: FaultKind::Dns,
    name: "dns",
    value: Value::Required("ACTION:NAMES"),
    help: "DNS queries for names (api.example.com,*.internal,db-?.corp) get nxdomain, servfail, refused, truncate, \
           silence, delay=200ms or address=10.0.0.9 (address=[10.0.0.9,fd00::9] for both families)",
    default_direction: DefaultDirection::Egress,
    parse,
    describe,
    check: None,
    protos: &[Class::UDP, Class::TCP],
    ports: &[crate::dns::PORT],
    needs: &[Need::Line],
};

#[cfg(feature = "user")]
const FORM: &str = "write ACTION:NAME[,NAME...], such as nxdomain:*.internal; actions are nxdomain, servfail, refused, truncate, silence, delay=200ms, address=10.0.0.9 and address=[10.0.0.9,fd00::9]";

#[cfg(feature = "user")]
fn parse(value: &str, faults: &mut Faults) -> Result<(), String> {
    let (action, names) = split(value).ok_or_else(|| format!("`{value}` names nothing: {FORM}"))?;
    let mut dns = parse_action(action)?;
    let before = faults.dns;
    if !before.is_off() {
        // The same action again adds names; a rule has one action.
        let same = Dns { count: dns.count, names: dns.names, ..before };
        if same != dns {
            return Err(format!(
                "`{value}`: a rule has one dns action, and this one has `{}` already; give the other action a rule of its own",
                words(&before)
            ));
        }
        dns = before;
    }
    for name in names.split(',').map(str::trim) {
        let number = patterns::intern(name)?;
        let known = dns.names.get(..dns.count as usize).unwrap_or_default();
        if known.contains(&number) {
            continue;
        }
        let place = dns.names.get_mut(dns.count as usize);
        *place.ok_or_else(|| {
            format!("`{value}`: a rule lists at most {NAMES_MAX} names; a pattern such as *.internal stands for many")
        })? = number;
        dns.count = dns.count.saturating_add(1);
    }
    faults.dns = dns;
    Ok(())
}

/// Action and names; the colons of an address in brackets do not count.
#[cfg(feature = "user")]
fn split(value: &str) -> Option<(&str, &str)> {
    let from = if value.starts_with("address=[") { value.find(']')? } else { 0 };
    let colon = value.get(from..)?.find(':')?.checked_add(from)?;
    let (action, names) = (value.get(..colon)?, value.get(colon.checked_add(1)?..)?);
    (!names.trim().is_empty()).then_some((action, names))
}

#[cfg(feature = "user")]
fn parse_action(action: &str) -> Result<Dns, String> {
    let answer = |code| Dns { mode: mode::ANSWER, code, ..Dns::default() };
    Ok(match action.split_once('=') {
        None => match action.to_ascii_lowercase().as_str() {
            "nxdomain" => answer(code::NXDOMAIN),
            "servfail" => answer(code::SERVFAIL),
            "refused" => answer(code::REFUSED),
            "truncate" => answer(code::TRUNCATED),
            "silence" => Dns { mode: mode::SILENCE, ..Dns::default() },
            _ => return Err(format!("`{action}` is no dns action: {FORM}")),
        },
        Some(("delay", time)) => Dns { mode: mode::DELAY, delay_ns: parse_duration(time)?, ..Dns::default() },
        Some(("address", list)) => parse_addresses(list, answer(code::NOERROR))?,
        Some(_) => return Err(format!("`{action}` is no dns action: {FORM}")),
    })
}

#[cfg(feature = "user")]
fn parse_addresses(list: &str, mut dns: Dns) -> Result<Dns, String> {
    let inside = list.strip_prefix('[').and_then(|list| list.strip_suffix(']'));
    dns.shape = shape::ADDRESS;
    for text in inside.unwrap_or(list).split(',').map(str::trim) {
        let family = if let Ok(addr) = text.parse::<Ipv4Addr>() {
            dns.addr4 = u32::from_ne_bytes(addr.octets());
            shape::V4
        } else if let Ok(addr) = text.parse::<Ipv6Addr>() {
            let bytes = addr.octets();
            for (place, word) in dns.addr6.iter_mut().zip(bytes.as_chunks().0) {
                *place = u32::from_ne_bytes(*word);
            }
            shape::V6
        } else {
            return Err(format!(
                "`{text}` is not an IP address: write address=10.0.0.9:NAME, or with IPv6 in brackets address=[fd00::9]:NAME, address=[10.0.0.9,fd00::9]:NAME"
            ));
        };
        if dns.shape & family != 0 {
            return Err(format!("`{list}`: an answer has at most one address of each family"));
        }
        dns.shape |= family;
    }
    Ok(dns)
}

#[cfg(feature = "user")]
fn describe(faults: &Faults) -> Option<String> {
    let dns = &faults.dns;
    if dns.is_off() {
        return None;
    }
    let known = dns.names.get(..dns.count as usize).unwrap_or_default();
    let names: Vec<_> = known.iter().filter_map(|number| patterns::text(*number)).collect();
    Some(format!("dns {} for {}", words(dns), names.join(", ")))
}

/// The action in words.
#[cfg(feature = "user")]
fn words(dns: &Dns) -> String {
    match (dns.mode, dns.code) {
        (mode::DELAY, _) => format!("delay {}", show_duration(dns.delay_ns)),
        (mode::SILENCE, _) => "silence".to_owned(),
        (_, code::NXDOMAIN) => "nxdomain".to_owned(),
        (_, code::SERVFAIL) => "servfail".to_owned(),
        (_, code::REFUSED) => "refused".to_owned(),
        (_, code::TRUNCATED) => "truncate".to_owned(),
        _ => {
            let v4 =
                (dns.shape & shape::V4 != 0).then(|| Ipv4Addr::from(u32::from_be(dns.addr4)).to_string());
            let v6 = (dns.shape & shape::V6 != 0).then(|| Ipv6Addr::from(bytes_of(dns.addr6)).to_string());
            format!("address {}", v4.into_iter().chain(v6).collect::<Vec<_>>().join(" and "))
        }
    }
}

#[cfg(feature = "user")]
fn bytes_of(addr: Addr) -> [u8; 16] {
    let mut bytes = [0; 16];
    for (place, byte) in bytes.iter_mut().zip(addr.iter().flat_map(|word| word.to_ne_bytes())) {
        *place = byte;
    }
    bytes
}

#[cfg(test)]
#[expect(clippy::unwrap_used, reason = "a failed unwrap in a test is a failed test")]
mod tests {
    use super::{Dns, describe, mode, parse};
    use crate::{
        dns::{code, shape},
        fault::{Fault as _, Faults},
    };

    fn parsed(values: &[&str]) -> Result<Dns, String> {
        let mut faults = Faults::default();
        values.iter().try_for_each(|value| parse(value, &mut faults))?;
        Ok(faults.dns)
    }

    fn shown(value: &str) -> String {
        let mut faults = Faults::default();
        parse(value, &mut faults).unwrap();
        describe(&faults).unwrap()
    }

    #[test]
    fn every_action_is_read_and_shown() {
        for (value, expected) in [
            ("nxdomain:*.internal", "dns nxdomain for *.internal"),
            ("servfail:api.example.com,db-*.corp", "dns servfail for api.example.com, db-*.corp"),
            ("refused:A.b.", "dns refused for a.b"),
            ("truncate:*", "dns truncate for *"),
            ("silence:redis", "dns silence for redis"),
            ("delay=200ms:*", "dns delay 200ms for *"),
            ("address=10.0.0.9:redis.internal", "dns address 10.0.0.9 for redis.internal"),
            ("address=[fd00::9]:x", "dns address fd00::9 for x"),
            ("address=[10.0.0.9,fd00::9]:x", "dns address 10.0.0.9 and fd00::9 for x"),
            ("address=0.0.0.0:x", "dns address 0.0.0.0 for x"),
        ] {
            assert_eq!(shown(value), expected);
        }
        let dns = parsed(&["truncate:*"]).unwrap();
        assert_eq!((dns.mode, dns.code, dns.shape, dns.count), (mode::ANSWER, code::TRUNCATED, 0, 1));
        let dns = parsed(&["address=[::]:x"]).unwrap();
        assert_eq!(dns.shape, shape::ADDRESS | shape::V6);
        assert!(parsed(&["delay=0ms:*"]).unwrap().needs_line());
    }

    #[test]
    fn the_same_action_again_adds_names_and_another_is_refused() {
        let dns = parsed(&["nxdomain:a,b", "nxdomain:b,c"]).unwrap();
        assert_eq!(dns.count, 3);
        let error = parsed(&["nxdomain:a", "servfail:b"]).unwrap_err();
        assert!(error.contains("`nxdomain` already"), "{error}");
    }

    #[test]
    fn what_makes_no_sense_is_refused_with_the_reason() {
        for (value, reason) in [
            ("nxdomain", "names nothing"),
            ("nxdomain:", "names nothing"),
            ("nxdomain:a,,b", "is no name"),
            ("nonsense:a", "is no dns action"),
            ("nxdomain=1:a", "is no dns action"),
            ("delay=fast:a", "fast"),
            ("address=fd00::9:a", "in brackets"),
            ("address=[10.0.0.9,10.0.0.8]:a", "one address of each family"),
            ("address=[]:a", "is not an IP address"),
            ("nxdomain:a,b,c,d,e,f,g,h,i", "at most 8 names"),
        ] {
            let error = parsed(&[value]).unwrap_err();
            assert!(error.contains(reason), "{value}: {error}");
        }
    }
}
