//! What chaos tells about its own work, on stderr.

use std::sync::OnceLock;

use tracing_subscriber::{
    Layer as _, Registry, filter::LevelFilter, fmt, layer::SubscriberExt as _, reload,
    util::SubscriberInitExt as _,
};

use super::output;
use crate::config::LogLevel;

/// Changes the level while we run.
static LEVEL: OnceLock<reload::Handle<LevelFilter, Registry>> = OnceLock::new();

/// The level of a command: as the flag says, else the environment; else warnings.
pub(crate) fn level_of(flag: Option<LogLevel>) -> LogLevel {
    let variable = || {
        let text = std::env::var("CHAOS_LOG_LEVEL").ok()?;
        <LogLevel as clap::ValueEnum>::from_str(&text, true).ok()
    };
    flag.or_else(variable).unwrap_or(LogLevel::Warn)
}

/// From now on is logged, as lines for people or as one JSON object a line (with the time, UTC).
pub(crate) fn start(level: LogLevel, json: bool) {
    let (filter, handle) = reload::Layer::new(filter(level));
    let _ = LEVEL.set(handle);
    let lines = fmt::layer().with_writer(|| output::LogWriter).with_target(false);
    let lines = if json { lines.json().flatten_event(true).boxed() } else { lines.without_time().boxed() };
    // Fails only if somebody else set one up first, and then that one logs.
    let _ = tracing_subscriber::registry().with(filter).with(lines).try_init();
}

/// Logs more, or less.
pub(crate) fn set_level(level: LogLevel) {
    if let Some(handle) = LEVEL.get() {
        // Fails only if the subscriber is gone, and then nothing is logged.
        let _ = handle.reload(filter(level));
    }
}

const fn filter(level: LogLevel) -> LevelFilter {
    match level {
        LogLevel::Off => LevelFilter::OFF,
        LogLevel::Error => LevelFilter::ERROR,
        LogLevel::Warn => LevelFilter::WARN,
        LogLevel::Info => LevelFilter::INFO,
        LogLevel::Debug => LevelFilter::DEBUG,
        LogLevel::Trace => LevelFilter::TRACE,
    }
}
