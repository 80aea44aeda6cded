//! A pseudo-terminal with a shell in it, typed at by a test.

use std::{
    fs::File,
    io::{self, Read, Write},
    os::{fd::OwnedFd, unix::process::CommandExt},
    process::{Child, Command},
    sync::mpsc::{Receiver, channel},
    thread,
    time::{Duration, Instant},
};

/// How long something on the screen is waited for.
const PATIENCE: Duration = Duration::from_secs(10);

pub(crate) struct Terminal {
    keyboard: File,
    screen: Receiver<Vec<u8>>,
    unread: String,
    shell: Child,
}

impl Terminal {
    /// Starts a command as the leader of a session on a new terminal.
    pub(crate) fn open(mut command: Command) -> Self {
        crate::support::hear_signals();
        let pair = nix::pty::openpty(None, None).unwrap();
        let stdio = |slave: &OwnedFd| slave.try_clone().unwrap();
        command.stdin(stdio(&pair.slave)).stdout(stdio(&pair.slave)).stderr(stdio(&pair.slave));
        let become_leader = || {
            nix::unistd::setsid()?;
            // SAFETY: standard input is the terminal by now; TIOCSCTTY takes a number.
            if unsafe { libc::ioctl(0, libc::TIOCSCTTY, 0) } != 0 {
                return Err(io::Error::last_os_error());
            }
            Ok(())
        };
        // SAFETY: only system calls between fork and exec.
        unsafe { command.pre_exec(become_leader) };
        let shell = command.spawn().unwrap();
        drop((command, pair.slave));
        let mut master = File::from(pair.master);
        let keyboard = master.try_clone().unwrap();
        let (sender, screen) = channel();
        thread::spawn(move || {
            let mut bytes = [0; 4096];
            while let Ok(count @ 1..) = master.read(&mut bytes) {
                if sender.send(bytes[..count].to_vec()).is_err() {
                    return;
                }
            }
        });
        Self { keyboard, screen, unread: String::new(), shell }
    }

    pub(crate) fn type_in(&mut self, keys: &str) {
        self.keyboard.write_all(keys.as_bytes()).unwrap();
    }

    /// Waits for the text; what came before it is returned, what comes after stays to be read.
    #[track_caller]
    pub(crate) fn expect(&mut self, wanted: &str) -> String {
        let deadline = Instant::now() + PATIENCE;
        loop {
            if let Some(at) = self.unread.find(wanted) {
                let rest = self.unread.split_off(at + wanted.len());
                return std::mem::replace(&mut self.unread, rest);
            }
            let left = deadline.saturating_duration_since(Instant::now());
            match self.screen.recv_timeout(left) {
                Ok(bytes) => self.unread.push_str(&String::from_utf8_lossy(&bytes).replace('\r', "")),
                Err(error) => panic!("{error}: no {wanted:?} on the screen, but: {}", self.unread),
            }
        }
    }

    /// Types a line when the shell asks for one: what is typed earlier may go to a program that is just ending.
    #[track_caller]
    fn command(&mut self, line: &str) {
        self.type_in(line);
        self.type_in("\n");
        // The echo.
        self.expect("\n");
    }

    /// Takes jobs through the keys of job control. `prefix` goes before the command under test.
    #[track_caller]
    pub(crate) fn job_control(&mut self, prefix: &str) {
        // Marks are typed in two parts, so that their echo does not look like their output.
        self.type_in("bind 'set enable-bracketed-paste off' 2>/dev/null; PS1='@''@ '\n");
        self.expect("@@ ");
        self.command(&format!("{prefix} sh -c 'echo u''p; exec cat'"));
        self.expect("up\n");
        self.type_in("one\n");
        self.expect("one\none\n");
        self.type_in("\x1a");
        self.expect("Stopped");
        self.expect("@@ ");
        self.command("fg");
        self.expect("cat'\n");
        self.type_in("two\n");
        self.expect("two\ntwo\n");
        self.type_in("\x04");
        self.expect("@@ ");
        self.command("echo co''de $?");
        self.expect("code 0\n@@ ");

        // Ctrl-C ends the command by SIGINT, and so the shell's loop.
        self.command(&format!("for i in 1 2 3; do {prefix} sh -c 'echo tur''n; exec sleep 20'; done"));
        self.expect("turn\n");
        self.type_in("\x03");
        let screen = self.expect("@@ ");
        assert!(!screen.contains("turn"), "the loop went on: {screen}");
        self.command("echo co''de $?");
        self.expect("code 130\n@@ ");

        // A command that handles Ctrl-C gets it once.
        self.command(&format!(
            "{prefix} bash -c 'trap \"echo in''t\" INT; echo go''ing; for i in 1 2 3 4 5 6; do sleep 0.1; done; exit 3'"
        ));
        self.expect("going\n");
        self.type_in("\x03");
        let screen = self.expect("@@ ");
        assert_eq!(screen.matches("int").count(), 1, "{screen}");
        self.command("echo co''de $?");
        self.expect("code 3\n");
    }
}

impl Drop for Terminal {
    fn drop(&mut self) {
        let _ = self.shell.kill();
        let _ = self.shell.wait();
    }
}
