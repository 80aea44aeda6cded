//! Reject and refuse: what `connect` returns, what a connected UDP socket hears, and after what time.

use std::time::Duration;

use anyhow::Result;
use chaos_tests::measure::{
    dialogue::{Connections, Questions, ask, poke},
    distribution::Samples,
};

use crate::{
    bench::Bench,
    finding::Finding,
    reset::{all_fail, name},
    row::{Place, Row},
};

const PROMPT_MS: f64 = 5.0;

pub(crate) fn rows() -> Vec<Row> {
    let (veth, lo) = (Place::VETH, Place::LO);
    // What the kernel makes of a code: icmp_err_convert (net/ipv4/icmp.c), icmpv6_err_convert (net/ipv6/icmp.c).
    let rejected = |code: &str, errno, place| {
        Row::new("connect that is rejected", format!("--reject {code}"), place, move |bench| {
            connect(bench, errno)
        })
    };
    let refused = |errno_name: &str, errno, place: Place| {
        Row::new("connect that is refused", format!("--refuse {errno_name}"), place, move |bench| {
            connect(bench, errno)
        })
    };
    let datagram = |code: &str, errno, place| {
        Row::new("datagram that is rejected", format!("--reject {code}"), place, move |bench| {
            poked(bench, errno)
        })
    };
    vec![
        rejected("port", libc::ECONNREFUSED, veth),
        rejected("host", libc::EHOSTUNREACH, veth),
        rejected("net", libc::ENETUNREACH, veth),
        rejected("admin", libc::EHOSTUNREACH, veth),
        rejected("rst", libc::ECONNREFUSED, veth),
        rejected("port", libc::ECONNREFUSED, veth.v6()),
        rejected("host", libc::EHOSTUNREACH, veth.v6()),
        rejected("net", libc::ENETUNREACH, veth.v6()),
        rejected("admin", libc::EACCES, veth.v6()),
        rejected("rst", libc::ECONNREFUSED, veth.v6()),
        rejected("port", libc::ECONNREFUSED, veth.ingress()),
        rejected("port", libc::ECONNREFUSED, lo),
        rejected("port", libc::ECONNREFUSED, veth.cgroup()),
        datagram("port", libc::ECONNREFUSED, veth),
        datagram("admin", libc::EHOSTUNREACH, veth),
        datagram("port", libc::ECONNREFUSED, veth.v6()),
        datagram("port", libc::ECONNREFUSED, lo.v6()),
        refused("ECONNREFUSED", libc::ECONNREFUSED, veth.cgroup()),
        refused("ETIMEDOUT", libc::ETIMEDOUT, veth.v6().cgroup()),
        refused("EACCES", libc::EACCES, veth.cgroup()),
        refused("ENETUNREACH", libc::ENETUNREACH, veth.v6().cgroup()),
        refused("EHOSTUNREACH", libc::EHOSTUNREACH, lo.cgroup()),
    ]
}

/// A server listens; the connection is not made all the same.
fn connect(bench: &Bench<'_>, errno: i32) -> Result<Vec<Finding>> {
    let chaos = bench.arm()?;
    let limit = Duration::from_millis(1500);
    let questions = Questions { limit, ..Questions::new(bench.to(), 10, Connections::Fresh) };
    let answers = ask(bench.near(), bench.far(), &questions)?;
    chaos.stop()?;
    all_fail(&answers, errno, PROMPT_MS)
}

fn poked(bench: &Bench<'_>, errno: i32) -> Result<Vec<Finding>> {
    let chaos = bench.arm()?;
    let poked = poke(bench.near(), bench.to(), 5, 100)?;
    chaos.stop()?;
    let other = poked.iter().find(|poked| poked.error != errno);
    let seen =
        other.map_or_else(|| format!("all {} {}", poked.len(), name(errno)), |other| name(other.error));
    let took = Samples::ms(&poked.iter().map(|poked| poked.took_ns).collect::<Vec<_>>())?;
    Ok(vec![
        Finding::so(format!("recv: {seen}"), name(errno), other.is_none()),
        Finding::between("p50 after", took.median(), (0.0, PROMPT_MS), "ms", "as for a connection"),
    ])
}
