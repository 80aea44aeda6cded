//! The command line: flags, help, output; human units end here.
//!
//! `args` and its neighbours read the flags, `rule` turns them into rules and refuses contradictions,
//! `commands` has one file per command, `hold` keeps a fault up, `report` and `output` speak.
#![warn(clippy::print_stdout, clippy::print_stderr)]

mod args;
mod ask_args;
mod body;
mod commands;
mod failure;
mod fault_flags;
mod groups;
mod hold;
pub(crate) mod log;
mod logged;
mod match_args;
mod optional_values;
pub(crate) mod output;
mod own;
mod peer;
mod plan;
mod privileges;
mod remote;
mod report;
pub(crate) mod request;
mod resolve;
mod rule;
mod ruleset;
mod setting_flags;
pub(crate) mod units;
mod world;

#[cfg(test)]
mod tests;

use std::{ffi::OsString, io, process::ExitCode};

use anyhow::Result;
use clap::{
    ArgMatches, CommandFactory as _, FromArgMatches as _,
    error::{ContextKind, ContextValue, ErrorKind},
};

pub use self::args::Cli;
pub(crate) use self::commands::holding::causes;
use self::{args::Command, output::Stream};
pub(crate) use self::{
    failure::{Exit, Failure, Report},
    ruleset::RuleSet,
};

/// Runs the command line of this process and returns its exit code: 0 done, 2 usage, 3 refused,
/// 4 nothing matched, 1 other; for `exec` the command's own code unless that is 0.
#[must_use]
pub fn run() -> ExitCode {
    let (cli, matches) = parse(&std::env::args_os().collect::<Vec<_>>()).unwrap_or_else(|error| error.exit());
    if !matches!(cli.command, Command::Agent(_)) {
        log::start(log::level_of(cli.global.log_level), false);
    }
    clean_terminal_on_panic();
    let json = cli.global.json;
    // The stdout of `exec` is its command's.
    let results = if matches!(cli.command, Command::Exec(_)) { Stream::Err } else { Stream::Out };
    let result = dispatch(cli, &matches);
    output::clear_live();
    result.unwrap_or_else(|error| {
        if reader_went_away(&error) {
            return Exit::Done.into();
        }
        let report = Report::new(&error);
        if json {
            let _ = output::json(results, &serde_json::json!({ "type": "error", "error": report }));
        }
        output::note(&report.text());
        ExitCode::from(report.code)
    })
}

/// Reads a command line; to clap's own advice it adds the one that it cannot know.
fn parse(words: &[OsString]) -> Result<(Cli, ArgMatches), clap::Error> {
    let command = words.iter().skip(1).find(|word| !word.as_encoded_bytes().starts_with(b"-")).cloned();
    let mut grammar = Cli::command();
    let matches = grammar.try_get_matches_from_mut(optional_values::join(words));
    let read = matches.and_then(|matches| {
        let cli = Cli::from_arg_matches(&matches).map_err(|error| error.format(&mut grammar))?;
        Ok((cli, matches))
    });
    read.map_err(|mut error| {
        let unexpected = error.get(ContextKind::InvalidArg).map(ToString::to_string).unwrap_or_default();
        let value = error.get(ContextKind::InvalidValue).map(ToString::to_string).unwrap_or_default();
        if !unexpected.starts_with('-')
            && let Some(tip) =
                [&unexpected, &value].iter().find_map(|word| optional_values::advice(words, word))
        {
            error.insert(ContextKind::Suggested, ContextValue::StyledStrs(vec![tip.into()]));
        }
        if error.kind() == ErrorKind::UnknownArgument
            && !unexpected.starts_with('-')
            && command.is_some_and(|command| command == "exec")
        {
            let tip = format!("the command to run comes after `--`: chaos exec ... -- {unexpected} ...");
            error.insert(ContextKind::Suggested, ContextValue::StyledStrs(vec![tip.into()]));
        }
        error
    })
}

/// `chaos man | head` is no error.
fn reader_went_away(error: &anyhow::Error) -> bool {
    error.downcast_ref::<io::Error>().is_some_and(|error| error.kind() == io::ErrorKind::BrokenPipe)
}

fn dispatch(cli: Cli, matches: &ArgMatches) -> Result<ExitCode> {
    let json = cli.global.json;
    let body = || body::of(matches);
    match cli.command {
        Command::Exec(args) => commands::exec::run(&args, body, json),
        Command::Agent(args) => commands::agent::run(&args, &cli.global),
        Command::Inject(args) => commands::inject::run(&args, body, json),
        Command::Partition(args) => commands::partition::run(&args, body, json),
        Command::Probe(args) => commands::probe::run(&args),
        Command::Flows(args) => commands::flows::run(&args, json),
        Command::Stop(args) => commands::stop::run(&args, json),
        Command::Ls(args) => commands::faults::ls(&args, json),
        Command::Show(args) => commands::faults::show(&args, json),
        Command::Rm(args) => commands::faults::rm(&args, json),
        Command::Events(args) => commands::events::run(&args, json),
        Command::Doctor => commands::doctor::run(json),
        Command::Completions(args) => commands::generate::completions(&args),
        Command::Man(args) => commands::generate::man(&args),
    }
}

fn clean_terminal_on_panic() {
    let print = std::panic::take_hook();
    std::panic::set_hook(Box::new(move |info| {
        output::clear_live();
        print(info);
    }));
}
