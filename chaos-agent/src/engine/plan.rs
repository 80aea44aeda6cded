//! What would be done, in words: for `--dry-run` and `--explain`. Touches nothing.

use super::{
    active::{Active, Share, namespaces},
    followed::Targets,
    is_protected, protect, rules,
    types::{EngineError, EngineOptions, Plan, PlannedAttachment, Protection},
};
use crate::{
    datapath::AttachMode,
    net::{Netlink, link},
    spec::{Connections, Direction, Endpoint, RuleSpec},
};

/// Resolves everything and describes it.
pub(super) fn plan(specs: &[RuleSpec], options: &EngineOptions) -> Result<Plan, EngineError> {
    let (mut plan, mut targets) = (Plan::default(), Targets::default());
    let by_filter = match options.attach {
        AttachMode::Tcx => false,
        AttachMode::Clsact => true,
        AttachMode::Auto => !crate::datapath::has_tcx(),
    };
    let how = if by_filter { "clsact, priority 1" } else { "tcx, first" };
    for (slot, spec) in (0u32..).zip(specs) {
        let active = Active::find(spec, slot, &mut targets)?;
        let shares: Vec<(usize, Share)> = active.shares()?.into_iter().map(|share| (0, share)).collect();
        if shares.is_empty() {
            return Err(active.unseen());
        }
        attachments(&mut plan, &active, &shares, how)?;
        protected(&mut plan, &shares, &options.protection)?;
        plan.explanations.extend(explain(spec));
    }
    // What several rules have in common is told once.
    plan.explanations = each_once(plan.explanations);
    plan.attachments = each_once(plan.attachments);
    plan.protected = each_once(plan.protected);
    Ok(plan)
}

/// Without what was there before, in the same order.
fn each_once<T: PartialEq>(list: Vec<T>) -> Vec<T> {
    list.into_iter().fold(Vec::new(), |mut kept, item| {
        if !kept.contains(&item) {
            kept.push(item);
        }
        kept
    })
}

fn attachments(
    plan: &mut Plan,
    active: &Active,
    shares: &[(usize, Share)],
    how: &str,
) -> Result<(), EngineError> {
    for namespace in namespaces(shares).into_values() {
        let links = namespace.netns.run(|| link::list(&mut Netlink::route()?))??;
        for device in active.devices(&links) {
            for direction in ["egress", "ingress"] {
                plan.attachments.push(PlannedAttachment {
                    namespace: namespace.origin.clone(),
                    device: device.link.name.clone(),
                    direction: direction.to_owned(),
                    how: how.to_owned(),
                });
            }
        }
        if active.spec.faults.acts_on_connect() {
            plan.attachments.push(connects(&namespace.origin, active));
        }
        if active.needs_wire() {
            plan.attachments.push(PlannedAttachment {
                namespace: namespace.origin.clone(),
                device: "chaos-n*".to_owned(),
                direction: "ingress".to_owned(),
                how: "private veth pair that cuts packets into wire packets; its far end is in an anonymous namespace".to_owned(),
            });
        }
    }
    Ok(())
}

/// What no rule touches there.
fn protected(plan: &mut Plan, shares: &[(usize, Share)], also: &Protection) -> Result<(), EngineError> {
    for namespace in namespaces(shares).into_values().filter(|namespace| is_protected(&namespace.netns)) {
        plan.protected.extend(protect::ALWAYS.map(str::to_owned));
        plan.protected.extend(protect::find(&namespace.netns, 0, also)?.into_keys());
    }
    plan.protected.extend(also.told());
    Ok(())
}

/// The hooks that answer connect(2).
fn connects(namespace: &str, active: &Active) -> PlannedAttachment {
    let cgroups: Vec<String> = active.cgroups().map(|cgroup| cgroup.path.display().to_string()).collect();
    PlannedAttachment {
        namespace: namespace.to_owned(),
        device: if cgroups.is_empty() {
            "cgroup /".to_owned()
        } else {
            format!("cgroup {}", cgroups.join(", "))
        },
        direction: "connect()".to_owned(),
        how: "cgroup link".to_owned(),
    }
}

/// The rule in plain words, then what it will not hit.
fn explain(spec: &RuleSpec) -> Vec<String> {
    let direction = match rules::direction(spec) {
        Direction::Egress => "leaves",
        Direction::Ingress => "comes to",
        Direction::Both => "leaves or comes to",
    };
    let mut lines = vec![format!(
        "{}: on what {direction} {}{}{}",
        rules::describe(&spec.faults),
        spec.target,
        spec.peer.as_ref().map(|peer| format!(", to or from {peer}")).unwrap_or_default(),
        conditions(spec)
    )];
    let when = spec.schedule.duration.map_or_else(
        || "as long as the command runs, at most 1 h".to_owned(),
        |duration| format!("for {}", humantime::format_duration(duration)),
    );
    lines.push(format!(
        "it acts {when}; without us the kernel ends it within {}",
        humantime::format_duration(spec.lease)
    ));
    lines.push("it does not hit: what cannot be parsed, ARP and neighbour discovery (unless a whole interface is cut), later fragments when ports or flags are asked for".to_owned());
    lines.extend(spec.faults.blind_spots().into_iter().map(str::to_owned));
    if spec.shadow {
        lines.push("shadow: it counts what it would hit and touches nothing".to_owned());
    }
    lines
}

fn conditions(spec: &RuleSpec) -> String {
    let matching = &spec.matching;
    let mut parts = Vec::new();
    let listed = |list: &[crate::spec::PortRange]| {
        let text: Vec<String> = list
            .iter()
            .map(|range| {
                if range.first == range.last {
                    range.first.to_string()
                } else {
                    format!("{}-{}", range.first, range.last)
                }
            })
            .collect();
        text.join(" or ")
    };
    if !matching.peers.is_empty() {
        parts.push(format!("with {}", endpoints(&matching.peers)));
    }
    if !matching.peer_ports.is_empty() {
        parts.push(format!("with peer port {}", listed(&matching.peer_ports)));
    }
    if !matching.locals.is_empty() {
        let text: Vec<String> = matching.locals.iter().map(ToString::to_string).collect();
        parts.push(format!("at own address {}", text.join(" or ")));
    }
    if !matching.local_ports.is_empty() {
        parts.push(format!("at own port {}", listed(&matching.local_ports)));
    }
    if !matching.protos.is_empty() {
        let text: Vec<String> =
            matching.protos.iter().map(|proto| format!("{proto:?}").to_uppercase()).collect();
        parts.push(format!("by {}", text.join(" or ")));
    }
    if !matching.interfaces.is_empty() {
        parts.push(format!("on {}", matching.interfaces.join(" or ")));
    }
    if matching.data_only {
        parts.push("that carries data".to_owned());
    }
    if let Some(share) = matching.share {
        parts.push(format!("in {}% of the flows", share * 100.0));
    }
    match matching.connections {
        Connections::All => {}
        Connections::New => parts.push("in connections opened after it began".to_owned()),
        Connections::Established => parts.push("in connections opened before it began".to_owned()),
    }
    if !matching.except.is_empty() {
        parts.push(format!("never with {}", endpoints(&matching.except)));
    }
    if parts.is_empty() { String::new() } else { format!(", {}", parts.join(", ")) }
}

fn endpoints(list: &[Endpoint]) -> String {
    let text: Vec<String> = list.iter().map(ToString::to_string).collect();
    text.join(" or ")
}
