//! The flags of the faults, made from the list of fault kinds: a new kind needs no line here.

use chaos_common::fault::{DefaultDirection, FAULTS, FaultInfo, Faults, Value};
use clap::{Arg, ArgAction, ArgMatches, Args, Command, FromArgMatches};

use super::{failure::Failure, units};
use crate::spec::Direction;

/// The heading of these flags in help.
const HEADING: &str = "Faults (at least one)";

/// The faults given on the command line.
#[derive(Clone, Debug, Default)]
pub(crate) struct FaultFlags {
    /// Their parameters.
    pub(crate) faults: Faults,
    /// Which of them were given.
    given: Vec<&'static FaultInfo>,
}

impl FaultFlags {
    /// The faults in plain words, such as `loss 10%`; for several `loss 10% + reset`.
    pub(crate) fn name(&self) -> String {
        describe(&self.faults)
    }

    /// The direction to act in: the one asked for, else the one the faults have by themselves.
    ///
    /// # Errors
    /// The faults have different directions of their own and none was asked for.
    pub(crate) fn direction(&self, asked: Option<Direction>) -> Result<Option<Direction>, Failure> {
        let own = |info: &FaultInfo| match info.default_direction {
            DefaultDirection::Egress => "egress",
            DefaultDirection::Ingress => "ingress",
            DefaultDirection::Both => "both",
        };
        let Some((first, rest)) = self.given.split_first() else { return Ok(asked) };
        let odd = rest.iter().find(|info| info.default_direction != first.default_direction);
        match (asked, odd) {
            (None, Some(odd)) => Err(Failure::usage(format!(
                "--{} acts on {} and --{} on {} unless told otherwise, so together they need a direction",
                first.name,
                own(first),
                odd.name,
                own(odd)
            ))
            .mend("add --direction egress, --direction ingress or --direction both")),
            _ => Ok(asked),
        }
    }
}

/// Faults in plain words.
pub(crate) fn describe(faults: &Faults) -> String {
    let words: Vec<String> = FAULTS.iter().filter_map(|info| (info.describe)(faults)).collect();
    words.join(" + ")
}

/// Every fault flag, for the sentence that none was given.
pub(crate) fn every_flag() -> String {
    let flags: Vec<String> = FAULTS.iter().map(FaultInfo::usage).collect();
    flags.join(", ")
}

fn argument(info: &'static FaultInfo) -> Arg {
    let arg = Arg::new(info.name).long(info.name).help(info.help).help_heading(HEADING);
    match info.value {
        Value::None => arg.action(ArgAction::SetTrue),
        Value::Required(value) => arg
            .value_name(value)
            .action(ArgAction::Append)
            .allow_hyphen_values(true)
            .value_parser(move |text: &str| checked(info, text)),
        // `optional_values` has put an `=` where the next word is the value, so nothing is swallowed.
        Value::Optional(value) => arg
            .value_name(value)
            .action(ArgAction::Append)
            .num_args(0..=1)
            .require_equals(true)
            .default_missing_value("")
            .value_parser(move |text: &str| checked(info, text)),
    }
}

/// Tries the value on faults that are thrown away, so that clap reports it with the flag's name.
fn checked(info: &FaultInfo, text: &str) -> Result<String, String> {
    units::refuse_option(text, info.help)?;
    (info.parse)(text, &mut Faults::default()).map(|()| text.to_owned())
}

impl Args for FaultFlags {
    fn augment_args(command: Command) -> Command {
        FAULTS.iter().fold(command, |command, info| command.arg(argument(info)))
    }

    fn augment_args_for_update(command: Command) -> Command {
        Self::augment_args(command)
    }
}

impl FromArgMatches for FaultFlags {
    fn from_arg_matches(matches: &ArgMatches) -> Result<Self, clap::Error> {
        let mut flags = Self::default();
        flags.update_from_arg_matches(matches)?;
        Ok(flags)
    }

    fn update_from_arg_matches(&mut self, matches: &ArgMatches) -> Result<(), clap::Error> {
        for info in FAULTS {
            let values: Vec<&str> = match info.value {
                Value::None if matches.get_flag(info.name) => vec![""],
                Value::None => Vec::new(),
                Value::Required(_) | Value::Optional(_) => {
                    matches.get_many::<String>(info.name).into_iter().flatten().map(String::as_str).collect()
                }
            };
            if !values.is_empty() {
                self.given.push(info);
            }
            for value in values {
                (info.parse)(value, &mut self.faults)
                    .map_err(|error| clap::Error::raw(clap::error::ErrorKind::ValueValidation, error))?;
            }
        }
        Ok(())
    }
}
