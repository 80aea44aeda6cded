//! DNS: what `getaddrinfo` returns, and after what time, for names that match and for others.

use std::net::IpAddr;

use anyhow::Result;
use chaos_tests::measure::{
    helper::End,
    names::{ANSWER4, ANSWER6, Resolved, Resolver, Server},
};

use crate::{
    bench::Bench,
    finding::Finding,
    row::{Place, Row},
};

/// A name that the rules' pattern matches, and one that it does not.
const HIT: &str = "db.prod.internal";
const MISSED: &str = "db.prod.example.org";

/// How long an answer of the kernel may take, glibc's two questions included.
const PROMPT_MS: f64 = 50.0;
/// Our resolver tries twice, one second each.
const GIVEN_UP_MS: (f64, f64) = (1900.0, 4500.0);

/// Who answers, and how it is asked.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Server53 {
    /// The far end, over UDP.
    Far,
    /// The far end, over TCP only.
    FarTcp,
    /// A resolver of the namespace itself, as systemd-resolved is one.
    Stub,
}

pub(crate) fn rows() -> Vec<Row> {
    use Server53::{Far, FarTcp, Stub};
    let veth = Place::VETH;
    let fails = |name: &str, action: &str, place, server, code: i32, bounds| {
        Row::new(name, format!("--dns {action}:*.internal"), place, move |bench| {
            looked_up(bench, server, &|found| code_is(found, code, bounds))
        })
    };
    let prompt = (0.0, PROMPT_MS);
    let (none, again) = (libc::EAI_NONAME, libc::EAI_AGAIN);
    let address = |asked: &str, place, wanted: IpAddr| {
        Row::new("name with a chosen address", asked, place, move |bench| {
            looked_up(bench, Far, &|found| leads_to(found, wanted))
        })
    };
    vec![
        fails("name that is not there", "nxdomain", veth, Far, none, prompt),
        fails("name that is not there", "nxdomain", veth.v6(), Far, none, prompt),
        fails("name that is not there", "nxdomain", veth.cgroup(), Far, none, prompt),
        fails("name that is not there, 127.0.0.53", "nxdomain", veth, Stub, none, prompt),
        fails("name that is not there, over TCP", "nxdomain", veth, FarTcp, again, prompt),
        fails("name server that fails", "servfail", veth, Far, again, prompt),
        fails("name server that refuses", "refused", veth.v6(), Far, again, prompt),
        fails("name server that is silent", "silence", veth, Far, again, GIVEN_UP_MS),
        Row::new("name server that is slow", "--dns delay=200ms:*.internal", veth, |bench| {
            looked_up(bench, Far, &|found| code_is(found, 0, (200.0, 420.0)))
        }),
        address("--dns address=[10.9.8.7,fd00::9]:*.internal", veth, IpAddr::from([10, 9, 8, 7])),
        address(
            "--dns address=[10.9.8.7,fd00::9]:*.internal",
            veth.v6(),
            IpAddr::from([0xfd00, 0, 0, 0, 0, 0, 0, 9]),
        ),
        Row::new("answer that is cut", "--dns truncate:*.internal", veth, truncated),
    ]
}

/// Both names; the one that does not match must be found as if there were no rule.
fn looked_up(
    bench: &Bench<'_>,
    at: Server53,
    judge: &dyn Fn(&Resolved) -> Vec<Finding>,
) -> Result<Vec<Finding>> {
    let (server_end, address): (End<'_>, IpAddr) = match at {
        Server53::Far | Server53::FarTcp => (bench.far(), bench.to().ip()),
        Server53::Stub => (bench.near(), IpAddr::from([127, 0, 0, 53])),
    };
    let server = Server::start(server_end, address)?;
    let resolver = Resolver::new(address, at == Server53::FarTcp)?;
    let chaos = bench.arm()?;
    let hit = resolver.resolve(bench.near(), HIT)?;
    let missed = resolver.resolve(bench.near(), MISSED)?;
    chaos.stop()?;
    server.finish()?;
    let mut findings = judge(&hit);
    let untouched = missed.code == 0 && missed.addresses.contains(&ANSWER4.into());
    // Without its questions read, TCP to port 53 is reset whatever the name is.
    if at != Server53::FarTcp {
        let seen = format!("{MISSED}: {}", name(missed.code));
        findings.push(Finding::so(seen, "found", untouched));
    }
    Ok(findings)
}

/// An `EAI_` code by its name.
fn name(code: i32) -> String {
    match code {
        0 => "found".to_owned(),
        libc::EAI_NONAME => "EAI_NONAME".to_owned(),
        libc::EAI_AGAIN => "EAI_AGAIN".to_owned(),
        libc::EAI_FAIL => "EAI_FAIL".to_owned(),
        other => format!("EAI code {other}"),
    }
}

fn code_is(found: &Resolved, code: i32, bounds: (f64, f64)) -> Vec<Finding> {
    let took_ms = found.took_ns as f64 / 1e6;
    let why = if bounds.1 > PROMPT_MS { "what was asked, and the resolver's own tries" } else { "at once" };
    vec![
        Finding::so(format!("{HIT}: {}", name(found.code)), name(code), found.code == code),
        Finding::between("after", took_ms, bounds, "ms", why),
    ]
}

fn leads_to(found: &Resolved, wanted: IpAddr) -> Vec<Finding> {
    let real = [IpAddr::from(ANSWER4), IpAddr::from(ANSWER6)];
    let ok =
        found.addresses.contains(&wanted) && !found.addresses.iter().any(|address| real.contains(address));
    vec![Finding::so(format!("{HIT}: {:?}", found.addresses), wanted.to_string(), ok)]
}

/// An answer that says it was cut makes the resolver ask again over TCP.
fn truncated(bench: &Bench<'_>) -> Result<Vec<Finding>> {
    let address = bench.to().ip();
    let server = Server::start(bench.far(), address)?;
    let resolver = Resolver::new(address, false)?;
    let chaos = bench.arm()?;
    let found = resolver.resolve(bench.near(), HIT)?;
    chaos.stop()?;
    let asked = server.finish()?;
    Ok(vec![
        Finding::exactly("questions over UDP that reached the server", asked.udp, 0),
        Finding::so(
            format!("{HIT}: {}, {} questions over TCP", name(found.code), asked.tcp),
            "asked again over TCP, or that was reset",
            asked.tcp > 0 || found.code == libc::EAI_AGAIN,
        ),
    ])
}
