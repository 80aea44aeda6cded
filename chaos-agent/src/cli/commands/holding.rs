//! What `inject` and `partition` share: plan or arm, hold, take down.

use std::{path::Path, process::ExitCode};

use anyhow::{Context as _, Result};

use crate::{
    cli::{
        args::HoldingArgs,
        failure::{Exit, Failure},
        hold::{self, CONFIRM_WITHIN, Holding},
        output::{self, Stream},
        plan, privileges,
        report::{End, Reporter, Started},
        ruleset::{AsOne, RuleSet},
        world::Terminal,
    },
    engine::Engine,
    needs,
    netns::{Netns, NetnsError},
    spec::{Connections, Direction, RuleSpec},
    targets::Target,
};

/// Arms the rules and holds them; `sides` are the targets the user named.
pub(crate) fn run(set: &RuleSet, args: &HoldingArgs, sides: &[&Target], json: bool) -> Result<ExitCode> {
    let Some(first) = set.rules.first() else { return Ok(Exit::Done.into()) };
    if plan::wanted(&args.planning) {
        return plan::print(&set.rules, &args.planning, json, None);
    }
    privileges::require()?;
    require(set)?;
    // Before anything is armed: a Ctrl-C from here on ends the fault instead of us.
    let mut terminal = Terminal::new().context("signals cannot be awaited")?;
    let mut reporter = Reporter::new(json, Stream::Out, true);
    let holding = Holding {
        duration: args.duration(),
        start_delay: first.schedule.start_delay,
        confirm: needs_confirmation(first, args, sides) && output::interactive(),
        hint: format!("{}; `chaos flows {}` shows who talks to whom", causes(first), first.target),
    };
    let engine = Engine::start(&set.rules, &plan::engine_options(&args.planning))
        .with_context(|| format!("the fault `{}` could not be started", set.name))?;
    let engine = AsOne { name: set.name.clone(), armed: engine };
    reporter.started(&Started {
        rules: vec![set.name.clone()],
        target: set.targets(),
        duration: Some(holding.duration),
        shadow: first.shadow,
    });
    let summary = hold::hold(engine, &holding, &mut terminal, &mut reporter)?;
    match summary.end {
        End::NotConfirmed => Err(Failure::refused(hold::not_confirmed())
            .mend("press Enter in time, or add --no-confirm where nobody can")
            .into()),
        End::TimeOver | End::Interrupted | End::ReaderGone | End::CommandEnded | End::Failed => {
            Ok(Exit::Done.into())
        }
    }
}

/// Refuses what this machine cannot do.
pub(crate) fn require(set: &RuleSet) -> Result<(), Failure> {
    set.rules.iter().try_for_each(needs::check).map_err(Failure::impossible)
}

/// A fault on the machine the user types on can lock the user out; one that ends sooner than the
/// question would, or touches nothing, cannot.
fn needs_confirmation(rule: &RuleSpec, args: &HoldingArgs, sides: &[&Target]) -> bool {
    !args.no_confirm
        && !rule.shadow
        && args.duration() > CONFIRM_WITHIN
        && sides.iter().any(|side| is_this_host(side))
}

/// Whether the target is the whole of the network we are in ourselves, under whatever name.
pub(crate) fn is_this_host(target: &Target) -> bool {
    match target {
        Target::Host => true,
        Target::Cgroup(path) => path == Path::new("/"),
        Target::NetnsName(name) => is_ours(Netns::by_name(name)),
        Target::Pid(pid) => is_ours(Netns::by_pid(*pid)),
        Target::Unit(_) | Target::Net(_) | Target::HostPort { .. } => false,
    }
}

/// A namespace that cannot be opened is not asked about: arming the fault will say why.
fn is_ours(other: Result<Netns, NetnsError>) -> bool {
    other.is_ok_and(|other| Netns::current().is_ok_and(|ours| ours == other))
}

/// Why a rule may not have matched anything, the likeliest cause first.
pub(crate) fn causes(rule: &RuleSpec) -> String {
    let matching = &rule.matching;
    let mut causes: Vec<&str> = Vec::new();
    if rule.peer.is_some() {
        causes.push(
            "the two may not talk to each other directly (a proxy or address translation between them?)",
        );
    }
    match matching.connections {
        Connections::New => causes.push("only connections made since the fault began are meant"),
        Connections::Established => causes.push("only connections from before the fault are meant"),
        Connections::All => {}
    }
    if matching.share.is_some() {
        causes.push("the few flows there are may all be outside the share");
    }
    if !matching.interfaces.is_empty() {
        causes.push("the packets may use another interface (to this machine's own addresses they use lo)");
    }
    if !(matching.peers.is_empty() && matching.peer_ports.is_empty()) {
        causes.push("the peer may be seen under another address or port, such as behind a service address");
    }
    if !(matching.locals.is_empty() && matching.local_ports.is_empty()) {
        causes.push("the target's own end may have another address or port");
    }
    if matches!(matching.direction, Some(Direction::Egress | Direction::Ingress)) {
        causes.push("the packets may go the other way");
    }
    if causes.is_empty() {
        causes.push("it may not have talked to anybody");
    }
    causes.join("; or ")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn this_host_is_known_under_every_name() {
        let own_pid = i32::try_from(std::process::id()).unwrap();
        assert!(is_this_host(&Target::Host) && is_this_host(&Target::Cgroup("/".into())));
        assert!(is_this_host(&Target::Pid(own_pid)));
        assert!(!is_this_host(&Target::Cgroup("/system.slice".into())));
        assert!(!is_this_host(&Target::NetnsName("no-such-namespace".to_owned())));
        assert!(!is_this_host(&Target::Unit("api.service".to_owned())));
    }
}
