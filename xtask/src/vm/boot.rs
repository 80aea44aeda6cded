//! One machine, from power on to power off.

use std::{
    fs,
    io::{Read, Write},
    os::unix::process::CommandExt as _,
    path::{Path, PathBuf},
    process::{Child, Command, ExitStatus, Stdio},
    thread,
    time::{Duration, Instant},
};

use anyhow::{Context as _, Result, bail};
use nix::sys::{prctl, signal::Signal};

use super::qemu::Qemu;

/// How long it may take to come up. Every instruction is translated; it takes some ten seconds on a machine with
/// nothing else to do.
const BOOT_LIMIT: Duration = Duration::from_secs(150);
/// What every one of the kernels runs on, without what cannot be translated.
const CPU: &str = "Haswell,-pcid,-tsc-deadline,-hle,-invpcid,-rtm";
/// How many lines of its console an error shows.
const TAIL: usize = 60;

/// What a machine is made of.
#[derive(Debug)]
pub(super) struct Machine<'a> {
    pub(super) qemu: &'a Qemu,
    pub(super) kernel: &'a Path,
    pub(super) archive: &'a Path,
    /// Where console and status are written.
    pub(super) folder: &'a Path,
    pub(super) memory_mib: u32,
    /// How long its command may take.
    pub(super) limit: Duration,
}

/// How far it came.
enum Ended {
    /// Its command ended with this code.
    With(i32),
    /// It did not come up, and why.
    NotUp(String),
}

impl Machine<'_> {
    /// Boots it and lets it run its command, whose output goes to ours; returns the exit code of the command. One
    /// that does not come up is tried once more.
    ///
    /// # Errors
    /// When it did not come up twice, or broke down or ran out of time later, with the end of its console.
    pub(super) fn run(&self) -> Result<i32> {
        for again in [true, false] {
            match self.boot()? {
                Ended::With(code) => return Ok(code),
                Ended::NotUp(why) if again => eprintln!("the machine {why}; once more"),
                Ended::NotUp(why) => bail!("the machine {why}, twice{}", self.tail()),
            }
        }
        unreachable!("the second attempt returns")
    }

    fn boot(&self) -> Result<Ended> {
        for file in [self.console(), self.status()] {
            fs::write(&file, "").with_context(|| file.display().to_string())?;
        }
        let mut running = Running::start(self.command())?;
        let begun = Instant::now();
        let mut up = None;
        loop {
            let status = fs::read_to_string(self.status()).unwrap_or_default();
            let ended = running.child.try_wait()?;
            if up.is_none() && status.starts_with("up\n") {
                up = Some(Instant::now());
                eprintln!("the machine came up in {} s", begun.elapsed().as_secs());
            }
            match (up, ended) {
                (Some(_), Some(how)) => {
                    running.finish();
                    return match exit_code(&status) {
                        Some(code) => Ok(Ended::With(code)),
                        None => {
                            bail!("the machine broke down while it ran its command ({how}){}", self.tail())
                        }
                    };
                }
                (Some(up), None) if up.elapsed() > self.limit => {
                    bail!("the command took more than {} s{}", self.limit.as_secs(), self.tail())
                }
                (None, Some(how)) => {
                    running.finish();
                    return Ok(Ended::NotUp(self.why_not(how)));
                }
                (None, None) if begun.elapsed() > BOOT_LIMIT => {
                    return Ok(Ended::NotUp(format!("did not come up within {} s", BOOT_LIMIT.as_secs())));
                }
                _ => thread::sleep(Duration::from_millis(20)),
            }
        }
    }

    fn command(&self) -> Command {
        let mut command = self.qemu.command();
        command
            // KVM, where it exists, may not run such kernels.
            .args(["-accel", "tcg,thread=multi", "-M", "q35", "-cpu", CPU, "-smp", "2"])
            .args(["-nodefaults", "-display", "none", "-no-reboot"])
            .arg("-m")
            .arg(self.memory_mib.to_string())
            .arg("-kernel")
            .arg(self.kernel)
            .arg("-initrd")
            .arg(self.archive)
            .args(["-append", "console=ttyS0 panic=-1 oops=panic quiet"])
            .arg("-serial")
            .arg(format!("file:{}", self.console().display()))
            .args(["-device", "virtio-serial-pci"])
            .args(["-chardev", "file,id=out,path=/proc/self/fd/1,append=on"])
            .args(["-chardev", "file,id=err,path=/proc/self/fd/2,append=on"])
            .arg("-chardev")
            .arg(format!("file,id=status,path={}", self.status().display()));
        for port in ["out", "err", "status"] {
            command.arg("-device").arg(format!("virtserialport,chardev={port},name={port}"));
        }
        command
    }

    fn console(&self) -> PathBuf {
        self.folder.join("console")
    }

    fn status(&self) -> PathBuf {
        self.folder.join("status")
    }

    /// What stopped the boot.
    fn why_not(&self, how: ExitStatus) -> String {
        let console = fs::read(self.console()).unwrap_or_default();
        let console = String::from_utf8_lossy(&console);
        match console.lines().find(|line| line.contains("Kernel panic")) {
            Some(line) => format!("panicked while it booted ({})", line.trim()),
            None => format!("ended before it was up ({how})"),
        }
    }

    /// The end of the console, for an error.
    fn tail(&self) -> String {
        let console = fs::read(self.console()).unwrap_or_default();
        let console = String::from_utf8_lossy(&console);
        let lines: Vec<&str> = console.lines().collect();
        let tail = lines.get(lines.len().saturating_sub(TAIL)..).unwrap_or_default();
        format!("; the end of its console ({}):\n{}", self.console().display(), tail.join("\n"))
    }
}

