//! The layers that only read: format, lints, dependencies, documents, the committed object.

use std::process::Command;

use super::{Session, report::Report};
use crate::{
    build_ebpf::{self, Checked, toolchain},
    process,
};

pub(super) fn fmt(session: &mut Session, report: &mut Report) {
    report.check("host crates", process::run(session.cargo("fmt").args(["--all", "--check"])));
    let mut command = session.cargo("fmt");
    command.args(["--check", "--manifest-path", "chaos-ebpf/Cargo.toml"]);
    report.check("chaos-ebpf", process::run(&mut command));
}

pub(super) fn clippy(session: &mut Session, report: &mut Report) {
    let mut command = session.cargo("clippy");
    command.args(["--locked", "--workspace", "--all-targets", "--", "-Dwarnings"]);
    report.check("host crates", process::run(&mut command));
    let tools = match toolchain::find() {
        Ok(tools) => tools,
        Err(missing) => {
            report.skip(format!("chaos-ebpf: not installed: {}", toolchain::join(&missing)));
            return;
        }
    };
    if process::probe(toolchain::with(&tools.name, "cargo").args(["clippy", "--version"])).is_none() {
        report.skip(format!("chaos-ebpf: `rustup component add clippy --toolchain {}`", tools.name));
        return;
    }
    report.check("chaos-ebpf", build_ebpf::clippy(&session.root, &tools));
}

pub(super) fn deny(session: &mut Session, report: &mut Report) {
    if process::probe(session.cargo("deny").arg("--version")).is_none() {
        report.skip("cargo-deny is not installed: `cargo install --locked cargo-deny`".to_owned());
        return;
    }
    let check = |manifest: &str, what: &[&str]| {
        let mut command: Command = session.cargo("deny");
        command.args([
            "--manifest-path",
            manifest,
            "--locked",
            "--config",
            "deny.toml",
            "check",
            "--hide-inclusion-graph",
        ]);
        process::run(command.args(what))
    };
    for manifest in ["Cargo.toml", "chaos-ebpf/Cargo.toml"] {
        report.check(
            &format!("{manifest}: bans, licences, sources"),
            check(manifest, &["bans", "licenses", "sources"]),
        );
    }
    if process::probe(session.cargo("deny").args(["fetch", "db"])).is_none() {
        report.skip("advisories: their database cannot be fetched here".to_owned());
        return;
    }
    for manifest in ["Cargo.toml", "chaos-ebpf/Cargo.toml"] {
        report.check(&format!("{manifest}: advisories"), check(manifest, &["--disable-fetch", "advisories"]));
    }
}

pub(super) fn docs(session: &mut Session, report: &mut Report) {
    let mut command = session.cargo("doc");
    command.args(["--locked", "--workspace", "--no-deps", "--document-private-items"]);
    report.check(
        "rustdoc",
        process::run(command.env("RUSTDOCFLAGS", "-Dwarnings -Arustdoc::private-intra-doc-links")),
    );
    report.check("README", crate::docs::check(&session.root));
}

pub(super) fn object(session: &mut Session, report: &mut Report) {
    match build_ebpf::check(&session.root) {
        Err(error) => report.fail(format!("{error:#}")),
        Ok(Checked::Same) => report.check("rebuilt, the same bytes as the committed one", Ok(())),
        Ok(Checked::Differs(lines)) => report.fail(format!(
            "the committed object is not what its sources make:\n    {}",
            lines.join("\n    ")
        )),
        Ok(Checked::NotComparable { why, rebuilt }) => {
            report.skip(format!("comparison of the object: {why}"));
            match &rebuilt {
                Some(path) => {
                    println!("  the object rebuilt with these tools is tested instead: {}", path.display());
                }
                None => println!("  nothing here can rebuild it; the committed object is tested as it is"),
            }
            session.object = rebuilt;
        }
    }
}
