//! The flags of the faults, made from the list of fault kinds: a new kind needs no line here.

use std::fmt::Write as _;

use chaos_common::{
    fault::{DefaultDirection, FAULTS, FaultInfo, Faults, Value},
    profile::{PROFILES, Profile, Way},
};
use clap::{Arg, ArgAction, ArgMatches, Args, Command, FromArgMatches, builder::PossibleValuesParser};

use super::{
    failure::{Exit, Failure},
    units,
};
use crate::spec::Direction;

/// The heading of these flags in help.
const HEADING: &str = "Faults (at least one)";

/// The name of the flag that stands for several faults.
const PROFILE: &str = "profile";

/// The faults given on the command line.
#[derive(Clone, Debug, Default)]
pub(crate) struct FaultFlags {
    /// Their parameters, without those of the profile.
    pub(crate) faults: Faults,
    /// Which of them were given, with their values.
    given: Vec<(&'static FaultInfo, Vec<String>)>,
    /// The network that was asked for by name.
    profile: Option<&'static Profile>,
}

impl FaultFlags {
    /// Nothing was given.
    pub(crate) fn is_off(&self) -> bool {
        self.faults.is_off() && self.profile.is_none()
    }

    /// The faults in plain words, such as `loss 10%`; for several `loss 10% + reset`.
    pub(crate) fn name(&self) -> String {
        let profile = self.profile.map(|profile| format!("profile {}", profile.name));
        let own = Some(describe(&self.faults)).filter(|words| !words.is_empty());
        profile.into_iter().chain(own).collect::<Vec<_>>().join(" + ")
    }

    /// The faults by direction: one set, or two of a profile, whose ways differ.
    ///
    /// Beside a profile each fault acts in its own direction, and replaces what the profile has of its kind.
    ///
    /// # Errors
    /// Without a profile: the faults have different directions of their own and none was asked for. With
    /// one: this version does not have all of its faults.
    pub(crate) fn by_direction(
        &self,
        asked: Option<Direction>,
    ) -> Result<Vec<(Option<Direction>, Faults)>, Failure> {
        let Some(profile) = self.profile else {
            return Ok(vec![(self.direction(asked)?, self.faults)]);
        };
        let kinds: Vec<&str> = self.given.iter().map(|(info, _)| info.name).collect();
        let ways = [(Way::Up, Direction::Egress), (Way::Down, Direction::Ingress)];
        let mut sets = Vec::new();
        for (way, direction) in ways.into_iter().filter(|(_, way)| covers(asked, *way)) {
            let mut faults = Faults::default();
            let failed = |why| Failure { exit: Exit::Other, what: why, mend: None };
            profile.apply(way, &kinds, &mut faults).map_err(failed)?;
            for (info, values) in &self.given {
                if covers(asked.or(Some(own(info))), direction) {
                    for value in values {
                        (info.parse)(value, &mut faults).map_err(failed)?;
                    }
                }
            }
            sets.push((Some(direction), faults));
        }
        Ok(sets)
    }

    /// The direction to act in: the one asked for, else the one the faults have by themselves.
    fn direction(&self, asked: Option<Direction>) -> Result<Option<Direction>, Failure> {
        let word = |info: &FaultInfo| match info.default_direction {
            DefaultDirection::Egress => "egress",
            DefaultDirection::Ingress => "ingress",
            DefaultDirection::Both => "both",
        };
        let Some(((first, _), rest)) = self.given.split_first() else { return Ok(asked) };
        let odd = rest.iter().find(|(info, _)| info.default_direction != first.default_direction);
        match (asked, odd) {
            (None, Some((odd, _))) => Err(Failure::usage(format!(
                "--{} acts on {} and --{} on {} unless told otherwise, so together they need a direction",
                first.name,
                word(first),
                odd.name,
                word(odd)
            ))
            .mend("add --direction egress, --direction ingress or --direction both")),
            _ => Ok(asked),
        }
    }
}

/// The direction that a fault has by itself.
fn own(info: &FaultInfo) -> Direction {
    match info.default_direction {
        DefaultDirection::Egress => Direction::Egress,
        DefaultDirection::Ingress => Direction::Ingress,
        DefaultDirection::Both => Direction::Both,
    }
}

/// Whether what was asked for includes this direction.
fn covers(asked: Option<Direction>, direction: Direction) -> bool {
    asked.is_none_or(|asked| asked == Direction::Both || asked == direction)
}

/// Faults in plain words.
pub(crate) fn describe(faults: &Faults) -> String {
    let words: Vec<String> = FAULTS.iter().filter_map(|info| (info.describe)(faults)).collect();
    words.join(" + ")
}

/// Every fault flag, for the sentence that none was given.
pub(crate) fn every_flag() -> String {
    let flags: Vec<String> = FAULTS.iter().map(FaultInfo::usage).collect();
    format!("{}, --{PROFILE} NETWORK", flags.join(", "))
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

/// The flag for a network by its name, with all the numbers in the long help.
fn profile_argument() -> Arg {
    let mut long =
        "A whole network by its name: two rules, one for what leaves and one for what comes, each with \
        half of the round trip. A fault that is given besides replaces the profile's own of that kind."
            .to_owned();
    for profile in PROFILES {
        // Writing to a String cannot fail.
        let _ =
            write!(long, "\n  {:<13} {}\n{:16}({})", profile.name, profile.describe(), "", profile.source);
    }
    let names = PROFILES.iter().map(|profile| profile.name);
    Arg::new(PROFILE)
        .long(PROFILE)
        .value_name("NETWORK")
        .value_parser(PossibleValuesParser::new(names.clone()))
        .hide_possible_values(true)
        .help(format!("A network by its name, of several faults: {}", names.collect::<Vec<_>>().join(", ")))
        .long_help(long)
        .help_heading(HEADING)
}

impl Args for FaultFlags {
    fn augment_args(command: Command) -> Command {
        FAULTS.iter().fold(command, |command, info| command.arg(argument(info))).arg(profile_argument())
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
            for value in &values {
                (info.parse)(value, &mut self.faults)
                    .map_err(|error| clap::Error::raw(clap::error::ErrorKind::ValueValidation, error))?;
            }
            if !values.is_empty() {
                self.given.push((info, values.into_iter().map(str::to_owned).collect()));
            }
        }
        self.profile = matches.get_one::<String>(PROFILE).and_then(|name| Profile::named(name));
        Ok(())
    }
}
