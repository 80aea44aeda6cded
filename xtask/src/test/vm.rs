//! The layer on kernels of distributions: what is tested on this one is tested there, too, in a virtual machine.
//!
//! There everything takes ten times as long and more, and times say little. So CI runs a part that has each kind of
//! fault, each way of attaching and each end of a life in it, and of times only the fastest are judged.

use std::{
    fmt::Write as _,
    path::{Path, PathBuf},
    process::Command,
    time::{Duration, Instant},
};

use anyhow::{Context as _, Result, bail, ensure};

use super::{Session, libtest, report::Report};
use crate::{
    cargo, dist, process,
    vm::{self, Kernel},
};

/// Which kernels, and how much.
#[derive(Debug)]
pub(super) struct Extent {
    /// On which kernels.
    pub(super) kernels: Vec<Kernel>,
    /// Everything that can run there, which takes hours.
    pub(super) full: bool,
}

impl Extent {
    /// That of CI: the two ways of attaching.
    pub(super) fn usual() -> Self {
        Self { kernels: vec![Kernel::V6_1, Kernel::V6_12], full: false }
    }
}

/// A program of the tests, which of its tests (all if none are named), and how long they may take, seconds.
struct Part {
    program: &'static str,
    tests: &'static [&'static str],
    limit: u32,
}

/// What CI runs.
const PARTS: &[Part] = &[
    Part { program: "verifier", tests: &[], limit: 90 },
    Part { program: "e2e_kernels", tests: &[], limit: 180 },
    Part { program: "bench", tests: &["the_kernel_takes", "what_waits"], limit: 120 },
    Part { program: "tables", tests: &["corrupt", "dns", "loss", "reject", "reset"], limit: 240 },
];
/// Rows of the measuring program, by a part of their name: every kind of fault.
const ROWS: &[&str] = &[
    "loss of TCP segments, veth IPv4 egress ",
    "loss of datagrams, veth IPv6 ingress",
    "delay of datagrams, veth IPv4 egress cgroup",
    "rate of datagrams, lo IPv4 egress",
    "datagrams that come twice, veth IPv4 egress cgroup",
    "damage that checksums catch, veth IPv6 ingress",
    "damage that nobody catches, veth IPv4 egress",
    "reset of a busy connection, veth IPv4 cgroup",
    "reset of an idle connection, veth IPv6",
    "reset of a SYN, lo IPv6",
    "connect that is rejected, veth IPv6 ",
    "datagram that is rejected, veth IPv4",
    "connect that is refused, veth IPv4 cgroup",
    "stall with an end, veth IPv4",
    "path MTU discovery, veth IPv6 egress",
    "partition of a busy connection, veth IPv4",
    "name that is not there, veth IPv6",
    "name with a chosen address, veth IPv4",
];
/// How long all kernels may take together, but for everything.
const LIMIT: Duration = Duration::from_mins(18);
/// Beside what the machine runs: packing it, and two attempts to boot.
const AROUND: Duration = Duration::from_mins(6);
/// How long all rows of a part and of everything may take, seconds.
const ROWS_LIMIT: (u32, u32) = (420, 7200);
/// How long a program may take when all of it runs, seconds.
const FULL_LIMIT: u32 = 1200;
/// Programs that cannot run there, and why.
const ELSEWHERE: &[(&str, &str)] = &[
    ("e2e_monitoring", FILES),
    ("e2e_pytest", FILES),
    ("e2e_schema", FILES),
    ("e2e_settings", FILES),
    ("harness", TIMES),
    ("instruments", TIMES),
];
const FILES: &str = "it reads files of the repository, which the machine does not have";
const TIMES: &str = "it shows that instruments are exact, and there they are not";
/// Programs of ours that tests start; they lie in the folder above the tests.
const HELPERS: [&str; 4] = ["connect", "cut_off", "fidelity", "traffic"];
/// Memory of the machine, MiB: all its files lie in it.
const MEMORY_MIB: u32 = 3072;

