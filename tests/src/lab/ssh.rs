//! A real sshd with keys of its own, and remote shells through it.

use std::{
    fs,
    io::{BufRead as _, BufReader, Write as _},
    net::{Ipv4Addr, SocketAddr, TcpStream},
    os::unix::fs::PermissionsExt as _,
    path::{Path, PathBuf},
    process::{Command, Stdio},
    sync::mpsc::{Receiver, channel},
    thread,
    time::Duration,
};

use anyhow::{Context as _, Result, ensure};

use super::{
    netns::Netns,
    process::{self, Process, wait_until},
    unique_name,
};

const SSHD: &str = "/usr/sbin/sshd";
const SOON: Duration = Duration::from_secs(10);

/// Keys and a configuration of our own, in a folder that goes with it.
#[derive(Debug)]
pub struct Keys(PathBuf);

impl Keys {
    /// Makes them.
    ///
    /// # Errors
    /// Without `ssh-keygen`.
    pub fn new() -> Result<Self> {
        let folder = std::env::temp_dir().join(unique_name());
        fs::create_dir(&folder)?;
        let keys = Self(folder);
        fs::set_permissions(keys.folder(), fs::Permissions::from_mode(0o700))?;
        for name in ["host", "user"] {
            let mut keygen = Command::new("ssh-keygen");
            keygen.args(["-q", "-t", "ed25519", "-N", "", "-f"]).arg(keys.folder().join(name));
            process::run(keygen)?;
        }
        fs::create_dir_all("/run/sshd")?;
        let config = format!(
            "HostKey {0}/host\nAuthorizedKeysFile {0}/user.pub\nStrictModes no\nUsePAM no\nPidFile none\n\
             PermitRootLogin yes\nPermitTunnel yes\nPasswordAuthentication no\nLogLevel QUIET\n",
            keys.folder().display()
        );
        fs::write(keys.folder().join("sshd_config"), config)?;
        Ok(keys)
    }

    /// Where they are; others may put files there.
    #[must_use]
    pub fn folder(&self) -> &Path {
        &self.0
    }

    /// sshd with these words besides.
    #[must_use]
    pub fn sshd(&self, more: &[&str]) -> Command {
        let mut command = Command::new(SSHD);
        command.arg("-f").arg(self.folder().join("sshd_config")).args(more);
        command
    }

    /// `ssh` words up to the destination.
    #[must_use]
    pub fn client(&self, port: u16) -> String {
        format!(
            "ssh -F none -T -i {}/user -p {port} -o StrictHostKeyChecking=no -o UserKnownHostsFile=/dev/null \
             -o LogLevel=ERROR -o ConnectTimeout=10",
            self.folder().display()
        )
    }

    /// An sshd at every address of a namespace; it answers at `at` when this returns.
    ///
    /// # Errors
    /// When it does not.
    pub fn serve(&self, netns: &Netns, at: Ipv4Addr, port: u16) -> Result<Process> {
        let server = Process::start(netns.inside(self.sshd(&["-D", "-p", &port.to_string()])))?;
        let ready = SocketAddr::new(at.into(), port);
        let connects = || netns.enter(|| TcpStream::connect(ready).is_ok()).unwrap_or(false);
        wait_until("sshd", SOON, connects)?;
        Ok(server)
    }
}

impl Drop for Keys {
    fn drop(&mut self) {
        let _ = fs::remove_dir_all(&self.0);
    }
}

/// A remote shell that says back what it hears.
#[derive(Debug)]
pub struct Session {
    process: Process,
    lines: Receiver<String>,
    said: u32,
}

impl Session {
    /// Opens it with this line; `cat` is what it runs there.
    ///
    /// # Errors
    /// When it does not answer.
    pub fn open(from: &Netns, line: &str) -> Result<Self> {
        let mut command = from.command(line);
        command.arg("cat").stdin(Stdio::piped()).stdout(Stdio::piped());
        let mut process = Process::start(command)?;
        let stdout = process.child().stdout.take().context("no stdout")?;
        let (sender, lines) = channel();
        thread::spawn(move || {
            for line in BufReader::new(stdout).lines().map_while(Result::ok) {
                let _ = sender.send(line);
            }
        });
        let mut session = Self { process, lines, said: 0 };
        ensure!(session.answers(SOON * 2), "no session: {line}");
        Ok(session)
    }

    /// Whether a new word comes back in time.
    pub fn answers(&mut self, within: Duration) -> bool {
        self.said += 1;
        let word = format!("word {}", self.said);
        let Some(stdin) = self.process.child().stdin.as_mut() else { return false };
        if writeln!(stdin, "{word}").and_then(|()| stdin.flush()).is_err() {
            return false;
        }
        while let Ok(line) = self.lines.recv_timeout(within) {
            if line == word {
                return true;
            }
        }
        false
    }
}
