//! From flags to the rules the engine takes; contradictions end here, before anything is touched.

use std::{net::IpAddr, time::Duration};

use anyhow::Result;
use chaos_common::fault::{FAULTS, FaultKind, Faults};

use super::{
    args::{ExecArgs, InjectArgs, PartitionArgs, SafetyArgs, ScheduleArgs},
    failure::Failure,
    fault_flags::{self, FaultFlags},
    match_args::MatchArgs,
    units,
};
use crate::{
    spec::{Direction, Limits, MatchSpec, RuleSpec, Schedule},
    targets::Target,
};

/// Turns a host name into its addresses, as the target would.
pub(crate) type Resolve<'a> = &'a dyn Fn(&str) -> Result<Vec<IpAddr>>;

/// The rule of `chaos inject`.
pub(crate) fn inject(args: &InjectArgs, resolve: Resolve) -> Result<RuleSpec> {
    refuse_remote(&args.target, &format!("chaos inject ... host --peer {}", args.target))?;
    let direction = check_faults(&args.faults, &args.matching)?;
    check_owner(&args.target, &args.matching)?;
    let holding = &args.holding;
    Ok(RuleSpec {
        name: args.faults.name(),
        target: args.target.clone(),
        peer: None,
        matching: args.matching.to_spec(direction, resolve)?,
        faults: args.faults.faults,
        schedule: schedule(&holding.schedule, Some(holding.duration()))?,
        limits: limits(&holding.schedule),
        shadow: holding.safety.shadow,
        seed: holding.schedule.seed,
        lease: lease(&holding.safety),
    })
}

/// Everything about an `exec` that can be wrong without knowing its cgroup, so that nothing is made in vain.
pub(crate) fn check_exec(args: &ExecArgs) -> Result<()> {
    exec(args, Target::Cgroup("/".into()), &|_| Ok(Vec::new())).map(drop)
}

/// The rule of `chaos exec`, for the command's own cgroup.
pub(crate) fn exec(args: &ExecArgs, target: Target, resolve: Resolve) -> Result<RuleSpec> {
    let direction = check_faults(&args.faults, &args.matching)?;
    check_owner(&target, &args.matching)?;
    Ok(RuleSpec {
        name: args.faults.name(),
        target,
        peer: None,
        matching: args.matching.to_spec(direction, resolve)?,
        faults: args.faults.faults,
        schedule: schedule(&args.schedule, args.duration)?,
        limits: limits(&args.schedule),
        shadow: args.safety.shadow,
        seed: args.schedule.seed,
        lease: lease(&args.safety),
    })
}

/// The rule of `chaos partition`: the target is a side on this machine, A if both are.
pub(crate) fn partition(args: &PartitionArgs) -> Result<RuleSpec> {
    if args.a == args.b {
        return Err(Failure::usage(format!("A and B are both {}", args.a))
            .mend("name two different sides; to cut a target off from everybody use `chaos inject --partition TARGET`")
            .into());
    }
    let (target, other, one_way) = match (args.a.is_peer_only(), args.b.is_peer_only()) {
        (true, true) => {
            return Err(Failure::usage(format!("neither {} nor {} is on this machine", args.a, args.b))
                .mend("name at least one of host, cgroup:/path, unit:name.service, netns:name, pid:1234")
                .into());
        }
        (true, false) => (&args.b, &args.a, Direction::Ingress),
        (false, _) => (&args.a, &args.b, Direction::Egress),
    };
    let direction = Some(if args.one_way { one_way } else { Direction::Both });
    let holding = &args.holding;
    Ok(RuleSpec {
        name: format!(
            "{} {} {} {}",
            black_hole_name(),
            args.a,
            if args.one_way { "->" } else { "<->" },
            args.b
        ),
        target: target.clone(),
        peer: Some(other.clone()),
        matching: MatchSpec { direction, ..MatchSpec::default() },
        faults: black_hole(),
        schedule: schedule(&holding.schedule, Some(holding.duration()))?,
        limits: limits(&holding.schedule),
        shadow: holding.safety.shadow,
        seed: holding.schedule.seed,
        lease: lease(&holding.safety),
    })
}

/// The one fault this command line has a command for.
fn black_hole() -> Faults {
    let mut faults = Faults::default();
    for info in FAULTS.iter().filter(|info| info.kind == FaultKind::Partition) {
        // Without a value it cannot fail; `the_partition_command_sets_its_fault` holds it.
        let _ = (info.parse)("", &mut faults);
    }
    faults
}

fn black_hole_name() -> String {
    fault_flags::describe(&black_hole())
}

/// The faults are there and agree on a direction; the match can be met.
fn check_faults(faults: &FaultFlags, matching: &MatchArgs) -> Result<Option<Direction>> {
    if faults.faults.is_off() {
        return Err(Failure::usage("no fault was given, so nothing would happen")
            .mend(format!("add at least one of {}", fault_flags::every_flag()))
            .into());
    }
    matching.check()?;
    Ok(faults.direction(matching.direction)?)
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
    Limits { max_packets: args.max_packets, max_bytes: args.max_bytes }
}

fn lease(args: &SafetyArgs) -> Duration {
    args.lease.unwrap_or(units::DEFAULT_LEASE)
}
