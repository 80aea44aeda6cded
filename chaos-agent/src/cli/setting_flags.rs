//! Each setting of the agent as a flag, from the one list of settings.

use clap::{Arg, ArgMatches, Args, Command, FromArgMatches};

use crate::config::SETTINGS;

/// The global flag `--log-level` is also this setting.
pub(crate) const LOG_LEVEL: &str = "log.level";

/// The flags that were given: name of the setting and its text.
#[derive(Clone, Debug, Default)]
pub(crate) struct SettingFlags(pub(crate) Vec<(&'static str, String)>);

impl Args for SettingFlags {
    fn augment_args(command: Command) -> Command {
        let own = SETTINGS.iter().filter(|setting| setting.name != LOG_LEVEL);
        own.fold(command.next_help_heading("Settings"), |command, setting| {
            let heading = match setting.name.split_once('.') {
                Some(("abort", _)) => "Abort conditions",
                Some(("limits", _)) => "Limits",
                Some(("log", _)) => "Output",
                Some(("events", _)) => "Events",
                Some(("protect", _)) => "Protected",
                _ => "Settings",
            };
            let default = match setting.default_text().trim_matches('"') {
                "" | "[]" | "false" => String::new(),
                default => format!(" [default: {default}]"),
            };
            let help = format!("{}{default} [env: {}]", setting.help, setting.variable());
            let check = move |text: &str| setting.check(text).map(|()| text.to_owned());
            let mut arg = Arg::new(setting.name)
                .long(setting.flag())
                .value_name(setting.form)
                .value_parser(check)
                .help_heading(heading)
                .help(help);
            if setting.is_switch() {
                arg = arg.num_args(0..=1).require_equals(true).default_missing_value("true");
            }
            command.arg(arg)
        })
    }

    fn augment_args_for_update(command: Command) -> Command {
        Self::augment_args(command)
    }
}

impl FromArgMatches for SettingFlags {
    fn from_arg_matches(matches: &ArgMatches) -> Result<Self, clap::Error> {
        let own = SETTINGS.iter().filter(|setting| setting.name != LOG_LEVEL);
        let given = own.filter_map(|setting| {
            matches.get_one::<String>(setting.name).map(|text| (setting.name, text.clone()))
        });
        Ok(Self(given.collect()))
    }

    fn update_from_arg_matches(&mut self, matches: &ArgMatches) -> Result<(), clap::Error> {
        *self = Self::from_arg_matches(matches)?;
        Ok(())
    }
}
