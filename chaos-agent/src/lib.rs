//! The agent: selectors become rules, rules become maps, programs are attached and removed.
//!
//! `chaos-agent` never decides about a packet; it commands (see ARCHITECTURE.md).
#![cfg_attr(test, expect(clippy::unwrap_used, reason = "a failed unwrap in a test is a failed test"))]

mod api;
pub mod cgroup;
pub mod cli;
mod config;
mod daemon;
pub mod datapath;
pub mod doctor;
pub mod engine;
pub mod exec;
pub mod flows;
mod folder;
pub mod guard;
pub mod lines;
pub mod needs;
pub mod net;
pub mod netns;
pub mod rights;
mod safety;
pub mod spec;
mod table;
pub mod targets;
pub mod telemetry;
pub mod validate;

/// Reads bytes as the body of a fault, for the fuzz target in `fuzz/`.
///
/// # Panics
/// When it finds something that must not be: the reading panics, or what is said to be wrong is not there.
#[cfg(feature = "fuzz")]
#[doc(hidden)]
pub fn fuzz_body(bytes: &[u8]) {
    api::check_body(bytes);
}
