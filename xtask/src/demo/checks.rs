//! Did each phase do what was configured? Both views count: the kernel's counters and the client's.

use serde::Serialize;
use serde_json::Value;

use super::story::{LOSS, Measured, Played};

/// z of a two-sided 99.9 % interval of the normal distribution.
const Z_999: f64 = 3.2905;
/// Packets below which the drop share says nothing.
const ENOUGH_PACKETS: u64 = 500;

/// One thing that had to hold.
#[derive(Clone, Debug, Serialize)]
pub(crate) struct Check {
    /// Phase, or `machine`.
    pub(crate) phase: &'static str,
    /// Whether it held.
    pub(crate) ok: bool,
    /// What was expected and what was seen.
    pub(crate) what: String,
}

impl Check {
    fn new(phase: &'static str, ok: bool, what: String) -> Self {
        Self { phase, ok, what }
    }
}

/// Checks every phase, and what is left behind.
pub(crate) fn all(played: &[Played], left: &[String]) -> Vec<Check> {
    let mut checks = Vec::new();
    let find = |name: &str| played.iter().find(|phase| phase.name == name);
    let (baseline, loss, partition, heal) = (find("baseline"), find("loss"), find("partition"), find("heal"));
    if let Some(baseline) = baseline {
        for port in &baseline.ports {
            let what = format!("port {}: {:.0} requests/s, {} errors", port.port, port.rate, port.errors);
            checks.push(Check::new("baseline", port.rate > 100.0 && port.errors == 0, what));
        }
        if let Some(loss) = loss {
            checks.extend(of_loss(baseline, loss));
        }
    }
    if let Some(partition) = partition {
        checks.extend(of_partition(partition));
    }
    if let (Some(baseline), Some(heal)) = (baseline, heal) {
        checks.extend(of_heal(baseline, heal, played));
    }
    let what = if left.is_empty() {
        "nothing is left behind".to_owned()
    } else {
        format!("left behind: {}", left.join(", "))
    };
    checks.push(Check::new("machine", left.is_empty(), what));
    checks
}

fn of_loss(baseline: &Played, loss: &Played) -> Vec<Check> {
    let mut checks = vec![exit_code(loss)];
    let (matched, dropped) = phase_counters(loss);
    let (share, bound) = share(matched, dropped);
    checks.push(Check::new(
        "loss",
        matched >= ENOUGH_PACKETS && (share - LOSS).abs() <= bound,
        format!(
            "kernel: {dropped} of {matched} packets dropped = {:.1} %, configured {:.0} %, 99.9 % bounds ±{:.1}",
            share * 100.0,
            LOSS * 100.0,
            bound * 100.0
        ),
    ));
    if let ([target, control], [target_before, control_before]) =
        (loss.ports.as_slice(), baseline.ports.as_slice())
    {
        let (p99, before) = (target.p99_ms.unwrap_or(0.0), target_before.p99_ms.unwrap_or(0.0));
        // A lost request comes again after 200 ms at the earliest (minimum retransmission timeout of Linux).
        checks.push(Check::new(
            "loss",
            p99 >= 190.0 && p99 > before * 3.0 && target.replies > 0,
            format!("client: p99 of port {} from {before:.2} ms to {p99:.0} ms", target.port),
        ));
        let ratio = control.rate / control_before.rate.max(1.0);
        checks.push(Check::new(
            "loss",
            (0.8..=1.25).contains(&ratio) && control.errors == 0,
            format!(
                "client: port {} untouched: {:.0} % of its baseline, {} errors",
                control.port,
                ratio * 100.0,
                control.errors
            ),
        ));
    }
    checks
}

fn of_partition(partition: &Played) -> Vec<Check> {
    let (_, dropped) = phase_counters(partition);
    let mut checks = vec![exit_code(partition)];
    checks.push(Check::new("partition", dropped > 0, format!("kernel: {dropped} packets dropped")));
    for port in &partition.ports {
        checks.push(Check::new(
            "partition",
            port.replies == 0,
            format!("client: port {}: {} replies", port.port, port.replies),
        ));
    }
    checks
}

