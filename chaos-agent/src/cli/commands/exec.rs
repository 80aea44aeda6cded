//! `chaos exec`.

use std::{
    path::PathBuf,
    process::ExitCode,
    time::{Duration, Instant},
};

use anyhow::{Context as _, Result};
use chaos_client::{Client, NewFault};
use serde_json::{Map, Value};

use super::holding;
use crate::{
    cgroup::{Hierarchy, Removal},
    cli::{
        args::ExecArgs,
        failure::{Exit, Failure},
        hold::Armed,
        logged::Logged,
        output::{self, Stream},
        own::Own,
        plan, privileges, remote,
        report::{End, Reporter, Started, Summary},
        resolve, rule,
        ruleset::RuleSet,
        units,
    },
    engine::{EngineOptions, Plan},
    exec::{self, ExitOutcome, Prepared},
    guard::Guard,
    targets::Target,
};

/// A command that stands ready in its own cgroup and has not run yet. Dropped, it never runs.
pub(crate) trait Ready {
    /// The command after its end.
    type Ended: Ended;
    /// Its cgroup, relative to the cgroup2 mount.
    fn cgroup(&self) -> PathBuf;
    /// Lets it run, calls `tick` at least every 50 ms, and returns when it has ended.
    fn finish(self, tick: &mut dyn FnMut()) -> Result<Self::Ended>;
}

/// A command that has ended.
pub(crate) trait Ended {
    /// Its exit code, or 128 + the signal that ended it.
    fn code(&self) -> i32;
    /// Removes what was made for it; true when processes that it started still run.
    fn clean_up(&mut self) -> bool;
}

impl Ready for Prepared {
    type Ended = ExitOutcome;

    fn cgroup(&self) -> PathBuf {
        Self::cgroup(self).path.clone()
    }

    fn finish(self, tick: &mut dyn FnMut()) -> Result<ExitOutcome> {
        Ok(self.release()?.wait(tick)?)
    }
}

impl Ended for ExitOutcome {
    fn code(&self) -> i32 {
        self.code
    }

    fn clean_up(&mut self) -> bool {
        match self.remove_cgroup() {
            Ok(Removal::Removed) => false,
            Ok(Removal::Populated) => true,
            Err(error) => {
                tracing::warn!("the command's cgroup could not be removed: {error}");
                false
            }
        }
    }
}

/// Runs a command whose network is broken. Does not return when the command's own end is also ours.
pub(crate) fn run(
    args: &ExecArgs,
    body: impl FnOnce() -> Map<String, Value>,
    json: bool,
) -> Result<ExitCode> {
    if plan::wanted(&args.planning) {
        let plan = planned(args, body())?;
        let remark = "The command would get a cgroup of its own below the one named here; only that is hit.";
        return plan::print(&plan, &args.planning, json, Some(remark));
    }
    let set = rule::check_exec(args)?;
    let agent = remote::choose_unless_forced(&args.ask, args.planning.attach)?;
    if agent.is_some() {
        privileges::require_root("a cgroup for the command is made here, not by the agent")?;
    } else {
        privileges::require()?;
        holding::require(&set)?;
    }
    if let Some(warning) = exec::client_warning(&args.command) {
        output::warn(&warning);
    }
    let guard = Guard::start().context("the process that cleans up after a kill cannot be started")?;
    let options = EngineOptions {
        guard: Some(guard.clone()),
        ..plan::engine_options(&args.planning, &plan::settings()?)
    };
    let ready = exec::Command::new(args.command.clone()).guarded_by(&guard).prepare()?;
    let (ended, exit) = match &agent {
        Some(client) => {
            let arm = |set: &RuleSet, target: &Target| {
                let (fault, duration) = by_agent(client, body(), target, args, false)?;
                Ok(remote::hold(client, fault, &set.name, duration)?)
            };
            supervise(ready, args, arm, json)?
        }
        None => supervise(ready, args, |set, target| by_engine(set, target, args, &options), json)?,
    };
    match exit {
        Some(exit) => Ok(exit.into()),
        None => ended.exit(),
    }
}

