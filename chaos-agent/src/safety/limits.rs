//! How far anybody may go, whoever asks.

use std::{
    sync::{PoisonError, RwLock},
    time::Duration,
};

use crate::config::Config;

/// What is allowed at most. One for the process: the grammar of the command line and of the API asks it, too.
#[derive(Clone, Debug, PartialEq, Eq)]
#[expect(clippy::struct_field_names, reason = "the names of the settings")]
pub(crate) struct Limits {
    /// No fault lasts longer.
    pub(crate) max_duration: Duration,
    /// So many faults are held at once.
    pub(crate) max_faults: usize,
    /// A fault that names no `max_targets` comes to so many namespaces, cgroups or devices at most.
    pub(crate) max_targets: u32,
}

/// The limits of a process that nobody told any.
const DEFAULT: Limits = Limits { max_duration: Duration::from_hours(1), max_faults: 256, max_targets: 256 };

static LIMITS: RwLock<Limits> = RwLock::new(DEFAULT);

impl From<&Config> for Limits {
    fn from(config: &Config) -> Self {
        Self {
            max_duration: config.max_duration,
            max_faults: config.max_faults as usize,
            max_targets: config.max_targets,
        }
    }
}

impl Limits {
    /// From now on these hold. Faults that are held stay as they were agreed.
    pub(crate) fn apply(self) {
        *LIMITS.write().unwrap_or_else(PoisonError::into_inner) = self;
    }
}

/// Those that hold now.
pub(crate) fn limits() -> Limits {
    LIMITS.read().unwrap_or_else(PoisonError::into_inner).clone()
}
