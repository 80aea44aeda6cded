//! Root for what needs it, and for nothing else.

use std::{
    io::IsTerminal as _,
    process::{Command, Stdio},
    thread,
    time::Duration,
};

use crate::process;

/// How commands become root.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Privilege {
    /// We are root already.
    Root,
    /// Through sudo.
    Sudo,
}

impl Privilege {
    /// Finds a way, asking for the password where someone can type it; else the sentence that says why not.
    pub(crate) fn find(purpose: &str) -> Result<Self, String> {
        if nix::unistd::geteuid().is_root() {
            return Ok(Self::Root);
        }
        if process::probe(Command::new("sudo").args(["-n", "true"])).is_some() {
            keep_alive();
            return Ok(Self::Sudo);
        }
        if !std::io::stdin().is_terminal() {
            return Err(format!(
                "{purpose} needs root; sudo is missing or wants a password and there is no terminal"
            ));
        }
        eprintln!("{purpose} needs root; asking sudo:");
        match Command::new("sudo").arg("-v").status() {
            Ok(status) if status.success() => {
                keep_alive();
                Ok(Self::Sudo)
            }
            Ok(_) => Err(format!("{purpose} needs root, and sudo did not give it")),
            Err(error) => Err(format!("{purpose} needs root, and sudo cannot be started: {error}")),
        }
    }

    /// A command that runs as root.
    pub(crate) fn command(self, program: &str) -> Command {
        match self {
            Self::Root => Command::new(program),
            Self::Sudo => {
                let mut command = Command::new("sudo");
                command.args(["-n", "--", program]);
                command
            }
        }
    }
}

/// Renews sudo's time stamp, so that a long run is not asked again in the middle.
fn keep_alive() {
    thread::spawn(|| {
        loop {
            thread::sleep(Duration::from_secs(50));
            let mut command = Command::new("sudo");
            let _ = command.args(["-n", "-v"]).stdin(Stdio::null()).stderr(Stdio::null()).status();
        }
    });
}
