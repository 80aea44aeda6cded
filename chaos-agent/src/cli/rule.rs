//! From flags to the rules the engine takes; contradictions end here, before anything is touched.

use std::{net::IpAddr, time::Duration};

use anyhow::Result;
use chaos_common::fault::{FAULTS, FaultKind, Faults};

use super::{
    args::{ExecArgs, InjectArgs, PartitionArgs, SafetyArgs, ScheduleArgs},
    failure::Failure,
    fault_flags::{self, FaultFlags},
    groups::{self, Cut},
    match_args::MatchArgs,
    ruleset::RuleSet,
    units,
};
use crate::{
    safety::Abort,
    spec::{Direction, Limits, MatchSpec, RuleSpec, Schedule},
    targets::Target,
    validate::validate,
};

/// Turns a host name into its addresses, as the target would.
pub(crate) type Resolve<'a> = &'a dyn Fn(&str) -> Result<Vec<IpAddr>>;

/// The rules of `chaos inject`.
pub(crate) fn inject(args: &InjectArgs, resolve: Resolve) -> Result<RuleSet> {
    refuse_remote(&args.target, &format!("chaos inject ... host --peer {}", args.target))?;
    let holding = &args.holding;
    let common = Common {
        target: &args.target,
        schedule: schedule(&holding.schedule, Some(holding.duration()))?,
        when: &holding.schedule,
        safety: &holding.safety,
        aborts: &holding.abort,
    };
    faults(&args.faults, &args.matching, &common, resolve)
}

/// Everything about an `exec` that can be wrong without knowing its cgroup, so that nothing is made in vain.
pub(crate) fn check_exec(args: &ExecArgs) -> Result<RuleSet> {
    exec(args, &Target::Cgroup("/".into()), &|_| Ok(Vec::new()))
}

/// The rules of `chaos exec`, for the command's own cgroup.
pub(crate) fn exec(args: &ExecArgs, target: &Target, resolve: Resolve) -> Result<RuleSet> {
    let common = Common {
        target,
        schedule: schedule(&args.schedule, args.duration)?,
        when: &args.schedule,
        safety: &args.safety,
        // A command that suffers is its own probe.
        aborts: &[],
    };
    faults(&args.faults, &args.matching, &common, resolve)
}

/// What `inject` and `exec` say alike about a rule.
struct Common<'a> {
    target: &'a Target,
    schedule: Schedule,
    when: &'a ScheduleArgs,
    safety: &'a SafetyArgs,
    aborts: &'a [Abort],
}

impl Common<'_> {
    fn rule(&self, name: String, matching: MatchSpec, faults: &Faults) -> RuleSpec {
        RuleSpec {
            name,
            target: self.target.clone(),
            peer: None,
            matching,
            faults: *faults,
            schedule: self.schedule,
            limits: limits(self.when),
            shadow: self.safety.shadow,
            seed: self.when.seed,
            lease: lease(self.safety),
        }
    }
}

/// The rules that fault and match flags stand for: one, or the two ways of a profile.
fn faults(flags: &FaultFlags, matching: &MatchArgs, common: &Common, resolve: Resolve) -> Result<RuleSet> {
    if flags.is_off() {
        return Err(Failure::usage("no fault was given, so nothing would happen")
            .mend(format!("add at least one of {}", fault_flags::every_flag()))
            .into());
    }
    matching.check()?;
    let sets = flags.by_direction(matching.direction)?;
    check_owner(common.target, matching)?;
    let mut rules = Vec::new();
    for (direction, faults) in sets.into_iter().filter(|(_, faults)| !faults.is_off()) {
        let matching = matching.to_spec(direction, resolve)?;
        rules.push(common.rule(flags.name(), matching, &faults));
    }
    checked(RuleSet { name: flags.name(), rules, aborts: common.aborts.to_vec() })
}

/// The rules of `chaos partition`, one for each pair: the target is a side on this machine, the first if
/// both are.
pub(crate) fn partition(args: &PartitionArgs) -> Result<RuleSet> {
    let cut = groups::cut(&args.sides, &args.wanted(), args.one_way)?;
    refuse_unreachable(&cut)?;
    let holding = &args.holding;
    let counts = holding.schedule.max_packets.or(holding.schedule.max_bytes).is_some();
    if cut.pairs.len() > 1 && counts {
        return Err(Failure::usage(format!(
            "--max-packets and --max-bytes count for each of the {} pairs by itself, so they would not limit the whole",
            cut.pairs.len()
        ))
        .mend("leave them out and limit the time with --for")
        .into());
    }
    let faults = parting(&args.mode).map_err(Failure::usage)?;
    let mut rules = Vec::new();
    for (a, b) in &cut.pairs {
        let (target, peer, one_way) =
            if a.is_peer_only() { (b, a, Direction::Ingress) } else { (a, b, Direction::Egress) };
        let direction = Some(if args.one_way { one_way } else { Direction::Both });
        let arrow = if args.one_way { "->" } else { "<->" };
        rules.push(RuleSpec {
            name: format!("{} {a} {arrow} {b}", fault_flags::describe(&faults)),
            target: target.clone(),
            peer: Some(peer.clone()),
            matching: MatchSpec { direction, connections: args.connections, ..MatchSpec::default() },
            faults,
            schedule: schedule(&holding.schedule, Some(holding.duration()))?,
            limits: limits(&holding.schedule),
            shadow: holding.safety.shadow,
            seed: holding.schedule.seed,
            lease: lease(&holding.safety),
        });
    }
    let name = format!("{} {}", fault_flags::describe(&faults), cut.name);
    checked(RuleSet { name, rules, aborts: holding.abort.clone() })
}