pub(super) fn layer(session: &mut Session, report: &mut Report) {
    let kernels = ready(&session.vm.kernels, report);
    if kernels.is_empty() {
        return;
    }
    let programs = match Programs::build(session) {
        Ok(programs) => programs,
        Err(error) => return report.fail(format!("{error:#}")),
    };
    let full = session.vm.full;
    let begun = Instant::now();
    for kernel in kernels {
        let what = format!("Linux {}", kernel.name());
        let left = if full { Duration::MAX } else { LIMIT.saturating_sub(begun.elapsed()) };
        let mut inside = Report::of(|inside| {
            let result = programs.run(kernel, full, left, inside);
            inside.ended(result);
        });
        println!("-- {what} took {} s", inside.took.as_secs());
        report.passed += inside.passed;
        report.failures.extend(inside.failures.drain(..).map(|failure| format!("{what}: {failure}")));
        report.skips.extend(inside.skips.drain(..).map(|skip| format!("{what}: {skip}")));
    }
}

/// The kernels that can be had here; those that cannot are skipped.
fn ready(kernels: &[Kernel], report: &mut Report) -> Vec<Kernel> {
    let begun = Instant::now();
    let mut ready = Vec::new();
    for &kernel in kernels {
        match vm::prepare(kernel) {
            Ok(()) => ready.push(kernel),
            Err(why) => report.skip(format!("Linux {}: {why:#}", kernel.name())),
        }
    }
    println!("-- QEMU and kernels took {} s", begun.elapsed().as_secs());
    ready
}

/// What is put into the machine.
struct Programs {
    chaos: PathBuf,
    tests: Vec<cargo::Built>,
    helpers: Vec<PathBuf>,
    folder: PathBuf,
}

impl Programs {
    /// Static ones, as they are shipped, where this machine can build them.
    fn build(session: &Session) -> Result<Self> {
        let target = dist::target();
        let is_static = dist::is_installed(&target);
        if !is_static {
            println!(
                "-- programs take this machine's libraries along; static ones need `rustup target add {target}`"
            );
        }
        let make = |subcommand: &str, what: &[&str]| {
            let mut command = session.cargo(subcommand);
            command.arg("--locked").args(what);
            if is_static {
                dist::make_static(&mut command, &target);
            }
            cargo::executables(&mut command)
        };
        let chaos = make("build", &["--package", "chaos-agent", "--bin", "chaos"])?;
        let chaos = chaos.into_iter().find(|built| built.kind == "bin").context("cargo built no `chaos`")?;
        let built = make("test", &["--no-run", "--package", "chaos-tests"])?;
        // Its library needs tools and files that are not there.
        let tests: Vec<_> = built.into_iter().filter(|built| built.is_test && built.kind != "lib").collect();
        let beside =
            tests.first().and_then(|test| test.path.parent()?.parent()).context("no test was built")?;
        let helpers = HELPERS.map(|name| beside.join(name)).to_vec();
        if let Some(missing) = helpers.iter().find(|path| !path.is_file()) {
            bail!("{} was not built with the tests", missing.display());
        }
        Ok(Self { chaos: chaos.path, helpers, tests, folder: session.root.join("tests") })
    }

    /// Runs them on a kernel, in one machine, for as long as is `left` at most.
    fn run(&self, kernel: Kernel, full: bool, left: Duration, report: &mut Report) -> Result<()> {
        let script = if full { self.everything(report)? } else { self.some()? };
        let limit = Duration::from_secs(script.limit.into()).min(left);
        ensure!(limit.as_secs() > 0, "not begun: the kernels before it took all of {} s", LIMIT.as_secs());
        let mut command = Command::new(std::env::current_exe()?);
        command.args(["vm", "--kernel", kernel.name(), "--memory", &MEMORY_MIB.to_string()]);
        command.args(["--limit", &limit.as_secs().to_string()]).arg("--chaos").arg(&self.chaos);
        for program in self.helpers.iter().map(PathBuf::as_path).chain(script.programs) {
            command.arg("--with").arg(program);
        }
        command.args(["--", "sh", "-c", &script.text]);
        // The machine has its own limits; this one is for all that is around it.
        libtest::run(report, &format!("Linux {}", kernel.name()), &mut command, limit + AROUND);
        Ok(())
    }

