//! 400 MB through faults that must not change a byte.

use std::time::Duration;

use anyhow::Result;
use chaos_tests::{
    chaos::Chaos,
    measure::{
        checksums::Since,
        pour::{Load, Pour},
    },
};

use crate::{
    bench::Bench,
    finding::Finding,
    row::{Place, Row},
};

pub(crate) fn rows() -> Vec<Row> {
    let veth = Place::VETH;
    vec![
        Row::new("400 MB come whole", "--delay 10ms±5ms", veth.egress(), |bench| unchanged(bench, None)),
        Row::new("400 MB come whole", "--rtt 10ms±2ms", veth.v6().cgroup(), |bench| unchanged(bench, None)),
        Row::new("400 MB come whole", "--duplicate 5%", veth.egress(), |bench| unchanged(bench, None)),
        Row::new("400 MB come whole, the rule ends in mid-flight", "--delay 20ms", veth.egress(), |bench| {
            unchanged(bench, Some(1.0))
        }),
        Row::new(
            "400 MB come whole, the rule ends in mid-flight",
            "--delay 20ms±10ms",
            veth.v6().ingress(),
            |bench| unchanged(bench, Some(1.0)),
        ),
    ]
}

/// The rule ends after so many seconds (of a quick run a third), else after the transfer.
fn unchanged(bench: &Bench<'_>, ends_after_s: Option<f64>) -> Result<Vec<Finding>> {
    let bytes = u64::from(bench.count(400, 100)) * 1_000_000;
    let since = Since::now(&bench.namespaces())?;
    let load = Load { to: bench.to(), bytes, time: Duration::from_mins(1), hash: true };
    let chaos = bench.arm()?;
    let running = Pour::start(bench.near(), bench.far(), &load)?;
    let ends_after_s = ends_after_s.map(|seconds| if bench.quick { seconds / 3.0 } else { seconds });
    let chaos = match ends_after_s {
        Some(seconds) => {
            std::thread::sleep(Duration::from_secs_f64(seconds));
            chaos.stop()?;
            None
        }
        None => Some(chaos),
    };
    let (poured, drained) = running.finish(Duration::from_secs(30))?;
    chaos.map(Chaos::stop).transpose()?;
    let same = poured.sha256 == drained.sha256 && poured.bytes == drained.bytes && drained.bytes == bytes;
    let mut findings = vec![
        Finding::so(format!("{} MB, SHA-256 identical: {same}", drained.bytes / 1_000_000), "true", same),
        Finding::exactly("checksum errors", since.errors(&bench.namespaces())?, 0),
    ];
    if let Some(seconds) = ends_after_s {
        let took = drained.took_ns as f64 / 1e9;
        findings.push(Finding::so(
            format!("took {took:.2} s"),
            format!("more than {seconds:.2} s: the rule ended before"),
            took > seconds,
        ));
    }
    Ok(findings)
}
