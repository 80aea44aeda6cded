//! What `inject` and `partition` share: plan or arm, hold, take down; by ourselves or by an agent.

use std::{process::ExitCode, time::Duration};

use anyhow::{Context as _, Result};
use chaos_client::Client;
use serde_json::{Map, Value};

use crate::{
    cli::{
        args::HoldingArgs,
        failure::{Exit, Failure},
        hold::{self, Armed, CONFIRM_WITHIN, Holding},
        logged::Logged,
        output::{self, Stream},
        own::Own,
        plan, privileges, remote,
        report::{End, Reporter, Started},
        ruleset::{RuleSet, Watched},
        world::Terminal,
    },
    needs,
    safety::{Risk, Watch, risk},
    spec::{Connections, Direction, RuleSpec},
};

/// What `inject` and `partition` are asked for.
pub(crate) struct Asked<'a> {
    /// The rules, for their words; an agent makes its own.
    pub(crate) set: RuleSet,
    pub(crate) args: &'a HoldingArgs,
    /// One JSON object a line.
    pub(crate) json: bool,
}

/// Arms the rules, or lets the agent do it, and holds them.
pub(crate) fn run(
    asked: &Asked,
    agent: Option<&Client>,
    body: impl FnOnce() -> Map<String, Value>,
) -> Result<ExitCode> {
    let Asked { set, args, json } = asked;
    // Where it is armed `hold` has asked, or will.
    let fault = |duration| remote::wanted(body(), duration, risk(&set.rules).is_some());
    if plan::wanted(&args.planning) {
        let plan = match agent {
            Some(client) => remote::plan(client, &fault(args.duration_at(client)?))?,
            None => plan::own(&set.rules, &args.planning)?,
        };
        return plan::print(&plan, &args.planning, *json, None);
    }
    if let Some(client) = agent {
        let duration = args.duration_at(client)?;
        return hold(asked, duration, || {
            let mut held = remote::hold(client, fault(duration), &set.name, duration)?;
            if args.events {
                held.tell()?;
            }
            Ok(held)
        });
    }
    privileges::require()?;
    require(set)?;
    hold(asked, args.duration(), || {
        let settings = plan::settings()?;
        let mut own = Own::start(set, &plan::engine_options(&args.planning, &settings))
            .with_context(|| format!("the fault `{}` could not be started", set.name))?;
        if args.events {
            own.tell(&settings).context("nobody could tell of packets, so the fault was ended")?;
        }
        let watches = set.aborts.iter().map(|abort| Watch::start(abort, &set.rules)).collect::<Result<_>>();
        let watches = watches.context("what would abort the fault cannot be watched, so it was ended")?;
        let armed = Watched { armed: own, watches };
        Ok(Logged::begin(armed, &format!("{} on {}", set.name, set.targets()), Some(args.duration())))
    })
}

fn hold<A: Armed>(asked: &Asked, duration: Duration, arm: impl FnOnce() -> Result<A>) -> Result<ExitCode> {
    let Asked { set, args, json } = asked;
    let Some(first) = set.rules.first() else { return Ok(Exit::Done.into()) };
    // Before anything is armed: a Ctrl-C from here on ends the fault instead of us.
    let mut terminal = Terminal::new().context("signals cannot be awaited")?;
    let mut reporter = Reporter::new(*json, Stream::Out, true);
    let holding = Holding {
        duration,
        start_delay: first.schedule.start_delay,
        confirm: ask(risk(&set.rules), args, output::interactive())?,
        hint: format!("{}; `chaos flows {}` shows who talks to whom", causes(first), first.target),
    };
    let armed = arm()?;
    reporter.started(&Started {
        rules: vec![set.name.clone()],
        target: set.targets(),
        duration: Some(holding.duration),
        shadow: first.shadow,
    });
    let summary = hold::hold(armed, &holding, &mut terminal, &mut reporter)?;
    match summary.end {
        End::NotConfirmed => Err(Failure::refused(hold::not_confirmed())
            .mend("press Enter in time, or add --yes-whole-host where nobody can")
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

/// Whether the user has to be asked while the fault is held. One that ends sooner than the question would needs
/// no question; where nobody can be asked it has to be said beforehand.
fn ask(risk: Option<Risk>, args: &HoldingArgs, interactive: bool) -> Result<bool, Failure> {
    match risk {
        Some(risk) if !args.yes_whole_host && !interactive => Err(Failure::refused(risk.what().to_owned())
            .mend("if that is meant, say so with --yes-whole-host; on a terminal chaos would ask")),
        Some(_) => Ok(!args.yes_whole_host && args.duration() > CONFIRM_WITHIN),
        None => Ok(false),
    }
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
    use crate::cli::args::{Cli, Command};

    fn holding(words: &str) -> HoldingArgs {
        use clap::Parser as _;
        let words = format!("chaos inject host --loss 1% {words}");
        let Command::Inject(args) = Cli::try_parse_from(words.split(' ')).unwrap().command else {
            panic!("{words}");
        };
        args.holding
    }

    #[test]
    fn a_whole_host_is_asked_about_or_said_beforehand() {
        let risk = Some(Risk::Host);
        assert!(ask(risk, &holding("--for 1m"), true).unwrap());
        assert!(!ask(risk, &holding("--for 10s"), true).unwrap(), "it ends before the question does");
        assert!(!ask(risk, &holding("--for 1m --yes-whole-host"), true).unwrap());
        assert!(!ask(risk, &holding("--for 1m --no-confirm"), false).unwrap(), "the older name");
        assert!(!ask(None, &holding("--for 1m"), false).unwrap());
        let refused = ask(risk, &holding("--for 1s"), false).expect_err("nobody can answer");
        assert!(refused.mend.unwrap().contains("--yes-whole-host"));
    }
}
