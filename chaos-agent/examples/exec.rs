//! Runs a command as `chaos exec` does, without a fault: the way of a caller through `chaos_agent::exec`, and
//! what the integration tests start (tests/exec.rs, tests/guard.rs).
//!
//! `exec [--hold-ms N] COMMAND...`: with `--hold-ms` it says where the cgroup is and waits before the release.

use std::{env, thread, time::Duration};

use chaos_agent::{
    exec::{Command, ExecError, ExitOutcome},
    guard::Guard,
};

fn run() -> Result<ExitOutcome, ExecError> {
    let mut argv: Vec<_> = env::args_os().skip(1).collect();
    let mut hold_ms = None;
    if argv.first().is_some_and(|word| word == "--hold-ms") {
        hold_ms = argv.get(1).and_then(|word| word.to_str()?.parse().ok());
        argv.drain(..2.min(argv.len()));
    }
    let guard = Guard::start().map_err(|source| ExecError::System { what: "starting the guard", source })?;
    let prepared = Command::new(argv).guarded_by(&guard).prepare()?;
    if let Some(hold_ms) = hold_ms {
        // A caller arms its faults for `prepared.cgroup()` here.
        eprintln!("{}", prepared.cgroup_directory().display());
        thread::sleep(Duration::from_millis(hold_ms));
    }
    let mut outcome = prepared.release()?.wait(|| ())?;
    // And removes them here.
    if let Err(error) = outcome.remove_cgroup() {
        eprintln!("the command's cgroup could not be removed: {error}");
    }
    Ok(outcome)
}

fn main() {
    match run() {
        Ok(outcome) => outcome.exit(),
        Err(error) => {
            eprintln!("chaos: {error}");
            std::process::exit(error.exit_code());
        }
    }
}
