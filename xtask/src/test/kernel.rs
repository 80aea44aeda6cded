//! The layers that load programs into the kernel or enter namespaces: built as the user, run as root.

use std::{path::Path, process::Command, time::Duration};

use anyhow::{Context as _, Result, bail};

use super::{Session, libtest, report::Report};
use crate::{
    cargo::{self, Built},
    packages,
    privilege::Privilege,
};

/// Test programs of chaos-tests whose name begins so are the layer `e2e`, the others `kernel`.
const END_TO_END: &str = "e2e";

/// Package, its folder, and which of its test programs.
type Wanted = (&'static str, &'static str, fn(&Built) -> bool);

pub(super) fn tables(session: &mut Session, report: &mut Report) {
    // The agent's own tests of cgroups, namespaces and sudo need root too; its units are the layer `host`.
    let wanted: [Wanted; 2] = [
        ("chaos-agent", "chaos-agent", |built| built.kind == "test"),
        ("chaos-tests", "tests", |built| built.is_test && !built.name.starts_with(END_TO_END)),
    ];
    let result = run(session, report, &wanted, Duration::from_mins(15));
    report.ended(result);
}

pub(super) fn end_to_end(session: &mut Session, report: &mut Report) {
    let wanted: [Wanted; 1] =
        [("chaos-tests", "tests", |built| built.is_test && built.name.starts_with(END_TO_END))];
    let result = run(session, report, &wanted, Duration::from_mins(20));
    report.ended(result);
}

/// Runs test programs one after the other, each for at most `limit`.
fn run(session: &Session, report: &mut Report, wanted: &[Wanted], limit: Duration) -> Result<()> {
    let chaos = cargo::build_chaos(&session.root, session.object.as_deref())?;
    let mut programs = Vec::new();
    for &(package, folder, choose) in wanted {
        let built =
            cargo::executables(session.cargo("test").args(["--locked", "--no-run", "--package", package]))?;
        programs.extend(built.into_iter().filter(choose).map(|built| (package, folder, built)));
    }
    if programs.is_empty() {
        bail!("there is no test program for this layer");
    }
    let privilege = match Privilege::find("testing the kernel side") {
        Ok(privilege) => privilege,
        Err(why) => {
            for (package, _, built) in &programs {
                report.skip(format!("{package} {}: {why}", built.name));
            }
            return Ok(());
        }
    };
    provide_packages(privilege);
    for (package, folder, built) in &programs {
        let mut command = as_root(&session.root.join(folder), privilege, &built.path, &chaos)?;
        // One at a time: they measure, and some look at the whole machine before and after.
        command.args(["--test-threads=1", "--show-output"]);
        libtest::run(report, &format!("{package} {}", built.name), &mut command, limit);
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

/// The test program as root, in the folder `cargo test` would use, with the little of our environment it needs.
fn as_root(folder: &Path, privilege: Privilege, program: &Path, chaos: &Path) -> Result<Command> {
    let path = std::env::var("PATH").unwrap_or_default();
    let mut command = privilege.command("env");
    command.current_dir(folder).args([
        format!("PATH={path}:/usr/sbin:/sbin"),
        format!("CARGO_MANIFEST_DIR={}", folder.display()),
        format!("CHAOS_BIN={}", chaos.display()),
        "RUST_BACKTRACE=1".to_owned(),
    ]);
    command.arg(program.to_str().context("a path that is not UTF-8")?);
    Ok(command)
}