    fn some(&self) -> Result<Script<'_>> {
        let mut script = Script::new(&self.folder);
        for part in PARTS {
            let program = self.tests.iter().find(|built| built.name == part.program);
            let program = program.with_context(|| format!("no test program is called {}", part.program))?;
            script.part(program, part.limit, part.tests);
        }
        self.rows(&mut script, ROWS_LIMIT.0, ROWS)?;
        Ok(script.end())
    }

    fn everything(&self, report: &mut Report) -> Result<Script<'_>> {
        let mut script = Script::new(&self.folder);
        for program in &self.tests {
            match ELSEWHERE.iter().find(|(name, _)| *name == program.name) {
                Some((name, why)) => report.skip(format!("{name}: {why}")),
                None => script.part(program, FULL_LIMIT, &[]),
            }
        }
        self.rows(&mut script, ROWS_LIMIT.1, &[])?;
        Ok(script.end())
    }

    fn rows(&self, script: &mut Script<'_>, limit: u32, rows: &[&str]) -> Result<()> {
        let program = self.helpers.iter().find(|path| path.ends_with("fidelity")).context("no fidelity")?;
        let program = program.to_str().context("a path that is not UTF-8")?;
        let mut words = vec![program, "--quick", "--slow", "--agent", "--lines"];
        words.extend(rows.iter().flat_map(|row| ["--filter", *row]));
        script.line("fidelity", limit, &words);
        Ok(())
    }
}

/// What the machine's shell is told.
struct Script<'a> {
    text: String,
    programs: Vec<&'a Path>,
    /// The sum of all limits, seconds.
    limit: u32,
}

impl<'a> Script<'a> {
    fn new(folder: &Path) -> Self {
        let folder = folder.to_string_lossy();
        let set = [
            format!("FOLDER={folder}"),
            format!("CARGO_MANIFEST_DIR={folder}"),
            "CHAOS_BIN=/usr/bin/chaos".into(),
        ];
        let set = process::quote(&set);
        let text = format!("export {set}\nmkdir -p \"$FOLDER\"\n{}", include_str!("guest.sh"));
        Self { text, programs: Vec::new(), limit: 0 }
    }

    fn part(&mut self, built: &'a cargo::Built, limit: u32, tests: &[&str]) {
        self.programs.push(&built.path);
        let program = built.path.to_string_lossy();
        let words: Vec<&str> = [&*program, "--test-threads=1", "--show-output"]
            .into_iter()
            .chain(tests.iter().copied())
            .collect();
        self.line(&built.name, limit, &words);
    }

    fn line(&mut self, name: &str, limit: u32, words: &[&str]) {
        self.limit += limit;
        let _ = writeln!(self.text, "part {} {limit} {}", process::quote(&[name]), process::quote(words));
    }

    fn end(mut self) -> Self {
        self.text.push_str("exit $failed\n");
        self
    }
}

#[cfg(test)]
mod tests {
    use std::path::Path;

    use super::Script;

    #[test]
    fn the_shell_is_told_names_with_blanks_as_one_word() {
        let mut script = Script::new(Path::new("/a"));
        script.line("fidelity", 7, &["/b", "--filter", "loss of x, y"]);
        let script = script.end();
        assert!(
            script.text.contains("\npart fidelity 7 /b --filter 'loss of x, y'\nexit $failed\n"),
            "{}",
            script.text
        );
        assert_eq!(script.limit, 7);
    }
}
