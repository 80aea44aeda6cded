//! The benchmarks: `cargo xtask bench` runs this as root.
//!
//! `bench api|compare|delay|path|prog|scale [--quick] [--rounds N]`: tables go to standard error, the document (JSON) to standard output.
//! It needs nothing but itself, `traffic` beside it, the `chaos` that `CHAOS_BIN` names, and the programs whose rows
//! are skipped without them; so it also runs as a static binary on another kernel.
#![expect(clippy::cast_precision_loss, reason = "counts and times stay far below 2^52")]

mod api;
mod armed;
mod compare;
mod delay;
mod naive;
mod path;
mod prog;
mod scale;

use anyhow::{Context as _, Result, bail, ensure};
use chaos_tests::{bench::Options, lab::alone};

fn main() -> Result<()> {
    let mut words = std::env::args().skip(1);
    let name = words.next().context("which one: api, compare, delay, path, prog or scale?")?;
    let run = match name.as_str() {
        "api" => api::run,
        "compare" => compare::run,
        "delay" => delay::run,
        "path" => path::run,
        "prog" => prog::run,
        "scale" => scale::run,
        other => bail!("`{other}` is none of api, compare, delay, path, prog, scale"),
    };
    let options = Options::parse(words)?;
    ensure!(nix::unistd::geteuid().is_root(), "needs root; `cargo xtask bench` asks for it");
    let _alone = alone()?;
    run(&options)
}
