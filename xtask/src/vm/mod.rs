//! `cargo xtask vm`: a command on a real kernel of a distribution, in a virtual machine (QEMU, every instruction
//! translated: it needs nothing of this machine's kernel, and takes ten times as long).
//!
//! The machine has no disk and no network. Its files are an archive in memory, put together for each run from this
//! machine's own programs and libraries.

mod apt;
mod archive;
mod boot;
mod cache;
mod kernel;
mod qemu;
mod system;

use std::{
    fs,
    path::{Path, PathBuf},
    process::{Command, ExitCode},
    time::Duration,
};

use anyhow::{Context as _, Result, ensure};

use crate::{cargo, packages, process};
pub(crate) use kernel::Kernel;

/// Arguments of `cargo xtask vm`.
#[derive(Debug, clap::Args)]
pub(crate) struct Options {
    /// Which kernel
    #[arg(long, value_enum, default_value = "6.12")]
    kernel: Kernel,
    /// Put this program of ours in the machine, too, at the same place
    #[arg(long = "with", value_name = "FILE")]
    with: Vec<PathBuf>,
    /// Use this `chaos` instead of building one
    #[arg(long, value_name = "FILE")]
    chaos: Option<PathBuf>,
    /// Fetch the newest build of the kernel, also if one was fetched before
    #[arg(long)]
    fetch: bool,
    /// Memory of the machine, MiB
    #[arg(long, value_name = "MIB", default_value_t = Job::MEMORY_MIB)]
    memory: u32,
    /// How long the command may take, seconds
    #[arg(long, value_name = "SECONDS", default_value_t = 600)]
    limit: u64,
    /// The command: a program that machine has, such as `chaos`, or a file of ours
    #[arg(last = true, required = true)]
    command: Vec<String>,
}

/// Runs the command line, and ends as the command does.
pub(crate) fn run(options: &Options) -> Result<ExitCode> {
    let chaos = match &options.chaos {
        Some(path) => std::path::absolute(path)?,
        None => cargo::build_chaos(&crate::root(), None)?,
    };
    let mut job = Job::new(options.kernel);
    job.fetch = options.fetch;
    job.memory_mib = options.memory;
    job.limit = Duration::from_secs(options.limit);
    job.programs.push((CHAOS.to_owned(), chaos));
    let mut command = options.command.clone();
    let own = command.first_mut().filter(|program| program.contains('/'));
    if let Some(program) = own {
        let path = std::path::absolute(&*program)?;
        path.to_str().context("a path that is not UTF-8")?.clone_into(program);
        if path.is_file() {
            job.programs.push((program.clone(), path));
        }
    }
    for path in &options.with {
        let path = std::path::absolute(path)?;
        job.programs.push((path.to_str().context("a path that is not UTF-8")?.to_owned(), path));
    }
    job.script = format!("exec {}\n", process::quote(&command));
    // A code is a byte.
    Ok(ExitCode::from(u8::try_from(job.run()?).unwrap_or(u8::MAX)))
}

/// Fetches what a machine with this kernel needs, if it is not in the cache.
///
/// # Errors
/// Why it cannot be had here.
pub(crate) fn prepare(kernel: Kernel) -> Result<()> {
    ensure!(cfg!(target_arch = "x86_64"), ONLY_HERE);
    let _alone = cache::lock()?;
    qemu::Qemu::get()?;
    kernel::Ready::get(kernel, false).map(drop)
}

const ONLY_HERE: &str = "the machine is an x86-64 one: programs of this one do not run there";

/// Where `chaos` is in every machine.
pub(crate) const CHAOS: &str = "/usr/bin/chaos";

/// Something to do on a kernel.
#[derive(Debug)]
pub(crate) struct Job {
    /// On which.
    pub(crate) kernel: Kernel,
    /// Fetch it, also if it was fetched before.
    pub(crate) fetch: bool,
    /// Programs built here: where they are put, and where they are. Their libraries follow.
    pub(crate) programs: Vec<(String, PathBuf)>,
    /// Other files, in the same way.
    pub(crate) files: Vec<(String, PathBuf)>,
    /// What is done, for a shell (busybox).
    pub(crate) script: String,
    /// Memory of the machine, MiB; the files lie in it.
    pub(crate) memory_mib: u32,
    /// How long it may take once the machine is up.
    pub(crate) limit: Duration,
}

impl Job {
    const MEMORY_MIB: u32 = 2048;

    /// Nothing yet.
    pub(crate) fn new(kernel: Kernel) -> Self {
        Self {
            kernel,
            fetch: false,
            programs: Vec::new(),
            files: Vec::new(),
            script: String::new(),
            memory_mib: Self::MEMORY_MIB,
            limit: Duration::from_mins(10),
        }
    }

    /// Fetches what is not in the cache, boots, runs the script with its output on ours; returns its exit code.
    ///
    /// # Errors
    /// What is missing here; a machine that does not come up, breaks down or takes too long.
    pub(crate) fn run(&self) -> Result<i32> {
        ensure!(cfg!(target_arch = "x86_64"), ONLY_HERE);
        let _alone = cache::lock()?;
        let (qemu, kernel) = (qemu::Qemu::get()?, kernel::Ready::get(self.kernel, self.fetch)?);
        let folder = cache::folder()?.join("run");
        let archive = folder.join("archive");
        cache::afresh(&folder, |_| self.pack(&kernel, &archive))?;
        let machine = boot::Machine {
            qemu: &qemu,
            kernel: &kernel.image,
            archive: &archive,
            folder: &folder,
            memory_mib: self.memory_mib,
            limit: self.limit,
        };
        let code = machine.run()?;
        fs::remove_file(&archive)?;
        Ok(code)
    }

    fn pack(&self, kernel: &kernel::Ready, to: &Path) -> Result<()> {
        let mut archive = system::pack(kernel, &format!("#!/bin/sh\n{}", self.script))?;
        let copies = to.with_file_name("programs");
        fs::create_dir_all(&copies)?;
        for (number, (at, source)) in self.programs.iter().enumerate() {
            archive.program(at, &stripped(source, &copies.join(number.to_string()))?)?;
        }
        for (at, source) in &self.files {
            archive.data(at, source);
        }
        archive.write(to)?;
        fs::remove_dir_all(&copies).context("the copies of programs")
    }
}

/// A copy without what only a debugger reads, which is most of it; the program itself where that cannot be made.
fn stripped(program: &Path, copy: &Path) -> Result<PathBuf> {
    ensure!(program.is_file(), "there is no program {}", program.display());
    let made = packages::find("strip").is_some_and(|strip| {
        let mut command = Command::new(strip);
        process::probe(command.arg("--strip-debug").arg("-o").arg(copy).arg(program)).is_some()
    });
    Ok(if made { copy.to_path_buf() } else { program.to_path_buf() })
}