/// A QEMU that runs; ended when it is dropped, or when we die.
struct Running {
    child: Child,
    output: Vec<thread::JoinHandle<()>>,
}

impl Running {
    fn start(mut command: Command) -> Result<Self> {
        // Pipes, whatever ours are: QEMU opens them once more, for what the command writes.
        command.stdin(Stdio::null()).stdout(Stdio::piped()).stderr(Stdio::piped());
        // SAFETY: prctl is one system call, allowed between fork and exec.
        unsafe {
            command.pre_exec(|| prctl::set_pdeathsig(Signal::SIGKILL).map_err(Into::into));
        }
        let mut child = command.spawn().context("cannot start QEMU")?;
        let output = child.stdout.take().map(|pipe| pass_on(pipe, std::io::stdout()));
        let errors = child.stderr.take().map(|pipe| pass_on(pipe, std::io::stderr()));
        Ok(Self { child, output: output.into_iter().chain(errors).collect() })
    }

    /// Waits for the rest of what it wrote.
    fn finish(&mut self) {
        for thread in self.output.drain(..) {
            let _ = thread.join();
        }
    }
}

impl Drop for Running {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

/// Writes on what comes, as it comes.
fn pass_on(
    mut from: impl Read + Send + 'static,
    mut to: impl Write + Send + 'static,
) -> thread::JoinHandle<()> {
    thread::spawn(move || {
        let mut buffer = [0; 4096];
        while let Ok(count @ 1..) = from.read(&mut buffer) {
            let _ = to.write_all(buffer.get(..count).unwrap_or_default());
            let _ = to.flush();
        }
    })
}

/// What the machine said of the end of its command.
fn exit_code(status: &str) -> Option<i32> {
    status.lines().find_map(|line| line.strip_prefix("exit "))?.trim().parse().ok()
}

#[cfg(test)]
mod tests {
    use super::exit_code;

    #[test]
    fn the_exit_code_is_the_guests_own() {
        assert_eq!(exit_code("up\nexit 3\n"), Some(3));
        assert_eq!(exit_code("up\n"), None);
    }
}