/// A pair with no side here cannot be cut here, and a cut with holes in it is worse than none.
fn refuse_unreachable(cut: &Cut) -> Result<(), Failure> {
    let remote: Vec<&(Target, Target)> =
        cut.pairs.iter().filter(|(a, b)| a.is_peer_only() && b.is_peer_only()).collect();
    let here = "host, cgroup:/path, unit:name.service, netns:name, pid:1234";
    match (remote.as_slice(), cut.pairs.len()) {
        ([], _) => Ok(()),
        ([(a, b)], 1) => Err(Failure::usage(format!("neither {a} nor {b} is on this machine"))
            .mend(format!("name at least one of {here}"))),
        (some, _) => {
            let words: Vec<String> = some.iter().map(|(a, b)| format!("{a} and {b}")).collect();
            Err(Failure::usage(format!(
                "nothing was cut, because these have no side on this machine: {}",
                words.join("; ")
            ))
            .mend(format!("of every pair name one as {here}, or run chaos where it is")))
        }
    }
}

/// The fault of `chaos partition`, which this command line has a command for; `mode` is the value of its
/// own flag.
pub(crate) fn parting(mode: &str) -> Result<Faults, String> {
    let mut faults = Faults::default();
    for info in FAULTS.iter().filter(|info| info.kind == FaultKind::Partition) {
        (info.parse)(mode, &mut faults)?;
    }
    Ok(faults)
}

/// Rules that make no sense end here.
fn checked(set: RuleSet) -> Result<RuleSet> {
    let (count, most) = (set.aborts.len(), Abort::MOST);
    if count > most {
        return Err(Failure::usage(format!(
            "{count} abort conditions are too many: a fault has {most} at most"
        ))
        .mend("leave some out, or look at several things with one command=WORDS")
        .into());
    }
    for rule in &set.rules {
        validate(rule).map_err(Failure::senseless)?;
    }
    Ok(set)
}

/// Forwarded packets belong to no process, so a rule for some processes never meets them.
fn check_owner(target: &Target, matching: &MatchArgs) -> Result<()> {
    let whole_namespace = matches!(target, Target::Host | Target::NetnsName(_) | Target::Pid(_));
    if matching.forwarded && !whole_namespace {
        return Err(Failure::usage(format!(
            "--forwarded and {target} exclude each other: packets that are only routed belong to no process"
        ))
        .mend("leave out --forwarded, or name host, netns:name or pid:1234 as the target")
        .into());
    }
    Ok(())
}

/// Nothing can be attached to an address; `instead` is a command that takes it.
pub(crate) fn refuse_remote(target: &Target, instead: &str) -> Result<()> {
    if !target.is_peer_only() {
        return Ok(());
    }
    Err(Failure::usage(format!("{target} is an address; a target is something on this machine"))
        .mend(format!("name a target of this machine instead, such as `{instead}`"))
        .into())
}

fn schedule(args: &ScheduleArgs, duration: Option<Duration>) -> Result<Schedule> {
    let start_delay = args.start_after.unwrap_or_default();
    if let Some(duration) = duration.filter(|duration| start_delay >= *duration) {
        let (delay, whole) = (units::show_duration(start_delay), units::show_duration(duration));
        return Err(Failure::usage(format!(
            "--start-after {delay} leaves nothing of the {whole} the fault lasts, waiting included"
        ))
        .mend(format!("write a longer --for, such as --for {}", units::show_duration(start_delay + duration)))
        .into());
    }
    Ok(Schedule { duration, start_delay, flap: args.flap })
}

fn limits(args: &ScheduleArgs) -> Limits {
    Limits {
        max_packets: args.max_packets,
        max_bytes: args.max_bytes,
        max_flows: args.max_flows,
        max_targets: args.max_targets.or(Some(crate::safety::limits().max_targets)),
    }
}

fn lease(args: &SafetyArgs) -> Duration {
    args.lease.unwrap_or(units::DEFAULT_LEASE)
}
