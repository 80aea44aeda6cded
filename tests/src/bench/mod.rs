//! What the benchmarks share: `cargo xtask bench` runs them (`tests/src/bin/bench`) as root.
//!
//! A benchmark prints a [`Document`] to standard output, and its progress and tables to standard error.

mod document;
pub mod flood;
pub mod lane;
mod machine;
mod options;
pub mod rules;
mod spread;

pub use document::{Axis, Chart, Document, Point, Series, Table};
pub use machine::{Machine, cpu_s};
pub use options::Options;
pub use spread::Spread;