fn of_heal(baseline: &Played, heal: &Played, played: &[Played]) -> Vec<Check> {
    let mut checks = Vec::new();
    for (after, before) in heal.ports.iter().zip(&baseline.ports) {
        let ratio = after.rate / before.rate.max(1.0);
        let what = format!("client: port {}: {:.0} % of its baseline", after.port, ratio * 100.0);
        checks.push(Check::new("heal", ratio >= 0.7, what));
    }
    let sum = |of: fn(&Measured) -> u64| played.iter().flat_map(|phase| &phase.ports).map(of).sum::<u64>();
    let (broken, wrong) = (sum(|port| port.broken), sum(|port| port.wrong));
    checks.push(Check::new(
        "heal",
        broken == 0,
        format!("established connections went on: {broken} broke in the whole demo"),
    ));
    checks.push(Check::new("heal", wrong == 0, format!("every reply was right: {wrong} wrong")));
    checks
}

fn exit_code(phase: &Played) -> Check {
    let code = phase.exit_code.map_or_else(|| "none".to_owned(), |code| code.to_string());
    Check::new(phase.name, phase.exit_code == Some(0), format!("chaos: exit code {code}"))
}

fn phase_counters(phase: &Played) -> (u64, u64) {
    phase.chaos.as_ref().map_or((0, 0), counters)
}

/// Packets matched and dropped, summed over the rules and directions of a line of `chaos --json`.
pub(crate) fn counters(line: &Value) -> (u64, u64) {
    let rules = line["rules"].as_array().map_or(&[][..], Vec::as_slice);
    let count = |rule: &Value, of: &str| {
        ["egress", "ingress"].iter().filter_map(|direction| rule[direction][of].as_u64()).sum::<u64>()
    };
    let sum = |of: &str| rules.iter().map(|rule| count(rule, of)).sum();
    (sum("matched_packets"), sum("dropped_packets"))
}

/// Drop share, and how far it may be from [`LOSS`] by chance.
#[expect(clippy::cast_precision_loss, reason = "counts of a demo are far below 2^52")]
fn share(matched: u64, dropped: u64) -> (f64, f64) {
    let n = matched.max(1) as f64;
    (dropped as f64 / n, Z_999 * (LOSS * (1.0 - LOSS) / n).sqrt())
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::{Played, all};
    use crate::demo::story::Measured;

    fn phase(name: &'static str, rate: f64, replies: u64, p99_ms: f64, chaos: serde_json::Value) -> Played {
        let port = |port, rate, replies, p99_ms| Measured {
            port,
            rate,
            replies,
            errors: 0,
            broken: 0,
            wrong: 0,
            p50_ms: Some(0.1),
            p99_ms: Some(p99_ms),
        };
        let partition = name == "partition";
        Played {
            name,
            about: "",
            command: None,
            begin_s: 0.0,
            end_s: 1.0,
            ports: vec![
                port(6379, rate, replies, p99_ms),
                port(6380, 1000.0, if partition { 0 } else { 9 }, 1.0),
            ],
            chaos: Some(chaos),
            exit_code: Some(0),
        }
    }

    fn demo(dropped: u64) -> Vec<Played> {
        let counted = |matched: u64, dropped: u64| {
            json!({"type": "summary", "rules": [{
                "egress": {"matched_packets": matched, "dropped_packets": dropped},
                "ingress": {"matched_packets": 0, "dropped_packets": 0},
            }]})
        };
        vec![
            phase("baseline", 1000.0, 9, 1.0, json!(null)),
            phase("loss", 100.0, 9, 400.0, counted(2000, dropped)),
            phase("partition", 0.0, 0, 0.0, counted(50, 50)),
            phase("heal", 900.0, 9, 1.0, json!(null)),
        ]
    }

    #[test]
    fn a_good_demo_passes_and_a_wrong_share_does_not() {
        assert!(all(&demo(400), &[]).iter().all(|check| check.ok));
        let wrong = all(&demo(300), &[]);
        assert_eq!(wrong.iter().filter(|check| !check.ok).count(), 1);
    }

    #[test]
    fn anything_left_behind_fails() {
        assert!(all(&demo(400), &["link chaos-x".to_owned()]).iter().any(|check| !check.ok));
    }
}