fn planned(args: &ExecArgs, body: Map<String, Value>) -> Result<Plan> {
    let own = Target::Cgroup(Hierarchy::discover()?.own_path()?);
    if let Some(client) = remote::choose_unless_forced(&args.ask, args.planning.attach)? {
        // The cgroup named may hold this machine; the command's own never does.
        let (fault, _) = by_agent(&client, body, &own, args, true)?;
        return Ok(remote::plan(&client, &fault)?);
    }
    let set = rule::exec(args, &own, &|name| resolve::addresses(&own, name))?;
    plan::own(&set.rules, &args.planning)
}

fn by_engine(
    set: &RuleSet,
    target: &Target,
    args: &ExecArgs,
    options: &EngineOptions,
) -> Result<Logged<Own>> {
    Ok(Logged::begin(Own::start(set, options)?, &format!("{} on {target}", set.name), args.duration))
}

/// What an agent is asked for, and for how long: a command that has no time has as much as it may have.
fn by_agent(
    client: &Client,
    mut body: Map<String, Value>,
    target: &Target,
    args: &ExecArgs,
    confirmed: bool,
) -> Result<(NewFault, Duration), Failure> {
    body.insert("target".to_owned(), target.to_string().into());
    let duration = args.duration.map_or_else(|| remote::allowed(client, units::MAX_DURATION), Ok)?;
    Ok((remote::wanted(body, duration, confirmed), duration))
}

/// Arms the rule for a command that stands ready, runs it, and says how it went. No exit of ours means
/// that the command's own counts.
pub(crate) fn supervise<R: Ready, A: Armed>(
    ready: R,
    args: &ExecArgs,
    arm: impl FnOnce(&RuleSet, &Target) -> Result<A>,
    json: bool,
) -> Result<(R::Ended, Option<Exit>)> {
    // stdout belongs to the command.
    let mut reporter = Reporter::new(json, Stream::Err, false);
    let target = Target::Cgroup(ready.cgroup());
    let set = rule::exec(args, &target, &|name| resolve::addresses(&target, name))?;
    let mut faults =
        arm(&set, &target).context("the fault could not be started, so the command was not run")?;
    if json {
        reporter.started(&Started {
            rules: vec![set.name.clone()],
            target: target.to_string(),
            duration: args.duration,
            shadow: args.safety.shadow,
        });
    }
    let armed_at = Instant::now();
    let mut keeper = Keeper { faults: &mut faults, reporter: &mut reporter, end: End::CommandEnded };
    let finished = ready.finish(&mut || keeper.tick());
    let end = keeper.end;
    let stats = faults.stop();
    let mut ended = finished.context("the command could not be run")?;
    let summary = Summary::new(
        end,
        armed_at.elapsed(),
        stats.context("the command ended, but taking the fault down failed")?,
    );
    reporter.summary(&summary);
    if ended.clean_up() {
        reporter.note("processes that the command started still run, now without the fault");
    }
    if !summary.matched && !args.allow_no_match {
        let causes = set.rules.first().map(holding::causes).unwrap_or_default();
        reporter.note(&format!("no packet of the command was matched: {causes}"));
    }
    let exit = own_exit(ended.code(), &summary, args.allow_no_match);
    Ok((ended, exit))
}

/// Keeps the faults up while the command runs.
struct Keeper<'a, A> {
    faults: &'a mut A,
    reporter: &'a mut Reporter,
    end: End,
}

impl<A: Armed> Keeper<'_, A> {
    /// A fault that cannot be kept up must not take the command with it.
    fn tick(&mut self) {
        if self.end == End::Failed {
            return;
        }
        match self.faults.tick() {
            Ok(events) => events.iter().for_each(|event| self.reporter.event(event)),
            Err(error) => {
                self.reporter.note(&format!("the fault ended early, the command goes on: {error}"));
                self.end = End::Failed;
            }
        }
    }
}

