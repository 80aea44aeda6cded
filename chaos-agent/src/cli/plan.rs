//! `--dry-run` and `--explain`: what would happen, without touching anything.

use std::{fmt::Write as _, process::ExitCode};

use anyhow::{Context as _, Result};
use serde::Serialize;

use super::{
    args::PlanningArgs,
    failure::{Exit, Failure},
    output::{self, Stream},
};
use crate::{
    config::{Config, Sources},
    engine::{AttachMode, Engine, EngineOptions, Plan, Protection},
    spec::RuleSpec,
};

/// The line of `--json`; a section that was not asked for is absent.
#[derive(Debug, Serialize)]
struct PlanLine<'a> {
    r#type: &'static str,
    #[serde(skip_serializing_if = "Option::is_none")]
    attachments: Option<&'a [crate::engine::PlannedAttachment]>,
    #[serde(skip_serializing_if = "Option::is_none")]
    explanations: Option<&'a [String]>,
    #[serde(skip_serializing_if = "Option::is_none")]
    protected: Option<&'a [String]>,
}

/// Whether the user only wants to look.
pub(crate) fn wanted(args: &PlanningArgs) -> bool {
    args.dry_run || args.explain
}

/// The settings of this machine, also for those who work alone.
///
/// # Errors
/// They cannot be read.
pub(crate) fn settings() -> Result<Config, Failure> {
    let loaded = Sources::of_machine().load().map_err(|error| {
        Failure::refused(format!("what is protected on this machine cannot be known: {error}"))
            .mend("chaos agent --print-config shows the settings, and what is wrong with them")
    })?;
    Ok(loaded.config)
}

/// What the engine needs to know besides the rules. What the administrator wants protected is protected from those
/// who work alone, too.
pub(crate) fn engine_options(args: &PlanningArgs, settings: &Config) -> EngineOptions {
    EngineOptions { protection: Protection::from(settings), ..engine_options_for(args.attach) }
}

/// The same where nothing is planned.
pub(crate) fn engine_options_for(attach: AttachMode) -> EngineOptions {
    EngineOptions { attach, log_level: kernel_log_level(), ..EngineOptions::default() }
}

/// The kernel side logs at our own level. What it logs is rare, and nothing up to warnings.
fn kernel_log_level() -> u8 {
    match tracing::level_filters::LevelFilter::current().into_level() {
        Some(tracing::Level::DEBUG) => 4,
        Some(tracing::Level::TRACE) => 5,
        _ => 0,
    }
}

/// What we would do ourselves.
///
/// # Errors
/// It could not be done.
pub(crate) fn own(rules: &[RuleSpec], args: &PlanningArgs) -> Result<Plan> {
    Engine::plan(rules, &engine_options(args, &settings()?)).context("this fault cannot be planned")
}

/// Prints the plan. `remark` says what the plan cannot know.
pub(crate) fn print(plan: &Plan, args: &PlanningArgs, json: bool, remark: Option<&str>) -> Result<ExitCode> {
    if json {
        output::json(
            Stream::Out,
            &PlanLine {
                r#type: "plan",
                attachments: args.dry_run.then_some(&*plan.attachments),
                explanations: args.explain.then_some(&*plan.explanations),
                protected: args.explain.then_some(&*plan.protected),
            },
        )?;
    } else {
        output::line(Stream::Out, text(plan, args, remark).trim_end())?;
    }
    Ok(Exit::Done.into())
}

fn text(plan: &Plan, args: &PlanningArgs, remark: Option<&str>) -> String {
    let mut text = String::new();
    if args.explain {
        section(&mut text, "The rule:", plan.explanations.iter());
        section(&mut text, "Protected, never hit:", plan.protected.iter());
    }
    if args.dry_run {
        section(&mut text, "Would attach:", plan.attachments.iter());
    }
    if let Some(remark) = remark {
        let _ = writeln!(text, "{remark}");
    }
    let _ = writeln!(text, "Nothing was touched.");
    text
}

fn section(text: &mut String, title: &str, lines: impl Iterator<Item = impl std::fmt::Display>) {
    let _ = writeln!(text, "{title}");
    let before = text.len();
    for line in lines {
        let _ = writeln!(text, "  {line}");
    }
    if text.len() == before {
        let _ = writeln!(text, "  nothing");
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_what_was_asked_for() {
        let plan = Plan {
            attachments: Vec::new(),
            explanations: vec!["drops 10%".to_owned()],
            protected: Vec::new(),
        };
        let args = |dry_run, explain| PlanningArgs { dry_run, explain, attach: AttachMode::Auto };
        let dry = text(&plan, &args(true, false), None);
        assert!(dry.contains("Would attach:\n  nothing") && !dry.contains("drops 10%"), "{dry}");
        assert!(dry.ends_with("Nothing was touched.\n"), "{dry}");
        let explained = text(&plan, &args(false, true), Some("a remark"));
        assert!(explained.contains("drops 10%") && explained.contains("a remark"), "{explained}");
        assert!(explained.contains("never hit:\n  nothing"), "{explained}");
    }
}
