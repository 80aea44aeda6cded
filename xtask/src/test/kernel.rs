//! The layers that load programs into the kernel: built as the user, run as root.

use std::{
    path::{Path, PathBuf},
    process::Command,
    time::Duration,
};

use anyhow::{Context as _, Result, bail};

use super::{Session, libtest, report::Report};
use crate::{cargo, packages, privilege::Privilege};

/// Test programs whose name begins so are the layer `e2e`, all others of chaos-tests `kernel`.
const END_TO_END: &str = "e2e";

pub(super) fn tables(session: &mut Session, report: &mut Report) {
    let result = run(session, report, |name| !name.starts_with(END_TO_END), Duration::from_mins(20));
    report.ended(result);
}

pub(super) fn end_to_end(session: &mut Session, report: &mut Report) {
    let result = run(session, report, |name| name.starts_with(END_TO_END), Duration::from_mins(30));
    report.ended(result);
}

fn run(session: &Session, report: &mut Report, wanted: fn(&str) -> bool, limit: Duration) -> Result<()> {
    let chaos = cargo::build_chaos(&session.root, session.object.as_deref())?;
    let programs: Vec<_> = build_tests(session)?.into_iter().filter(|(name, _)| wanted(name)).collect();
    if programs.is_empty() {
        bail!("chaos-tests has no test program for this layer");
    }
    let privilege = match Privilege::find("testing the kernel side") {
        Ok(privilege) => privilege,
        Err(why) => {
            for (name, _) in &programs {
                report.skip(format!("{name}: {why}"));
            }
            return Ok(());
        }
    };
    provide_packages(privilege);
    for (name, program) in &programs {
        let mut command = as_root(session, privilege, program, &chaos)?;
        // One at a time: they measure, and some look at the whole machine before and after.
        command.args(["--test-threads=1", "--show-output"]);
        libtest::run(report, name, &mut command, limit);
    }
    Ok(())
}

/// Installs missing packages if we are root, else says what is missing; the tests then skip themselves.
fn provide_packages(privilege: Privilege) {
    let missing = packages::missing(&[]);
    if missing.is_empty() {
        return;
    }
    if privilege == Privilege::Root && packages::is_debian() {
        if let Err(error) = packages::install(&missing, privilege) {
            println!("  packages could not be installed, tests that need them are skipped: {error:#}");
        }
    } else {
        println!(
            "  tests that need these packages are skipped; install: {}",
            packages::install_command(&missing)
        );
    }
}

fn build_tests(session: &Session) -> Result<Vec<(String, PathBuf)>> {
    let mut command = session.cargo("test");
    command.args(["--locked", "--no-run", "--package", "chaos-tests"]);
    let mut built = cargo::executables(&mut command, cargo::Kind::Tests)?;
    built.sort();
    Ok(built)
}

/// The test program as root, in the folder `cargo test` would use, with the little of our environment it needs.
fn as_root(session: &Session, privilege: Privilege, program: &Path, chaos: &Path) -> Result<Command> {
    let path = std::env::var("PATH").unwrap_or_default();
    let folder = session.root.join("tests");
    let mut command = privilege.command("env");
    command.current_dir(&folder).args([
        format!("PATH={path}:/usr/sbin:/sbin"),
        format!("CARGO_MANIFEST_DIR={}", folder.display()),
        format!("CHAOS_BIN={}", chaos.display()),
        "RUST_BACKTRACE=1".to_owned(),
    ]);
    command.arg(program.to_str().context("a path that is not UTF-8")?);
    Ok(command)
}