/// The command's own failure comes first: a test that failed must not be hidden behind a number of ours.
/// Only a command that succeeded can be wrong about what it proved.
fn own_exit(command: i32, summary: &Summary, allow_no_match: bool) -> Option<Exit> {
    if command != 0 {
        None
    } else if summary.end == End::Failed {
        Some(Exit::Other)
    } else if !summary.matched && !allow_no_match {
        Some(Exit::NoMatch)
    } else {
        None
    }
}

#[cfg(test)]
mod tests {
    use clap::Parser as _;

    use super::*;
    use crate::{
        cli::{
            args::{Cli, Command},
            hold::some_engine_error,
        },
        engine::{Counters, Event, RuleStats},
    };

    struct Fake {
        code: i32,
    }

    impl Ended for i32 {
        fn code(&self) -> i32 {
            *self
        }

        fn clean_up(&mut self) -> bool {
            false
        }
    }

    impl Ready for Fake {
        type Ended = i32;

        fn cgroup(&self) -> PathBuf {
            "/chaos-test".into()
        }

        fn finish(self, tick: &mut dyn FnMut()) -> Result<i32> {
            (0..3).for_each(|_| tick());
            Ok(self.code)
        }
    }

    #[derive(Default)]
    struct FakeFaults {
        matched: u64,
        fails: bool,
    }

    impl Armed for FakeFaults {
        fn tick(&mut self) -> Result<Vec<Event>> {
            if self.fails { Err(some_engine_error().into()) } else { Ok(Vec::new()) }
        }

        fn stats(&self) -> Result<Vec<RuleStats>> {
            let egress = Counters { matched_packets: self.matched, ..Counters::default() };
            Ok(vec![RuleStats { name: "fake".to_owned(), egress, ..RuleStats::default() }])
        }

        fn stop(self) -> Result<Vec<RuleStats>> {
            self.stats()
        }
    }

    fn ends_with(flags: &str, command: i32, faults: FakeFaults) -> i32 {
        let line = format!("chaos exec --partition {flags} -- cmd");
        let Command::Exec(args) = Cli::try_parse_from(line.split_whitespace()).unwrap().command else {
            panic!("not exec")
        };
        let (code, own) = supervise(Fake { code: command }, &args, |_, _| Ok(faults), false).unwrap();
        own.map_or(code, |exit| i32::from(exit as u8))
    }

    #[test]
    fn the_commands_own_failure_comes_first() {
        assert_eq!(ends_with("", 0, FakeFaults { matched: 1, fails: false }), 0);
        assert_eq!(ends_with("", 0, FakeFaults::default()), 4);
        assert_eq!(ends_with("--allow-no-match", 0, FakeFaults::default()), 0);
        assert_eq!(ends_with("", 7, FakeFaults::default()), 7);
        assert_eq!(ends_with("", 143, FakeFaults { matched: 1, fails: true }), 143);
        assert_eq!(ends_with("", 0, FakeFaults { matched: 1, fails: true }), 1);
    }

    #[test]
    fn a_fault_that_cannot_be_armed_means_the_command_does_not_run() {
        struct MustNotRun;
        impl Ready for MustNotRun {
            type Ended = i32;

            fn cgroup(&self) -> PathBuf {
                "/chaos-test".into()
            }

            fn finish(self, _tick: &mut dyn FnMut()) -> Result<i32> {
                panic!("the command was run without its fault")
            }
        }
        let line = ["chaos", "exec", "--partition", "--", "cmd"];
        let Command::Exec(args) = Cli::try_parse_from(line).unwrap().command else { panic!("not exec") };
        let armed = |_: &RuleSet, _: &Target| Err::<FakeFaults, _>(some_engine_error().into());
        let error = supervise(MustNotRun, &args, armed, false).expect_err("not armed");
        assert!(error.to_string().contains("the command was not run"), "{error}");
    }
}
