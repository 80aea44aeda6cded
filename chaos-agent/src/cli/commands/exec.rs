//! `chaos exec`.

use std::{path::PathBuf, process::ExitCode, time::Instant};

use anyhow::{Context as _, Result};

use super::holding;
use crate::{
    cli::{
        args::ExecArgs,
        failure::{Exit, Failure},
        hold::Armed,
        output::{self, Stream},
        plan, privileges,
        report::{End, Reporter, Started, Summary},
        resolve, rule,
    },
    engine::{Engine, EngineError},
    targets::Target,
};

/// A command that stands ready in its own cgroup and has not run yet. Dropped, it never runs.
pub(crate) trait Ready {
    /// Its cgroup, relative to the cgroup2 mount.
    fn cgroup(&self) -> PathBuf;
    /// Lets it run, calls `tick` at least every 50 ms, and returns its exit code (128 + signal).
    fn finish(self, tick: &mut dyn FnMut()) -> Result<u8>;
}

/// Runs a command whose network is broken.
pub(crate) fn run(args: &ExecArgs, json: bool) -> Result<ExitCode> {
    if plan::wanted(&args.planning) {
        let own = Target::Cgroup(own_cgroup()?);
        let rule = rule::exec(args, own.clone(), &|name| resolve::addresses(&own, name))?;
        let remark = "The command would get a cgroup of its own below the one named here; only that is hit.";
        return plan::print(&[rule], &args.planning, json, Some(remark));
    }
    privileges::require()?;
    let options = plan::engine_options(&args.planning);
    supervise(prepare(args)?, args, |rules| Engine::start(rules, &options), json)
}

/// Nothing can be run by this build yet.
enum Never {}

impl Ready for Never {
    fn cgroup(&self) -> PathBuf {
        match *self {}
    }

    fn finish(self, _tick: &mut dyn FnMut()) -> Result<u8> {
        match self {}
    }
}

fn prepare(_args: &ExecArgs) -> Result<Never> {
    Err(Failure::refused("commands cannot be run by this build yet").into())
}

/// Arms the rule for a command that stands ready, runs it, and says how it went.
pub(crate) fn supervise<A: Armed>(
    ready: impl Ready,
    args: &ExecArgs,
    arm: impl FnOnce(&[crate::spec::RuleSpec]) -> Result<A, EngineError>,
    json: bool,
) -> Result<ExitCode> {
    // stdout belongs to the command.
    let mut reporter = Reporter::new(json, Stream::Err, false);
    let target = Target::Cgroup(ready.cgroup());
    let rules = [rule::exec(args, target.clone(), &|name| resolve::addresses(&target, name))?];
    let mut faults = arm(&rules).context("the fault could not be started, so the command was not run")?;
    if json {
        reporter.started(&Started {
            rules: rules.iter().map(|rule| rule.name.clone()).collect(),
            target: target.to_string(),
            duration: args.duration,
            shadow: args.safety.shadow,
        });
    }
    let armed_at = Instant::now();
    let mut lost: Option<EngineError> = None;
    let finished = ready.finish(&mut || {
        if lost.is_some() {
            return;
        }
        match faults.tick() {
            Ok(events) => events.iter().for_each(|event| reporter.event(event)),
            Err(error) => {
                output::warn(&format!("the fault ended early, the command goes on: {error}"));
                lost = Some(error);
            }
        }
    });
    let stats = faults.stop();
    let code = finished.context("the command could not be run")?;
    let stats = stats.context("the command ended, but taking the fault down failed")?;
    let end = if lost.is_some() { End::Failed } else { End::CommandEnded };
    let summary = Summary::new(end, armed_at.elapsed(), stats);
    reporter.summary(&summary);
    if !summary.matched && !args.allow_no_match {
        output::warn(&format!("no packet of the command was matched: {}", holding::causes(&rules[0])));
    }
    Ok(exit_code(code, &summary, args.allow_no_match))
}

/// The command's own failure comes first: a test that failed must not be hidden behind a number of ours.
/// Only a command that succeeded can be wrong about what it proved.
fn exit_code(command: u8, summary: &Summary, allow_no_match: bool) -> ExitCode {
    let exit = match summary {
        _ if command != 0 => return ExitCode::from(command),
        summary if summary.end == End::Failed => Exit::Other,
        summary if !summary.matched && !allow_no_match => Exit::NoMatch,
        _ => Exit::Done,
    };
    exit.into()
}

/// The cgroup we are in ourselves; the command's own will be a child of it.
fn own_cgroup() -> Result<PathBuf> {
    let cgroups = procfs::process::Process::myself()
        .and_then(|me| me.cgroups())
        .context("our own cgroup cannot be read from /proc/self/cgroup")?;
    // cgroups(7): the line of cgroup v2 has hierarchy 0.
    let own = cgroups.into_iter().find(|cgroup| cgroup.hierarchy == 0);
    own.map(|cgroup| PathBuf::from(cgroup.pathname))
        .context("this machine has no cgroup v2, which `exec` needs; `chaos doctor` says how to mount it")
}

#[cfg(test)]
mod tests {
    use clap::Parser as _;

    use super::*;
    use crate::{
        cli::args::{Cli, Command},
        engine::{Counters, Event, RuleStats},
    };

    struct Fake {
        code: u8,
    }

    impl Ready for Fake {
        fn cgroup(&self) -> PathBuf {
            "/chaos-test".into()
        }

        fn finish(self, tick: &mut dyn FnMut()) -> Result<u8> {
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
        fn tick(&mut self) -> Result<Vec<Event>, EngineError> {
            if self.fails { Err(EngineError::Missing) } else { Ok(Vec::new()) }
        }

        fn stats(&self) -> Result<Vec<RuleStats>, EngineError> {
            let egress = Counters { matched_packets: self.matched, ..Counters::default() };
            Ok(vec![RuleStats { name: "fake".to_owned(), egress, ..RuleStats::default() }])
        }

        fn stop(self) -> Result<Vec<RuleStats>, EngineError> {
            self.stats()
        }
    }

    fn ends_with(flags: &str, command: u8, faults: FakeFaults) -> u8 {
        let line = format!("chaos exec --partition {flags} -- cmd");
        let Command::Exec(args) = Cli::try_parse_from(line.split_whitespace()).unwrap().command else {
            panic!("not exec")
        };
        let code = supervise(Fake { code: command }, &args, |_| Ok(faults), false).unwrap();
        (0..=u8::MAX).find(|number| ExitCode::from(*number) == code).unwrap()
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
            fn cgroup(&self) -> PathBuf {
                "/chaos-test".into()
            }

            fn finish(self, _tick: &mut dyn FnMut()) -> Result<u8> {
                panic!("the command was run without its fault")
            }
        }
        let line = ["chaos", "exec", "--partition", "--", "cmd"];
        let Command::Exec(args) = Cli::try_parse_from(line).unwrap().command else { panic!("not exec") };
        let armed = |_: &[crate::spec::RuleSpec]| Err::<FakeFaults, _>(EngineError::Missing);
        let error = supervise(MustNotRun, &args, armed, false).expect_err("not armed");
        assert!(error.to_string().contains("the command was not run"), "{error}");
    }
}
