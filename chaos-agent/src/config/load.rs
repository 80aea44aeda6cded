//! From flags, environment, file and defaults to one configuration.

use std::{
    fs, io,
    path::{Path, PathBuf},
};

use super::{Config, SETTINGS, Setting, file};

/// The file that is read if it is there and no other is named.
pub(crate) const DEFAULT_FILE: &str = "/etc/chaos/agent.toml";

/// What is wrong with a configuration.
#[derive(Debug, thiserror::Error)]
pub(crate) enum ConfigError {
    /// A line of the file.
    #[error("{}, line {line}: {what}", path.display())]
    File {
        /// Which file.
        path: PathBuf,
        /// From 1.
        line: usize,
        /// What is wrong with it, and what is accepted.
        what: String,
    },
    /// The file cannot be read.
    #[error("{what} {}: {error}", path.display())]
    Unreadable {
        /// What it is for.
        what: &'static str,
        /// Which file.
        path: PathBuf,
        /// What the kernel said.
        error: io::Error,
    },
    /// A flag or a variable.
    #[error("{origin}: `{text}`: {what}")]
    Value {
        /// `--flag` or `VARIABLE`.
        origin: String,
        /// What was given.
        text: String,
        /// What is accepted.
        what: String,
    },
    /// Settings that do not go together.
    #[error("{0}")]
    Together(String),
}

/// Where a value came from.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Origin {
    Default,
    /// A line of the file.
    File(usize),
    Variable,
    Flag,
}

/// Where values come from; kept, to be asked again at SIGHUP.
#[derive(Clone, Debug)]
pub(crate) struct Sources {
    /// `--config`, if given.
    pub(crate) file: Option<PathBuf>,
    /// Name of the setting and the text of its flag.
    pub(crate) flags: Vec<(&'static str, String)>,
    /// The environment.
    pub(crate) variables: fn(&str) -> Option<String>,
}

/// A configuration, and where each of its values came from.
#[derive(Clone, Debug)]
pub(crate) struct Loaded {
    pub(crate) config: Config,
    /// The file that was read.
    pub(crate) file: Option<PathBuf>,
    /// As in [`SETTINGS`].
    pub(super) origins: Vec<Origin>,
}

impl Sources {
    /// What an agent that is started without flags would take: the environment, and the file of the machine.
    pub(crate) fn of_machine() -> Self {
        Self { file: None, flags: Vec::new(), variables: |name| std::env::var(name).ok() }
    }

    /// Flag before environment before file before default.
    ///
    /// # Errors
    /// The first value that is wrong, and where it stands.
    pub(crate) fn load(&self) -> Result<Loaded, ConfigError> {
        let mut loaded =
            Loaded { config: Config::default(), file: None, origins: vec![Origin::Default; SETTINGS.len()] };
        if let Some((path, text)) = self.text_of_file()? {
            for entry in file::read(&path, &text)? {
                let wrong = |what| ConfigError::File { path: path.clone(), line: entry.line, what };
                loaded.set(entry.index, &entry.text, Origin::File(entry.line)).map_err(wrong)?;
            }
            loaded.file = Some(path);
        }
        for (index, setting) in SETTINGS.iter().enumerate() {
            if let Some(text) = (self.variables)(&setting.variable()) {
                let wrong =
                    |what| ConfigError::Value { origin: setting.variable(), text: text.clone(), what };
                loaded.set(index, &text, Origin::Variable).map_err(wrong)?;
            }
            if let Some((_, text)) = self.flags.iter().rfind(|(name, _)| *name == setting.name) {
                let origin = format!("--{}", setting.flag());
                let wrong = |what| ConfigError::Value { origin, text: text.clone(), what };
                loaded.set(index, text, Origin::Flag).map_err(wrong)?;
            }
        }
        together(&loaded.config)?;
        Ok(loaded)
    }

    fn text_of_file(&self) -> Result<Option<(PathBuf, String)>, ConfigError> {
        let named = self.file.clone().or_else(|| (self.variables)("CHAOS_CONFIG").map(PathBuf::from));
        let path = named.clone().unwrap_or_else(|| DEFAULT_FILE.into());
        match fs::read_to_string(&path) {
            Ok(text) => Ok(Some((path, text))),
            Err(error) if named.is_none() && error.kind() == io::ErrorKind::NotFound => Ok(None),
            Err(error) => Err(ConfigError::Unreadable { what: "the configuration", path, error }),
        }
    }
}

impl Loaded {
    fn set(&mut self, index: usize, text: &str, origin: Origin) -> Result<(), String> {
        let Some(setting) = SETTINGS.get(index) else { return Ok(()) };
        (setting.set)(&mut self.config, text)?;
        if let Some(place) = self.origins.get_mut(index) {
            *place = origin;
        }
        Ok(())
    }

    /// Where the value of a setting came from, in words.
    pub(super) fn origin_of(&self, index: usize, setting: &Setting) -> String {
        match self.origins.get(index).copied().unwrap_or(Origin::Default) {
            Origin::Default => "default".to_owned(),
            Origin::File(line) => {
                let file = self.file.as_deref().unwrap_or(Path::new(DEFAULT_FILE));
                format!("{}, line {line}", file.display())
            }
            Origin::Variable => setting.variable(),
            Origin::Flag => format!("--{}", setting.flag()),
        }
    }
}

/// What must be right of several settings at once.
fn together(config: &Config) -> Result<(), ConfigError> {
    if config.tls_cert.is_some() != config.tls_key.is_some() {
        return Err(ConfigError::Together(
            "tls_cert and tls_key go together: one of them is missing".to_owned(),
        ));
    }
    Ok(())
}
